"""Activations with a number alpha learnt for each unit: alpha act(z) + (1 - alpha) z, and leaky ReLU with its slope.

The first is z + alpha (act(z) - z), which RealMLP has (Holzmüller, Grinsztajn and Steinwart, 2024): act at alpha = 1, and z
itself at 0. Leaky ReLU's slopes are learnt themselves: PReLU (He et al., 2015). Both take z, and the derivative once more act(z):
what stands in memory is z alone. Each function is compiled when a network first uses it.
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import overload

from fastdl_kernels._units import linked
from fastdl_kernels.activations import BY_CODE, LEAKY_RELU, N_ACTIVATIONS, switch_of
from fastdl_kernels.simd import broadcast, fma, lanes_of, like, load_up_to, minimum, pointer, select, store_up_to


def _value(code, z, own, alpha):
    """The value for a vector z and a vector of the units' own numbers."""
    raise TypeError("works inside compiled code only")


def _derivatives(code, z, own, alpha):
    """(the derivative by z, the derivative by the units' own numbers)."""
    raise TypeError("works inside compiled code only")


@overload(_value, prefer_literal=True)
def _value_of(code, z, own, alpha):
    value = BY_CODE[code.literal_value].value
    if code.literal_value == LEAKY_RELU:
        return lambda code, z, own, alpha: value(z, own)
    return lambda code, z, own, alpha: fma(own, value(z, alpha), (like(z, 1.0) - own) * z)


@overload(_derivatives, prefer_literal=True)
def _derivatives_of(code, z, own, alpha):
    spec = BY_CODE[code.literal_value]
    value, derivative, from_z = spec.value, spec.derivative, spec.derivative_from == "z"
    if code.literal_value == LEAKY_RELU:

        def of_slopes(code, z, own, alpha):
            zero = like(z, 0.0)
            return select(z > zero, like(z, 1.0), own), minimum(zero, z)

        return of_slopes

    def mixed(code, z, own, alpha):
        a = value(z, alpha)
        slope = derivative(z if from_z else a, alpha)
        return fma(own, slope, like(z, 1.0) - own), a - z

    return mixed


def _block_signature(x: types.Type) -> tuple[types.Type, ...]:
    n, p = types.int64, types.CPointer(x)
    return n, p, p, n, p, n, n, x


def _block_function(code: int) -> Any:
    """`apply_parametric` of one activation. The code is a number in a closure, by which the cache tells the functions apart."""

    def block(derivative, out, z, stride, own, rows, columns, alpha):
        lanes = lanes_of(out)
        parameter = broadcast(alpha)
        for r in range(rows):
            result, values = pointer(out, r * stride), pointer(z, r * stride)
            for i in range(0, columns, lanes):
                n = columns - i
                v, mine = load_up_to(values, i, n), load_up_to(own, i, n)
                if derivative:
                    slope, by_own = _derivatives(code, v, mine, parameter)
                    d = load_up_to(result, i, n)
                    store_up_to(result, i, d * slope, n)
                    store_up_to(values, i, d * by_own, n)
                else:
                    store_up_to(result, i, _value(code, v, mine, parameter), n)

    block.__name__ = block.__qualname__ = f"parametric_{BY_CODE[code].name}_block"
    return linked(_block_signature, at_first_call=True)(block)


BLOCKS = tuple(_block_function(code) for code in range(N_ACTIVATIONS))
"""By code, as `activations.BLOCKS`."""

apply_parametric = switch_of(BLOCKS, _block_signature)
"""apply_parametric(activation, derivative, out, z, stride, own, rows, columns, alpha), for blocks whose rows are `stride` apart.

out = act(z) with the units' numbers own [columns]; z may be out. With `derivative`, out holds the gradient d of these values and
becomes that of z, and z becomes what d adds to the gradient of `own`, row by row.
"""
