"""Softmax, log-softmax and the three losses against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checking import DTYPES, Arena, assert_close, differences, eps, relative_error, tiny

import fastdl_kernels as fk

SHAPES = [(1, 1), (1, 2), (3, 2), (7, 10), (33, 1), (13, 37), (64, 17), (256, 10), (100, 100), (5, 1000), (2, 100_000)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
aligned_or_not = pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])
LOSSES = {
    "softmax_cross_entropy": reference.softmax_cross_entropy_rows,
    "sigmoid_cross_entropy": reference.sigmoid_cross_entropy_rows,
    "squared_error": reference.squared_error_rows,
}
every_loss = pytest.mark.parametrize("name", LOSSES)
every_softmax = pytest.mark.parametrize("name", ["softmax", "log_softmax"])


def some_targets(rng, name, shape):
    if name == "softmax_cross_entropy":
        return rng.integers(0, shape[1], size=shape[0])
    return rng.random(shape) if name == "sigmoid_cross_entropy" else rng.normal(size=shape)


def run(name, dtype, logits, targets, offset=0):
    """(loss, gradient) of a kernel, through guarded arrays."""
    arena = Arena(dtype, offset)
    labels = {"dtype": "int64"} if name == "softmax_cross_entropy" else {}
    gradient = arena.output(*np.shape(logits))
    loss = getattr(fk, name)(arena.input(logits), arena.input(targets, **labels), gradient)
    arena.check()
    return float(loss), gradient


def run_softmax(name, dtype, logits, offset=0):
    arena = Arena(dtype, offset)
    out = arena.output(*np.shape(logits))
    getattr(fk, name)(arena.input(logits), out)
    arena.check()
    return out


def exponent_error(logits):
    """How many units a probability may be off: its exponent is rounded relative to the distance from the maximum."""
    z = reference.f64(logits)
    return 1 + np.abs(z - z.max(axis=1, keepdims=True)) + np.sqrt(z.shape[1])


@every_softmax
@every_dtype
@every_shape
@aligned_or_not
def test_softmax(rng, name, dtype, shape, offset):
    logits = (rng.normal(size=shape) * 5).astype(dtype)
    out = run_softmax(name, dtype, logits, offset)
    expected = getattr(reference, name)(logits)
    scale = expected if name == "softmax" else np.abs(expected) + np.abs(logits).max()
    assert_close(out, expected, 4 * eps(dtype) * exponent_error(logits) * scale + tiny(dtype))


@every_loss
@every_dtype
@every_shape
@aligned_or_not
def test_loss_and_gradient(rng, name, dtype, shape, offset):
    logits, targets = (rng.normal(size=shape) * 5).astype(dtype), some_targets(rng, name, shape)
    if targets.dtype.kind == "f":
        targets = targets.astype(dtype)
    loss, gradient = run(name, dtype, logits, targets, offset)
    want_loss, want_gradient = reference.mean_loss(LOSSES[name], logits, targets)
    if name == "softmax_cross_entropy":  # p - 1 cancels: the error at the label is relative to 1
        one = reference.onehot(targets, shape[1])
        scale = (reference.softmax(logits) * exponent_error(logits) + one) / shape[0]
    elif name == "sigmoid_cross_entropy":  # s - t cancels
        scale = np.full(shape, 1 / shape[0])
    else:
        scale = 2 * (np.abs(logits) + np.abs(targets)) / (shape[0] * shape[1])
    assert_close(gradient, want_gradient, 4 * eps(dtype) * scale + tiny(dtype), "gradient")
    assert_close(loss, want_loss, 4 * eps(dtype) * np.sqrt(shape[1]) * (np.abs(logits).max() + want_loss), "loss")


@every_loss
@every_dtype
def test_gradient_is_the_derivative_of_the_loss(rng, name, dtype):
    """Central differences of the float64 loss."""
    logits, targets = rng.normal(size=(4, 5)) * 2, some_targets(rng, name, (4, 5))
    scratch = np.empty((4, 5))
    numeric = differences(lambda: getattr(fk, name)(logits, targets, scratch), logits.reshape(-1))
    _, gradient = run(name, dtype, logits, targets)
    if dtype == "float64":
        assert relative_error(gradient.ravel(), numeric) <= 1e-8
    assert_close(gradient.ravel(), numeric, 1e-9 if dtype == "float64" else 1e-6)


@every_loss
@every_dtype
def test_no_rows_cost_nothing(name, dtype):
    """B = 0: the loss is 0.0, not 0/0, and nothing is written."""
    loss, _ = run(name, dtype, np.ones((0, 5)), np.ones(0) if name == "softmax_cross_entropy" else np.ones((0, 5)))
    assert loss == 0.0


@every_softmax
@every_dtype
def test_softmax_of_no_rows(name, dtype):
    assert run_softmax(name, dtype, np.ones((0, 5))).size == 0


@every_loss
@every_dtype
@pytest.mark.parametrize("column", [0, 16, 18])
def test_nan_in_gives_nan_out(rng, name, dtype, column):
    """NaN in one logit: the loss is NaN, and so is the gradient there (for softmax in its whole row), not elsewhere."""
    logits = rng.normal(size=(21, 19))
    logits[4, column] = np.nan
    loss, gradient = run(name, dtype, logits, some_targets(rng, name, logits.shape))
    assert np.isnan(loss)
    expected = np.zeros(logits.shape, bool)
    expected[4, slice(None) if name == "softmax_cross_entropy" else column] = True
    np.testing.assert_array_equal(np.isnan(gradient), expected)


@pytest.mark.parametrize("name", ["sigmoid_cross_entropy", "squared_error"])
@every_dtype
def test_nan_in_targets(rng, name, dtype):
    targets = rng.random((5, 7))
    targets[2, 6] = np.nan
    loss, gradient = run(name, dtype, rng.normal(size=(5, 7)), targets)
    assert np.isnan(loss)
    np.testing.assert_array_equal(np.isnan(gradient), np.isnan(targets))


@every_softmax
@every_dtype
@pytest.mark.parametrize("column", [0, 18])
def test_nan_in_gives_nan_out_softmax(rng, name, dtype, column):
    logits = rng.normal(size=(21, 19))
    logits[4, column] = np.nan
    out = run_softmax(name, dtype, logits)
    np.testing.assert_array_equal(np.isnan(out).all(axis=1), np.arange(21) == 4)
    np.testing.assert_array_equal(np.isnan(out).any(axis=1), np.arange(21) == 4)


@every_dtype
def test_softmax_of_huge_logits(dtype):
    """The maximum is subtracted first: nothing overflows, and a class of -inf has probability 0."""
    logits = [[1e30, 0.0, -1e30], [-1e30, -1e30, -1e30], [0.0, -np.inf, 0.0], [1000.0, 1000.0, -1000.0]]
    half = [0.5, 0.0, 0.5]
    assert_close(run_softmax("softmax", dtype, logits), [[1, 0, 0], [1 / 3] * 3, half, [0.5, 0.5, 0]], 4 * eps(dtype))
    logs = run_softmax("log_softmax", dtype, logits)
    third, log2 = -np.log(3.0), np.log(2.0)
    # Near 1e30 and 1e3 the logarithm is below the spacing of the numbers, unless it is taken after the subtraction.
    assert_close(logs[0], [0.0, -1e30, -2e30], 4 * eps(dtype) * 2e30)
    assert_close(logs[1], [third] * 3, 4 * eps(dtype) * 1e30)
    assert_close(logs[2], [-log2, -np.inf, -log2], 4 * eps(dtype))
    assert_close(logs[3], [-log2, -log2, -2000 - log2], 4 * eps(dtype) * 2000)


@every_dtype
def test_cross_entropy_of_huge_logits(dtype):
    loss, gradient = run("softmax_cross_entropy", dtype, [[1e30, -1e30], [0.0, -np.inf]], [0, 0])
    assert loss == 0.0
    assert not gradient.any()
    loss, gradient = run("softmax_cross_entropy", dtype, [[1e30, 0.0]], [1])
    assert_close(loss, 1e30, 4 * eps(dtype) * 1e30)
    assert_close(gradient, [[1.0, -1.0]], 0.0)


@every_dtype
def test_sigmoid_cross_entropy_of_huge_logits(dtype):
    loss, gradient = run("sigmoid_cross_entropy", dtype, [[1e30, -1e30, 800.0]], [[1.0, 0.0, 0.0]])
    assert_close(loss, 800.0, 4 * eps(dtype) * 800)
    assert_close(gradient, [[0.0, 0.0, 1.0]], 0.0)
    _, gradient = run("sigmoid_cross_entropy", dtype, [[np.inf, -np.inf]], [[0.0, 1.0]])
    assert_close(gradient, [[1.0, -1.0]], 0.0)


@every_dtype
@pytest.mark.parametrize("z", [20.0, 40.0, 80.0])
def test_sigmoid_cross_entropy_keeps_small_losses(dtype, z):
    """softplus(-z) of a well-learned label: log1p, not log(1 + e), and no sum with z in between, keep its digits."""
    loss, _ = run("sigmoid_cross_entropy", dtype, [[z]], [[1.0]])
    assert loss == pytest.approx(np.log1p(np.exp(-z)), rel=40 * z * eps(dtype), abs=0.0)


def test_means_and_sums():
    """Hand-worked: cross-entropies are means over rows of (the sum over labels); squared error is a mean over both."""
    zeros, log2 = np.zeros((2, 4)), np.log(2.0)
    loss, gradient = run("sigmoid_cross_entropy", "float64", zeros, [[0, 0, 1, 1]] * 2)
    assert loss == pytest.approx(4 * log2, rel=1e-15)
    np.testing.assert_array_equal(gradient, [[0.25, 0.25, -0.25, -0.25]] * 2)
    loss, gradient = run("softmax_cross_entropy", "float64", zeros, [1, 3])
    assert loss == pytest.approx(2 * log2, rel=1e-15)
    np.testing.assert_array_equal(gradient, [[0.125, -0.375, 0.125, 0.125], [0.125, 0.125, 0.125, -0.375]])
    loss, gradient = run("squared_error", "float64", [[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [3.0, 8.0]])
    assert loss == (1 + 4 + 0 + 16) / 4
    np.testing.assert_array_equal(gradient, [[0.5, 1.0], [0.0, -2.0]])
