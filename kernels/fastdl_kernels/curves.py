"""The functions behind the activations: value and derivative of a vector, side by side. `activations` says what they are.

Values are functions of z; derivatives of the output a, or of z where they say so. alpha is a vector, read by few. NaN stays
NaN, and what an infinite z gives is the limit.
"""

from __future__ import annotations

from fastdl_kernels._jit import jit
from fastdl_kernels.simd import absolute, exp, fma, like, maximum, minimum, select, sigmoid, tanh
from fastdl_kernels.simd.mathematics import exp_moderate, per_dtype
from fastdl_kernels.simd.special import (
    expm1_below_0,
    exponent_limit,
    log1p_to_1,
    normal_limit,
    normal_tail,
)

# Klambauer et al., Self-Normalizing Neural Networks (2017), equation 14 of the appendix.
SELU_SCALE = 1.0507009873554804934193349852946
SELU_DEPTH = 1.0507009873554804934193349852946 * 1.6732632423543772848170429916717

# From here on upward mish is z: 2 / (w + 2) is less than half of what can be told from 1.
_mish_is_line = per_dtype(20.0, 40.0)
# From here on downward it is 0: e^z is no normal number.
_mish_lowest = per_dtype(-87.0, -708.0)


@jit
def identity_value(z, alpha):
    """z."""
    return z


@jit
def identity_derivative(a, alpha):
    """1."""
    return like(a, 1.0)


@jit
def relu_value(z, alpha):
    """max(0, z)."""
    zero = like(z, 0.0)
    return select(z < zero, zero, z)


@jit
def relu_derivative(a, alpha):
    """1 if a > 0, else 0."""
    return leaky_relu_derivative(a, like(a, 0.0))


@jit
def leaky_relu_value(z, alpha):
    """max(alpha z, z)."""
    return select(z < like(z, 0.0), z * alpha, z)


@jit
def leaky_relu_derivative(a, alpha):
    """1 if a > 0, else alpha."""
    zero = like(a, 0.0)
    return select(a > zero, like(a, 1.0), select(a <= zero, alpha, a))  # a NaN is neither, and stays


@jit
def sigmoid_value(z, alpha):
    """1 / (1 + e^-z)."""
    return sigmoid(z)


@jit
def sigmoid_derivative(a, alpha):
    """a (1 - a)."""
    return a * (like(a, 1.0) - a)


@jit
def tanh_value(z, alpha):
    """tanh z."""
    return tanh(z)


@jit
def tanh_derivative(a, alpha):
    """(1 - a)(1 + a)."""
    one = like(a, 1.0)
    return (one - a) * (one + a)


@jit
def elu_value(z, alpha):
    """z if z > 0, else alpha (e^z - 1)."""
    zero = like(z, 0.0)
    return select(z > zero, z, alpha * expm1_below_0(minimum(zero, z)))


@jit
def elu_derivative(a, alpha):
    """1 if a > 0, else alpha e^z = a + alpha."""
    return select(a > like(a, 0.0), like(a, 1.0), a + alpha)


@jit
def selu_value(z, alpha):
    """scale z if z > 0, else scale 1.67 (e^z - 1)."""
    zero = like(z, 0.0)
    return select(z > zero, like(z, SELU_SCALE) * z, like(z, SELU_DEPTH) * expm1_below_0(minimum(zero, z)))


@jit
def selu_derivative(a, alpha):
    """scale if a > 0, else a + scale 1.67."""
    return select(a > like(a, 0.0), like(a, SELU_SCALE), a + like(a, SELU_DEPTH))


@jit
def softplus_value(z, alpha):
    """log(1 + e^z) = max(0, z) + log(1 + e^-|z|)."""
    return maximum(like(z, 0.0), z) + log1p_to_1(exp(-absolute(z)))


@jit
def softplus_derivative(a, alpha):
    """1 - e^-a, which is 1 / (1 + e^-z)."""
    return -expm1_below_0(-a)


@jit
def gelu_value(z, alpha):
    """z P(Z < z)."""
    near = minimum(normal_limit(z), maximum(-normal_limit(z), z))  # -infinity times 0 would be NaN
    tail, _ = normal_tail(z, near)
    return select(z > like(z, 0.0), z - tail, tail)


@jit
def gelu_derivative(z, alpha):
    """P(Z < z) + z e^(-z²/2) / sqrt(2 pi), from z."""
    tail, e = normal_tail(z, like(z, 1.0))
    below = select(z > like(z, 0.0), like(z, 1.0) - tail, tail)
    near = minimum(normal_limit(z), maximum(-normal_limit(z), z))
    return fma(near * like(z, 0.3989422804014327), e, below)


@jit
def silu_value(z, alpha):
    """z sigmoid(z)."""
    return maximum(exponent_limit(z), z) * sigmoid(z)


@jit
def silu_derivative(z, alpha):
    """s (1 + z (1 - s)), from z; 1 - s without a difference."""
    one = like(z, 1.0)
    e = exp(-absolute(z))
    small, large = e / (one + e), one / (one + e)
    is_high = z > like(z, 0.0)
    s, rest = select(is_high, large, small), select(is_high, small, large)
    near = minimum(-exponent_limit(z), maximum(exponent_limit(z), z))
    return s * fma(near, rest, one)


@jit
def _mish_parts(z):
    """(e^z, w = e^2z + 2 e^z, z) within limits: t = tanh(log(1 + e^z)) = w / (w + 2) is 1 above them, and is called 0 below."""
    lowest = _mish_lowest(z)
    near = minimum(_mish_is_line(z), maximum(lowest, z))
    e = select(z < lowest, like(z, 0.0), exp_moderate(near))
    return e, fma(e, e, e + e), near


@jit
def mish_value(z, alpha):
    """z t with t = w / (w + 2), w = e^2z + 2 e^z: sums of positive numbers, which lose no digits."""
    w = _mish_parts(z)[1]
    return maximum(_mish_lowest(z), z) * (w / (w + like(z, 2.0)))


@jit
def mish_derivative(z, alpha):
    """t + z dt/dz, from z, with dt/dz = 4 e^z (1 + e^z) / (w + 2)^2."""
    e, w, near = _mish_parts(z)
    below = w + like(z, 2.0)
    slope = fma(e, e, e) * like(z, 4.0) / (below * below)
    return fma(near, slope, w / below)
