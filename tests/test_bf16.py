"""Products in bf16: the kernels against float64 oracles of rounded operands, bit for bit where the order of sums is known."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from checking import Arena, assert_close, eps
from reference import rounded
from test_linear import SHAPES

import fastdl_kernels as fk
from fastdl_kernels.precision import HAS_BF16, bf16_bits, from_bf16_bits

ARITHMETICS = [fk.BF16_EMULATED, *([fk.BF16] if HAS_BF16 else [])]
every_arithmetic = pytest.mark.parametrize("arithmetic", ARITHMETICS)


def random(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def test_rounding_is_to_the_nearest_bfloat16():
    rng = np.random.default_rng(0)
    x = np.ldexp(random(rng, 4000), rng.integers(-130, 120, 4000)).astype(np.float32)
    ties = from_bf16_bits(np.arange(0x0080, 0x7F00, 7, dtype=np.uint16)).astype(np.float64)
    ties = (ties * (1 + 2.0**-9)).astype(np.float32)  # some lie half-way, the others nearer to the lower neighbour
    for numbers in (x, -x, ties, np.float32([0, -0.0, 1, 1.00390625, 1.01171875, 3.3e38])):
        np.testing.assert_array_equal(from_bf16_bits(bf16_bits(numbers)).astype(np.float64), rounded(numbers))


def test_rounding_keeps_what_is_not_a_number():
    x = np.array([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38], np.float32)
    quiet_in_the_lower_half = np.array([0x7F800001], np.uint32).view(np.float32)
    np.testing.assert_array_equal(from_bf16_bits(bf16_bits(x)), [np.nan, np.inf, -np.inf, np.inf, -np.inf])
    assert np.isnan(from_bf16_bits(bf16_bits(quiet_in_the_lower_half))).all()


@every_arithmetic
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_products_err_as_float32_sums_do(shape, offset, arithmetic):
    """Against sums in float64 of rounded operands: the error is that of float32 sums, far below that of the rounding."""
    B, I, N = shape
    rng, arena = np.random.default_rng(B + I + N), Arena(np.float32, offset)
    x, weight, bias, d_out = random(rng, B, I), random(rng, I, N), random(rng, N), random(rng, B, N)
    x_, weight_, bias_, d_out_ = (arena.input(a) for a in (x, weight, bias, d_out))
    z, out = arena.output(B, N), arena.output(B, N)
    d_x, d_weight, d_bias = arena.output(B, I), arena.output(I, N), arena.output(N)
    fk.linear_forward(x_, weight_, bias_, fk.RELU, 0.0, out, arithmetic)
    fk.linear_forward_keep(x_, weight_, bias_, fk.RELU, 0.0, z, z2 := arena.output(B, N), arithmetic)
    fk.linear_backward(x_, weight_, out, d_out_, fk.IDENTITY, 0.0, d_x, d_weight, d_bias, arithmetic)
    arena.check()
    rx, rw, rd = rounded(x), rounded(weight), rounded(d_out)
    limit = 2 * eps(np.float32)

    def tolerance(a, b, extra=0.0):
        return limit * (np.sqrt(a.shape[1]) + 4) * (np.abs(a) @ np.abs(b) + extra) + 1e-30

    assert_close(z, rx @ rw + bias, tolerance(rx, rw, np.abs(bias)), "z")
    np.testing.assert_array_equal(out, np.maximum(z, 0))
    np.testing.assert_array_equal(out, z2)
    assert_close(d_x, rd @ rw.T, tolerance(rd, rw.T), "d_x")
    assert_close(d_weight, rx.T @ rd, tolerance(rx.T, rd), "d_weight")
    # Biases are no product: their gradients are sums of numbers that were not rounded.
    assert_close(d_bias, d_out.astype(np.float64).sum(axis=0), tolerance(np.ones((1, B)), np.abs(d_out))[0], "d_bias")


def in_order(a, b):
    """a @ b as `precision` says: pairs along the depth, the odd number first, each addition rounded to float32."""
    a, b = rounded(a), rounded(b)
    if a.shape[1] % 2:
        a, b = np.pad(a, ((0, 0), (0, 1))), np.pad(b, ((0, 1), (0, 0)))
    total = np.zeros((len(a), b.shape[1]), np.float32)
    for k in range(0, a.shape[1], 2):
        for half in (k + 1, k):  # float64 holds a float32 plus a product of these exactly: one rounding
            total = (total.astype(np.float64) + np.outer(a[:, half], b[half])).astype(np.float32)
    return total


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (15, 64, 33), (29, 201, 40), (40, 96, 17)])
def test_the_bits_of_the_emulation(shape):
    """Both operands of all three layouts, and depths that are odd."""
    B, I, N = shape
    rng = np.random.default_rng(I)
    x, weight, d_out = random(rng, B, I), random(rng, I, N), random(rng, B, N)
    out, d_x, d_weight, d_bias = np.empty_like(d_out), np.empty_like(x), np.empty_like(weight), np.empty(N, np.float32)
    fk.linear_forward(x, weight, np.zeros(N, np.float32), fk.IDENTITY, 0.0, out, fk.BF16_EMULATED)
    fk.linear_backward(x, weight, out, d_out, fk.IDENTITY, 0.0, d_x, d_weight, d_bias, fk.BF16_EMULATED)
    np.testing.assert_array_equal(out, in_order(x, weight))
    np.testing.assert_array_equal(d_x, in_order(d_out, weight.T))
    np.testing.assert_array_equal(d_weight, in_order(x.T, d_out))


def test_the_bits_of_the_instruction():
    """Where the processor has it, it gives the emulation's bits; where it has not, the kernels say so and write nothing."""
    rng = np.random.default_rng(1)
    x, weight = random(rng, 70, 300), random(rng, 300, 90)
    out, emulated = np.full((70, 90), 7, np.float32), np.empty((70, 90), np.float32)
    bias = np.zeros(90, np.float32)
    fk.linear_forward(x, weight, bias, fk.IDENTITY, 0.0, emulated, fk.BF16_EMULATED)
    if HAS_BF16:
        fk.linear_forward(x, weight, bias, fk.IDENTITY, 0.0, out, fk.BF16)
        same = np.mean(out == emulated)
        assert same == 1, f"{same:.4f} of the instruction's sums have the emulation's bits"
    else:
        with pytest.raises(
            ValueError, match=r"expected arithmetic to be FLOAT32 .* got 1, which this processor has not"
        ):
            fk.linear_forward(x, weight, bias, fk.IDENTITY, 0.0, out, fk.BF16)
        assert (out == 7).all()


@every_arithmetic
def test_what_is_not_finite_stays_so(arithmetic):
    x, weight = np.ones((20, 40), np.float32), np.ones((40, 35), np.float32)
    x[3, 5], x[7, 39], weight[2, 4] = np.nan, np.inf, -np.inf
    x[11, 0] = 3.4e38  # rounds to infinity
    out = np.empty((20, 35), np.float32)
    fk.linear_forward(x, weight, np.zeros(35, np.float32), fk.IDENTITY, 0.0, out, arithmetic)
    with np.errstate(invalid="ignore", over="ignore"):
        expected = from_bf16_bits(bf16_bits(x)).astype(np.float64) @ from_bf16_bits(bf16_bits(weight))
    np.testing.assert_array_equal(out, expected)


@every_arithmetic
def test_subnormal_numbers_count_as_zero(arithmetic):
    x, weight = np.full((5, 8), 1e-39, np.float32), np.full((8, 20), 1e30, np.float32)
    out = np.empty((5, 20), np.float32)
    fk.linear_forward(x, weight, np.zeros(20, np.float32), fk.IDENTITY, 0.0, out, arithmetic)
    assert (out == 0).all()


@every_arithmetic
def test_bits_do_not_depend_on_threads(arithmetic):
    rng = np.random.default_rng(2)
    x, weight, d_out = random(rng, 150, 270), random(rng, 270, 130), random(rng, 150, 130)
    results = []
    for n in (1, 2):
        numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
        out, d_x, d_weight, d_bias = (
            np.empty_like(d_out),
            np.empty_like(x),
            np.empty_like(weight),
            np.empty(130, np.float32),
        )
        fk.linear_forward(x, weight, d_bias * 0, fk.TANH, 0.0, out, arithmetic)
        fk.linear_backward(x, weight, out, d_out, fk.TANH, 0.0, d_x, d_weight, d_bias, arithmetic)
        results.append([a.tobytes() for a in (out, d_x, d_weight, d_bias)])
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert results[0] == results[1]


def test_from_compiled_code():
    @numba.njit
    def call(x, weight, bias, out):
        fk.linear_forward(x, weight, bias, fk.IDENTITY, 0.0, out, fk.BF16_EMULATED)

    rng = np.random.default_rng(3)
    x, weight, bias = random(rng, 4, 6), random(rng, 6, 3), np.zeros(3, np.float32)
    out = np.empty((4, 3), np.float32)
    call(x, weight, bias, out)
    np.testing.assert_array_equal(out, in_order(x, weight))


@pytest.mark.parametrize(("dtype", "arithmetic", "message"), [
    ("float64", fk.BF16_EMULATED, "linear_forward: expected float32 arrays for bf16, got float64"),
    ("float32", 3, r"linear_forward: expected arithmetic to be FLOAT32 \(0\), BF16 \(1\) or BF16_EMULATED \(2\), got 3"),
])  # fmt: skip
def test_an_arithmetic_that_is_not_there_is_refused(dtype, arithmetic, message):
    a = np.ones((2, 2), dtype)
    out = np.zeros((2, 2), dtype)
    with pytest.raises(ValueError, match=message):
        fk.linear_forward(a, a, a[0], fk.IDENTITY, 0.0, out, arithmetic)
    assert (out == 0).all()


@pytest.mark.parametrize("kind", ["uint16", "bfloat16"])
def test_arrays_of_bfloat16_are_what_they_stand_for(kind):
    """The bits of float32 arrays that hold the same numbers; results in bfloat16 are those, rounded once."""
    dtype = np.dtype(np.uint16) if kind == "uint16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    rng, B, I, N = np.random.default_rng(0), 33, 20, 17

    def half(*shape):
        bits = bf16_bits(random(rng, *shape))
        return bits.view(dtype), from_bf16_bits(bits)

    (x, wide_x), (weight, wide_weight), (d_out, wide_d_out) = half(B, I), half(I, N), half(B, N)
    bias = random(rng, N)
    out, wide_out = np.zeros((B, N), dtype), np.empty((B, N), np.float32)
    fk.linear_forward(x, weight, bias, fk.RELU, 0.0, out, arithmetic=fk.BF16_EMULATED)
    fk.linear_forward(wide_x, wide_weight, bias, fk.RELU, 0.0, wide_out, arithmetic=fk.BF16_EMULATED)
    assert (out.view(np.uint16) == bf16_bits(wide_out)).all()

    plain = np.empty((B, N), np.float32)  # of mixed arrays
    fk.linear_forward(x, wide_weight, bias, fk.RELU, 0.0, plain, fk.BF16_EMULATED)
    assert (plain == wide_out).all()

    d_x, d_weight, d_bias = np.zeros((B, I), dtype), np.zeros((I, N), np.float32), np.zeros(N, np.float32)
    same = np.empty((B, I), np.float32), np.empty((I, N), np.float32), np.empty(N, np.float32)
    rounded_out = from_bf16_bits(out.view(np.uint16))
    fk.linear_backward(x, weight, out, d_out, fk.RELU, 0.0, d_x, d_weight, d_bias, fk.BF16_EMULATED)
    fk.linear_backward(wide_x, wide_weight, rounded_out, wide_d_out, fk.RELU, 0.0, *same, fk.BF16_EMULATED)
    assert (d_x.view(np.uint16) == bf16_bits(same[0])).all()
    assert (d_weight == same[1]).all()
    assert (d_bias == same[2]).all()


def test_wrong_arrays_of_bfloat16_are_refused():
    x, weight, bias = np.zeros((4, 3), np.uint16), np.zeros((3, 2), np.uint16), np.zeros(2, np.float32)
    out = np.full((4, 2), 7, np.uint16)
    call = (weight, bias, fk.RELU, 0.0, out)
    with pytest.raises(TypeError, match="expected float32 or float64 for x, got uint16"):
        fk.linear_forward(x, *call)
    with pytest.raises(ValueError, match=r"expected I = 5 \(from x\) in weight \[I, O\], got shape \(3, 2\)"):
        fk.linear_forward(np.zeros((4, 5), np.uint16), *call, fk.BF16_EMULATED)
    with pytest.raises(
        TypeError, match=r"expected one dtype for all arrays, got float64 for bias and|got float32 for x"
    ):
        fk.linear_forward(x, weight, bias.astype(np.float64), fk.RELU, 0.0, out, fk.BF16_EMULATED)
    out.flags.writeable = False
    with pytest.raises(TypeError, match="linear_forward: expected out to be writable"):
        fk.linear_forward(x, *call, fk.BF16_EMULATED)
    out.flags.writeable = True
    shared = np.zeros(40, np.uint16)
    with pytest.raises(ValueError, match="expected out in memory of its own, but it overlaps x"):
        fk.linear_forward(
            shared[:12].reshape(4, 3), weight, bias, fk.RELU, 0.0, shared[4:12].reshape(4, 2), fk.BF16_EMULATED
        )
    assert (out == 7).all()
    with pytest.raises(TypeError, match="got int16"):
        fk.linear_forward(x.view(np.int16), *call, fk.BF16_EMULATED)
