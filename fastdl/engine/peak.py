"""What this machine reaches with multiply-adds alone."""

from __future__ import annotations

import time

import numpy as np

from fastdl_kernels.serial import fma_flop, run_fma_loops


def peak_rate(threads: int, dtype: np.dtype, n: int, seconds: float, tries: int) -> float:
    """Operations per second of multiply-adds in registers on that many threads: the best of so many `tries`, each of `seconds` at
    least and of n rounds or, where these take less, of more.
    """
    sums, best, done = np.zeros(threads, dtype), 0.0, 0
    while done < tries:
        start = time.perf_counter()
        run_fma_loops(threads, n, sums)
        taken = time.perf_counter() - start
        if taken < seconds:
            n *= 4
        else:
            done += 1
            best = max(best, fma_flop(threads, n, dtype) / taken)
    return best
