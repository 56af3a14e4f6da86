"""Parametric activations against naive NumPy and finite differences, in every kind of step, in copies and in files."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import reference
from checking import eps
from checkpointing import Saver
from problems import batches_of, make_data
from staging import check_by_differences, check_by_oracle, every_dtype, forward, oracle, split, staged

import fastdl
from fastdl.activations import ACTIVATIONS, Activation, PReLU

pytestmark = pytest.mark.usefixtures("one_thread")
every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def parametric(name):
    return Activation(name, 0.3 if Activation(name).spec.alpha else None, parametric=True)


def model_of(name, layers=(5, 7, 6, 3), dtype="float64", output="softmax", embedding=None, scales=False):
    """The first hidden layer is parametric, and the last one; if there are three, the middle one is not."""
    units = [parametric(name)] * (len(layers) - 2)
    units[1:-1] = ["tanh"] * len(units[1:-1])
    return staged(embedding, scales, layers, output, dtype, units)


def test_the_formula_by_hand():
    model = fastdl.MLP([1, 2, 1], Activation("tanh", parametric=True), "linear", dtype="float64")
    model.weights[0][:], model.weights[1][:] = [[0.5, -0.5]], [[1.0], [10.0]]
    model.unit_alphas[0][:] = 0.25, 2.0
    z = 0.5 * 0.8
    wanted = (z + 0.25 * (np.tanh(z) - z)) + 10 * (-z + 2.0 * (np.tanh(-z) + z))
    np.testing.assert_allclose(model.forward([[0.8]]), [[wanted]], rtol=1e-14)
    slopes = fastdl.MLP([1, 2, 1], PReLU(), "linear", dtype="float64")
    slopes.weights[0][:], slopes.weights[1][:] = [[1.0, 2.0]], [[1.0], [10.0]]
    np.testing.assert_array_equal(slopes.unit_alphas[0], [0.25, 0.25])
    slopes.unit_alphas[0][:] = 0.5, -0.25
    np.testing.assert_allclose(slopes.forward([[-1.0], [1.0]]), [[-0.5 + 5.0], [1 + 20]], rtol=1e-14)


@every_activation
@every_dtype
def test_it_begins_as_the_activation_itself(rng, name, dtype):
    layers, X = [5, 40, 20, 3], rng.normal(size=(300, 5))
    plain = fastdl.MLP(layers, Activation(name, parametric(name).alpha or None), dtype=dtype)
    model = fastdl.MLP(layers, parametric(name), dtype=dtype)
    assert model.n_parameters == plain.n_parameters + 60
    np.testing.assert_allclose(model.forward(X), plain.forward(X), rtol=0, atol=30 * eps(dtype))


@every_activation
@every_dtype
@pytest.mark.parametrize(("layers", "rows"), [((5, 7, 3), 1), ((5, 7, 6, 3), 17), ((5, 60, 33, 20, 3), 500)], ids=str)
def test_forward(rng, name, dtype, layers, rows):
    model = model_of(name, layers, dtype)
    X = (2 * rng.normal(size=(rows, 5))).astype(dtype)
    np.testing.assert_allclose(model.forward(X), forward(model, X), rtol=0, atol=200 * eps(dtype))


@every_activation
def test_gradient_by_differences(rng, name):
    model = model_of(name)
    X, y = make_data(rng, 6, model.layers, "softmax")
    check_by_differences(model, X, y, 1e-5)


@every_activation
@every_dtype
@pytest.mark.parametrize("layers", [(5, 19, 33, 3), (5, 300, 20, 200, 3)], ids=str)
@pytest.mark.parametrize("rows", [3, 700])
def test_gradient_equals_the_oracle(rng, name, dtype, layers, rows):
    """Fused row blocks (small) and layer after layer (large); few rows and many."""
    model = model_of(name, layers, dtype)
    X, y = make_data(rng, rows, layers, "softmax")
    X = X.astype(dtype)
    check_by_oracle(rng, model, X, y, 30, 300)


@pytest.mark.parametrize("name", ["selu", "mish", "leaky_relu", "tanh"])
@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("width", [7, 300])
@pytest.mark.parametrize("stage", [(None, False), (fastdl.PBLD(), True)], ids=["plain", "stage"])
def test_training_follows_the_oracle(rng, name, clip, width, stage):
    model = model_of(name, (5, width, 6, 3), "float64", "softmax", *stage)
    X, y = make_data(rng, 45, model.layers, "softmax")
    optimizer = fastdl.AdamW(0.01, weight_decay=0.5)
    flat = np.ones(model.n_parameters)
    lr, decay = flat * 0.01, flat * 0.0
    for alphas, d_alphas in zip(model.architecture.alpha_views(lr), model.architecture.alpha_views(decay), strict=True):
        alphas *= 3.0
        d_alphas[:] = 0.2
    for d_weight in model.views(decay)[0]:
        d_weight[:] = 0.5
    theta, states, step = model.parameters.copy(), [np.zeros(model.n_parameters)] * 2, 0
    for epoch in range(3):
        for rows in batches_of(45, 9, 0, epoch):
            step += 1
            g = oracle(model, X[rows], y[rows], None, 0.01, theta)[1]
            g *= min(1.0, (clip or np.inf) / np.sqrt(g @ g))
            hyper = {**optimizer.hyperparameters(), "lr": lr, "weight_decay": decay}
            theta, states = reference.adamw(theta, g, states, step, **hyper)
    groups = {"group_rates": {"activations": 3.0}, "group_decays": {"activations": 0.4}}
    fastdl.Trainer(model, optimizer, 9, 3, l2=0.01, clip_norm=clip, **groups).fit(X, y)
    np.testing.assert_allclose(model.parameters, theta, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", ["selu", "leaky_relu"])
def test_dropout_masks_before_the_gradient_of_the_units(rng, name):
    """What is dropped adds nothing: with one unit kept its number alone changes."""
    model = model_of(name, (5, 300, 3))
    X, y = make_data(rng, 1, model.layers, "softmax")
    before = model.unit_alphas[0].copy()
    trainer = fastdl.Trainer(model, fastdl.SGD(0.1), 1, 1, dropout=0.7)
    trainer.fit(X, y)
    workspace = trainer._session.workspace
    dropped = workspace.outputs[:300] == 0
    assert dropped.mean() == pytest.approx(0.7, abs=0.1)
    np.testing.assert_array_equal(model.unit_alphas[0][dropped], before[dropped])
    moved = model.unit_alphas[0] != before
    assert moved[~dropped].mean() > (0.3 if name == "leaky_relu" else 0.95)


@every_dtype
@pytest.mark.parametrize(
    ("name", "clip", "width", "batch"),
    [("selu", None, 20, 100), ("mish", 0.1, 150, 100), ("leaky_relu", None, 12, 1500), ("gelu", None, 150, 1500)],
)
def test_the_number_of_threads_changes_no_bit(rng, dtype, name, clip, width, batch):
    X, y = make_data(rng, 1500, (11, 3), "softmax")
    results = []
    for n_threads in (1, 2, 3):
        model = model_of(name, (11, width, width, 3), dtype)
        fastdl.Trainer(model, batch_size=batch, epochs=2, n_threads=n_threads, clip_norm=clip, dropout=0.2).fit(X, y)
        results.append((model.parameters, model.engine.forward(model.prepare_inputs(X), n_threads)))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0][0], other[0])
        np.testing.assert_array_equal(results[0][1], other[1])


@pytest.mark.parametrize("optimizer", [fastdl.AdamW(0.02, weight_decay=0.1), fastdl.SGD(0.05)])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_sparse_rows_are_trained_as_dense_ones(rng, optimizer, clip):
    scipy_sparse = pytest.importorskip("scipy.sparse")
    X = np.where(rng.random((60, 40)) < 0.05, rng.normal(size=(60, 40)), 0.0)
    y = rng.integers(0, 3, 60)
    results = []
    for rows in (X, scipy_sparse.csr_array(X)):
        model = model_of("selu", (40, 8, 3))
        settings = {"group_rates": {"activations": 2.0}, "clip_norm": clip, "dropout": 0.2}
        fastdl.Trainer(model, optimizer, 6, 3, **settings).fit(rows, y)
        np.testing.assert_allclose(model.forward(rows), forward(model, X), rtol=1e-9, atol=1e-12)
        results.append(model.parameters)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["selu", "elu", "leaky_relu"])
@every_dtype
def test_copies_and_files_predict_and_go_on_alike(rng, tmp_path, name, dtype):
    model = model_of(name, dtype=dtype, embedding=fastdl.PBLD(), scales=True)
    X, y = make_data(rng, 30, model.layers, "softmax")
    trainer = fastdl.Trainer(model, batch_size=10, epochs=2)
    trainer.fit(X, y)
    model.save(tmp_path / "m.fastdl")
    others = [fastdl.load(tmp_path / "m.fastdl"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    for other in others:
        assert other.activations == model.activations
        assert other.activations != fastdl.MLP([5, 7, 6, 3], name).activations
        np.testing.assert_array_equal(other.parameters, model.parameters)
        np.testing.assert_array_equal(other.forward(X), model.forward(X))
        assert np.shares_memory(other.unit_alphas[1], other.parameters)
    copied = pickle.loads(pickle.dumps(trainer))
    trainer.fit(X, y)
    copied.fit(X, y)
    np.testing.assert_array_equal(copied.model.parameters, model.parameters)


def test_a_checkpoint_goes_on_with_the_same_bits(tmp_path, rng):
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    results = []
    for stops in (False, True):
        model = fastdl.MLP([3, 8, 1], parametric("mish"), "linear")
        trainer = fastdl.Trainer(model, fastdl.AdamW(0.01), 16, 6, group_rates={"activations": 0.1})
        if stops:
            trainer.callbacks = [Saver(tmp_path / "c", 3)]
            trainer.fit(X, y)
            trainer = fastdl.Trainer.from_checkpoint(tmp_path / "c", callbacks=[])
        trainer.fit(X, y)
        results.append(trainer.model.parameters.tobytes())
    assert results[0] == results[1]


def test_health_sees_what_the_next_layer_reads(rng):
    model = model_of("selu")
    X, y = make_data(rng, 30, model.layers, "softmax")
    trainer = fastdl.Trainer(model, batch_size=30, epochs=1, optimizer=fastdl.SGD(1e-12))
    trainer.fit(X, y)
    dense, units, _ = split(model, model.parameters)
    zs, _ = reference.network_forward(model.layers, [("selu", 0.0)] * 2, dense, X, units)
    for layer, z in zip(trainer.health().layers, zs, strict=True):
        assert layer.mean == pytest.approx(z.mean(), rel=1e-6)


def test_inspect_names_it(run, tmp_path):
    fastdl.MLP([3, 4, 2], Activation("selu", parametric=True)).save(tmp_path / "m.fastdl")
    shown = run("inspect", "m.fastdl").out
    assert "parametric selu" in shown
    assert "20" in next(line for line in shown.splitlines() if "parametric selu" in line).split()  # 3 * 4 + 4 + 4
    assert ">20</td>" in fastdl.load(tmp_path / "m.fastdl")._repr_html_()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Activation("selu", parametric=1), "selu: expected parametric to be True or False, got 1"),
        (lambda: PReLU(1.0), r"PReLU: expected alpha in \[0, 1\), got 1.0"),
        (
            lambda: fastdl.Trainer(fastdl.MLP([3, 4, 2]), group_rates={"activations": 0.1}),
            "group_rates: expected groups that this model has",
        ),
        (lambda: fastdl.MLP([3, 4, 1], PReLU(), "linear").to_sklearn(), "expected"),
        (
            lambda: setattr(fastdl.MLP([3, 4, 1], PReLU(), "linear"), "unit_alphas", ()),
            "unit_alphas: expected a model to keep what it is made of",
        ),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(fastdl.InputError, match=words):
        make()
