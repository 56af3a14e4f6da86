"""The terms of losses that compare numbers with targets: (loss, derivative) of a vector of outputs z and targets t, side by side.

p is the loss's parameter in every lane, read by few. `loss_rows` says what each loss is and adds the terms up.
"""

from __future__ import annotations

from fastdl_kernels._jit import jit
from fastdl_kernels.simd import absolute, exp, fma, like, log, maximum, minimum, select
from fastdl_kernels.simd.mathematics import per_dtype

# Rates beyond e^80 (float32) or e^700 count as that: a block of 64 vectors of them has a finite sum.
_rate_limit = per_dtype(80.0, 700.0)


@jit
def squared_error_term(z, t, p):
    """(z - t)², 2 (z - t)."""
    d = z - t
    return d * d, d + d


@jit
def sigmoid_cross_entropy_term(z, t, p):
    """softplus(z) - s z, sigmoid(z) - s, with the smoothed target s = (1 - p) t + p / 2."""
    zero = like(z, 0.0)
    one = like(zero, 1.0)
    t = fma(t, one - p, p * like(z, 0.5))
    e = exp(-absolute(z))
    u = one + e
    # log(1 + e) with what 1 + e rounds away: exact to the last place for small e as well.
    log1p = log(u) - ((u - one) - e) / u
    return maximum(zero, z) - z * t + log1p, select(z >= zero, one, e) / u - t


@jit
def huber_term(z, t, p):
    """(z - t)² / 2 where |z - t| <= p, else p (|z - t| - p / 2); z - t, limited to -p .. p."""
    d = z - t
    near = minimum(p, maximum(-p, d))  # the limits come first, so that a NaN is what remains
    return near * (d - like(z, 0.5) * near), near


@jit
def absolute_error_term(z, t, p):
    """|z - t|, its sign; 0 at 0."""
    d, zero = z - t, like(z, 0.0)
    return absolute(d), select(d > zero, like(z, 1.0), select(d < zero, like(z, -1.0), d))


@jit
def quantile_term(z, t, p):
    """p (t - z) below the target, (1 - p)(z - t) above it; -p or 1 - p, and 0 at the target."""
    d, zero = z - t, like(z, 0.0)
    slope = select(d > zero, like(z, 1.0) - p, select(d < zero, -p, d))
    return slope * d, slope


@jit
def poisson_term(z, t, p):
    """e^z - t z + t log t - t, e^z - t; t = 0 leaves e^z."""
    zero = like(z, 0.0)
    z = minimum(_rate_limit(z), z)
    rate = exp(z)
    positive = select(t == zero, like(z, 1.0), t)
    rest = select(t == zero, zero, t * (log(positive) - z) - t)
    return rate + rest, rate - t
