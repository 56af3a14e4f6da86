"""`loss=` of a model: gradients, what predictions mean, which losses go with which output units, and files."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from checking import differences, relative_error
from problems import make_data, make_model

import fastdl
from fastdl.losses import LOSSES, OUTPUTS, Loss, resolve
from fastdl_kernels.loss_rows import SPECS

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = {  # name: (output unit, loss, targets)
    "squared_error": ("linear", "squared_error", "numbers"),
    "huber": ("linear", fastdl.Huber(0.3), "numbers"),
    "absolute_error": ("linear", "absolute_error", "numbers"),
    "quantile": ("linear", fastdl.Quantile(0.3), "numbers"),
    "quantiles": ("linear", fastdl.Quantile((0.1, 0.9)), "numbers"),
    "poisson": ("linear", "poisson", "counts"),
    "sigmoid_cross_entropy": ("sigmoid", "cross_entropy", "labels"),
    "sigmoid-smoothed": ("sigmoid", fastdl.CrossEntropy(0.2), "labels"),
    "softmax_cross_entropy": ("softmax", None, "classes"),
    "softmax-smoothed": ("softmax", fastdl.CrossEntropy(0.2), "classes"),
}
every_case = pytest.mark.parametrize("case", CASES)


def make(rng, case, n_rows=12, dtype="float64"):
    output, loss, targets = CASES[case]
    model = fastdl.MLP([4, 5, 2], "tanh", output, dtype=dtype, loss=loss, seed=3)
    X, y = make_data(rng, n_rows, model.layers, output)
    return model, X, rng.poisson(2, (n_rows, 2)) if targets == "counts" else y


def by_hand(case, z, t):
    """The loss of each element or row, in plain NumPy."""
    d = z - t if case.startswith(("sq", "hu", "abs", "quant", "poi")) else 0
    if case == "squared_error":
        return d**2
    if case == "huber":
        return np.where(abs(d) <= 0.3, d**2 / 2, 0.3 * (abs(d) - 0.15))
    if case == "absolute_error":
        return abs(d)
    if case.startswith("quantile"):
        q = 0.3 if case == "quantile" else np.array([0.1, 0.9])
        return np.where(d < 0, -q * d, (1 - q) * d)
    if case == "poisson":
        return np.exp(z) - t * z + np.where(t > 0, t * np.log(np.maximum(t, 1)), 0) - t
    smoothing = 0.2 if "smoothed" in case else 0.0
    if case.startswith("sigmoid"):
        s = (1 - smoothing) * t + smoothing / 2
        return (np.log1p(np.exp(z)) - s * z).sum(axis=1)
    s = (1 - smoothing) * np.eye(z.shape[1])[t] + smoothing / z.shape[1]
    return -(s * (z - np.log(np.exp(z).sum(axis=1, keepdims=True)))).sum(axis=1)


def test_every_loss_has_a_case():
    assert {name for name in CASES if name in SPECS} == set(LOSSES) == set(SPECS)


@every_case
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradient(rng, case, weighted):
    model, X, y = make(rng, case)
    weight = rng.random(len(X)) if weighted else None
    value, gradient = model.loss_and_gradient(X, y, weight)
    w = np.ones(len(X)) if weight is None else weight / weight.mean()
    losses = by_hand(case, model.forward(X), y)
    losses = losses.mean(axis=1) if losses.ndim == 2 else losses
    assert value == pytest.approx((w * losses).mean(), rel=1e-12)
    numeric = differences(lambda: model.loss_and_gradient(X, y, weight)[0], model.parameters)
    assert relative_error(gradient, numeric) <= 1e-6


@every_case
def test_float32_training_and_validation_loss(rng, case):
    model, X, y = make(rng, case, 60, "float32")
    trainer = fastdl.Trainer(model, fastdl.Adam(0.01), batch_size=13, epochs=30)
    history = trainer.fit(X, y, validation_data=(X, y))
    assert history.loss[-1] < history.loss[0]
    losses = by_hand(case, model.forward(X).astype(np.float64), y)
    assert history.val_loss[-1] == pytest.approx(losses.mean(), rel=1e-5)


def test_quantiles_are_learned(rng):
    """Of targets that are noise alone, the outputs learn the quantiles; one target [N] stands for all of them."""
    y = rng.exponential(size=4000)
    model = fastdl.MLP([1, 3], output="linear", loss=fastdl.Quantile((0.1, 0.5, 0.9)))
    X = np.zeros((len(y), 1))
    fastdl.Trainer(model, fastdl.Adam(0.02), batch_size=100, epochs=30).fit(X, y)
    np.testing.assert_allclose(model.predict(X[:1])[0], np.quantile(y, [0.1, 0.5, 0.9]), atol=0.12)


def test_poisson_predicts_rates(rng):
    X = rng.normal(size=(2000, 2))
    y = rng.poisson(np.exp(0.5 + X[:, 0]))
    model = fastdl.MLP([2, 1], output="linear", loss="poisson").standardize(X)
    history = fastdl.Trainer(model, fastdl.Adam(0.05), 100, 20).fit(X, y, validation_data=(X, y))
    np.testing.assert_allclose(model.predict(X), np.exp(model.forward(X)[:, 0]), rtol=1e-6)
    scale = model.scaling.scale[0]
    np.testing.assert_allclose(model.weights[0][0, 0] / scale, 1.0, atol=0.1)
    residual = model.predict(X) - y
    assert history.metrics["rmse"][-1] == pytest.approx(np.sqrt((residual**2).mean()), rel=1e-4)


def test_huber_does_not_mind_an_outlier(rng):
    y = rng.normal(size=500)
    y[0] = 1e6
    for loss, close in ((fastdl.Huber(1.0), True), (None, False)):
        model = fastdl.MLP([1, 1], output="linear", dtype="float64", loss=loss)
        fastdl.Trainer(model, fastdl.SGD(0.5), 500, 60).fit(np.zeros((500, 1)), y)
        assert (abs(model.biases[0][0]) < 0.2) == close


# --- which loss goes with which output unit ---


@pytest.mark.parametrize("output", OUTPUTS)
def test_defaults(output):
    assert resolve(None, output, 2) == Loss(OUTPUTS[output].loss)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_what_does_not_go_together_is_refused(name, output):
    fits = {"exp": "linear"}.get(SPECS[name].output, SPECS[name].output) == output
    if fits:
        assert fastdl.MLP([3, 2], output=output, loss=name).loss.name == name
    else:
        with pytest.raises(
            fastdl.InputError, match=rf"loss: expected one of .* for output='{output}', got '{name}', which"
        ):
            fastdl.MLP([3, 2], output=output, loss=name)


@pytest.mark.parametrize(
    ("make_loss", "words"),
    [
        (lambda: "hubert", "loss: expected one of .*, got 'hubert'; did you mean 'huber'"),
        (lambda: 3, "loss: expected a name such as 'squared_error'"),
        (lambda: fastdl.Huber(0.0), r"Huber: expected delta in \(0, inf\), got 0.0; 1 is usual"),
        (lambda: fastdl.Huber(float("nan")), "Huber: expected delta"),
        (lambda: fastdl.Huber((1.0, 2.0)), "Huber: expected one number for delta"),
        (lambda: fastdl.Quantile(1.0), r"Quantile: expected q in \(0, 1\), got 1.0"),
        (lambda: fastdl.Quantile((0.1, 0.0)), r"Quantile: expected q in \(0, 1\), got 0.0"),
        (lambda: fastdl.Quantile(()), "Quantile: expected one number for q"),
        (lambda: fastdl.Quantile((0.1, 0.2, 0.3)), r"loss: expected one number, or 2 \(one for each output\), got 3"),
        (lambda: fastdl.CrossEntropy(1.0), r"CrossEntropy: expected smoothing in \[0, 1\), got 1.0"),
        (lambda: fastdl.CrossEntropy(0.1), "loss: expected one of squared_error, .* for output='linear'"),
    ],
)
def test_bad_losses(make_loss, words):
    with pytest.raises(fastdl.InputError, match=words):
        fastdl.MLP([3, 2], output="linear", loss=make_loss())


def test_counts_are_not_negative_and_not_standardised(rng):
    model = fastdl.MLP([2, 1], output="linear", loss="poisson")
    X = rng.normal(size=(20, 2))
    with pytest.raises(fastdl.InputError, match="y: expected counts of 0 or more with loss='poisson', got -1"):
        fastdl.Trainer(model, batch_size=5, epochs=1).fit(X, np.full(20, -1))
    with pytest.raises(fastdl.InputError, match="y: expected no targets to standardise with loss='poisson'"):
        model.standardize(X, np.ones(20))


# --- files ---


@every_case
def test_a_file_keeps_the_loss(rng, case, tmp_path):
    model, X, y = make(rng, case)
    model.save(tmp_path / "m")
    loaded = fastdl.load(tmp_path / "m")
    assert (loaded.loss.name, loaded.loss.parameter) == (model.loss.name, model.loss.parameter)
    assert loaded.loss_and_gradient(X, y)[0] == model.loss_and_gradient(X, y)[0]


@pytest.mark.parametrize("output", OUTPUTS)
def test_files_of_version_1_load(tmp_path, output):
    """They have no loss: each output unit had one."""
    import hashlib

    model = make_model([3, 4, 2], fastdl.LeakyReLU(0.2), output, "float32")
    model.save(tmp_path / "new")
    with zipfile.ZipFile(tmp_path / "new") as archive:
        description, numbers = json.loads(archive.read("model.json")), archive.read("parameters.npy")
    del description["loss"], description["sha256"]
    description["version"] = 1
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    with zipfile.ZipFile(tmp_path / "old", "w") as archive:
        archive.writestr("model.json", json.dumps({**description, "sha256": digest}))
        archive.writestr("parameters.npy", numbers)
    loaded = fastdl.load(tmp_path / "old")
    assert repr(loaded) == repr(model)
    assert loaded.loss == Loss(OUTPUTS[output].loss)
    np.testing.assert_array_equal(loaded.parameters, model.parameters)
