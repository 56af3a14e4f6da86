"""The thread tuner: threads are chosen by trying, on made-up times that a test controls."""

from __future__ import annotations

import numpy as np
import pytest

from fastdl.engine import thread_tuner
from fastdl.engine.thread_tuner import ThreadTuner, tuner_for


class Machine:
    """Runs the calls that a tuner asks for, at so many seconds a step for each number of threads."""

    def __init__(self, tuner, seconds_per_step, longest=10**9, noise=0.0):
        self.tuner, self.speed, self.longest = tuner, dict(seconds_per_step), longest
        self.rng, self.noise = np.random.default_rng(0), noise
        self.clock, self.spent = 0.0, dict.fromkeys(seconds_per_step, 0.0)

    def run(self, seconds):
        """For so long; returns the steps done."""
        done, stop = 0, self.clock + seconds
        while self.clock < stop:
            threads = self.tuner.counts[self.tuner.choice]
            steps = min(self.tuner.steps, self.longest)
            taken = steps * self.speed[threads] * (1 + self.noise * self.rng.random())
            self.tuner.took(steps, taken)
            self.clock, done = self.clock + taken, done + steps
            self.spent[threads] += taken
        return done


@pytest.mark.parametrize("longest", [10**9, 28, 1])
@pytest.mark.parametrize("first", [0, 1, 2, 3])
@pytest.mark.parametrize("fastest", [1, 2, 4, 8])
def test_the_fastest_is_found_and_trials_cost_little(fastest, first, longest):
    """From any start, also where an epoch is shorter than a trial, within 2 % of the steps that the fastest takes."""
    speed = {n: 50e-6 * (1 + 0.3 * abs(np.log2(n / fastest))) for n in (1, 2, 4, 8)}
    machine = Machine(ThreadTuner([1, 2, 4, 8], first), speed, longest)
    machine.run(2.0)
    assert machine.tuner.counts[machine.tuner.best] == fastest
    before = machine.clock
    done = machine.run(2.0)
    assert done * speed[fastest] > 0.98 * (machine.clock - before)


def test_a_change_of_the_machine_is_noticed():
    """Two threads become slower than one, and faster again: half a second later the choice is right."""
    machine = Machine(ThreadTuner([1, 2], 1), {1: 16e-6, 2: 11e-6})
    machine.run(1.0)
    for times, right in (({1: 16e-6, 2: 26e-6}, 1), ({1: 16e-6, 2: 11e-6}, 2)):
        machine.speed.update(times)
        machine.run(thread_tuner.STANDING_SECONDS + 2 * thread_tuner.SECONDS_PER_CALL)
        assert machine.tuner.counts[machine.tuner.best] == right


def test_equal_ones_are_not_changed_for_noise():
    machine = Machine(ThreadTuner([1, 2], 1), {1: 10e-6, 2: 10e-6}, noise=0.02)
    machine.run(20.0)
    assert machine.spent[1] < 0.01 * machine.clock


def test_calls_take_a_twentieth_of_a_second():
    machine = Machine(ThreadTuner([1], 0), {1: 3e-6})
    machine.run(1.0)
    assert thread_tuner.SECONDS_PER_CALL / 2 < machine.tuner.steps * 3e-6 < thread_tuner.SECONDS_PER_CALL * 2
    machine.speed[1] = 3e-3
    machine.run(1.0)
    assert machine.tuner.steps * 3e-3 < thread_tuner.SECONDS_PER_CALL * 2


def test_a_call_that_did_nothing_changes_nothing():
    """Ctrl-C came before the threads had begun."""
    tuner = ThreadTuner([1, 2], 0)
    before = tuner.choice, tuner.steps
    tuner.took(0, 0.1)
    assert (tuner.choice, tuner.steps) == before


def test_settled_means_no_more_trials():
    machine = Machine(ThreadTuner([1, 2], 0), {1: 10e-6, 2: 30e-6})
    while not machine.tuner.standing:
        machine.run(1e-9)
    machine.tuner.settle()
    machine.spent[2] = 0.0
    machine.run(3.0)
    assert machine.spent[2] == 0.0
    assert set(machine.tuner.seconds_per_step) == {1, 2}


@pytest.mark.parametrize(
    ("busy", "counts", "first"),
    [(0.1, [1], 1), (0.5, [1, 2, 4], 1), (3, [1, 2, 3, 4, 6], 3), (300, [1, 2, 4, 6], 6), (400, [6], 6)],
)
def test_what_is_in_question(monkeypatch, busy, counts, first):
    """Few multiply-adds: one thread. Very many: all of them. In between: powers of two, and where the estimate says."""
    monkeypatch.setattr(thread_tuner, "usable_cores", lambda: 6)
    monkeypatch.setattr(thread_tuner.numba.config, "NUMBA_NUM_THREADS", 8)
    tuner = tuner_for(int(busy * 2 * thread_tuner.WORK_PER_PHASE), "auto", 2)
    assert tuner.counts == counts
    assert tuner.counts[tuner.best] == first
    assert tuner_for(10**12, 3, 2).counts == [3]
