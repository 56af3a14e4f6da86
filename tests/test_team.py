"""team.py: whoever arrives in time forms the team, every job is done once, and barriers order what is written."""

from __future__ import annotations

import threading

import numba
import numpy as np
import pytest

from fastdl_kernels.team import (
    STATE_SIZE,
    atomic_add,
    atomic_load,
    atomic_or,
    atomic_store,
    barrier,
    check_in,
    claim,
    first_job,
)

ROUNDS, JOBS = 40, 13


@numba.njit
def round_of_jobs(state, rank, size, r, times, values):
    """Each job adds up what all jobs of the round before have written."""
    job = first_job(state, rank)
    while job < values.shape[1]:
        atomic_add(times, r * values.shape[1] + job, 1)
        total = 1 + job
        for k in range(values.shape[1]):
            total += values[r - 1, k]
        values[r, job] = total % 1_000_003
        job = claim(state, size)
    barrier(state, size)


@numba.njit(nogil=True)
def member(state, wanted, times, values):
    rank, size = check_in(state, wanted)
    if rank >= 0:
        for r in range(1, len(values)):
            round_of_jobs(state, rank, size, r, times, values)
    return rank, size


@numba.njit(parallel=True)
def region(n_threads, state, times, values, ranks):
    """As the engine does it: one iteration for each thread that is wanted."""
    for t in numba.prange(n_threads):
        rank, size = check_in(state, n_threads)
        ranks[t, 0], ranks[t, 1] = rank, size
        if rank >= 0:
            for r in range(1, len(values)):
                round_of_jobs(state, rank, size, r, times, values)


def expected_values():
    values = np.zeros((ROUNDS, JOBS), np.int64)
    for r in range(1, ROUNDS):
        values[r] = (1 + np.arange(JOBS) + values[r - 1].sum()) % 1_000_003
    return values


def fresh():
    return np.zeros(STATE_SIZE, np.int64), np.zeros((ROUNDS, JOBS), np.int64), np.zeros((ROUNDS, JOBS), np.int64)


def check_work(times, values):
    assert (times[0] == 0).all()
    assert (times[1:] == 1).all()
    np.testing.assert_array_equal(values, expected_values())


def check_team(places, wanted):
    """Ranks 0 .. size - 1, each once; all others were sent away."""
    sizes = {size for rank, size in places if rank >= 0}
    assert len(sizes) == 1
    size = sizes.pop()
    assert 1 <= size <= min(wanted, len(places))
    assert sorted(rank for rank, _ in places if rank >= 0) == list(range(size))
    assert [place for place in places if place[0] < 0] == [(-1, 0)] * (len(places) - size)


@pytest.mark.parametrize("wanted", [1, 2, 4])
@pytest.mark.parametrize("arriving", [1, 2, 3, 6])
def test_fewer_as_many_and_more_threads_than_wanted(arriving, wanted):
    for _ in range(10):
        state, times, values = fresh()
        places: list[tuple[int, int]] = []
        start = threading.Barrier(arriving)

        def run(state=state, times=times, values=values, places=places, start=start):
            start.wait()
            places.append(member(state, wanted, times, values))

        threads = [threading.Thread(target=run) for _ in range(arriving)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(places) == arriving
        check_team(places, wanted)
        check_work(times, values)


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_inside_a_parallel_region(n_threads):
    """More iterations than Numba has threads: those that come when all is done leave."""
    for _ in range(10):
        state, times, values = fresh()
        ranks = np.full((n_threads, 2), 99, np.int64)
        region(n_threads, state, times, values, ranks)
        check_team([(int(rank), int(size)) for rank, size in ranks], n_threads)
        check_work(times, values)


def test_one_thread_does_not_wait_for_ever():
    state, times, values = fresh()
    assert member(state, 4, times, values) == (0, 1)
    check_work(times, values)


def test_late_comers_leave():
    """Also when there would have been room for them."""
    state, times, values = fresh()
    member(state, 8, times, values)
    for _ in range(3):
        assert member(state, 8, times, values) == (-1, 0)
    check_work(times, values)


def test_atomic_operations():
    """They answer what was there before."""

    @numba.njit
    def run(state):
        return (atomic_store(state, 3, 5), atomic_add(state, 3, 2), atomic_or(state, 3, 8), atomic_load(state, 3))  # fmt: skip

    state = np.zeros(STATE_SIZE, np.int64)
    assert run(state) == (5, 5, 7, 15)
    assert state[3] == 15
    assert np.count_nonzero(state) == 1
