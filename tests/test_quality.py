"""Quality floors: what a training must reach on real digits and on generated data, with a margin stated in each test.

The floors are well below what was measured and well above what a linear model or a broken engine reaches.
"""

from __future__ import annotations

import numpy as np
import pytest
from checking import DTYPES

import fastdl

pytestmark = pytest.mark.usefixtures("one_thread")


def split(rng, X, y, share=0.8):
    """((X, y) to learn from, (X, y) to validate on)."""
    order = rng.permutation(len(X))
    cut = int(share * len(X))
    return (X[order[:cut]], y[order[:cut]]), (X[order[cut:]], y[order[cut:]])


def train(layers, training, validation, output="softmax", seed=0, **options):
    """The metrics after the last epoch of a standardised model."""
    model = fastdl.MLP(layers, "relu", output, seed=seed)
    model.standardize(training[0], training[1] if output == "linear" else None)
    trainer = fastdl.Trainer(model, fastdl.Adam(lr=options.pop("lr", 3e-3)), seed=seed, **options)
    history = trainer.fit(*training, validation_data=validation)
    return {name: values[-1] for name, values in history.metrics.items()}


def test_digits():
    """97 % of held-out handwritten digits, averaged over two seeds; a linear model reaches about 95 %."""
    accuracies = []
    for seed in (0, 1):
        training, validation = split(np.random.default_rng(seed), *fastdl.load_digits())
        metrics = train([64, 128, 10], training, validation, seed=seed, batch_size=64, epochs=20, lr=2e-3)
        accuracies.append(metrics["accuracy"])
    assert np.mean(accuracies) >= 0.97


def test_the_digits_are_what_they_claim_to_be():
    X, y = fastdl.load_digits()
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((1797, 64), np.float32, (1797,), np.int64)
    assert (X.min(), X.max()) == (0, 16)
    np.testing.assert_array_equal(X, np.round(X))
    assert (np.bincount(y) > 170).all()
    datasets = pytest.importorskip("sklearn.datasets")
    peer = datasets.load_digits()
    np.testing.assert_array_equal(X, peer.data)
    np.testing.assert_array_equal(y, peer.target)


def priced_stones(rng, n):
    """Price rises with a power of the weight and falls with three grades that interact; 5 % noise on the price."""
    weight = rng.gamma(3, 0.25, n) + 0.2
    grades = rng.integers(0, 6, (n, 3))
    size = np.cbrt(weight)[:, None] * [6.4, 6.4, 4.0] * (1 + 0.01 * rng.normal(size=(n, 3)))
    price = (
        4000 * weight**1.7 * (1 - 0.05 * grades[:, 0]) * (1 - 0.04 * grades[:, 1] - 0.01 * grades[:, 1] * grades[:, 2])
    )
    return np.column_stack([weight, grades, size]), price * (1 + 0.05 * rng.normal(size=n))


def test_regression():
    """R² of 0.98 (measured 0.989) where the noise leaves 0.994 to learn and a linear model explains 0.93."""
    rng = np.random.default_rng(0)
    training, validation = split(rng, *priced_stones(rng, 3000))
    metrics = train([7, 64, 64, 1], training, validation, "linear", batch_size=128, epochs=30, lr=5e-3)
    assert metrics["r2"] >= 0.98
    linear = train([7, 1], training, validation, "linear", batch_size=128, epochs=30, lr=2e-2)
    assert 0.85 < linear["r2"] < 0.96
    assert metrics["rmse"] < 0.6 * linear["rmse"]


def two_moons(rng, n, noise=0.1):
    """Two half circles that hook into each other."""
    angle, label = rng.random(n) * np.pi, rng.integers(0, 2, n)
    X = np.column_stack([np.cos(angle), np.sin(angle)])
    X[label == 1] = [1, 0.5] - X[label == 1]
    return X + noise * rng.normal(size=(n, 2)), label


@pytest.mark.parametrize("output", ["sigmoid", "softmax"])
def test_two_moons(output):
    """98 % of a binary set on which a straight line gets about 90 %, with one sigmoid and with two classes."""
    rng = np.random.default_rng(0)
    training, validation = split(rng, *two_moons(rng, 1500))
    n_out = 1 if output == "sigmoid" else 2
    metrics = train([2, 32, 32, n_out], training, validation, output, batch_size=64, epochs=25, lr=5e-3)
    assert metrics["accuracy"] >= 0.98
    linear = train([2, n_out], training, validation, output, batch_size=64, epochs=25, lr=5e-2)
    assert 0.8 < linear["accuracy"] < 0.95


def test_independent_labels():
    """95 % (measured 98.8 %; a linear model has 67 %) of four labels: half-plane, disc, stripe, quadrants."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, size=(3000, 2))
    a, b = X.T
    y = np.column_stack([a + b > 0, a**2 + b**2 < 2, np.abs(a - b) < 1, a * b > 0]).astype(float)
    training, validation = split(rng, X, y)
    metrics = train([2, 64, 32, 4], training, validation, "sigmoid", batch_size=64, epochs=25, lr=5e-3)
    assert metrics["accuracy"] >= 0.95


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["SGD", "Momentum", "RMSProp", "Adam"])
def test_every_optimizer_learns_digits(name, dtype):
    """95 % of the digits that were learned from after five epochs, at a rate that suits the optimizer."""
    rates = {"SGD": 0.1, "Momentum": 0.2, "RMSProp": 2e-3, "Adam": 3e-3}
    X, y = fastdl.load_digits()
    model = fastdl.MLP([64, 32, 10], "tanh", dtype=dtype).standardize(X)
    fastdl.Trainer(model, getattr(fastdl, name)(lr=rates[name]), batch_size=32, epochs=5).fit(X, y)
    assert np.mean(model.predict(X) == y) >= 0.95


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "tanh"])
def test_every_activation_learns_what_no_linear_model_can(activation):
    """Exclusive or, the smallest such problem."""
    X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * 2 - 1, [0, 1, 1, 0]
    model = fastdl.MLP([2, 16, 1], activation, "sigmoid", seed=1)
    fastdl.Trainer(model, fastdl.Adam(lr=0.1), batch_size=4, epochs=150).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), y)
    assert model.loss_and_gradient(X, y)[0] < 0.1


def test_l2_keeps_weights_small():
    X, y = two_moons(np.random.default_rng(0), 300)
    norms = []
    for l2 in (0.0, 1e-2, 1.0):
        model = fastdl.MLP([2, 16, 2], "tanh")
        fastdl.Trainer(model, fastdl.Adam(lr=0.02), batch_size=50, epochs=20, l2=l2).fit(X, y)
        norms.append(sum(float((w**2).sum()) for w in model.weights))
    assert norms[0] > 1.5 * norms[1] > 10 * norms[2]
