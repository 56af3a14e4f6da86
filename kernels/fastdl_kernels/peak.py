"""The peak rate of multiply-adds: a loop that does nothing else, with all its numbers in registers."""

from __future__ import annotations

import time

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype
from numpy.typing import NDArray

from fastdl_kernels._jit import jit
from fastdl_kernels._units import array_type, native
from fastdl_kernels.host import host
from fastdl_kernels.regions import run_jobs
from fastdl_kernels.simd import hsum
from fastdl_kernels.simd.vector import call_llvm, constant, splat, vec_type

# 12 of the 16 registers of x86 without AVX-512: 2 units times a latency of 4 or 5 need 8 to 10. Processors with 32
# registers have up to 4 units: 24.
ACCUMULATORS = 12 if host().n_registers <= 16 else 24


@intrinsic
def _fma_loop(typingctx, n, x):
    """n times a <- a x + x in each of ACCUMULATORS independent vectors; their sum."""
    if x not in (types.float32, types.float64) or not isinstance(n, types.Integer):
        return None

    def codegen(context, builder, sig, args):
        count = context.cast(builder, args[0], sig.args[0], types.int64)
        vector = ir.VectorType(args[1].type, vec_type(sig.args[1]).count)
        xs = splat(builder, vector, args[1])
        cells = [cgutils.alloca_once_value(builder, constant(vector, float(k))) for k in range(ACCUMULATORS)]
        name = f"llvm.fmuladd.v{vector.count}f{sig.args[1].bitwidth}"
        with cgutils.for_range(builder, count):
            for cell in cells:  # LLVM keeps these in registers
                builder.store(call_llvm(builder, name, vector, [builder.load(cell), xs, xs]), cell)
        total = builder.load(cells[0])
        for cell in cells[1:]:
            total = builder.fadd(total, builder.load(cell))
        return total

    return vec_type(x)(types.int64, x), codegen


@jit
def _fma_job(t, n, x, sums):
    sums[t] = hsum(_fma_loop(n, x))


@native(lambda x: (types.int64, types.int64, x, array_type(x, 1)))
def fma_loops(n_threads, n, x, sums):
    """The loop on each of `n_threads` threads; sums [n_threads] of x's dtype is overwritten."""
    run_jobs(_fma_job, n_threads, n_threads > 1, (n, x, sums))


@native(lambda x: (types.int64, types.int64))
def shift_loop(n, x):
    """n times two shifts and two exclusive-ors, each of which waits a cycle for the one before; the last number."""
    for _ in range(n):
        x ^= x << 13
        x ^= x >> 7
    return x


def clock_hertz() -> float:
    """The core's clock while it works, the best of a few loops of 4 cycles a step."""
    loop, n, best, tries = shift_loop.callable(types.float32), 10_000, 0.0, 0
    while tries < 30:
        start = time.perf_counter()
        loop(n, 88_172_645_463_325_252)
        seconds = time.perf_counter() - start
        if seconds < 0.002:
            n *= 4
        else:
            tries += 1
            best = max(best, 4 * n / seconds)
    return best


def fma_flop(n_threads: int, n: int, dtype: np.dtype) -> int:
    """The floating-point operations of `fma_loops`: two in each lane."""
    return 2 * host().lanes(dtype.itemsize) * ACCUMULATORS * n * n_threads


def run_fma_loops(n_threads: int, n: int, sums: NDArray) -> None:
    """`fma_loops` with the dtype of `sums`."""
    fma_loops.callable(from_dtype(sums.dtype))(n_threads, n, 0.5, sums)
