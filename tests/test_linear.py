"""linear_forward and linear_backward against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checking import DTYPES, Arena, assert_close, differences, eps, relative_error, tiny

from fastdl_kernels import ACTIVATIONS, IDENTITY, RELU, linear_backward, linear_forward, linear_forward_keep
from fastdl_kernels.activations import SPECS

ALPHA = 0.125
SHAPES = [  # (B, I, O)
    (0, 5, 3),
    (1, 1, 1),
    (1, 64, 64),
    (2, 3, 1),
    (5, 3, 1),
    (7, 30, 17),
    (13, 37, 29),
    (15, 8, 33),
    (16, 16, 16),
    (28, 31, 32),
    (29, 33, 31),
    (32, 8, 32),
    (64, 128, 10),
    (97, 2, 65),
    (100, 100, 100),
    (128, 784, 40),
    (3, 1025, 5),
    (70, 600, 300),
    # Several blocks of the depth, and one row more than tiles of 4.
    (5, 1600, 7),
    # Rows of W a large power of two apart, and tiles that prepare the next panel, with steps left over.
    (70, 133, 1024),
]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
aligned_or_not = pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])


def forward(arena, x, weight, bias, activation, alpha=ALPHA):
    """The kernel's output for values of any dtype, through guarded arrays."""
    x, weight, bias = arena.input(x), arena.input(weight), arena.input(bias)
    out = arena.output(len(x), weight.shape[1])
    linear_forward(x, weight, bias, ACTIVATIONS[activation], alpha, out)
    arena.check()
    return out


def forward_keep(arena, x, weight, bias, activation, alpha=ALPHA):
    """(z, out) of the kernel that keeps z, through guarded arrays."""
    x, weight, bias = arena.input(x), arena.input(weight), arena.input(bias)
    z, out = arena.output(len(x), weight.shape[1]), arena.output(len(x), weight.shape[1])
    linear_forward_keep(x, weight, bias, ACTIVATIONS[activation], alpha, z, out)
    arena.check()
    return z, out


def backward(arena, x, weight, out, d_out, activation, alpha=ALPHA, with_d_x=True):
    """(d_x, d_weight, d_bias) of the kernel, through guarded arrays."""
    x, weight, out, d_out = arena.input(x), arena.input(weight), arena.input(out), arena.input(d_out)
    outputs = (
        arena.output(len(x) if with_d_x else 0, x.shape[1]),
        arena.output(*weight.shape),
        arena.output(weight.shape[1]),
    )
    linear_backward(x, weight, out, d_out, ACTIVATIONS[activation], alpha, *outputs)
    arena.check()
    return outputs


def root_sum_squares(a, b):
    """The size of a @ b's elements if their terms had random signs: what rounding errors are relative to."""
    return np.sqrt(reference.f64(a) ** 2 @ reference.f64(b) ** 2)


@every_activation
@every_dtype
@every_shape
@aligned_or_not
def test_forward(rng, shape, dtype, activation, offset):
    n_rows, n_in, n_out = shape
    x, weight, bias = rng.normal(size=(n_rows, n_in)), rng.normal(size=(n_in, n_out)), rng.normal(size=n_out)
    weight /= np.sqrt(n_in)
    x, weight, bias = x.astype(dtype), weight.astype(dtype), bias.astype(dtype)
    out = forward(Arena(dtype, offset), x, weight, bias, activation)
    expected = reference.linear_forward(x, weight, bias, activation, ALPHA)
    scale = reference.STEEPEST[activation] * (root_sum_squares(x, weight) + np.abs(bias))
    assert_close(out, expected, 4 * eps(dtype) * (np.sqrt(n_in) * scale + np.abs(expected)))
    z, beside = forward_keep(Arena(dtype, offset), x, weight, bias, activation)
    np.testing.assert_array_equal(beside, out)
    np.testing.assert_array_equal(z, forward(Arena(dtype, offset), x, weight, bias, "identity"))


@every_activation
@every_dtype
@every_shape
@aligned_or_not
def test_backward(rng, shape, dtype, activation, offset):
    n_rows, n_in, n_out = shape
    x, weight = rng.normal(size=(n_rows, n_in)).astype(dtype), rng.normal(size=(n_in, n_out)).astype(dtype)
    out = reference.source(activation, rng.normal(size=(n_rows, n_out)), ALPHA).astype(dtype)
    d_out = rng.normal(size=(n_rows, n_out)).astype(dtype)
    expected = reference.linear_backward(x, weight, out, d_out, activation, ALPHA)
    d_z = reference.STEEPEST[activation] * np.abs(
        reference.f64(d_out)
    )  # a derivative's rounding error is relative to 1
    scales = root_sum_squares(d_z, weight.T), root_sum_squares(x.T, d_z), np.sqrt((d_z**2).sum(axis=0))
    lengths = n_out, n_rows, n_rows
    results = backward(Arena(dtype, offset), x, weight, out, d_out, activation)
    for what, got, want, scale, length in zip(
        ("d_x", "d_weight", "d_bias"), results, expected, scales, lengths, strict=True
    ):
        assert_close(got, want, 4 * eps(dtype) * np.sqrt(length) * scale, what)


@every_dtype
def test_backward_without_d_x(rng, dtype):
    """d_x with no rows says that nobody needs it: the other two are the same bits."""
    x, weight, out, d_out = (rng.normal(size=s) for s in ((37, 20), (20, 9), (37, 9), (37, 9)))
    full = backward(Arena(dtype), x, weight, out, d_out, "tanh")
    part = backward(Arena(dtype), x, weight, out, d_out, "tanh", with_d_x=False)
    assert part[0].shape == (0, 20)
    np.testing.assert_array_equal(part[1], full[1])
    np.testing.assert_array_equal(part[2], full[2])


@every_dtype
def test_backward_of_no_rows_is_zero(dtype):
    """A sum over no rows is 0, and outputs are overwritten."""
    d_x, d_weight, d_bias = backward(
        Arena(dtype), np.ones((0, 7)), np.ones((7, 19)), np.ones((0, 19)), np.ones((0, 19)), "relu"
    )
    assert d_x.size == 0
    assert not d_weight.any()
    assert not d_bias.any()


@every_dtype
@every_activation
def test_backward_is_the_derivative_of_forward(rng, activation, dtype):
    """Central differences of sum(forward * c), in float64 whatever the dtype under test."""
    sizes = (5, 4), (4, 3), (3,)
    while True:  # away from the kink of the rectifiers
        theta = np.concatenate([rng.normal(size=s).ravel() for s in sizes])
        x, weight, bias = (v.reshape(s) for v, s in zip(np.split(theta, [20, 32]), sizes, strict=True))
        if np.abs(x @ weight + bias).min() > 0.01:
            break
    c = rng.normal(size=(5, 3))
    z64, out64 = np.empty((5, 3)), np.empty((5, 3))

    def value():
        linear_forward_keep(x, weight, bias, ACTIVATIONS[activation], ALPHA, z64, out64)
        return float((out64 * c).sum())

    numeric = differences(value, theta)
    value()
    source = out64 if SPECS[activation].derivative_from == "out" else z64
    d_x, d_weight, d_bias = backward(Arena(dtype), x, weight, source, c, activation)
    analytic = np.concatenate([d_x.ravel(), d_weight.ravel(), d_bias])
    if dtype == "float64":
        assert relative_error(analytic, numeric) <= 1e-8
    assert_close(analytic, numeric, 1e-9 if dtype == "float64" else 1e-5)


EXTREMES = (
    0.0,
    -0.0,
    1e-30,
    -1e-30,
    1.0,
    -1.0,
    80.0,
    -80.0,
    120.0,
    -120.0,
    800.0,
    -800.0,
    1e30,
    -1e30,
    np.inf,
    -np.inf,
)


@every_dtype
@every_activation
def test_saturation(activation, dtype):
    """Any float goes in; values reach their limits, and derivatives are finite and right at both ends."""
    z = np.array(EXTREMES).astype(dtype)
    kept, out = forward_keep(Arena(dtype), z[:, None], np.ones((1, 1)), np.zeros(1), activation)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = reference.VALUES[activation](reference.f64(z), ALPHA)[:, None]
    finite = np.where(np.isfinite(expected), np.abs(expected), 0.0)
    assert_close(out, expected, 4 * eps(dtype) * finite + tiny(dtype))
    source = kept if SPECS[activation].derivative_from == "z" else out
    for i, number in enumerate(reference.f64(z)):
        _, _, d_bias = backward(
            Arena(dtype), np.ones((1, 1)), np.ones((1, 1)), source[i : i + 1], np.ones((1, 1)), activation
        )
        limit = np.clip(number, -1e3, 1e3)
        assert_close(d_bias[0], reference.DERIVATIVES[activation](limit, ALPHA), 4 * eps(dtype), f"at {number}")


@every_dtype
@every_activation
def test_derivatives_over_the_whole_range(activation, dtype):
    """From what the forward pass leaves, within a few roundings of 1."""
    z = np.concatenate([np.linspace(-20, 20, 401), np.geomspace(1e-6, 90, 50), -np.geomspace(1e-6, 90, 50)]).astype(
        dtype
    )
    kept, out = forward_keep(Arena(dtype), z[:, None], np.ones((1, 1)), np.zeros(1), activation)
    source = kept if SPECS[activation].derivative_from == "z" else out
    weight = np.ones((1, len(z)))
    _, d_weight, d_bias = backward(Arena(dtype), np.ones((1, 1)), weight, source.T, weight, activation)
    expected = reference.DERIVATIVES[activation](reference.f64(z), ALPHA)
    if activation in ("relu", "leaky_relu"):
        expected = np.where(z > 0, 1.0, 0.0 if activation == "relu" else ALPHA)
    assert_close(d_bias, expected, 4 * eps(dtype))
    np.testing.assert_array_equal(d_weight[0], d_bias)


@every_dtype
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_accuracy_of_saturating_activations(activation, dtype):
    """4 units in the last place over the whole range: x * 1 + 0 is exact, so only the activation rounds."""
    z = np.concatenate([np.linspace(-20, 20, 4001), np.geomspace(1e-6, 90, 500), -np.geomspace(1e-6, 90, 500)]).astype(
        dtype
    )
    out = forward(Arena(dtype), z[:, None], np.ones((1, 1)), np.zeros(1), activation)
    expected = reference.VALUES[activation](z.astype(np.longdouble), ALPHA)[:, None].astype(np.float64)
    assert_close(out, expected, 4 * eps(dtype) * np.abs(expected) + tiny(dtype))


@every_dtype
@every_activation
@pytest.mark.parametrize("where", ["x", "weight", "bias"])
def test_nan_in_gives_nan_out_forward(rng, activation, dtype, where):
    """A NaN reaches every output that depends on it, through ReLU too, and no other."""
    arrays = {"x": rng.normal(size=(19, 21)), "weight": rng.normal(size=(21, 35)), "bias": rng.normal(size=35)}
    arrays[where][(2,) * arrays[where].ndim] = np.nan
    out = forward(Arena(dtype), *arrays.values(), activation)
    expected = np.zeros((19, 35), bool)
    expected[(2,) if where == "x" else (slice(None), 2)] = True
    np.testing.assert_array_equal(np.isnan(out), expected)


@every_dtype
@every_activation
@pytest.mark.parametrize("where", ["x", "weight", "out", "d_out"])
def test_nan_in_gives_nan_out_backward(rng, activation, dtype, where):
    if activation == "identity" and where == "out":
        return  # its derivative is 1: a kernel need not read `out`
    arrays = {"x": rng.normal(size=(19, 21)), "weight": rng.normal(size=(21, 35))}
    arrays["out"] = reference.source(activation, rng.normal(size=(19, 35)), ALPHA) + 1e-3
    arrays["d_out"] = rng.normal(size=(19, 35))
    arrays[where][2, 3] = np.nan
    results = backward(Arena(dtype), *arrays.values(), activation)
    expected = reference.linear_backward(*arrays.values(), activation, ALPHA)
    for what, got, want in zip(("d_x", "d_weight", "d_bias"), results, expected, strict=True):
        if where == "x" and what == "d_weight":  # x[2, 3] is a term of row 3
            np.testing.assert_array_equal(np.isnan(got).any(axis=1), np.arange(21) == 3)
        else:
            np.testing.assert_array_equal(np.isnan(got), np.isnan(want), what)


@every_dtype
@every_activation
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_forward(rng, activation, dtype, value):
    """An infinite input gives what the formula gives: ReLU of -inf is 0, and other rows are not touched."""
    x, weight, bias = rng.normal(size=(19, 21)), rng.normal(size=(21, 35)), rng.normal(size=35)
    x[4, 20] = value
    out = forward(Arena(dtype), x, weight, bias, activation)
    expected = reference.linear_forward(x, weight, bias, activation, ALPHA)
    scale = np.where(np.isfinite(expected), 20.0, 0.0)
    assert_close(out, expected, 16 * eps(dtype) * scale)


@every_dtype
@pytest.mark.parametrize("activation", ["identity", "relu", "leaky_relu"])
def test_infinite_output_has_a_derivative(dtype, activation):
    """out = inf lies on the straight part: its derivative is 1."""
    d_x, d_weight, d_bias = backward(Arena(dtype), [[2.0]], [[3.0]], [[np.inf]], [[5.0]], activation)
    assert (d_x.item(), d_weight.item(), d_bias.item()) == (15.0, 10.0, 5.0)


def test_relu_derivative_at_zero_is_zero():
    d_x, d_weight, d_bias = backward(Arena("float64"), [[2.0]], [[3.0]], [[0.0]], [[5.0]], "relu")
    assert (d_x.item(), d_weight.item(), d_bias.item()) == (0.0, 0.0, 0.0)


def test_alpha_is_read_by_those_that_have_one():
    for name in ACTIVATIONS:
        outs = [forward(Arena("float64"), [[-2.0]], [[1.0]], [0.5], name, alpha).item() for alpha in (0.0, 0.5)]
        assert (outs[0] != outs[1]) == (SPECS[name].alpha is not None), name
    assert forward(Arena("float64"), [[-2.0]], [[1.0]], [0.5], "leaky_relu", 0.5).item() == -0.75


def test_hand_worked_layer():
    """x = [1, 2], W = [[1, -1], [2, -3]], b = [0.5, 0.25]: z = [5.5, -6.75]; ReLU keeps the first alone."""
    x, weight, bias = np.array([[1.0, 2.0]]), np.array([[1.0, -1.0], [2.0, -3.0]]), np.array([0.5, 0.25])
    out, d_x, d_weight, d_bias = np.empty((1, 2)), np.empty((1, 2)), np.empty((2, 2)), np.empty(2)
    linear_forward(x, weight, bias, IDENTITY, 0.0, out)
    np.testing.assert_array_equal(out, [[5.5, -6.75]])
    linear_forward(x, weight, bias, RELU, 0.0, out)
    np.testing.assert_array_equal(out, [[5.5, 0.0]])
    linear_backward(x, weight, out, np.array([[10.0, 100.0]]), RELU, 0.0, d_x, d_weight, d_bias)
    np.testing.assert_array_equal(d_x, [[10.0, 20.0]])
    np.testing.assert_array_equal(d_weight, [[10.0, 0.0], [20.0, 0.0]])
    np.testing.assert_array_equal(d_bias, [10.0, 0.0])
