"""Every loss of the registry: value and gradient against the oracle, smoothing, weights of rows, degenerate cases."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checking import DTYPES, Arena, assert_close, differences, eps, relative_error, tiny

import fastdl_kernels as fk
from fastdl_kernels.loss_rows import SPECS
from fastdl_kernels.serial import LOSS_BODIES, entry, loss_rows, mean_over_elements
from fastdl_kernels.simd import null, pointer

# name -> (the public kernel, the oracle)
KERNELS = {
    "squared_error": ("squared_error", reference.squared_error_rows),
    "sigmoid_cross_entropy": ("sigmoid_cross_entropy", reference.sigmoid_cross_entropy_rows),
    "softmax_cross_entropy": ("softmax_cross_entropy", reference.softmax_cross_entropy_rows),
    "huber": ("huber_loss", reference.huber_rows),
    "absolute_error": ("absolute_error", reference.absolute_error_rows),
    "quantile": ("quantile_loss", reference.quantile_rows),
    "poisson": ("poisson_loss", reference.poisson_rows),
}
SHAPES = [(1, 1), (7, 10), (33, 1), (13, 37), (64, 17), (2500, 3), (100, 100), (5, 1000)]
every_loss = pytest.mark.parametrize("name", SPECS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))


def problem(rng, name, shape, dtype="float64"):
    """(outputs, targets, parameters as the oracle takes them)."""
    spec = SPECS[name]
    outputs = (rng.normal(size=shape) * 2).astype(dtype)
    targets = {
        "classes": lambda: rng.integers(0, shape[1], shape[0]),
        "labels": lambda: rng.random(shape).astype(dtype),
        "numbers": lambda: (rng.normal(size=shape) * 2).astype(dtype),
        "counts": lambda: rng.poisson(1.0, shape).astype(dtype),
    }[spec.targets]()
    if spec.parameter is None:
        return outputs, targets, []
    if spec.parameter.per_output:
        return outputs, targets, [rng.uniform(0.05, 0.95, shape[1]).astype(dtype)]
    return outputs, targets, [0.3125]


def run(name, outputs, targets, parameters, offset=0):
    """(loss, gradient) of the public kernel, through guarded arrays."""
    arena = Arena(outputs.dtype, offset)
    gradient = arena.output(*outputs.shape)
    arrays = [arena.input(outputs), arena.input(targets, targets.dtype)]
    given = [arena.input(p) if isinstance(p, np.ndarray) else p for p in parameters]
    kernel = getattr(fk, KERNELS[name][0])
    loss = kernel(*arrays, gradient, *given) if "cross_entropy" in name else kernel(*arrays, *given, gradient)
    arena.check()
    return float(loss), gradient


def test_every_loss_has_a_kernel_and_an_oracle():
    assert list(KERNELS) == list(SPECS)
    assert [spec.code for spec in SPECS.values()] == list(range(len(LOSS_BODIES)))


@every_loss
@every_dtype
@every_shape
@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])
def test_loss_and_gradient(rng, name, dtype, shape, offset):
    outputs, targets, parameters = problem(rng, name, shape, dtype)
    loss, gradient = run(name, outputs, targets, parameters, offset)
    want_loss, want = reference.mean_loss(KERNELS[name][1], outputs, targets, *parameters)
    divisor = shape[0] * (shape[1] if SPECS[name].mean_over == "elements" else 1)
    largest = np.abs(outputs).max() + (0 if targets.dtype.kind == "i" else np.abs(targets).max())
    rate = np.exp(reference.f64(outputs)) if name == "poisson" else 0.0
    assert_close(gradient, want, 8 * eps(dtype) * (largest + rate + 1) / divisor + tiny(dtype), "gradient")
    size = max(want_loss, 1) * (np.exp(largest) if name == "poisson" else largest)
    assert_close(loss, want_loss, 8 * eps(dtype) * np.sqrt(shape[1]) * (size + 1), "loss")


@every_loss
def test_gradient_is_the_derivative_of_the_loss(rng, name):
    """Central differences of the float64 loss, away from kinks."""
    outputs, targets, parameters = problem(rng, name, (4, 5))
    if SPECS[name].targets == "numbers":
        kinks = [0.0, *([-0.3125, 0.3125] if name == "huber" else [])]
        outputs = targets + rng.choice([-1.0, 1.0], outputs.shape) * (0.02 + rng.random(outputs.shape))
        assert all(np.abs(outputs - targets - kink).min() > 1e-3 for kink in kinks)
    numeric = differences(lambda: run(name, outputs, targets, parameters)[0], outputs.reshape(-1))
    _, gradient = run(name, outputs, targets, parameters)
    assert relative_error(gradient.ravel(), numeric) <= 1e-8


@entry
def rows_of(loss, outputs, labels, targets, weights, weighted, parameters, given, scale, d_outputs):
    """The serial body over all rows, as an engine calls it; without `weighted` or `given`, with null pointers."""
    n_rows, n = outputs.shape
    w = pointer(weights, 0) if weighted else null(scale)
    p = pointer(parameters, 0) if given else null(scale)
    return loss_rows(
        loss,
        pointer(outputs, 0),
        pointer(labels, 0),
        pointer(targets, 0),
        w,
        p,
        0,
        n_rows,
        n,
        scale,
        pointer(d_outputs, 0),
    )


def body(name, outputs, targets, parameters=None, weights=None, scale=1.0, code=None):
    classes = targets.dtype.kind == "i"
    labels, numbers = (targets, np.zeros((1, 1))) if classes else (np.zeros(1, np.int64), targets)
    gradient = np.full_like(outputs, np.nan)
    loss = rows_of(
        SPECS[name].code if code is None else code, outputs, labels, numbers.astype(outputs.dtype),
        np.zeros(1, outputs.dtype) if weights is None else weights.astype(outputs.dtype), weights is not None,
        np.zeros(1, outputs.dtype) if parameters is None else np.atleast_1d(parameters).astype(outputs.dtype),
        parameters is not None, outputs.dtype.type(scale), gradient,
    )  # fmt: skip
    return loss, gradient


@every_loss
@every_dtype
@pytest.mark.parametrize("shape", [(9, 4), (21, 19), (6, 70)], ids=str)
def test_weights_of_rows(rng, name, dtype, shape):
    """A weighted sum over rows, and each row's gradient times its weight."""
    outputs, targets, parameters = problem(rng, name, shape, dtype)
    weights = rng.uniform(0.0, 2.0, shape[0]) * (np.arange(shape[0]) % 3 > 0)
    loss, gradient = body(name, outputs, targets, *parameters, weights=weights.astype(dtype))
    want, d = KERNELS[name][1](outputs, targets, *parameters)
    terms = shape[1] if SPECS[name].mean_over == "elements" else 1
    rate = np.exp(reference.f64(outputs).max()) if name == "poisson" else 1
    assert_close(gradient, d * terms * weights[:, None], 32 * eps(dtype) * rate * (1 + np.abs(outputs).max()))
    assert_close(loss, (want * terms * weights).sum(), 200 * eps(dtype) * rate * shape[0] * shape[1])


@every_loss
@every_dtype
def test_null_parameters_are_the_default_ones(rng, name, dtype):
    outputs, targets, _ = problem(rng, name, (8, 5), dtype)
    parameter = SPECS[name].parameter
    default = None if parameter is None else np.full(5 if parameter.per_output else 1, parameter.default, dtype)
    loss, gradient = body(name, outputs, targets)
    again, same = body(name, outputs, targets, default)
    assert loss == again
    np.testing.assert_array_equal(gradient, same)


@pytest.mark.parametrize("code", [-1, len(SPECS), 1 << 40])
def test_a_code_that_there_is_not_gives_nan(rng, code):
    outputs, targets, _ = problem(rng, "squared_error", (3, 2))
    assert np.isnan(body("squared_error", outputs, targets, code=code)[0])


def test_means():
    over_elements = entry(lambda code: mean_over_elements(code))
    for spec in SPECS.values():
        assert over_elements(spec.code) == (spec.mean_over == "elements")


@every_dtype
def test_one_quantile_for_all_outputs_and_one_for_each(rng, dtype):
    """The same terms in other blocks: the same gradient to the bit, the same loss to rounding."""
    outputs, targets, _ = problem(rng, "quantile", (37, 5), dtype)
    q = np.full(5, 0.3, dtype)
    loss, gradient = run("quantile", outputs, targets, [q])
    for j in range(5):
        other = q.copy()
        other[j] = 0.9
        _, changed = run("quantile", outputs, targets, [other])
        np.testing.assert_array_equal(np.delete(changed, j, axis=1), np.delete(gradient, j, axis=1))
        assert (changed[:, j] != gradient[:, j]).all()
    assert loss == pytest.approx(reference.quantile_rows(outputs, targets, q)[0].mean(), rel=16 * eps(dtype))


@every_dtype
@pytest.mark.parametrize("name", ["absolute_error", "quantile", "huber", "squared_error"])
def test_no_error_no_loss(rng, name, dtype):
    """Where outputs equal targets, loss and gradient are 0."""
    outputs, _, parameters = problem(rng, name, (9, 7), dtype)
    loss, gradient = run(name, outputs, outputs.copy(), parameters)
    assert loss == 0.0
    assert not gradient.any()


@every_dtype
def test_huber_is_half_of_the_squared_error_and_far_out_delta_times_the_absolute_error(rng, dtype):
    outputs, targets, _ = problem(rng, "huber", (9, 7), dtype)
    loss, gradient = run("huber", outputs, targets, [1e6])
    square, d_square = run("squared_error", outputs, targets, [])
    assert loss == pytest.approx(square / 2, rel=4 * eps(dtype))
    np.testing.assert_allclose(gradient, d_square / 2, rtol=4 * eps(dtype))
    loss, gradient = run("huber", outputs, targets, [1e-6])
    absolute, d_absolute = run("absolute_error", outputs, targets, [])
    assert loss == pytest.approx(1e-6 * absolute, rel=1e-4)
    np.testing.assert_allclose(gradient, 1e-6 * d_absolute, rtol=4 * eps(dtype))


@every_dtype
@pytest.mark.parametrize("z", [90.0, 800.0, 1e30])
def test_poisson_of_huge_rates_stays_finite(dtype, z):
    loss, gradient = run("poisson", np.full((3, 3), z, dtype), np.full((3, 3), 2.0, dtype), [])
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    assert loss > 1e30
    assert (gradient > 0).all()


@every_dtype
def test_poisson_at_its_minimum(dtype):
    """z = log t: no loss, no gradient; t = 0 leaves the rate."""
    t = np.array([[0.5, 1.0, 3.0, 20.0]], dtype)
    loss, gradient = run("poisson", np.log(t), t, [])
    assert abs(loss) <= 40 * eps(dtype)
    assert_close(gradient, np.zeros((1, 4)), 40 * eps(dtype))
    loss, gradient = run("poisson", np.array([[-2.0]], dtype), np.zeros((1, 1), dtype), [])
    assert loss == pytest.approx(np.exp(-2), rel=4 * eps(dtype))
    assert gradient[0, 0] == pytest.approx(np.exp(-2), rel=4 * eps(dtype))


@every_dtype
@pytest.mark.parametrize("n", [3, 40])
def test_smoothed_gradients_sum_to_zero_and_vanish_at_the_smoothed_label(rng, dtype, n):
    logits, labels = rng.normal(size=(9, n)).astype(dtype), rng.integers(0, n, 9)
    _, gradient = run("softmax_cross_entropy", logits, labels, [0.25])
    assert_close(gradient.sum(axis=1, dtype=np.float64), np.zeros(9), 4 * eps(dtype))
    wanted = 0.75 * reference.onehot(labels, n) + 0.25 / n
    _, gradient = run("softmax_cross_entropy", np.log(wanted).astype(dtype), labels, [0.25])
    assert_close(gradient, np.zeros((9, n)), 8 * eps(dtype))
