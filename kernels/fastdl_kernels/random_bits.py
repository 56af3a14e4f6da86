"""Random bits from counters: a hash of a key and a number, with no state that threads would have to share.

`mix` makes 64 bits (the output function of splitmix64: Steele, Lea and Flood, 2014). `mix_small` makes 32 bits per call
for inner loops: two rounds of C. Wellons' "lowbias32", keyed by 64 bits, in arithmetic that LLVM turns into vectors.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastdl_kernels._jit import jit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@jit
def mix(key, counter):
    """64 bits for the state key + counter * golden ratio."""
    x = np.uint64(key) + np.uint64(counter) * _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _A
    x = (x ^ (x >> np.uint64(27))) * _B
    return x ^ (x >> np.uint64(31))


@intrinsic
def mix_small(typingctx, key, counter):
    """32 bits, as a uint32, for a key of 64 bits and an int64 counter below 2^32.

    An intrinsic, because Numba multiplies 32-bit numbers in 64 bits: four vector multiplications for one.
    """
    if key != types.uint64 or not isinstance(counter, types.Integer):
        return None

    def codegen(context, builder, sig, args):
        i32, i64 = ir.IntType(32), ir.IntType(64)
        low = builder.trunc(args[0], i32)
        high = builder.trunc(builder.lshr(args[0], ir.Constant(i64, 32)), i32)
        x = builder.trunc(context.cast(builder, args[1], sig.args[1], types.int64), i32)

        def fold(x: ir.Value, bits: int) -> ir.Value:
            return builder.xor(x, builder.lshr(x, ir.Constant(i32, bits)))

        def times(x: ir.Value, factor: int) -> ir.Value:
            return builder.mul(x, ir.Constant(i32, factor))

        x = builder.xor(times(x, 0x9E3779B9), low)
        x = fold(times(fold(x, 16), 0x21F0AAAD), 15)
        x = builder.add(x, high)
        return fold(times(fold(x, 16), 0xD35A2D97), 15)

    return types.uint32(key, counter), codegen
