"""Sparse inputs: the same results as on dense ones, whatever the matrix looks like, and never a dense matrix."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from problems import make_model, oracle_loss_and_gradient

import fastdl
from fastdl.activations import ACTIVATIONS
from fastdl.engine import Session, Settings, sparse_workspace
from fastdl.optimizers import OPTIMIZERS
from fastdl.sparse import rows_of

sparse = pytest.importorskip("scipy.sparse")

ROWS, COLUMNS = 70, 53
LAYERS = [COLUMNS, 21, 3]


def matrix(rng, rows=ROWS, columns=COLUMNS, density=0.1):
    """CSR with empty rows, explicit zeros and, for most batches, columns without a number."""
    dense = rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < density)
    dense[[0, 7, rows - 1]] = 0
    S = sparse.csr_array(dense)
    S.data[::11] = 0
    return S


@pytest.fixture
def data(rng):
    return matrix(rng), rng.integers(0, 3, ROWS)


def train(X, y, optimizer=None, epochs=3, activation="tanh", dtype="float64", weight=None, layers=LAYERS, **settings):
    """(parameters, losses) after a training."""
    model = make_model(layers, activation, "softmax", dtype)
    trainer = fastdl.Trainer(model, optimizer or fastdl.Adam(0.01), epochs=epochs, **{"batch_size": 8, **settings})
    history = trainer.fit(X, y, sample_weight=weight)
    states = [] if trainer._session is None else trainer._session.states
    return [model.parameters, *states], history.loss


def assert_close(got, want):
    for mine, its in zip(got[0], want[0], strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-9)


def assert_same(got, want):
    for mine, its in zip(got[0], want[0], strict=True):
        np.testing.assert_array_equal(mine, its)
    assert got[1] == want[1]


# --- the same as on a dense matrix, and as the oracle says ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [1, 2, 7, 64, 2049])
@pytest.mark.parametrize("outputs", [1, 2, 8, 17, 100])
def test_forward_and_gradient_are_those_of_the_oracle(rng, columns, outputs, dtype):
    """Sizes around those of vectors, of blocks of them, and of a digit of the sort by columns."""
    X = matrix(rng, 30, columns)
    model = make_model([columns, outputs, 2], "sigmoid", "softmax", dtype)
    y = rng.integers(0, 2, 30)
    single = dtype == "float32"
    loss, gradient = model.loss_and_gradient(X, y)
    expected, want = oracle_loss_and_gradient(model, X.toarray(), y)
    assert loss == pytest.approx(expected, rel=1e-5 if single else 1e-12)
    np.testing.assert_allclose(gradient, want, rtol=1e-4 if single else 1e-10, atol=1e-6 if single else 1e-13)
    np.testing.assert_allclose(
        model.forward(X), model.forward(X.toarray()), rtol=1e-5 if single else 1e-12, atol=1e-6 if single else 1e-13
    )


def test_the_gradient_is_that_of_central_differences(rng, data):
    X, y = data
    model = make_model(LAYERS, "gelu", "softmax")
    weight = rng.random(ROWS)
    _, gradient = model.loss_and_gradient(X, y, weight, l2=0.1)
    for i in rng.choice(model.n_parameters, 30):
        before, losses = model.parameters[i], []
        for step in (1e-5, -1e-5):
            model.parameters[i] = before + step
            losses.append(model.loss_and_gradient(X, y, weight, l2=0.1)[0])
        model.parameters[i] = before
        assert gradient[i] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(data, activation):
    X, y = data
    assert_close(train(X, y, activation=activation, epochs=1), train(X.toarray(), y, activation=activation, epochs=1))


CASES = {
    "plain": {},
    "l2": {"l2": 0.1},
    "clipped": {"clip_norm": 0.05, "l2": 0.1},
    "dropout": {"dropout": 0.4},
    "schedule": {"schedule": fastdl.schedules.Cosine(), "l2": 0.01},
    "one batch": {"batch_size": ROWS, "epochs": 6},
    "class weights": {"class_weight": {0: 3.0}},
    "threads": {"n_threads": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_training_is_that_on_the_dense_matrix(data, case):
    X, y = data
    assert_close(train(X, y, **CASES[case]), train(X.toarray(), y, **CASES[case]))


@pytest.mark.parametrize("layers", [[COLUMNS, 3], [COLUMNS, 300, 3], [COLUMNS, 5, 6, 3]], ids=str)
def test_linear_wide_and_deep_networks_with_weights(rng, data, layers):
    X, y = data
    weight = rng.random(ROWS)
    assert_close(train(X, y, layers=layers, weight=weight), train(X.toarray(), y, layers=layers, weight=weight))


def test_prediction_of_many_rows_and_validation(rng):
    X, y = matrix(rng, 1000), rng.integers(0, 3, 1000)
    model, other = make_model(LAYERS, "relu", "softmax"), make_model(LAYERS, "relu", "softmax")
    np.testing.assert_allclose(model.predict_proba(X), model.predict_proba(X.toarray()), rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X), model.predict(X.toarray()))
    np.testing.assert_array_equal(model.forward(X)[500:501], model.forward(X[500:501]))
    assert model.forward(X[:0]).shape == (0, 3)
    got = fastdl.Trainer(model, epochs=2).fit(X, y, validation_data=(X[:90], y[:90]))
    want = fastdl.Trainer(other, epochs=2).fit(X.toarray(), y, validation_data=(X[:90].toarray(), y[:90]))
    np.testing.assert_allclose(got.val_loss, want.val_loss, rtol=1e-9)


def test_sparse_and_dense_epochs_by_turns(data):
    """One trainer: workspaces are made anew, states go on."""
    X, y = data
    results = []
    for turns in ((X, X.toarray(), X), (X.toarray(),) * 3):
        model = make_model(LAYERS, "tanh", "softmax")
        trainer = fastdl.Trainer(model, fastdl.Adam(0.01), batch_size=8, epochs=2, dropout=0.2)
        results.append(([model.parameters], [loss for rows in turns for loss in trainer.fit(rows, y).loss]))
    assert_close(*results)


# --- lazy updates ---


@pytest.mark.parametrize("case", ["plain", "l2", "dropout", "schedule"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_lazy_updates_are_those_of_all_rows_to_the_bit(data, monkeypatch, optimizer, dtype, case):
    X, y = data
    given = {"optimizer": OPTIMIZERS[optimizer](lr=0.01), "dtype": dtype, **CASES[case]}
    lazy = train(X, y, **given)
    monkeypatch.setattr(sparse_workspace, "ALWAYS_EAGER", True)
    assert_same(lazy, train(X, y, **given))


def test_a_bad_loss_and_an_exception_leave_no_row_behind(data, monkeypatch):
    """Both end an epoch early; afterwards all rows have been through the same steps, as in an eager one."""
    X, y = data
    inputs = rows_of(X, COLUMNS, np.dtype("f8"))

    def after(loss_is_bad):
        model = make_model(LAYERS, "tanh", "softmax")
        session = Session(model.architecture, model.parameters, Settings(8, fastdl.Momentum(), n_threads=1))
        weight = np.ones(ROWS)
        if loss_is_bad:
            weight[42] = np.inf
            assert session.epoch(inputs, y, weight, np.arange(ROWS), np.full(9, 0.1))[1] == 5
        else:

            def stop(rows):
                if rows >= 24:
                    raise KeyError

            with pytest.raises(KeyError):
                session.epoch(inputs, y, weight, np.arange(ROWS), np.full(9, 0.1), stop)
        return session.steps_done, [model.parameters, *session.states]

    for loss_is_bad in (True, False):
        monkeypatch.setattr(sparse_workspace, "ALWAYS_EAGER", False)
        monkeypatch.setattr("fastdl.engine.thread_tuner.CallLength.took", lambda *arguments: None)  # a step a call
        steps, lazy = after(loss_is_bad)
        monkeypatch.setattr(sparse_workspace, "ALWAYS_EAGER", True)
        assert steps == (5 if loss_is_bad else 3)
        assert (steps, 0) == (after(loss_is_bad)[0], 0)
        for mine, its in zip(lazy, after(loss_is_bad)[1], strict=True):
            np.testing.assert_array_equal(mine, its)


def test_penalties_of_lazy_rows_are_counted(data):
    """They are added up when a row catches up, step by step."""
    X, y = data
    penalties = []
    for rows in (rows_of(X, COLUMNS, np.dtype("f8")), X.toarray()):
        model = make_model(LAYERS, "tanh", "softmax")
        session = Session(model.architecture, model.parameters, Settings(8, fastdl.Adam(), l2=0.3, penalised=True))
        session.epoch(rows, y, None, np.arange(ROWS), np.full(9, 0.1))
        penalties.append(session.penalty)
    assert penalties[0] == pytest.approx(penalties[1], rel=1e-12)
    assert penalties[0] > 0


# --- bits and threads ---


@pytest.mark.parametrize("case", ["plain", "l2", "clipped", "one batch"])
def test_bits_do_not_depend_on_the_number_of_threads(rng, case):
    X, y = matrix(rng, 300, 900, 0.05), rng.integers(0, 3, 300)
    given = {"layers": [900, 40, 3], "batch_size": 60, "dtype": "float32", **CASES[case]}
    given["batch_size"] = 300 if case == "one batch" else 60
    one = train(X, y, n_threads=1, **given)
    for n_threads in (2, 3):
        assert_same(train(X, y, n_threads=n_threads, **given), one)


# --- whatever the matrix looks like ---


def variants(X):
    """Matrices that mean the same as the CSR X."""
    unsorted = X.copy()
    for start, stop in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        unsorted.indices[start:stop] = X.indices[start:stop][::-1]
        unsorted.data[start:stop] = X.data[start:stop][::-1]
    halves = sparse.coo_array(X)
    places = tuple(np.concatenate([part, part]) for part in halves.coords)
    twice = sparse.coo_array((np.concatenate([halves.data / 2] * 2), places), X.shape)
    doubled = sparse.csr_array(
        (np.repeat(X.data / 2, 2), np.repeat(X.indices, 2), X.indptr * 2), X.shape
    )  # duplicates in CSR
    wide = sparse.csr_array((X.data, X.indices.astype(np.int64), X.indptr.astype(np.int64)), X.shape)
    frozen = X.copy()
    for array in (frozen.data, frozen.indices, frozen.indptr):
        array.flags.writeable = False
    formats = {kind: X.asformat(kind) for kind in ("csc", "coo", "lil", "dok", "bsr")}
    return {
        "matrix": sparse.csr_matrix(X), "unsorted": unsorted, "coo twice": twice, "doubled": doubled, "int64": wide,
        "read-only": frozen, **formats,
    }  # fmt: skip


def test_formats_orders_and_duplicates_mean_the_same_and_stay_as_they_are(data):
    X, y = data
    want = train(X, y, epochs=1)
    for name, other in variants(X).items():
        before = other.copy()
        assert_same(train(other, y, epochs=1), want)
        if name in ("unsorted", "doubled", "coo twice"):
            np.testing.assert_array_equal(other.data, before.data)
            assert other.nnz == before.nnz


@pytest.mark.parametrize("kind", ["bool", "int8", "uint16", "int64", "float32", "float64", "longdouble"])
def test_numeric_types(rng, kind):
    X = matrix(rng)
    X.data[:] = np.arange(len(X.data)) % 3
    typed = X.astype(kind)
    np.testing.assert_allclose(
        make_model(LAYERS, dtype="float32").forward(typed),
        make_model(LAYERS, dtype="float32").forward(typed.toarray()),
        rtol=1e-4,
        atol=1e-6,
    )


def test_sums_of_whole_numbers_do_not_run_over():
    X = sparse.coo_array((np.array([100, 100], np.int8), ([0, 0], [1, 1])), (1, COLUMNS))
    assert rows_of(X, COLUMNS, np.dtype("f4")).values == 200


def test_flags_that_are_not_true_are_not_believed(data):
    X, y = data
    X.has_sorted_indices = X.has_canonical_format = True
    want = train(X, y, epochs=1)
    X.indices[X.indptr[3] : X.indptr[4]] = X.indices[X.indptr[3] : X.indptr[4]][::-1].copy()
    X.data[X.indptr[3] : X.indptr[4]] = X.data[X.indptr[3] : X.indptr[4]][::-1].copy()
    assert X.has_canonical_format
    assert_same(train(X, y, epochs=1), want)


# --- what is refused ---


def damaged(X, **changes):
    for name, (place, value) in changes.items():
        getattr(X, name)[place] = value
    return X


def bad_matrices(X):
    return [
        (
            damaged(X.copy(), data=(5, np.nan)),
            r"expected finite numbers, got nan in row 1, column \d+ \(counted from 0\)",
        ),
        (damaged(X.copy(), data=(0, -np.inf)), "expected finite numbers, got -inf"),
        (damaged(X.copy(), data=(0, 1e300)), "X as float32: expected finite numbers, got inf"),
        (X[:, :5], r"expected shape \(rows, 53\), got a sparse csr_array of shape \(70, 5\)"),
        (X.astype(complex), "expected real numbers, got dtype complex128"),
        (damaged(X.copy(), indices=(3, COLUMNS)), "expected a sound sparse matrix"),
        (damaged(X.copy(), indices=(3, -1)), "expected a sound sparse matrix"),
        (damaged(X.copy(), indptr=(4, 10**6)), "expected a sound sparse matrix"),
        (damaged(X.copy(), indptr=(-1, 10**6)), "expected a sound sparse matrix"),
        (X[:0], "expected at least one row"),
    ]


def test_bad_matrices_are_refused(data):
    X, y = data
    model = fastdl.MLP(LAYERS)
    for bad, words in bad_matrices(X):
        with pytest.raises(fastdl.InputError, match=f"X.*{words}|{words}"):
            fastdl.Trainer(model, batch_size=8).fit(bad, y)
    with pytest.raises(fastdl.InputError, match="y: expected one entry for each of the 70 rows"):
        fastdl.Trainer(model, batch_size=8).fit(X, y[1:])
    with pytest.raises(fastdl.InputError, match="validation X: expected shape"):
        fastdl.Trainer(model, batch_size=8).fit(X, y, validation_data=(X[:, :3], y))


def test_standardising_is_refused(data):
    X, y = data
    model = fastdl.MLP(LAYERS)
    with pytest.raises(
        fastdl.InputError, match=r"got a sparse csr_array, which centring would make dense; .*MaxAbsScaler"
    ):
        model.standardize(X)
    model.standardize(X.toarray())
    with pytest.raises(fastdl.InputError, match=r"this model standardises its inputs.*use X.toarray\(\)"):
        model.predict(X)
    with pytest.raises(fastdl.InputError, match="y: expected a dense array, got a sparse"):
        fastdl.Trainer(fastdl.MLP(LAYERS)).fit(X, sparse.csr_array(y[:, None]))


# --- memory ---


def test_nothing_of_the_size_of_the_dense_matrix_is_made(rng):
    """Dense, X would be 320 MB; parameters, states and the trainer's snapshot of them are 8 of 1.6 MB."""
    rows, columns = 2_000, 20_000
    X = sparse.random_array((rows, columns), density=0.001, format="csr", rng=rng)
    y = rng.integers(0, 2, rows)
    model = fastdl.MLP([columns, 20, 2])
    trainer = fastdl.Trainer(model, epochs=1)
    trainer.fit(X, y)
    tracemalloc.start()
    trainer.fit(X, y)
    model.predict(X)
    model.loss_and_gradient(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6
