"""What activations need beside exp, log, tanh and sigmoid: expm1, log1p and the normal distribution, each where it is used.

Arguments outside of the named ranges give results that mean nothing, except NaN, which stays NaN.
"""

from __future__ import annotations

from fastdl_kernels._jit import jit
from fastdl_kernels.host import host
from fastdl_kernels.simd.arithmetic import absolute, fma, maximum, minimum, select
from fastdl_kernels.simd.mathematics import (
    exp,
    exp_tail,
    ln2_high,
    ln2_low,
    log_series,
    per_dtype,
    polynomial,
    round_magic,
    round_to_whole,
    scale_by_power,
)
from fastdl_kernels.simd.memory import like

HAS_FMA = host().has_fma

exponent_limit = per_dtype(-104.0, -746.0)
"""From here on downward e^v is 0."""


@jit
def expm1_below_0(v):
    """e^v - 1 for v <= 0, at most 2 ULP off; -1 from v = -60 on downward.

    With v = n ln 2 + r: e^v - 1 = (2^n - 1) + 2^n (e^r - 1), where 2^n - 1 is exact or rounds to -1.
    """
    v = maximum(like(v, -60.0), v)
    n = round_to_whole(v * like(v, 1.4426950408889634), round_magic(v))
    r_high = fma(n, -ln2_high(v), v)
    r = fma(n, -ln2_low(v), r_high)
    r_low = fma(n, -ln2_low(v), r_high - r)
    rest = r + fma(r * r, exp_tail(r), r_low)
    one = like(v, 1.0)
    return (scale_by_power(one, n) - one) + scale_by_power(rest, n)


@jit
def log1p_to_1(v):
    """log(1 + v) for 0 <= v <= 1, at most 2 ULP off, relative to small results as well.

    1 + v = 2^k (1 + f) with k of 0 or 1, so that 1 + f <= sqrt(2); f is exact. Then the series of `log`.
    """
    one, half = like(v, 1.0), like(v, 0.5)
    is_high = v > like(v, 0.41421356237309503)
    f = select(is_high, (v - one) * half, v)
    k = select(is_high, one, like(v, 0.0))
    s = f / (f + like(v, 2.0))
    z = s * s
    half_square = f * f * half
    r = z * log_series(z)
    y = f - (half_square - fma(s, half_square + r, k * ln2_low(v)))
    return fma(k, ln2_high(v), y)


@jit
def rounding_of_square(x, square):
    """x² - square, where square is x * x rounded; |x| < 2^60."""
    if HAS_FMA:
        return fma(x, x, -square)
    # Dekker: x in two halves, whose products are exact.
    c = x * split_factor(x)
    high = c - (c - x)
    low = x - high
    return ((high * high - square) + (high + high) * low) + low * low


split_factor = per_dtype(2.0**12 + 1, 2.0**27 + 1)

# P(Z > x) = e^(-x²/2) r p(t) for 0 <= x <= normal_limit, with r = 1 / (x + k) and t = a + b r, which runs from 1 to -1. p is
# (x + k) e^(x²/2) P(Z > x) at Chebyshev points: relative error 1.2e-9 (float32) and 3.6e-17 (float64), worked out in 40 digits.
# The transformation is that of Shepherd and Laframboise, Mathematics of Computation 36 (1981).
normal_limit = per_dtype(14.0, 39.0)
_k = per_dtype(3.0, 4.0)
_a = per_dtype(-1.4285714285714285714, -1.2051282051282051282)
_b = per_dtype(7.2857142857142857143, 8.8205128205128205128)
_p = polynomial(
    [
        7.9164509412e-6,
        -6.1778533755e-6,
        -7.9995350215e-5,
        0.00014802528227,
        0.00063575602769,
        -0.0020069053657,
        -0.0073380812613,
        0.021141083012,
        0.17139459741,
        0.48972636109,
        0.82637742196,
    ],
    [
        -1.126670122112718901e-10,
        -2.635776281124104239e-10,
        1.681621892563750982e-9,
        1.563978732395446011e-9,
        -1.377422194448710576e-8,
        3.302305959542789846e-9,
        8.389602629793168412e-8,
        -1.152902906648430999e-7,
        -4.35397198810328657e-7,
        1.213979455997653326e-6,
        2.184018727379987708e-6,
        -0.00001046463393188270442,
        -0.00001362229305586182106,
        0.00008847017919266710017,
        0.0001472080629885506499,
        -0.0007374208919565948101,
        -0.002501459056739540851,
        0.003258846190046137546,
        0.04290632677694199457,
        0.1563699554679434943,
        0.3639067368270385461,
        0.6212441022247253652,
        0.8153383968425169084,
    ],
)


@jit
def normal_tail(v):
    """(P(Z > |v|), e^(-v²/2)) of a standard normal Z, each at most 3 ULP off; |v| counts as at most `normal_limit`."""
    x = minimum(normal_limit(v), absolute(v))  # the constant comes first, so that a NaN is what remains
    square = x * x
    half = like(v, 0.5)
    e = exp(-(square * half))
    # What x² rounds away, to first order: at x = 3 it is 4 ULP of the result.
    e = fma(-e, rounding_of_square(x, square) * half, e)
    r = like(v, 1.0) / (x + _k(v))
    return e * (r * _p(fma(_b(v), r, _a(v)))), e
