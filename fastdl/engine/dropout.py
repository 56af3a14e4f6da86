"""Dropout from counters: whether a unit is dropped is a hash of (seed, step, layer, row, unit).

Nothing is stored and no generator has a state: whoever needs a part of the mask computes it, on any thread, in any order.
"""

from __future__ import annotations

import numpy as np

from fastdl_kernels.serial import IDENTITY, apply_activation, is_rectifier, jit, mix, mix_small, needs_z, noinline
from fastdl_kernels.simd import number_like, pointer

UNITS = 1 << 32
"""A dropout rate p is written as the whole number p * UNITS: a hash below it drops the unit."""


@jit
def drop(data, stride, m0, m1, n0, n1, rate, key, before=0):
    """data[row * stride + unit] is divided by 1 - dropout rate, or 0 where it is dropped, for one block.

    `key` belongs to the step and layer, rows count from the batch's first, `before` of which are another process's: the same
    call on outputs and on their gradient takes the same units.
    """
    noinline()
    scale = number_like(data[0], UNITS / (UNITS - rate))
    zero = number_like(data[0], 0)
    limit = np.uint32(rate)  # compared in 32 bits as well
    for row in range(m0, m1):
        row_key = mix(key, before + row)
        cells = pointer(data, row * stride)
        for unit in range(n0, n1):
            value = cells[unit]
            cells[unit] = value * scale if mix_small(row_key, unit) >= limit else zero


@jit
def fused_derivative(activation, rate):
    """The activation whose derivative a product's epilogue may take from outputs that dropout has been through.

    The derivatives of rectifiers look at the sign alone, and some are taken from z, which nothing was dropped of; the others
    need the outputs as they were.
    """
    return IDENTITY if rate and not (is_rectifier(activation) or needs_z(activation)) else activation


@jit
def differentiate(d, outputs, stride, m0, m1, n0, n1, rate, activation, alpha):
    """d *= act'(z) for one block, from outputs = act(z) / (1 - dropout rate); what was dropped gets any number."""
    keep = number_like(alpha, (UNITS - rate) / UNITS)
    block, from_outputs = pointer(d, m0 * stride + n0), pointer(outputs, m0 * stride + n0)
    apply_activation(
        activation, 1, block, stride, block, stride, from_outputs, stride, m1 - m0, n1 - n0, alpha, keep
    )  # fmt: skip
