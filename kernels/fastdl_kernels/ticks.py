"""The processor's own clock, for measurements inside compiled code."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastdl_kernels.host import host
from fastdl_kernels.simd.vector import read_register


@intrinsic
def ticks(typingctx):
    """A counter that grows at a steady rate, read in about 10 ns; its unit is the processor's. 0 where there is none."""

    def codegen(context, builder, sig, args):
        i64 = ir.IntType(64)
        isa = host().isa
        if isa in ("avx512", "avx2", "sse"):
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(i64, []), "llvm.readcyclecounter")
            return builder.call(function, [])
        if isa == "neon":
            # LLVM's own choice, the cycle counter, may not be read by programs; the virtual timer may.
            return read_register(builder, "cntvct_el0")
        return ir.Constant(i64, 0)

    return types.int64(), codegen
