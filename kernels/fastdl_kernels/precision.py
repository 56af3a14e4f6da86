"""What products are done in: the arithmetic of their operands, or bfloat16 operands with sums in float32.

A bfloat16 is the upper half of a float32: 8 bits of exponent, 7 of fraction, a relative step of 2^-8. The product of two is
exact in float32.

| arithmetic    | a step of a lane                                              | where                               |
|---------------|---------------------------------------------------------------|-------------------------------------|
| FLOAT32       | c + a b in the operands' type, one multiply-add               | everywhere                          |
| BF16          | `vdpbf16ps`: c + a[1] b[1] + a[0] b[0]                        | x86 with AVX-512 and its bf16 part  |
| BF16_EMULATED | two multiply-adds in that order; subnormal numbers count as 0 | everywhere: for tests, half as fast |
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastdl_kernels._jit import jit
from fastdl_kernels.host import host

# Whether this processor has the instruction that BF16 stands for, at the width of a register.
HAS_BF16 = host().isa == "avx512" and host().has_bf16


FLOAT32, BF16, BF16_EMULATED = range(3)


# What bodies are compiled for: they see the type of an instance only.
class Float32(NamedTuple):
    """Products in the arithmetic of their operands, float32 or float64."""

    code: int = FLOAT32


class Bf16(NamedTuple):
    """Products of bfloat16 numbers by the processor's instruction for them, sums in float32."""

    code: int = BF16


class Bf16Emulated(NamedTuple):
    """The same by float32 multiply-adds."""

    code: int = BF16_EMULATED


def kind_of(arithmetic: types.Type) -> type:
    """Which of the three classes an argument of compiled code is."""
    kind: type = getattr(arithmetic, "instance_class", object)
    return kind


@intrinsic
def is_paired(typingctx, arithmetic):
    """Whether operands are packed as pairs of bfloat16 numbers: known when compiled."""
    kind = kind_of(arithmetic)
    if kind not in (Float32, Bf16, Bf16Emulated):
        return None

    def codegen(context, builder, sig, args):
        return ir.Constant(ir.IntType(1), int(kind is not Float32))

    return types.boolean(arithmetic), codegen


@jit
def is_arithmetic(arithmetic, itemsize):
    """Whether this processor has the arithmetic, for numbers of so many bytes."""
    return arithmetic == FLOAT32 or (
        itemsize == 4 and (arithmetic == BF16_EMULATED or (arithmetic == BF16 and HAS_BF16))
    )


def bf16_bits(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 numbers rounded to bfloat16, to the nearest and ties to even, as their bits; the same shape. NaN stays NaN."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return (np.where(np.isnan(x), bits | np.uint32(0x400000), nearest) >> np.uint32(16)).astype(np.uint16)


def from_bf16_bits(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 numbers that bits of bfloat16 stand for, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
