"""fastdl_kernels.simd: memory, arithmetic, masks and modes, lane by lane against NumPy."""

from __future__ import annotations

import operator
import sys
from types import FunctionType

import numba
import numpy as np
import pytest
from checking import DTYPES, Arena
from processes import run_program

from fastdl_kernels import simd
from fastdl_kernels.host import host

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
# NaN, infinities and zeros of both signs against each other, then common numbers.
ODD = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -1.5, 1e30]


def pairs(dtype):
    """Two arrays that pair every odd value with every other, padded to whole vectors."""
    a, b = (grid.ravel().astype(dtype) for grid in np.meshgrid(ODD, ODD))
    return a, b


@numba.njit
def copy(x, i, out, j):
    simd.store(out, j, simd.load(x, i))


@numba.njit
def copy_first(x, i, out, j, n):
    simd.store_first(out, j, simd.load_first(x, i, n), n)


@numba.njit
def copy_up_to(x, i, out, j, n):
    simd.store_up_to(out, j, simd.load_up_to(x, i, n), n)


@numba.njit
def spread_first(x, i, out, n):
    """A full store of a partial load: the other lanes show."""
    simd.store(out, 0, simd.load_first(x, i, n))


@every_dtype
def test_a_vector_has_the_lanes_of_the_host(dtype):
    x = np.zeros(1, dtype)
    assert simd.lanes(dtype) == host().vector_bytes // x.itemsize
    lanes_of = numba.njit(lambda a: simd.lanes_of(a))
    assert lanes_of(x) == lanes_of(x[0]) == simd.lanes(dtype)


@every_dtype
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_load_and_store(rng, dtype, offset):
    """From and to any element, aligned or not; no cell more is written."""
    lanes = simd.lanes(dtype)
    for i, j in [(0, 0), (1, 0), (0, 1), (5, 2)]:
        arena = Arena(dtype, offset)
        x, out = arena.input(rng.normal(size=lanes + 5)), arena.output(lanes)
        whole = arena.members[-1]
        copy(x, i, whole.buffer[j:], whole.inside.start - j)
        arena.check()
        np.testing.assert_array_equal(out, x[i : i + lanes])


@every_dtype
def test_the_first_lanes_only(rng, dtype):
    """n from none to all: what lies beyond is neither read (it is NaN) nor written, and the other lanes are 0."""
    lanes = simd.lanes(dtype)
    for n in range(lanes + 1):
        for function in (copy_first, copy_up_to):
            arena = Arena(dtype, 1)
            x, out = arena.input(rng.normal(size=n)), arena.output(n)
            whole = arena.members
            function(whole[0].buffer, whole[0].inside.start, whole[1].buffer, whole[1].inside.start, n)
            arena.check()
            np.testing.assert_array_equal(out, x)
        full = np.full(lanes, np.nan, dtype)
        spread_first(whole[0].buffer, whole[0].inside.start, full, n)
        np.testing.assert_array_equal(full, np.concatenate([x, np.zeros(lanes - n)]))


@every_dtype
def test_up_to_more_than_a_vector(rng, dtype):
    lanes = simd.lanes(dtype)
    x, out = rng.normal(size=lanes + 3).astype(dtype), np.zeros(lanes + 3, dtype)
    copy_up_to(x, 0, out, 0, lanes + 3)
    np.testing.assert_array_equal(out, np.where(np.arange(lanes + 3) < lanes, x, 0))


@every_dtype
def test_pointers(rng, dtype):
    """A pointer is the address of an element, of an array of any shape or of another pointer."""

    @numba.njit
    def through(x, out):
        p = simd.pointer(simd.pointer(x, 2), 1)
        simd.prefetch(p, 1 << 30)
        simd.store(out, 0, simd.load(p, 1))
        return p[0], simd.is_null(p), simd.is_null(simd.null(x[0, 0]))

    x = rng.normal(size=(4, simd.lanes(dtype) + 1)).astype(dtype)
    out = np.empty(simd.lanes(dtype), dtype)
    flat = x.ravel()
    assert through(x, out) == (flat[3], False, True)
    np.testing.assert_array_equal(out, flat[4 : 4 + out.size])


@every_dtype
def test_vectors_from_numbers(dtype):
    @numba.njit
    def make(x, out):
        lanes = simd.lanes_of(out)
        v = simd.broadcast(x)
        for i, w in enumerate((v, simd.lane_index(x), simd.like(v, 0.25), simd.like(v, np.inf))):
            simd.store(out, i * lanes, w)
        return simd.number_like(x, 3) / x

    lanes = simd.lanes(dtype)
    out = np.empty((4, lanes), dtype)
    third = make(np.dtype(dtype).type(1.1), out)
    np.testing.assert_array_equal(out[0], np.full(lanes, 1.1, dtype))
    np.testing.assert_array_equal(out[1], np.arange(lanes))
    np.testing.assert_array_equal(out[2], 0.25)
    np.testing.assert_array_equal(out[3], np.inf)
    assert third == np.dtype(dtype).type(3) / np.dtype(dtype).type(1.1)


def compiled(function):
    """A lambda has to be compiled to be called from compiled code; the functions of `simd` have not."""
    return numba.njit(function) if isinstance(function, FunctionType) else function


def binary(function):
    function = compiled(function)

    @numba.njit
    def apply(a, b, out):
        for i in range(0, a.size, simd.lanes_of(a)):
            simd.store(out, i, function(simd.load(a, i), simd.load(b, i)))

    return apply


def unary(function):
    function = compiled(function)

    @numba.njit
    def apply(a, out):
        for i in range(0, a.size, simd.lanes_of(a)):
            simd.store(out, i, function(simd.load(a, i)))

    return apply


BINARY = {
    "add": (lambda a, b: a + b, operator.add),
    "sub": (lambda a, b: a - b, operator.sub),
    "mul": (lambda a, b: a * b, operator.mul),
    "div": (lambda a, b: a / b, operator.truediv),
    # The second operand where either is NaN or both are equal, as the processor's own instructions.
    "minimum": (simd.minimum, lambda a, b: np.where(a < b, a, b)),
    "maximum": (simd.maximum, lambda a, b: np.where(a > b, a, b)),
}


@every_dtype
@pytest.mark.parametrize("name", BINARY)
def test_arithmetic(rng, name, dtype):
    """The same bits as NumPy, but for the sign of a zero and the payload of a NaN."""
    function, expected = BINARY[name]
    odd = pairs(dtype)
    a, b = (np.concatenate([o, rng.normal(size=64).astype(dtype)]) for o in odd)
    out = np.empty_like(a)
    binary(function)(a, b, out)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(out, expected(a, b))


COMPARISONS = {
    "<": (lambda a, b: a < b, operator.lt),
    "<=": (lambda a, b: a <= b, operator.le),
    ">": (lambda a, b: a > b, operator.gt),
    ">=": (lambda a, b: a >= b, operator.ge),
    "==": (lambda a, b: a == b, operator.eq),
    "!=": (lambda a, b: a != b, operator.ne),
}


@every_dtype
@pytest.mark.parametrize("symbol", COMPARISONS)
def test_comparisons_and_select(symbol, dtype):
    """A mask chooses lane by lane; NaN is unequal to everything and neither less nor greater."""
    compare, expected = COMPARISONS[symbol]
    compare = compiled(compare)
    a, b = pairs(dtype)
    out = np.empty_like(a)
    binary(lambda x, y: simd.select(compare(x, y), simd.like(x, 1.0), simd.like(x, 2.0)))(a, b, out)
    np.testing.assert_array_equal(out, np.where(expected(a, b), 1, 2))


UNARY = {
    "neg": (lambda v: -v, operator.neg),
    "sqrt": (simd.sqrt, np.sqrt),
    "absolute": (simd.absolute, np.abs),
    "floor": (simd.floor, np.floor),
}


@every_dtype
@pytest.mark.parametrize("name", UNARY)
def test_exact_functions(rng, name, dtype):
    function, expected = UNARY[name]
    x = np.concatenate([np.array(ODD), rng.normal(size=24) * 100, np.arange(-16, 16) / 2]).astype(dtype)
    out = np.empty_like(x)
    unary(function)(x, out)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(out, expected(x))


@every_dtype
def test_fma_rounds_once_where_the_processor_can(dtype):
    """(1 + eps)(1 - eps) - 1 is -eps² in one rounding, and 0 in two."""

    @numba.njit
    def apply(a, b, c, out):
        simd.store(out, 0, simd.fma(simd.broadcast(a), simd.broadcast(b), simd.broadcast(c)))

    one, eps = np.ones((), dtype)[()], np.finfo(dtype).eps
    out = np.empty(simd.lanes(dtype), dtype)
    apply(one + eps, one - eps, -one, out)
    np.testing.assert_array_equal(out, -(eps**2) if host().has_fma else 0)
    apply(3 * one, 5 * one, -7 * one, out)
    np.testing.assert_array_equal(out, 8)


def tree(v, combine):
    """Halves are combined until one number is left."""
    while v.size > 1:
        v = combine(v[: v.size // 2], v[v.size // 2 :])
    return v[0]


@every_dtype
def test_sums_and_maxima_across_lanes(rng, dtype):
    """The sum has a fixed tree order: the same bits as the tree written out; a NaN or an infinity shows in it."""

    @numba.njit
    def across(x):
        v = simd.load(x, 0)
        return simd.hsum(v), simd.hmax(v)

    for _ in range(20):
        x = (rng.normal(size=simd.lanes(dtype)) * 10.0 ** rng.integers(-3, 8)).astype(dtype)
        assert across(x) == (tree(x, operator.add), x.max())
    for place in range(x.size):
        y = x.copy()
        y[place] = np.inf
        assert across(y) == (np.inf, np.inf)
        y[place] = np.nan
        assert np.isnan(across(y)[0])


@every_dtype
def test_masks_of_the_first_lanes(dtype):
    """No lane for n <= 0 and all of them from the width on, however far beyond."""

    @numba.njit
    def mask(out, n):
        v = simd.load(out, 0)
        simd.store(out, 0, simd.select(simd.first_lanes(v, n), simd.like(v, 1.0), simd.like(v, 0.0)))

    lanes = simd.lanes(dtype)
    out = np.empty(lanes, dtype)
    for n in (*range(-2, lanes + 3), 2**31, 2**32, 2**32 + 1, 2**62, -(2**31), -(2**32), -(2**32) + 3, -(2**63)):
        mask(out, n)
        np.testing.assert_array_equal(out, np.arange(lanes) < n)


@every_dtype
def test_the_first_lane_of_a_mask(dtype):
    """Every lane by itself, with all lanes behind it as well, and none."""

    @numba.njit
    def first_above(x, limit):
        v = simd.load(x, 0)
        return simd.first_true(v > simd.like(v, limit))

    lanes = simd.lanes(dtype)
    for i in range(lanes):
        for rest in (0, 1):
            x = np.full(lanes, rest, dtype)
            x[: i + 1] = 0
            x[i] = 1
            assert first_above(x, 0.5) == i
    assert first_above(np.zeros(lanes, dtype), 0.5) == lanes
    assert first_above(np.full(lanes, np.nan, dtype), 0.5) == lanes


@every_dtype
def test_subnormal_numbers_can_be_flushed(dtype):
    """As operands and as results, until the old mode is put back; a mode within a mode is no different."""

    @numba.njit
    def halves(x, out):
        lanes = simd.lanes_of(x)
        half = simd.like(simd.load(x, 0), 0.5)
        simd.store(out, 0, simd.load(x, 0) * half)
        outer = simd.flush_subnormals()
        inner = simd.flush_subnormals()
        simd.store(out, lanes, simd.load(x, 0) * half)
        simd.restore_mode(inner)
        simd.store(out, 2 * lanes, simd.load(x, 0) * half)
        simd.restore_mode(outer)
        simd.store(out, 3 * lanes, simd.load(x, 0) * half)

    lanes, tiny = simd.lanes(dtype), np.finfo(dtype).tiny
    for value in (tiny, tiny / 4):
        out = np.empty((4, lanes), dtype)
        halves(np.full(lanes, value, dtype), out)
        np.testing.assert_array_equal(out, np.repeat([[value / 2], [0], [0], [value / 2]], lanes, axis=1))


def test_vectors_of_different_kinds_do_not_mix():
    @numba.njit
    def mixed(x, y):
        return simd.hsum(simd.load(x, 0) + simd.load(y, 0))

    with pytest.raises(numba.core.errors.TypingError):
        mixed(np.ones(16, np.float32), np.ones(16))


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")
def test_nothing_beyond_an_array_is_touched():
    """Masked tails and every kernel, with all arrays flush against pages that may not be read: a touch ends the process."""
    run_program("guard_pages.py")


def test_a_quotient_by_the_inverse_is_that_of_a_division(rng):
    """Numbers of all sizes, divisors next to powers of two, exact quotients and halves of units in the last place."""

    @numba.njit
    def divide(x, divisor, inverse, out):
        for i in range(x.size):
            out[i] = simd.quotient(x[i], divisor[i], inverse[i])

    size = 100_000
    divisor = np.ldexp(rng.uniform(1, 2, size), rng.integers(-300, 300, size))
    divisor[: size // 4] = np.nextafter(
        np.ldexp(1.0, rng.integers(-300, 300, size // 4)), rng.choice([0, np.inf], size // 4)
    )
    x = np.ldexp(rng.uniform(-2, 2, size), rng.integers(-300, 300, size))
    exact = rng.integers(1, 2**26, size // 4) * 2.0**-20
    divisor[-size // 4 :] = rng.integers(1, 2**26, size // 4)
    x[-size // 4 :] = exact * divisor[-size // 4 :]
    x[:10] = 0
    out = np.full(size, np.nan)
    divide(x, divisor, 1 / divisor, out)
    np.testing.assert_array_equal(out, x / divisor)
    divide(np.full(3, np.inf), np.ones(3), np.ones(3), out)
    assert not np.isfinite(out[:3]).any()
