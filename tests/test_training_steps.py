"""What the trainer computes, against steps done by hand with the oracle network and the oracle optimizers."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from problems import TASKS, batches_seen, make_data, make_model, train_by_hand, weights_only

import fastdl
from fastdl.optimizers import OPTIMIZERS

pytestmark = pytest.mark.usefixtures("one_thread")

every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
every_task = pytest.mark.parametrize("task", TASKS)
N, BATCH, EPOCHS = 23, 6, 3  # batches of 6, 6, 6 and 5 rows


@pytest.fixture(scope="module")
def epochs():
    """The batches of a trainer with the default seed."""
    return batches_seen(N, BATCH, EPOCHS)


@every_optimizer
@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_full_batch_step(rng, name, l2, weighted):
    """theta moves as the optimizer says, from loss_and_gradient at the start; the loss is that before the step."""
    model = make_model([5, 7, 3], "tanh", "softmax")
    X, y = make_data(rng, N, model.layers, "softmax")
    weight = rng.random(N) * 5 if weighted else None
    optimizer = OPTIMIZERS[name](lr=0.05)
    loss, g = model.loss_and_gradient(X, y, weight, l2)
    zeros = [np.zeros(g.size)] * optimizer.n_states
    hyper = optimizer.hyperparameters()
    if name == "adamw":
        hyper["weight_decay"] = weights_only(model, hyper["weight_decay"])
    want, _ = reference.OPTIMIZERS[name](model.parameters.copy(), g, zeros, 1, **hyper)
    penalty = l2 / 2 * sum(float((w**2).sum()) for w in model.weights)
    history = fastdl.Trainer(model, optimizer, batch_size=N, epochs=1, l2=l2).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(model.parameters, want, rtol=1e-11, atol=1e-13)
    assert history.loss == [pytest.approx(loss - penalty, rel=1e-13)]


@every_optimizer
@every_task
@pytest.mark.parametrize("regularised", [False, True], ids=["plain", "l2-and-weights"])
def test_three_epochs_of_mini_batches(rng, epochs, name, task, regularised):
    """12 steps in float64. Weights have mean 1 over all rows, so that a batch's loss is (1/B) Σ w_i loss_i."""
    output, n_out = TASKS[task]
    model = make_model([5, 7, n_out], "tanh", output)
    X, y = make_data(rng, N, model.layers, output)
    weight, l2 = (rng.random(N) * 5, 0.1) if regularised else (None, 0.0)
    normalised = None if weight is None else weight / weight.mean()
    optimizer = OPTIMIZERS[name](lr=0.02)
    want, want_losses = train_by_hand(model, X, y, optimizer, epochs, normalised, l2)
    before = model.parameters.copy()
    history = fastdl.Trainer(model, optimizer, batch_size=BATCH, epochs=EPOCHS, l2=l2).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(model.parameters, want, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(history.loss, want_losses, rtol=1e-11)
    assert np.abs(model.parameters - before).max() > 1e-3


@every_optimizer
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "identity"])
def test_float32_steps(rng, epochs, name, activation):
    """float32 stays within rounding of the float64 oracle over 12 steps; layers with tails."""
    model = make_model([5, 33, 17, 3], activation, "softmax", "float32")
    X, y = make_data(rng, N, model.layers, "softmax")
    X, weight = X.astype("float32"), rng.random(N) + 0.5
    optimizer = OPTIMIZERS[name](lr=1e-3)
    want, want_losses = train_by_hand(model, X, y, optimizer, epochs, weight / weight.mean(), 0.01)
    history = fastdl.Trainer(model, optimizer, BATCH, EPOCHS, l2=0.01).fit(X, y, sample_weight=weight)
    # Where a gradient is about 0, RMSProp and Adam divide rounding noise by its own size: a step of up to lr.
    difference = np.abs(model.parameters - want)
    assert np.mean(difference > 1e-5) < 0.01
    assert difference.max() < 12 * 1e-3
    np.testing.assert_allclose(history.loss, want_losses, rtol=1e-4)


@pytest.mark.parametrize("hidden", [(), (4,) * 20], ids=["linear-model", "20-hidden-layers"])
def test_shallow_and_deep(rng, epochs, hidden):
    model = make_model([5, *hidden, 2], "tanh", "linear")
    X, y = make_data(rng, N, model.layers, "linear")
    optimizer = fastdl.Adam(lr=0.01)
    want, want_losses = train_by_hand(model, X, y, optimizer, epochs)
    history = fastdl.Trainer(model, optimizer, BATCH, EPOCHS).fit(X, y)
    np.testing.assert_allclose(model.parameters, want, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(history.loss, want_losses, rtol=1e-9)


def test_mixed_activations(rng, epochs):
    model = make_model([5, 6, 4, 7, 3], ["relu", fastdl.LeakyReLU(0.3), "sigmoid"], "sigmoid")
    X, y = make_data(rng, N, model.layers, "sigmoid")
    want, want_losses = train_by_hand(model, X, y, fastdl.Momentum(lr=0.1), epochs)
    history = fastdl.Trainer(model, fastdl.Momentum(lr=0.1), BATCH, EPOCHS).fit(X, y)
    np.testing.assert_allclose(model.parameters, want, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(history.loss, want_losses, rtol=1e-12)


@pytest.mark.parametrize(
    ("optimizer", "l2"),
    [(fastdl.AdamW(lr=0.5, weight_decay=0.2, eps=1.0), 0.0), (fastdl.SGD(lr=0.5), 0.2)],
    ids=["weight-decay", "l2"],
)
def test_biases_are_not_pulled(rng, optimizer, l2):
    """With gradients of 0 weights shrink by lr * weight_decay, or by lr * l2, and biases stay."""
    model = make_model([4, 3, 2], "identity", "linear")
    for weight in model.weights:
        weight[:] = 1.0
    X = rng.normal(size=(6, 4))
    y = model.forward(X)
    biases = [b.copy() for b in model.biases]
    fastdl.Trainer(model, optimizer, batch_size=6, epochs=1, l2=l2).fit(X, y)
    for weight, bias, before in zip(model.weights, model.biases, biases, strict=True):
        np.testing.assert_allclose(weight, 0.9, rtol=1e-12)
        np.testing.assert_allclose(bias, before, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adamw_without_decay_is_adam(rng, dtype):
    """To the last bit: the decay is a factor of 1."""
    models = [make_model([5, 33, 3], "tanh", "softmax", dtype) for _ in range(2)]
    X, y = make_data(rng, N, [5, 3], "softmax")
    fastdl.Trainer(models[0], fastdl.Adam(), BATCH, EPOCHS).fit(X, y)
    fastdl.Trainer(models[1], fastdl.AdamW(weight_decay=0), BATCH, EPOCHS).fit(X, y)
    np.testing.assert_array_equal(models[0].parameters, models[1].parameters)


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_nesterov(rng, epochs, l2):
    model = make_model([5, 7, 3], "tanh", "softmax")
    X, y = make_data(rng, N, model.layers, "softmax")
    optimizer = fastdl.Momentum(lr=0.5, nesterov=True)
    want, _ = train_by_hand(model, X, y, optimizer, epochs, l2=l2)
    plain, _ = train_by_hand(model, X, y, fastdl.Momentum(lr=0.5), epochs, l2=l2)
    fastdl.Trainer(model, optimizer, BATCH, EPOCHS, l2=l2).fit(X, y)
    np.testing.assert_allclose(model.parameters, want, rtol=1e-9, atol=1e-11)
    assert np.abs(want - plain).max() > 1e-3


def test_a_row_of_weight_0_teaches_nothing(rng, epochs):
    model, other = (make_model([5, 7, 3], "tanh", "softmax") for _ in range(2))
    X, y = make_data(rng, N, model.layers, "softmax")
    weight = np.ones(N)
    weight[[3, 11]] = 0.0
    fastdl.Trainer(model, fastdl.Adam(), BATCH, EPOCHS).fit(X, y, sample_weight=weight)
    X[[3, 11]], y[[3, 11]] = 100.0, 0
    fastdl.Trainer(other, fastdl.Adam(), BATCH, EPOCHS).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(model.parameters, other.parameters, rtol=1e-12, atol=1e-14)


def test_standardised_training(rng, epochs):
    """A model that carries statistics learns from standardised X and y; the loss is in those units."""
    model = make_model([5, 7, 2], "tanh", "linear")
    X, y = make_data(rng, N, model.layers, "linear")
    X, y = X * [1, 10, 100, 1e3, 1e-3] + 5, y * [1e3, 1e-2] - 7
    want, want_losses = train_by_hand(
        model, (X - X.mean(0)) / X.std(0), (y - y.mean(0)) / y.std(0), fastdl.Adam(lr=0.01), epochs
    )
    model.standardize(X, y)
    history = fastdl.Trainer(model, fastdl.Adam(lr=0.01), BATCH, EPOCHS).fit(X, y)
    np.testing.assert_allclose(model.parameters, want, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(history.loss, want_losses, rtol=1e-9)
