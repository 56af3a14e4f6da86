"""The public kernels from a user's own compiled code, the way an @njit training loop calls them."""

from __future__ import annotations

import shutil

import numba
import numpy as np
import pytest
import reference
from checking import DTYPES, assert_close, eps
from processes import KERNELS, program, run

from fastdl_kernels import (
    IDENTITY,
    LEAKY_RELU,
    RELU,
    SIGMOID,
    TANH,
    adam_step,
    adamw_step,
    linear_backward,
    linear_forward,
    log_softmax,
    momentum_step,
    nesterov_step,
    rmsprop_step,
    sgd_step,
    sigmoid_cross_entropy,
    softmax,
    softmax_cross_entropy,
    squared_error,
)


@numba.njit
def train_two_layers(x, labels, w1, b1, w2, b2, steps, lr):
    """Full-batch gradient descent on softmax(tanh(x w1 + b1) w2 + b2); the loss before each step."""
    hidden, d_hidden = np.empty((len(x), w1.shape[1]), x.dtype), np.empty((len(x), w1.shape[1]), x.dtype)
    logits, d_logits = np.empty((len(x), w2.shape[1]), x.dtype), np.empty((len(x), w2.shape[1]), x.dtype)
    d_w1, d_b1, d_w2, d_b2 = np.empty_like(w1), np.empty_like(b1), np.empty_like(w2), np.empty_like(b2)
    d_x = np.empty((0, x.shape[1]), x.dtype)
    losses = np.empty(steps)
    for step in range(steps):
        linear_forward(x, w1, b1, TANH, 0.0, hidden)
        linear_forward(hidden, w2, b2, IDENTITY, 0.0, logits)
        losses[step] = softmax_cross_entropy(logits, labels, d_logits)
        linear_backward(hidden, w2, logits, d_logits, IDENTITY, 0.0, d_hidden, d_w2, d_b2)
        linear_backward(x, w1, hidden, d_hidden, TANH, 0.0, d_x, d_w1, d_b1)
        sgd_step(w1.reshape(-1), d_w1.reshape(-1), lr)
        sgd_step(b1, d_b1, lr)
        sgd_step(w2.reshape(-1), d_w2.reshape(-1), lr)
        sgd_step(b2, d_b2, lr)
    return losses


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_training_loop_in_compiled_code(rng, dtype):
    x, labels = rng.normal(size=(37, 11)).astype(dtype), rng.integers(0, 5, 37)
    w1, w2 = rng.normal(size=(11, 19)).astype(dtype), rng.normal(size=(19, 5)).astype(dtype)
    b1, b2 = np.zeros(19, dtype), np.zeros(5, dtype)
    theta = np.concatenate([w1.ravel(), b1, w2.ravel(), b2]).astype(np.float64)
    want = []
    for _ in range(10):
        loss, g = reference.network_loss_and_gradient([11, 19, 5], [("tanh", 0.0)], "softmax", theta, x, labels)
        want.append(loss)
        theta = theta - 0.5 * g
    losses = train_two_layers(x, labels, w1, b1, w2, b2, 10, 0.5)
    assert_close(losses, want, 1000 * eps(dtype), "losses")
    assert_close(np.concatenate([w1.ravel(), b1, w2.ravel(), b2]), theta, 1000 * eps(dtype), "parameters")
    assert losses[-1] < losses[0]


@numba.njit
def all_losses(logits, targets, gradients):
    """Both losses with targets, then softmax and log-softmax, each into its own slice."""
    a = sigmoid_cross_entropy(logits, targets, gradients[0])
    b = squared_error(logits, targets, gradients[1])
    softmax(logits, gradients[2])
    log_softmax(logits, gradients[3])
    return a, b


@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_in_compiled_code(rng, dtype):
    logits, targets = rng.normal(size=(13, 7)).astype(dtype), rng.random((13, 7)).astype(dtype)
    results = np.full((4, 13, 7), np.nan, dtype)
    a, b = all_losses(logits, targets, results)
    want_a, d_a = reference.mean_loss(reference.sigmoid_cross_entropy_rows, logits, targets)
    want_b, d_b = reference.mean_loss(reference.squared_error_rows, logits, targets)
    assert_close([a, b], [want_a, want_b], 100 * eps(dtype))
    want = [d_a, d_b, reference.softmax(logits), reference.log_softmax(logits)]
    assert_close(results, np.array(want), 20 * eps(dtype))


@numba.njit
def all_optimizers(params, grads, states):
    """One step of each optimizer, with the hyper-parameters as literals."""
    sgd_step(params[0], grads, 0.1)
    momentum_step(params[1], grads, states[0], 0.1, 0.9)
    rmsprop_step(params[2], grads, states[1], 0.01, 0.9, 1e-8)
    adam_step(params[3], grads, states[2], states[3], 1, 0.01, 0.9, 0.999, 1e-8)
    nesterov_step(params[4], grads, states[4], 0.1, 0.9)
    adamw_step(params[5], grads, states[5], states[6], 1, 0.01, 0.9, 0.999, 1e-8, 0.1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_optimizers_in_compiled_code(rng, dtype):
    params, grads = np.ones((6, 101), dtype), rng.normal(size=101).astype(dtype)
    all_optimizers(params, grads, np.zeros((7, 101), dtype))
    g, zero, one = grads.astype(np.float64), np.zeros(101), np.ones(101)
    want = [
        reference.sgd(one, g, [], 1, 0.1)[0],
        reference.momentum(one, g, [zero], 1, 0.1, 0.9)[0],
        reference.rmsprop(one, g, [zero], 1, 0.01, 0.9, 1e-8)[0],
        reference.adam(one, g, [zero, zero], 1, 0.01, 0.9, 0.999, 1e-8)[0],
        reference.momentum(one, g, [zero], 1, 0.1, 0.9, nesterov=True)[0],
        reference.adamw(one, g, [zero, zero], 1, 0.01, 0.9, 0.999, 1e-8, 0.1)[0],
    ]
    assert_close(params, np.array(want), 8 * eps(dtype))


@numba.njit
def activation_chosen_at_run_time(x, weight, bias, codes, out):
    """The code of an activation may be a variable, not only a constant."""
    for i in range(len(codes)):
        linear_forward(x, weight, bias, codes[i], 0.25, out[i])


def test_activation_codes_are_plain_integers():
    assert len({IDENTITY, RELU, LEAKY_RELU, SIGMOID, TANH}) == 5
    x, weight, bias = np.array([[-2.0, 0.0]]), np.eye(2), np.zeros(2)
    out = np.empty((5, 1, 2))
    activation_chosen_at_run_time(x, weight, bias, np.array([IDENTITY, RELU, LEAKY_RELU, SIGMOID, TANH]), out)
    want = [[-2, 0], [0, 0], [-0.5, 0], [1 / (1 + np.exp(2)), 0.5], [np.tanh(-2), 0]]
    np.testing.assert_allclose(out[:, 0], want, rtol=1e-14)


def test_a_cached_caller_in_fresh_processes(tmp_path):
    """The user's function is cached too: the process that compiles it and those that load it get the same answer.

    Numba has crashed in the third process, where both the caller and the parallel kernel come from the cache.
    """
    shutil.copy(program("users_loss"), tmp_path / "user.py")
    command = ["-c", "import runpy; runpy.run_module('user', run_name='__main__')"]
    outputs = [float(run(*command, paths=[tmp_path, KERNELS])) for _ in range(3)]
    x, w = np.arange(600.0).reshape(60, 10) % 7, np.arange(90.0).reshape(10, 9) % 5
    want = reference.mean_loss(reference.softmax_cross_entropy_rows, x @ w, np.arange(60) % 9)[0]
    assert outputs == [pytest.approx(want, rel=1e-14)] * 3
