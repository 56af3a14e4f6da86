"""Category embeddings against naive NumPy and finite differences, in every kind of step, in copies and in files."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import reference
from checking import eps
from checkpointing import Saver
from problems import batches_of, make_data
from staging import check_by_differences, check_by_oracle, every_dtype, forward, oracle, staged

import fastdl
from fastdl import PBLD, CategoryEmbedding, PiecewiseLinear

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = (6, 7, 3)
KINDS = {  # embedding, scales, categories
    "alone": (None, False, CategoryEmbedding({2: 4})),
    "scaled": (None, True, CategoryEmbedding({0: 9, 5: 1}, 5)),
    "all": (None, True, CategoryEmbedding(dict.fromkeys(range(6), 3), 2)),
    "with-pbld": (PBLD(), True, CategoryEmbedding({1: 6, 4: 40})),
    "with-pieces": (PiecewiseLinear(3, 5, columns=[0, 5]), False, CategoryEmbedding({3: 200}, 19)),
    "one-number": (PBLD(columns=[2]), True, CategoryEmbedding({5: 2, 1: 3}, 1)),
}
every_kind = pytest.mark.parametrize(("embedding", "scales", "categories"), KINDS.values(), ids=KINDS)


def model_of(embedding, scales, categories, layers=LAYERS, dtype="float64", output="softmax", activation="tanh"):
    return staged(embedding, scales, layers, output, dtype, activation, categories=categories)


def data_of(rng, rows, model, output="softmax", dtype=np.float64):
    """X with codes, some of which are none, and targets."""
    X, y = make_data(rng, rows, model.layers, output)
    for column, count in model.categories.counts.items():
        X[:, column] = rng.integers(0, count + 1, rows)
        X[rng.random(rows) < 0.1, column] = rng.choice([-1.0, count + 1, 1.5, 1e9])
    return X.astype(dtype), y


def test_rows_are_looked_up_by_hand():
    """Row 0 is for whatever is no code; other inputs come first."""
    model = fastdl.MLP([2, 3], dtype="float64", categories=CategoryEmbedding({0: 3}, 2))
    model.weights[0][:] = np.eye(3)
    tables = model.input_stage.tables
    assert tables.shape == (4, 2)
    np.testing.assert_array_equal(tables[0], [0, 0])
    assert (tables[1:] != 0).all()
    tables[0] = -1, -2
    X = [[0, 7.0], [1, 7], [3, 7], [4, 7], [-1, 7], [1.5, 7], [2, 7], [1e30, 7], [-1e30, 7]]
    wanted = [[7, *tables[code]] for code in (0, 1, 3, 0, 0, 0, 2, 0, 0)]
    np.testing.assert_array_equal(model.forward(X), wanted)


def test_initial_tables():
    model = fastdl.MLP([3, 2], categories=CategoryEmbedding({0: 4000, 2: 10}), scale_inputs=True)
    tables = model.input_stage.tables
    assert tables.shape == (4012, 8)
    assert tables[1:4001].std() == pytest.approx(1, rel=0.02)
    assert not tables[[0, 4001]].any()
    assert np.shares_memory(tables, model.parameters)
    assert model.weights[0].shape == (17, 2)
    assert model.n_parameters == 17 * 2 + 2 + 17 + 4012 * 8


@every_kind
@every_dtype
@pytest.mark.parametrize("rows", [1, 17, 500])
def test_forward(rng, embedding, scales, categories, dtype, rows):
    model = model_of(embedding, scales, categories, dtype=dtype)
    X, _ = data_of(rng, rows, model, dtype=dtype)
    np.testing.assert_allclose(model.forward(X), forward(model, X), rtol=0, atol=300 * eps(dtype))


@every_kind
def test_gradient_by_differences(rng, embedding, scales, categories):
    model = model_of(embedding, scales, categories)
    X, y = data_of(rng, 6, model)
    check_by_differences(model, X, y, 1e-6)


@every_kind
@every_dtype
@pytest.mark.parametrize("layers", [(6, 3), (6, 19, 33, 3), (6, 300, 200, 3)], ids=str)
@pytest.mark.parametrize("rows", [3, 700])
def test_gradient_equals_the_oracle(rng, embedding, scales, categories, dtype, layers, rows):
    """Linear models, fused row blocks (small) and layer after layer (large); few rows and many."""
    model = model_of(embedding, scales, categories, layers, dtype)
    X, y = data_of(rng, rows, model, dtype=dtype)
    check_by_oracle(rng, model, X, y, 20, 200)


@every_kind
@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("width", [7, 300])
def test_training_follows_the_oracle(rng, embedding, scales, categories, clip, width):
    """All rows of the tables move in each step, as momentum and decay say: also those that a batch does not have."""
    model = model_of(embedding, scales, categories, (6, width, 3))
    X, y = data_of(rng, 45, model)
    optimizer = fastdl.AdamW(0.01, weight_decay=0.5)
    flat = np.ones(model.n_parameters)
    lr, decay = flat * 0.01, flat * 0.0
    for d_weight in model.views(decay)[0]:
        d_weight[:] = 0.5
    model.architecture.stage_views(lr).tables[:] *= 3.0
    model.architecture.stage_views(decay).tables[:] = 0.2
    if scales:
        model.architecture.stage_views(lr).scale[:] *= 6.0
    theta, states, step = model.parameters.copy(), [np.zeros(model.n_parameters)] * 2, 0
    for epoch in range(3):
        for rows in batches_of(45, 9, 0, epoch):
            step += 1
            g = oracle(model, X[rows], y[rows], None, 0.01, theta)[1]
            g *= min(1.0, (clip or np.inf) / np.sqrt(g @ g))
            hyper = {**optimizer.hyperparameters(), "lr": lr, "weight_decay": decay}
            theta, states = reference.adamw(theta, g, states, step, **hyper)
    groups = {
        "group_rates": {"categories": 3.0, **({"input_scale": 6.0} if scales else {})},
        "group_decays": {"categories": 0.4},
    }
    fastdl.Trainer(model, optimizer, 9, 3, l2=0.01, clip_norm=clip, **groups).fit(X, y)
    np.testing.assert_allclose(model.parameters, theta, rtol=1e-8, atol=1e-11)


def test_without_momentum_only_rows_that_occur_change(rng):
    model = model_of(None, True, CategoryEmbedding({0: 50}), output="linear")
    X, y = data_of(rng, 40, model, "linear")
    X[:, 0] = rng.choice([3, 7, 20], 40)
    before = model.input_stage.tables.copy()
    fastdl.Trainer(model, fastdl.SGD(0.1), 10, 2, l2=0.1).fit(X, y)
    changed = (model.input_stage.tables != before).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(changed), [3, 7, 20])


@every_dtype
@pytest.mark.parametrize(
    ("clip", "width", "batch"), [(None, 20, 100), (0.1, 150, 100), (None, 150, 1500), (0.1, 12, 1500)]
)
def test_the_number_of_threads_changes_no_bit(rng, dtype, clip, width, batch):
    results = []
    for n_threads in (1, 2, 3):
        rng = np.random.default_rng(5)
        categories = CategoryEmbedding({0: 9, 3: 300, 4: 2})
        model = model_of(PBLD(columns=[1, 2]), True, categories, (6, width, width, 3), dtype, activation="relu")
        X, y = data_of(rng, 1500, model, dtype=dtype)
        fastdl.Trainer(model, batch_size=batch, epochs=2, n_threads=n_threads, clip_norm=clip, dropout=0.2).fit(X, y)
        results.append((model.parameters, model.engine.forward(model.prepare_inputs(X), n_threads)))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0][0], other[0])
        np.testing.assert_array_equal(results[0][1], other[1])


def test_it_learns_what_each_category_stands_for(rng):
    effect = rng.normal(size=60)
    codes = rng.integers(1, 61, 4000)
    X = np.column_stack([codes, rng.normal(size=4000)])
    y = effect[codes - 1] * X[:, 1]
    errors = []
    for categories in (None, CategoryEmbedding({0: 60}, 4)):
        model = fastdl.MLP([2, 32, 1], "relu", "linear", categories=categories).standardize(X[:3000])
        fastdl.Trainer(model, fastdl.Adam(0.01), 100, 20).fit(X[:3000], y[:3000])
        errors.append(np.sqrt(np.mean((model.predict(X[3000:]) - y[3000:]) ** 2)))
    assert errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("robust", [False, True])
def test_codes_are_neither_standardised_nor_clipped(rng, robust):
    model = fastdl.MLP([3, 2], categories=CategoryEmbedding({1: 500}))
    X = np.column_stack([rng.normal(5, 2, 100), rng.integers(0, 501, 100), rng.normal(size=100)])
    model.standardize(X, robust=robust, clip=2.0)
    inputs = model.prepare_inputs(X)
    np.testing.assert_array_equal(inputs[:, 1], X[:, 1])
    assert np.abs(inputs[:, [0, 2]]).max() < 2
    again = fastdl.Scaling.from_json(model.scaling.to_json())
    np.testing.assert_array_equal(again.inputs(X, np.dtype("float32")), inputs)
    assert "codes" not in fastdl.MLP([3, 2]).standardize(X).scaling.to_json()


@every_kind
@every_dtype
def test_copies_and_files_predict_and_go_on_alike(rng, tmp_path, embedding, scales, categories, dtype):
    model = model_of(embedding, scales, categories, dtype=dtype)
    X, y = data_of(rng, 30, model, dtype=dtype)
    model.standardize(X, clip=2.0)
    trainer = fastdl.Trainer(model, batch_size=10, epochs=2)
    trainer.fit(X, y)
    model.save(tmp_path / "m.fastdl")
    others = [fastdl.load(tmp_path / "m.fastdl"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    for other in others:
        assert other.categories == model.categories
        np.testing.assert_array_equal(other.parameters, model.parameters)
        np.testing.assert_array_equal(other.forward(X), model.forward(X))
        assert np.shares_memory(other.input_stage.tables, other.parameters)
    copied = pickle.loads(pickle.dumps(trainer))
    trainer.fit(X, y)
    copied.fit(X, y)
    np.testing.assert_array_equal(copied.model.parameters, model.parameters)


def test_a_checkpoint_goes_on_with_the_same_bits(tmp_path, rng):
    results = []
    X, y = np.column_stack([rng.integers(0, 6, 60), rng.normal(size=60)]), rng.normal(size=60)
    for stops in (False, True):
        model = fastdl.MLP([2, 8, 1], output="linear", categories=CategoryEmbedding({0: 5}))
        trainer = fastdl.Trainer(model, fastdl.AdamW(0.01), 16, 6, group_rates={"categories": 0.1})
        if stops:
            trainer.callbacks = [Saver(tmp_path / "c", 3)]
            trainer.fit(X, y)
            trainer = fastdl.Trainer.from_checkpoint(tmp_path / "c", callbacks=[])
        trainer.fit(X, y)
        results.append(trainer.model.parameters.tobytes())
    assert results[0] == results[1]


def test_health_sees_what_the_first_layer_reads(rng):
    model = model_of(PBLD(columns=[2]), True, CategoryEmbedding({5: 2, 1: 3}, 4))
    X, y = data_of(rng, 30, model)
    trainer = fastdl.Trainer(model, batch_size=30, epochs=1, optimizer=fastdl.SGD(1e-12))
    trainer.fit(X, y)
    layer = trainer.health().layers[-1]
    assert layer.mean == pytest.approx(forward(model, X).mean(), rel=1e-6)


def test_explain_and_inspect_name_it(run, tmp_path):
    model = fastdl.MLP([3, 30, 2], categories=CategoryEmbedding({1: 500}))
    assert fastdl.Trainer(model, batch_size=64, n_threads=1).explain(0.02).embedding > 0
    model.save(tmp_path / "m.fastdl")
    assert "CategoryEmbedding" in run("inspect", "m.fastdl").out


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CategoryEmbedding({}), r"CategoryEmbedding: counts: expected a dictionary such as \{3: 120\}"),
        (lambda: CategoryEmbedding([3]), "CategoryEmbedding: counts"),
        (lambda: CategoryEmbedding({-1: 3}), "CategoryEmbedding: counts: expected the number of a column"),
        (lambda: CategoryEmbedding({1: 0}), r"counts\[1\]: expected how many categories there are"),
        (lambda: CategoryEmbedding({1: 1 << 25}), "expected at most 16,777,216 categories"),
        (lambda: CategoryEmbedding({1: 3}, 0), "CategoryEmbedding: size"),
        (
            lambda: fastdl.MLP([3, 2], categories={1: 3}),
            "categories: expected an instance such as fastdl.CategoryEmbedding",
        ),
        (
            lambda: fastdl.MLP([3, 2], categories=CategoryEmbedding({3: 3})),
            "CategoryEmbedding: counts: expected columns 0 to 2 of the model's inputs, got 3",
        ),
        (
            lambda: fastdl.MLP([3, 2], embedding=PBLD(columns=[0, 1]), categories=CategoryEmbedding({1: 3})),
            "PBLD: columns: expected columns of numbers, got 1, which holds categories",
        ),
        (
            lambda: fastdl.Trainer(fastdl.MLP([3, 2]), group_rates={"categories": 0.1}),
            "group_rates: expected groups that this model has",
        ),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(fastdl.InputError, match=words):
        make()


def test_sparse_rows_are_refused():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    model = fastdl.MLP([3, 2], categories=CategoryEmbedding({1: 3}))
    with pytest.raises(
        fastdl.InputError, match="X: expected a dense array, since this model embeds or scales its inputs"
    ):
        model.predict(scipy_sparse.csr_array(np.eye(3)))
