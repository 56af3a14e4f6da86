"""Kernels called where a parallel region is under way already; argv[1] is the threading layer."""

from __future__ import annotations

import sys
import threading

import numba
import numpy as np

import fastdl_kernels as fk
from fastdl_kernels.regions import run_jobs
from fastdl_kernels.serial import entry, jit

rng = np.random.default_rng(0)
X, W, B = rng.normal(size=(6, 200, 100)), rng.normal(size=(100, 90)), rng.normal(size=90)
WANTED = np.maximum(X @ W + B, 0)


@numba.njit(parallel=True)
def in_prange(x, w, b, out):
    for i in numba.prange(x.shape[0]):
        fk.linear_forward(x[i], w, b, fk.RELU, 0.0, out[i])


@numba.njit(parallel=True)
def in_prange_of_prange(x, w, b, out):
    for i in numba.prange(2):
        in_prange(x[3 * i : 3 * i + 3], w, b, out[3 * i : 3 * i + 3])


@numba.guvectorize(
    ["(float64[:,:], float64[:,:], float64[:], float64[:,:])"],
    "(b,i),(i,o),(o)->(b,o)",
    target="parallel",
    nopython=True,
)
def in_guvectorize(x, w, b, out):
    result = np.empty((x.shape[0], w.shape[1]))
    fk.linear_forward(
        np.ascontiguousarray(x), np.ascontiguousarray(w), np.ascontiguousarray(b), fk.RELU, 0.0, result
    )  # fmt: skip
    out[:, :] = result


@jit
def count_job(i, counts):
    counts[i] += 1


@entry
def count(counts):
    run_jobs(count_job, counts.size, True, (counts,))


@numba.njit(parallel=True)
def jobs_in_prange(counts):
    for i in numba.prange(counts.shape[0]):
        count(counts[i])


def threads_at_once():
    """Python threads of which some are in regions of their own, some in kernels, and one in both."""
    wrong = []

    def kernels():
        out = np.empty((200, 90))
        for _ in range(10):
            fk.linear_forward(X[0], W, B, fk.RELU, 0.0, out)
            wrong.extend([] if np.allclose(out, WANTED[0]) else ["kernel"])

    def regions():
        for _ in range(10):
            out = np.empty_like(WANTED)
            in_prange(X, W, B, out)
            wrong.extend([] if np.allclose(out, WANTED) else ["region"])

    threads = [threading.Thread(target=target) for target in (kernels, regions, kernels, regions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong


if __name__ == "__main__":
    for function in (in_prange, in_prange_of_prange, in_guvectorize):
        out = np.full_like(WANTED, np.nan)
        function(X, W, B, out)
        np.testing.assert_allclose(out, WANTED)
    counts = np.zeros((50, 7), np.int64)
    jobs_in_prange(counts)
    assert (counts == 1).all()
    threads_at_once()
    assert numba.threading_layer() == sys.argv[1]
    print("fine")
