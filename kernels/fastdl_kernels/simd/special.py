"""What activations need beside exp, log, tanh and sigmoid: expm1, log1p and the normal distribution, each where it is used.

Arguments outside of the named ranges give results that mean nothing, except NaN, which stays NaN.
"""

from __future__ import annotations

from fastdl_kernels._jit import jit
from fastdl_kernels.host import host
from fastdl_kernels.simd.arithmetic import absolute, fma, maximum, minimum, select
from fastdl_kernels.simd.mathematics import (
    exp_of_sum,
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

# P(Z > x) = e^(-x²/2) p(y) / q(y), where x counts as at most normal_limit, y = min(x, _furthest) - _middle, and p(y) is
# y _p_above(y) + _p_constant.
# float32: q = 1 and p of degree 14, interpolated at Chebyshev points of 0 .. 4.5, relative error 1.7e-8; from there on, where P
# is below 3.4e-6, its absolute error is below 1e-7. A quotient's error, 2 ULP more, would be too much. float64: the form of Hart
# et al., Computer Approximations (1968), number 5666: all coefficients are positive, so that Horner's rule loses little;
# interpolated at Chebyshev points of (x - 4) / (x + 4), relative error 1.7e-18. Both were worked out in 40 digits or more.
normal_limit = per_dtype(14.0, 39.0)
_furthest, _middle = per_dtype(4.5, 39.0), per_dtype(2.03125, 0.0)
_p_above = polynomial(
    [
        9.0949127868e-10,
        -7.5930613209e-09,
        2.5235100196e-08,
        -7.5848142973e-08,
        4.0343390768e-07,
        -2.0263834145e-06,
        8.5537135403e-06,
        -3.469024304e-05,
        0.00013779949275,
        -0.00052390231917,
        0.0018922968275,
        -0.0064625380528,
        0.020695563687,
        -0.061425637508,
    ],
    [
        2.184193915722464582e-7,
        6.830122725070223889e-6,
        1.047431061453472549e-4,
        1.025071569350437979e-3,
        7.041273528835195047e-3,
        3.53410746399967712e-2,
        1.311071375110668154e-1,
        3.554710849740132912e-1,
        6.772333052066939612e-1,
        8.264390116762824424e-1,
    ],
)
_p_constant = per_dtype(0.16616204255, 0.5)
_q = polynomial(
    [1.0],
    [
        5.474962226425644718e-7,
        1.712057874189086685e-5,
        2.630995276560322011e-4,
        2.586593958204620087e-3,
        1.791131234651704227e-2,
        9.112216947098653935e-2,
        3.457670766572471158e-1,
        9.746532134895300523e-1,
        1.993492032760400027,
        2.809892238504335401,
        2.450762584155430321,
        1.0,
    ],
)


@jit
def normal_tail(v, factor):
    """(factor P(Z > |v|), e^(-v²/2)) of a standard normal Z; |v| counts as at most `normal_limit`.

    What the last step of p rounds away is carried along, and the factor is multiplied in before p is: GELU is 3.91 ULP off at the
    most, and 4.5 without.
    """
    x = minimum(normal_limit(v), absolute(v))  # the constant comes first, so that a NaN is what remains
    square, half = x * x, like(v, -0.5)
    e = exp_of_sum(square * half, rounding_of_square(x, square) * half)  # without it, 4 ULP at x = 3
    y = minimum(_furthest(v), x) - _middle(v)
    rest, top = _p_above(y), _p_constant(v)
    p, q = fma(y, rest, top), _q(y)
    lost = fma(y, rest, top - p)
    scaled = factor * e
    return fma(scaled, p / q, scaled * (lost / q)), e
