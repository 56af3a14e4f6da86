"""exp, log, tanh, sigmoid, cospi and sinpi: range reduction and a polynomial.

LLVM turns vector forms of its own `exp` into one library call per lane. Coefficients differ between the dtypes; each
polynomial is evaluated by Horner's rule with fma, highest power first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from fastdl_kernels._jit import jit
from fastdl_kernels.simd.arithmetic import (
    absolute,
    floor,
    fma,
    maximum,
    minimum,
    select,
)
from fastdl_kernels.simd.memory import (
    like,
)
from fastdl_kernels.simd.vector import (
    call_llvm,
    constant,
    is_vec,
    suffix,
)


@intrinsic
def scale_by_power(typingctx, v, n):
    """v * 2^n for whole numbers n with 2^n normal: n is added to the exponent of 1."""
    if not is_vec(v) or v != n:
        return None
    bits, mantissa, bias = (32, 23, 127) if v.element is types.float32 else (64, 52, 1023)

    def codegen(context, builder, sig, args):
        ints = ir.VectorType(ir.IntType(bits), v.count)
        # Adding 1.5 * 2^mantissa puts a small whole number into the low bits: no conversion instruction, which AVX2
        # does not have for 64 bits.
        magic = 1.5 * 2.0**mantissa
        shifted = builder.bitcast(builder.fadd(args[1], constant(args[1].type, magic)), ints)
        exponent = builder.add(shifted, ir.Constant(ints, [bias] * v.count))
        power = builder.bitcast(builder.shl(exponent, ir.Constant(ints, [mantissa] * v.count)), args[0].type)
        return builder.fmul(args[0], power)

    return v(v, n), codegen


@intrinsic
def _exponent_and_mantissa(typingctx, v):
    """(e, m) of normal positive v = m * 2^e with sqrt(1/2) <= m < sqrt(2), both as vectors."""
    if not is_vec(v):
        return None
    bits, mantissa, bias = (32, 23, 127) if v.element is types.float32 else (64, 52, 1023)

    def codegen(context, builder, sig, args):
        floats = args[0].type
        ints = ir.VectorType(ir.IntType(bits), v.count)

        def whole(value: int) -> ir.Constant:
            return ir.Constant(ints, [value] * v.count)

        word = builder.bitcast(args[0], ints)
        exponent = builder.lshr(word, whole(mantissa))
        # The exponent's bits as the low bits of a large number: subtracting its base converts them.
        base = {32: 2.0**23, 64: 2.0**52}[bits]
        base_bits = {32: 0x4B000000, 64: 0x4330000000000000}[bits]
        e = builder.fsub(
            builder.bitcast(builder.or_(exponent, whole(base_bits)), floats), constant(floats, base + bias)
        )
        m = builder.or_(builder.and_(word, whole((1 << mantissa) - 1)), whole(bias << mantissa))
        m = builder.bitcast(m, floats)
        high = builder.fcmp_ordered(">", m, constant(floats, 2.0**0.5))
        m = builder.select(high, builder.fmul(m, constant(floats, 0.5)), m)
        e = builder.select(high, builder.fadd(e, constant(floats, 1.0)), e)
        return context.make_tuple(builder, sig.return_type, (e, m))

    return types.UniTuple(v, 2)(v), codegen


@intrinsic
def _copysign(typingctx, magnitude, sign):
    """magnitude with the sign of sign."""
    if not is_vec(magnitude) or magnitude != sign:
        return None

    def codegen(context, builder, sig, args):
        return call_llvm(builder, f"llvm.copysign.{suffix(args[0].type)}", args[0].type, list(args))

    return magnitude(magnitude, sign), codegen


def polynomial(float32: list[float], float64: list[float]) -> Any:
    """An intrinsic p(v) with the given coefficients, highest power first."""

    @intrinsic
    def evaluate(typingctx, v):
        if not is_vec(v):
            return None
        coefficients = float32 if v.element is types.float32 else float64

        def codegen(context, builder, sig, args):
            ty = args[0].type
            result = constant(ty, coefficients[0])
            for c in coefficients[1:]:
                result = call_llvm(builder, f"llvm.fmuladd.{suffix(ty)}", ty, [result, args[0], constant(ty, c)])
            return result

        return v(v), codegen

    return evaluate


def per_dtype(float32: float, float64: float) -> Any:
    """An intrinsic c(v): a constant that differs between the dtypes, in every lane."""
    return polynomial([float32], [float64])


def _inverse_factorials(last: int, first: int) -> list[float]:
    values = [1.0]
    for n in range(1, last + 1):
        values.append(values[-1] / n)
    return values[last : first - 1 if first else None : -1]


# exp(r) = 1 + r + r² (1/2! + r/3! + ...) for |r| <= ln(2)/2: the next term is 0.1 ULP in float32 and 0.02 in float64.
exp_tail = polynomial(_inverse_factorials(7, 2), _inverse_factorials(13, 2))
# ln 2 in two parts, the first so short that n * ln2_high is exact: needed where there is no fma.
ln2_high = per_dtype(0.693359375, 6.93145751953125e-1)
ln2_low = per_dtype(-2.12194440e-4, 1.42860682030941723212e-6)
# Below and above these the result is 0 or infinite.
_exp_lowest = per_dtype(-104.0, -746.0)
_exp_highest = per_dtype(89.0, 710.0)
round_magic = per_dtype(1.5 * 2.0**23, 1.5 * 2.0**52)


@intrinsic
def round_to_whole(typingctx, v, magic):
    """The nearest whole number: (v + magic) - magic, without flags that would let it be simplified."""
    if not is_vec(v) or v != magic:
        return None

    def codegen(context, builder, sig, args):
        return builder.fsub(builder.fadd(args[0], args[1]), args[1])

    return v(v, magic), codegen


@jit
def exp_of_sum(v, low):
    """e^(v + low) for a `low` that v rounds away."""
    # The constant comes first in minimum and maximum, so that a NaN in v is what remains.
    v = minimum(_exp_highest(v), maximum(_exp_lowest(v), v))
    n = round_to_whole(v * like(v, 1.4426950408889634), round_magic(v))
    r_high = fma(n, -ln2_high(v), v)
    r = fma(n, -ln2_low(v), r_high)
    r_low = fma(n, -ln2_low(v), r_high - r) + low
    # 1 + r + r_low + r² tail(r), with what 1 + r rounds away carried along: 0.6 ULP instead of 1.03, which sigmoid needs.
    one = like(v, 1.0)
    leading = one + r
    y = leading + (fma(r * r, exp_tail(r), r_low) + (r - (leading - one)))
    # Two steps, because 2^n itself is not a normal number for the largest and smallest results.
    half = round_to_whole(n * like(v, 0.5), round_magic(v))
    return scale_by_power(scale_by_power(y, half), n - half)


@jit
def _exp(v):
    return exp_of_sum(v, like(v, 0.0))


@jit
def exp_moderate(v):
    """exp(v) for -87 <= v <= 44 (from -708 on in float64), at most 1.1 ULP off: half the work of `_exp`, which has limits and
    subnormals to care for."""
    n = round_to_whole(v * like(v, 1.4426950408889634), round_magic(v))
    r = fma(n, -ln2_low(v), fma(n, -ln2_high(v), v))
    return scale_by_power(like(v, 1.0) + fma(r * r, exp_tail(r), r), n)


# log(1 + f) = f - (f²/2 - s (f²/2 + R(s²))), s = f / (2 + f): the series of fdlibm's log and logf.
log_series = polynomial(
    [0.24279078841, 0.28498786688, 0.40000972152, 0.66666662693],
    [
        1.479819860511658591e-01,
        1.531383769920937332e-01,
        1.818357216161805012e-01,
        2.222219843214978396e-01,
        2.857142874366239149e-01,
        3.999999999940941908e-01,
        6.666666666666735130e-01,
    ],
)
_smallest_normal = per_dtype(2.0**-126, 2.0**-1022)
_subnormal_shift = per_dtype(2.0**25, 2.0**54)
_subnormal_exponent = per_dtype(25.0, 54.0)


@jit
def _log(v):
    zero = like(v, 0.0)
    tiny = v < _smallest_normal(v)
    e, m = _exponent_and_mantissa(select(tiny, v * _subnormal_shift(v), v))
    e = e - select(tiny, _subnormal_exponent(v), zero)
    f = m - like(v, 1.0)
    s = f / (f + like(v, 2.0))
    z = s * s
    half = f * f * like(v, 0.5)
    r = z * log_series(z)
    y = f - (half - fma(s, half + r, e * ln2_low(v)))
    y = fma(e, ln2_high(v), y)
    infinity = like(v, np.inf)
    y = select(v < infinity, y, v)  # infinity and NaN
    y = select(v == zero, -infinity, y)
    return select(v < zero, like(v, np.nan), y)


# tanh(x) = x + x³ P(x²) / Q(x²) for |x| < 0.625 (Cephes), where 1 - 2 / (exp(2x) + 1) would lose digits.
_tanh_p = polynomial(
    [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1],
    [-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3],
)
_tanh_q = polynomial([1.0], [1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3])


@jit
def _tanh(v):
    one = like(v, 1.0)
    magnitude = absolute(v)
    z = v * v
    small = fma(v * z, _tanh_p(z) / _tanh_q(z), v)
    # From 22 on the result is 1 in both dtypes. The constant comes first, so that a NaN is what remains.
    limited = minimum(like(v, 22.0), magnitude)
    large = one - like(v, 2.0) / (exp_moderate(limited + limited) + one)
    return select(magnitude < like(v, 0.625), small, _copysign(large, v))


@jit
def _sigmoid(v):
    # exp(-|v|) never overflows, and exp(v) / (1 + exp(v)) keeps the relative accuracy of small results.
    one = like(v, 1.0)
    e = _exp(-absolute(v))
    total = one + e
    q = select(v >= like(v, 0.0), one, e) / total
    # What 1 + e rounds away, to first order; 1 / total is needed to a few per cent only. 1.7 ULP instead of 2.2.
    rounded_away = e - (total - one)
    return fma(-q, rounded_away * fma(total, like(v, -0.5), like(v, 1.457)), q)


def _sine_coefficients(last: int) -> list[float]:
    """(-1)^k π^(2k + 1) / (2k + 1)!, highest first."""
    return [(-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(last, -1, -1)]


# sin(πs) = s P(s²) for |s| <= 1/2: the next term is 7e-10 in float32 and 1e-18 in float64.
_sine_series = polynomial(_sine_coefficients(6), _sine_coefficients(10))


# The number before 1/2: the one before 1/2 plus 1/2 would be rounded to 1.
_nearly_half = per_dtype(0.5 - 2.0**-25, 0.5 - 2.0**-54)


@jit
def _half_turns(v):
    """(s, sign): v = h + s with the nearest whole h, and 1 or -1 as h is even or odd.

    Nothing is rounded: the period of sin(πv) is 2.
    """
    h = floor(v + _nearly_half(v))
    odd = fma(like(v, -2.0), floor(h * like(v, 0.5)), h)
    return v - h, fma(like(v, -2.0), odd, like(v, 1.0))


@jit
def _cospi(v):
    s, sign = _half_turns(v)
    s = like(v, 0.5) - absolute(s)
    return sign * (s * _sine_series(s * s))


@jit
def _sinpi(v):
    s, sign = _half_turns(v)
    return sign * (s * _sine_series(s * s))


def _public(name: str, implementation: Any, doc: str) -> Any:
    """A function of one vector that resolves to the compiled implementation."""

    def function(v):
        raise TypeError(f"fastdl_kernels.simd.{name} works inside @njit code only")

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc

    @overload(function)
    def resolve(v):
        return (lambda v: implementation(v)) if is_vec(v) else None

    return function


exp = _public("exp", _exp, "e^v, at most 1 ULP off; 0 and infinity beyond the range; subnormal results are exact.")
log = _public("log", _log, "The natural logarithm, at most 1 ULP off; log(0) is -infinity, of less it is NaN.")
tanh = _public("tanh", _tanh, "The hyperbolic tangent, at most 2 ULP off; exactly -1 and 1 for large arguments.")
sigmoid = _public("sigmoid", _sigmoid, "1 / (1 + e^-v), at most 2 ULP off; exactly 0 and 1 for large arguments.")
cospi = _public("cospi", _cospi, "cos(πv), at most 4 ULP off; NaN for infinity.")
sinpi = _public("sinpi", _sinpi, "sin(πv), at most 4 ULP off; NaN for infinity.")
