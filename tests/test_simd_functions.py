"""exp, log, tanh, sigmoid, cospi and sinpi of fastdl_kernels.simd, and the curved activations: errors in units of the last
place, and the special values."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from checking import DTYPES

from fastdl_bench.ulp import ACTIVATIONS, FUNCTIONS, finite_numbers, ulp_error
from fastdl_kernels import simd
from fastdl_kernels.activations import SPECS as ACTIVATION_SPECS

LIMITS = {"exp": 1.0, "log": 1.0, "tanh": 2.0, "sigmoid": 2.0} | dict.fromkeys(ACTIVATIONS, 4.0)
SMALL_LIMIT = 1e-7  # of results below 0.001 |z|: the absolute error / |z|
every_function = pytest.mark.parametrize("name", FUNCTIONS)
every_curve = pytest.mark.parametrize("name", FUNCTIONS | ACTIVATIONS)


def loop_over(function):
    """Apply a function of one vector to an array of any length."""

    @numba.njit
    def apply(x, out):
        lanes = simd.lanes_of(x)
        for i in range(0, x.size, lanes):
            simd.store_up_to(out, i, function(simd.load_up_to(x, i, x.size - i)), x.size - i)

    def checked(x):
        out = np.empty_like(x)
        apply(x, out)
        return out

    return checked


APPLY = {name: loop_over(getattr(simd, name)) for name in FUNCTIONS}


def exact_sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


EXACT = {"exp": np.exp, "log": np.log, "tanh": np.tanh, "sigmoid": exact_sigmoid}


def check_float32(name, x):
    worst = (FUNCTIONS | ACTIVATIONS)[name](x)
    assert worst.ulp <= LIMITS[name], worst.at
    assert worst.small <= SMALL_LIMIT, worst.small_at


def test_every_curve_is_measured():
    curved = {name for name, spec in ACTIVATION_SPECS.items() if not spec.rectifier}
    assert curved == set(ACTIVATIONS) | {"tanh", "sigmoid"}


@every_curve
def test_float32_over_all_magnitudes(name):
    """Two million bit patterns, evenly spread over all finite numbers; `python -m fastdl_bench.ulp` looks at every one."""
    check_float32(name, finite_numbers(1021, 1 << 32, 2039))


@every_curve
def test_float32_where_it_is_hard(name):
    """Around the points where a formula changes, where results become subnormal or infinite, and where they are 0."""
    formulas = [1, 0.625, 2**0.5, 0.5**0.5, np.log(2) / 2, 1.5 * np.log(2), 2.8, 3.05, 4.5, 14, 60]
    points = [0, 2.0**-126, 9.01, 16.6, 87.34, 88.72, 103.97, *formulas]
    bits = np.array(points, np.float32).view(np.int32)[:, None] + np.arange(-2000, 2000, dtype=np.int32)
    near = np.abs(bits).astype(np.int32).view(np.float32).ravel()
    check_float32(name, np.concatenate([near, -near]))


@every_function
def test_float64(rng, name):
    """Against extended precision where this machine has it; otherwise the oracle is half a unit off itself."""
    powers = np.exp2(rng.uniform(-1070, 1023.9, 20_000))
    x = np.concatenate([rng.uniform(-750, 750, 50_000), rng.uniform(-2, 2, 50_000), powers, -powers])
    x = np.abs(x) if name == "log" else x
    got = APPLY[name](x)
    with np.errstate(over="ignore", under="ignore"):
        exact = EXACT[name](x.astype(np.longdouble))
        rounded = exact.astype(np.float64)
    np.testing.assert_array_equal(np.isinf(got), np.isinf(rounded))
    finite = np.isfinite(rounded)
    errors = np.abs(got[finite] - exact[finite]) / np.spacing(np.abs(rounded[finite]))
    extended = np.finfo(np.longdouble).nmant > 52
    assert errors.max() <= LIMITS[name] + (0 if extended else 1), x[finite][errors.argmax()]


SPECIAL = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (np.inf, np.inf), (-np.inf, 0.0), ("max", np.inf), ("-max", 0.0)],
    "log": [(1.0, 0.0), (0.0, -np.inf), (-0.0, -np.inf), (np.inf, np.inf), (-1.0, np.nan), (-np.inf, np.nan),
            ("-max", np.nan), ("-least", np.nan)],
    "tanh": [(0.0, 0.0), (-0.0, 0.0), (np.inf, 1.0), (-np.inf, -1.0), ("max", 1.0), ("-max", -1.0), (30.0, 1.0)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (np.inf, 1.0), (-np.inf, 0.0), ("max", 1.0), ("-max", 0.0), (60.0, 1.0)],
}  # fmt: skip


@every_function
@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(name, dtype):
    info = np.finfo(dtype)
    words = {"max": info.max, "-max": -info.max, "-least": -info.smallest_subnormal}
    x = np.array([words.get(value, value) for value, _ in SPECIAL[name]], dtype)
    np.testing.assert_array_equal(APPLY[name](x), np.array([want for _, want in SPECIAL[name]], dtype))


@every_function
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_nan_and_stays_alone(name, dtype):
    """In each lane, whatever its sign and payload, without a trace in the other lanes."""
    for place in range(simd.lanes(dtype)):
        x = np.full(simd.lanes(dtype), 0.75, dtype)
        clean = APPLY[name](x)
        for nan in (np.nan, -np.nan):
            x[place] = nan
            out = APPLY[name](x)
            assert np.isnan(out[place])
            np.testing.assert_array_equal(np.delete(out, place), np.delete(clean, place))


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_numbers(dtype):
    """Arguments and results: log of the least number, exp just above where it becomes 0."""
    info = np.finfo(dtype)
    x = np.array([info.smallest_subnormal, 3 * info.smallest_subnormal, info.tiny / 2], dtype)
    np.testing.assert_allclose(APPLY["log"](x), np.log(x.astype(np.longdouble)).astype(dtype), rtol=2 * info.eps)
    np.testing.assert_array_equal(APPLY["tanh"](x), x)
    deep = np.array([np.log(info.tiny) - 5], dtype)
    got, want = APPLY["exp"](deep)[0], np.exp(deep.astype(np.longdouble))[0]
    assert 0 < got < info.tiny
    assert abs(got - want) <= info.smallest_subnormal


def test_the_measure_of_errors():
    """One number beside the exact one is 1 ULP off, at any magnitude; a lost NaN or infinity is far off."""
    for value in (1.0, 1.5, -0.75, 3e38, 1e-38, 1e-44):
        x = np.float32(value)
        assert ulp_error(x, float(x)) == 0
        assert ulp_error(np.nextafter(x, np.float32(np.sign(x) * np.inf)), float(x)) == 1
    assert ulp_error(np.float32(np.inf), 3.5e38) == 0
    assert ulp_error(np.float32(np.inf), 3.4e38) > 2
    assert ulp_error(np.float32(np.nan), 1.0) == ulp_error(np.float32(1), np.nan) == np.inf


@every_function
def test_outside_of_compiled_code(name):
    with pytest.raises(TypeError, match=f"fastdl_kernels.simd.{name} works inside @njit code only"):
        getattr(simd, name)(np.ones(16))


@pytest.mark.parametrize("name", ["cospi", "sinpi"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_cospi_and_sinpi(rng, name, dtype):
    """Within 4 units in the last place of the exact value of a number reduced exactly, also where the result is near 0."""
    apply = loop_over(getattr(simd, name))
    near = (rng.integers(-40, 40, 20_000) / 2 + np.exp2(rng.uniform(-40, -2, 20_000))).astype(dtype)
    x = np.concatenate([rng.uniform(-2, 2, 20_000), rng.uniform(-1e4, 1e4, 20_000), near, -near]).astype(dtype)
    long = x.astype(np.longdouble)
    quarter = np.round(2 * long)
    rest = np.longdouble("3.14159265358979323846264338327950288") * (long - quarter / 2)
    turns = quarter.astype(int) + (1 if name == "cospi" else 0)
    exact = np.choose(turns % 4, [np.sin(rest), np.cos(rest), -np.sin(rest), -np.cos(rest)])
    got = apply(x)
    unit = np.maximum(np.spacing(np.abs(exact.astype(dtype))), np.finfo(dtype).tiny)
    assert (np.abs(got - exact) <= 4 * unit).all()
    whole = np.array([0, 1, 2, -3, 2.0**30, -(2.0**40)], dtype)
    np.testing.assert_array_equal(np.abs(apply(whole)), 1.0 if name == "cospi" else 0.0)
    assert np.isnan(apply(np.array([np.nan, np.inf, -np.inf], dtype))).all()
