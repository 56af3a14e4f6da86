"""Whether all numbers of rows are finite as the engine reads them: one pass, a chunk at a time, on several threads."""

from __future__ import annotations

import time

import numpy as np

from fastdl.engine.predictor import is_finite
from fastdl.engine.source import arguments_of, for_source, read_rows
from fastdl.engine.structs import Matrix, source_of
from fastdl.engine.thread_tuner import CallLength, threads_for
from fastdl.stored import StoredRows
from fastdl_kernels.serial import entry, jit, run_jobs
from fastdl_kernels.simd import flush_subnormals, null, pointer, restore_mode

# Numbers of a chunk: they stay in L2.
_CHUNK = 1 << 15
# Multiply-adds that take as long as reading, converting and looking at a number.
_WORK_PER_NUMBER = 16


@jit
def _look_through(t, n_threads, chunk, source, first, stop, n_columns, work, bad):
    own = Matrix(pointer(work, t * chunk * n_columns), n_columns)
    natural = null(np.int64(0))
    mode = flush_subnormals()
    for start in range(first + t * chunk, stop, n_threads * chunk):
        end = min(stop, start + chunk)
        read_rows(own, source, natural, start, end, stop)
        if not is_finite(own.data, (end - start) * n_columns):
            bad[t] = 1
            break
    restore_mode(mode)


@entry
def count_bad(n_threads, chunk, source, first, stop, work, bad):
    """bad [n_threads] = 1 for each thread that found a number that is not finite in the rows first .. stop of a source.

    work [n_threads, chunk, columns] is scratch.
    """
    run_jobs(
        _look_through, n_threads, n_threads > 1,
        (
            n_threads, chunk, source_of(source), first, stop, work.shape[2], pointer(work, 0), pointer(bad, 0),
        ),
    )  # fmt: skip


def all_finite(x: StoredRows) -> bool:
    """Whether every number of the rows is finite, converted and scaled."""
    n_rows, n_columns = x.shape
    if n_rows * n_columns == 0:
        return True
    for_source(x)
    threads, chunk = threads_for(x.shape[0] * n_columns * _WORK_PER_NUMBER, "auto"), max(1, _CHUNK // n_columns)
    work, bad = np.empty((threads, chunk, n_columns), x.dtype), np.zeros(threads, np.int64)
    length, done = CallLength(), 0  # in rounds of a chunk for each thread: Python gets its turn between calls
    while done < n_rows and not bad.any():
        count = length.count
        stop = min(n_rows, done + count * threads * chunk)
        start = time.perf_counter()
        count_bad(threads, chunk, arguments_of(x), done, stop, work, bad)
        length.took(count, time.perf_counter() - start)
        done = stop
    return not bad.any()
