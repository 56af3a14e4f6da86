"""regions.py: every job once, on Numba's threads when they are wanted, else one after the other on the caller's."""

from __future__ import annotations

import ctypes
import signal
import time

import numba
import numpy as np
import pytest
from processes import layers, run_program

from fastdl_kernels import regions
from fastdl_kernels._signals import callback, interrupt_later
from fastdl_kernels.regions import run_jobs
from fastdl_kernels.serial import entry, jit
from fastdl_kernels.team import atomic_add, atomic_load, give_way


@jit
def count_job(i, counts, step):
    counts[i] += step


@entry
def count(n, on_threads, counts, step):
    run_jobs(count_job, n, on_threads, (counts, step))


@jit
def meet_job(i, state, patience, met):
    """Arrive, and wait for another job to arrive: only on two threads at once can that be."""
    atomic_add(state, 0, 1)
    rounds = 0
    while atomic_load(state, 0) < 2 and rounds < patience:
        give_way()
        rounds += 1
    met[i] = atomic_load(state, 0) >= 2


@entry
def meet(on_threads, state, patience, met):
    run_jobs(meet_job, 2, on_threads, (state, patience, met))


@pytest.mark.parametrize("on_threads", [False, True])
@pytest.mark.parametrize("n", [0, 1, 2, 7, 1000])
def test_every_job_is_done_once(n, on_threads):
    counts = np.zeros(n + 1, np.int64)
    count(n, on_threads, counts, 3)
    assert (counts[:n] == 3).all()
    assert counts[n] == 0


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
def test_jobs_run_at_the_same_time_on_threads():
    met = np.zeros(2, np.bool_)
    meet(True, np.zeros(1, np.int64), 50_000_000, met)
    assert met.all()


def test_jobs_run_one_after_the_other_without():
    met = np.zeros(2, np.bool_)
    meet(False, np.zeros(1, np.int64), 10, met)
    assert met.tolist() == [False, True]


def interrupt(*args):
    raise KeyboardInterrupt


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt, also where this process was started with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("function", "patched", "works"),
    [("_first", "assemble", True), ("_first", "_CRegion", False)],
)
def test_control_c_inside_a_callback_is_not_lost(interruptible, monkeypatch, function, patched, works):
    """ctypes swallows what its callbacks raise: it comes a moment later instead, and jobs that have not begun are done."""
    seen = []
    job = regions._CJob(lambda i, data: seen.append((i, data)))
    monkeypatch.setattr(regions, "_fill", lambda target: None)
    monkeypatch.setattr(regions, "_compiled", regions._compiled)
    monkeypatch.setattr(regions, patched, (lambda address: interrupt) if patched == "_CRegion" else interrupt)
    callback(getattr(regions, function))(3, ctypes.cast(job, ctypes.c_void_p).value, 7)
    assert seen == ([(0, 7), (1, 7), (2, 7)] if works else [])
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)


def test_an_interrupt_that_is_postponed_waits_for_the_end_of_the_callback(interruptible):
    ended = []

    @callback
    def long():
        interrupt_later()
        time.sleep(0.3)
        ended.append(True)

    long()
    assert ended
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)


@pytest.mark.parametrize("layer", layers())
def test_inside_of_a_region_kernels_run_on_their_own_thread(layer):
    """The work queue ends the process when one region starts inside another, or beside it on another Python thread."""
    run_program("nested_regions.py", layer, NUMBA_THREADING_LAYER=layer)
