"""Gradient clipping by the global norm, against the oracle and bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from problems import batches_seen, make_data, make_model, train_by_hand

import fastdl
from fastdl.optimizers import OPTIMIZERS

N, BATCH, EPOCHS = 23, 6, 6


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("clip_norm", [0.05, 0.5, 100.0], ids=["always", "sometimes", "never"])
def test_follows_the_reference(rng, name, l2, clip_norm):
    """24 steps; the norm is that of weights and biases together, with the penalty's gradient."""
    model = make_model([5, 7, 6, 3], "tanh", "softmax")
    X, y = make_data(rng, N, model.layers, "softmax")
    optimizer = OPTIMIZERS[name](lr=0.05)
    epochs = batches_seen(N, BATCH, EPOCHS)
    want, want_losses = train_by_hand(model, X, y, optimizer, epochs, l2=l2, clip_norm=clip_norm)
    history = fastdl.Trainer(model, optimizer, BATCH, EPOCHS, l2=l2, clip_norm=clip_norm).fit(X, y)
    np.testing.assert_allclose(model.parameters, want, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(history.loss, want_losses, rtol=1e-9)


def train(layers=(200, 300, 250, 10), dtype="float32", epochs=1, **options):
    model = make_model(layers, "relu", "softmax", dtype)
    X, y = make_data(np.random.default_rng(3), 300, model.layers, "softmax")
    start = model.parameters.copy()
    fastdl.Trainer(model, fastdl.SGD(lr=0.5), 100, epochs, **options).fit(X, y)
    return start, model.parameters


@pytest.mark.parametrize("n_threads", [2, 3, "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_bits_for_any_threads(n_threads, dtype):
    """A network whose gradient is made of many blocks."""
    want = train(dtype=dtype, clip_norm=0.1, l2=0.01, n_threads=1)[1]
    np.testing.assert_array_equal(train(dtype=dtype, clip_norm=0.1, l2=0.01, n_threads=n_threads)[1], want)


@pytest.mark.parametrize("layers", [(200, 300, 250, 10), (4, 3)])
def test_a_limit_that_is_never_reached_changes_no_bit(layers):
    np.testing.assert_array_equal(train(layers, clip_norm=1e6)[1], train(layers)[1])


def test_a_step_of_sgd_is_as_long_as_the_limit():
    """theta moves by lr * clip_norm, whatever the gradient was."""
    model = make_model([200, 300, 250, 10], "relu", "softmax", "float32")
    X, y = make_data(np.random.default_rng(3), 100, model.layers, "softmax")
    start = model.parameters.astype(np.float64)
    fastdl.Trainer(model, fastdl.SGD(lr=0.5), 100, 1, clip_norm=0.25).fit(X, y)
    assert np.linalg.norm(model.parameters - start) == pytest.approx(0.125, rel=1e-4)


def test_a_gradient_that_is_not_finite_ends_the_training(rng):
    """Its loss was finite still; what the optimizer makes of it shows in the next batch."""
    model = make_model([3, 2], "identity", "linear")
    X, y = make_data(rng, 8, model.layers, "linear")
    start = model.parameters.copy()
    X[:] = 1e200
    model.parameters[:] = 0
    model.biases[0][:] = 1e120
    start[:] = model.parameters
    with pytest.raises(fastdl.DivergedError, match="epoch 1, batch 2"):
        fastdl.Trainer(model, fastdl.SGD(lr=1.0), 4, 3, clip_norm=1.0).fit(X, y)
    np.testing.assert_array_equal(model.parameters, start)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", True])
def test_bad_limits(value):
    with pytest.raises(fastdl.InputError, match=r"clip_norm: expected the gradient's largest norm"):
        fastdl.Trainer(fastdl.MLP([2, 2]), clip_norm=value)
