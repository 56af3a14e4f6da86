"""What the processor can do: the peak rate of fused multiply-adds, and memory bandwidth with as many streams as Adam.

A peer like the others (`python -m fastdl_bench.roofline`), so that the peak is measured in the same rounds as what is compared
with it: clocks of shared machines change from second to second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from fastdl_bench.protocol import Run, serve
from fastdl_kernels import simd
from fastdl_kernels.serial import fma_flop, run_fma_loops

ITERATIONS = 200_000  # of the loop over all accumulators: about 1 ms
CHUNK = 16 * 1024  # numbers of each stream in an iteration; prange gives each thread its share of them as one range


@numba.njit
def _streams(start: int, stop: int, read: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    """a, b and c are read and written, `read` is read: the traffic of adam_step, with next to no arithmetic."""
    r, a_, b_, c_ = (
        simd.pointer(read, 0),
        simd.pointer(a, 0),
        simd.pointer(b, 0),
        simd.pointer(c, 0),
    )
    for i in range(start, stop, simd.lanes_of(r)):
        n = stop - i
        v = simd.load_up_to(r, i, n)
        simd.store_up_to(a_, i, simd.load_up_to(a_, i, n) + v, n)
        simd.store_up_to(b_, i, simd.load_up_to(b_, i, n) + v, n)
        simd.store_up_to(c_, i, simd.load_up_to(c_, i, n) + v, n)


@numba.njit
def _streams_repeated(times: int, read: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    for _ in range(times):
        _streams(0, read.size, read, a, b, c)


@numba.njit(parallel=True)
def _streams_threads(read: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    for job in numba.prange((read.size + CHUNK - 1) // CHUNK):
        _streams(job * CHUNK, min(read.size, (job + 1) * CHUNK), read, a, b, c)


def _rate(call: Callable[[], None], amount: float, seconds: float) -> float:
    """Amount per second of calls that take about so long together; the first only warms up."""
    call()
    calls, start = 0, time.perf_counter()
    while True:
        call()
        calls += 1
        taken = time.perf_counter() - start
        if taken >= seconds:
            return amount * calls / taken


def setup(request: dict[str, Any]) -> Run:
    """For "size" numbers in each of 4 streams; a run takes "seconds" and answers with both rates."""
    threads, size = int(os.environ["NUMBA_NUM_THREADS"]), request["size"]
    sums = np.zeros(threads, np.float32)
    arrays = [np.ones(size, np.float32) for _ in range(4)]
    repeats = max(1, 100_000 // size)  # small arrays: the call from Python must not count

    def multiply_adds() -> None:
        run_fma_loops(threads, ITERATIONS, sums)

    def streams() -> None:
        if threads == 1 or size <= CHUNK:
            _streams_repeated(repeats, *arrays)
        else:
            _streams_threads(*arrays)

    flop = fma_flop(threads, ITERATIONS, sums.dtype)
    moved = 28 * size * (repeats if threads == 1 or size <= CHUNK else 1)
    streams()

    def run(request: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        flop_rate = _rate(multiply_adds, flop, request["seconds"] / 2)
        byte_rate = _rate(streams, moved, request["seconds"] / 2)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "flop_per_second": flop_rate, "bytes_per_second": byte_rate}

    return run


if __name__ == "__main__":
    serve(setup)
