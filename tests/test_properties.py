"""Properties that hold for any input, over inputs that hypothesis invents."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checking import DTYPES, Arena, assert_close, eps, tiny
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastdl
import fastdl_kernels as fk

pytestmark = pytest.mark.usefixtures("one_thread")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
sizes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)
seeds = st.integers(0, 2**32 - 1)


def matrices(low, high):
    """float64 matrices of numbers that float32 has, too."""
    numbers = st.floats(low, high, width=32, allow_subnormal=False)
    return sizes.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=numbers))


def softmax(logits, dtype, name="softmax"):
    arena = Arena(dtype)
    out = arena.output(*logits.shape)
    getattr(fk, name)(arena.input(logits), out)
    arena.check()
    return out


def loss_and_gradient(name, logits, targets, dtype):
    gradient = np.full(logits.shape, np.nan, dtype)
    targets = targets if targets.dtype.kind == "i" else targets.astype(dtype)
    return getattr(fk, name)(logits.astype(dtype), targets, gradient), gradient


@every_dtype
@given(logits=matrices(-1e4, 1e4))
def test_softmax_is_a_distribution(dtype, logits):
    p = softmax(logits, dtype)
    assert (p >= 0).all()
    assert_close(p.sum(axis=1, dtype=np.float64), np.ones(len(p)), 4 * eps(dtype) * np.sqrt(p.shape[1]))
    assert (p.max(axis=1) >= 1 / p.shape[1] * (1 - 1e-5)).all()


@every_dtype
@given(logits=matrices(-64, 64), shift=st.integers(-64, 64))
def test_softmax_does_not_see_a_shift(dtype, logits, shift):
    """softmax(z + c) = softmax(z). With multiples of 1/64 the sums are exact, so the tolerance is rounding's alone."""
    logits = np.round(logits * 64) / 64
    np.testing.assert_allclose(
        softmax(logits + shift, dtype), softmax(logits, dtype), rtol=8 * eps(dtype), atol=tiny(dtype)
    )


@every_dtype
@given(logits=matrices(-1e4, 1e4))
def test_log_softmax(dtype, logits):
    """Its exponentials sum to 1, none is above 0, and it is the logarithm of softmax."""
    out = softmax(logits, dtype, "log_softmax").astype(np.float64)
    scale = 4 * eps(dtype) * (np.abs(logits).max() + np.sqrt(logits.shape[1]) + 1)
    assert (out <= scale).all()
    assert_close(np.exp(out).sum(axis=1), np.ones(len(out)), scale)
    p = softmax(logits, dtype)
    likely = p > 1e-30
    assert_close(out[likely], np.log(p[likely].astype(np.float64)), 2 * scale)


@every_dtype
@given(logits=matrices(-1e3, 1e3), seed=seeds)
def test_gradient_rows_sum_to_zero(dtype, logits, seed):
    """What softmax cross-entropy takes from one class it gives to another; B d_logits + onehot is a distribution."""
    labels = np.random.default_rng(seed).integers(0, logits.shape[1], len(logits))
    loss, gradient = loss_and_gradient("softmax_cross_entropy", logits, labels, dtype)
    assert loss >= 0
    limit = 4 * eps(dtype) * np.sqrt(logits.shape[1]) / len(logits)
    assert_close(gradient.sum(axis=1, dtype=np.float64), np.zeros(len(logits)), limit)
    p = gradient * len(logits) + reference.onehot(labels, logits.shape[1])
    assert p.min() >= -2 * eps(dtype)
    assert p.max() <= 1 + 2 * eps(dtype)


@every_dtype
@pytest.mark.parametrize("name", ["softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"])
@given(logits=matrices(-50, 50), seed=seeds)
def test_losses_do_not_see_the_order_of_rows(name, dtype, logits, seed):
    """A permutation of the batch permutes the gradient's rows, to the bit, and leaves the loss, to rounding."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, logits.shape[1], len(logits)) if name[:2] == "so" else rng.random(logits.shape)
    order = rng.permutation(len(logits))
    loss, gradient = loss_and_gradient(name, logits, targets, dtype)
    shuffled_loss, shuffled = loss_and_gradient(name, logits[order], targets[order], dtype)
    np.testing.assert_array_equal(shuffled, gradient[order])
    assert shuffled_loss == pytest.approx(loss, rel=8 * eps(dtype) * np.sqrt(len(logits)))


def layer(rng, n_rows, n_in, n_out, activation):
    x, weight, out, d_out = (
        rng.normal(size=s) for s in ((n_rows, n_in), (n_in, n_out), (n_rows, n_out), (n_rows, n_out))
    )
    return x, weight, reference.source(activation, out, 0.25), d_out


def backward(dtype, x, weight, out, d_out, activation):
    arena = Arena(dtype)
    arrays = [arena.input(a) for a in (x, weight, out, d_out)]
    results = arena.output(*x.shape), arena.output(*weight.shape), arena.output(weight.shape[1])
    fk.linear_backward(*arrays, fk.ACTIVATIONS[activation], 0.25, *results)
    arena.check()
    return results


shapes = {"n_rows": st.integers(1, 40), "n_in": st.integers(1, 40), "n_out": st.integers(1, 40)}


@every_dtype
@given(**shapes, activation=st.sampled_from(list(fk.ACTIVATIONS)), exponent=st.integers(-20, 20), seed=seeds)
def test_backward_is_linear_in_d_out(dtype, n_rows, n_in, n_out, activation, exponent, seed):
    """Twice the gradient in, twice the gradients out: exact for powers of two."""
    x, weight, out, d_out = layer(np.random.default_rng(seed), n_rows, n_in, n_out, activation)
    results = backward(dtype, x, weight, out, d_out, activation)
    scaled = backward(dtype, x, weight, out, d_out.astype(dtype) * 2.0**exponent, activation)
    for a, b in zip(scaled, results, strict=True):
        np.testing.assert_array_equal(a, b * np.asarray(2.0**exponent, dtype))


@every_dtype
@given(**shapes, activation=st.sampled_from(list(fk.ACTIVATIONS)), seed=seeds)
def test_backward_does_not_see_the_order_of_rows(dtype, n_rows, n_in, n_out, activation, seed):
    rng = np.random.default_rng(seed)
    x, weight, out, d_out = layer(rng, n_rows, n_in, n_out, activation)
    order = rng.permutation(n_rows)
    results = backward(dtype, x, weight, out, d_out, activation)
    shuffled = backward(dtype, x[order], weight, out[order], d_out[order], activation)
    limit = 40 * eps(dtype) * np.sqrt(max(n_rows, n_out))
    assert_close(shuffled[0], results[0][order], limit * 10)
    assert_close(shuffled[1], results[1], limit * 10)
    assert_close(shuffled[2], results[2], limit * 10)


@every_dtype
@given(**shapes, activation=st.sampled_from(list(fk.ACTIVATIONS)), seed=seeds)
def test_any_shape_equals_the_oracle(dtype, n_rows, n_in, n_out, activation, seed):
    """Forward and backward of shapes that nobody chose."""
    rng = np.random.default_rng(seed)
    x, weight, out, d_out = (a.astype(dtype) for a in layer(rng, n_rows, n_in, n_out, activation))
    bias = rng.normal(size=n_out).astype(dtype)
    arena = Arena(dtype, offset=seed % 3)
    result = arena.output(n_rows, n_out)
    fk.linear_forward(arena.input(x), arena.input(weight), arena.input(bias), fk.ACTIVATIONS[activation], 0.25, result)
    arena.check()
    assert_close(result, reference.linear_forward(x, weight, bias, activation, 0.25), 40 * eps(dtype) * (n_in + 1))
    want = reference.linear_backward(x, weight, out, d_out, activation, 0.25)
    for a, b, terms in zip(
        backward(dtype, x, weight, out, d_out, activation), want, (n_out, n_rows, n_rows), strict=True
    ):
        assert_close(a, b, 40 * eps(dtype) * (terms + 1))


@every_dtype
@given(X=hnp.arrays(np.float64, (9, 4), elements=st.floats(-1e6, 1e6)), seed=st.integers(0, 1000))
def test_predicted_probabilities(dtype, X, seed):
    """Rows sum to 1, and the predicted class has the largest probability."""
    model = fastdl.MLP([4, 7, 5], "relu", "softmax", seed=seed, dtype=dtype)
    p = model.predict_proba(X)
    assert_close(p.sum(axis=1, dtype=np.float64), np.ones(9), 16 * eps(dtype))
    np.testing.assert_array_equal(p[np.arange(9), model.predict(X)], p.max(axis=1))


@given(layers=st.lists(st.integers(1, 9), min_size=2, max_size=6), seed=st.integers(0, 1000))
def test_views_cover_the_buffer(layers, seed):
    """Packing the views back gives the flat buffer, for any architecture."""
    model = fastdl.MLP(layers, "tanh", "linear", seed=seed)
    packed = [part.ravel() for pair in zip(model.weights, model.biases, strict=True) for part in pair]
    np.testing.assert_array_equal(np.concatenate(packed), model.parameters)
    weights, biases = model.views(np.arange(model.n_parameters))
    assert sum(w.size for w in weights) + sum(b.size for b in biases) == model.n_parameters
