"""How much of a training goes into one native call, and on how many threads: found out on the training itself.

What a second thread is worth cannot be known beforehand. A cache line that another core has written arrives after 60 ns where
both cores share an L3, and after 260 ns where they do not; on a virtual machine that changes while a training runs, and
so does what else the cores have to do. With 64-128-10 in batches of 64, two threads take 0.7 of the time of one in the first
case and 1.6 times as long in the second. Results do not depend on the number of threads: it may change between any two calls.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import numba

from fastdl_kernels.serial import regions, usable_cores

# Multiply-adds per thread and phase that make up for a barrier: about 2 us of work against 0.3 to 1 us of waiting. Chosen
# by 60 trainings with one and with two threads, from 4-8-2 to 200-200-200-20, in batches of 8 to 256. It is where a training
# starts from; with less than an eighth of it more threads are not even tried, nor fewer with 64 times as much.
WORK_PER_PHASE = 80_000
HOPELESS, CERTAIN = 1 / 8, 64
# Between two calls Python gets its turn: for progress, callbacks and Ctrl-C.
SECONDS_PER_CALL = 0.05
# A trial measures each of two numbers of threads for so long: 20 steps and more of a network for which threads are in question,
# and 100 times what it takes to enter a parallel region.
TRIAL_SECONDS = 0.0005
# How long a choice stands until it is compared with others again: trials take 0.2 % of the time.
STANDING_SECONDS = 0.5
# By how much another number must be faster, in two trials one after the other, to be chosen.
GAIN = 0.04
# The most steps after a change of threads that say nothing, since the parameters come from another core's cache; fewer if a step
# takes long.
WARMING_STEPS = 3

# What the compiled code is asked for: a place in `counts`, and steps. What comes back: steps done, and seconds.
Calls = Generator[tuple[int, int], tuple[int, float], None]
Measurement = Generator[tuple[int, int], tuple[int, float], float]


class CallLength:
    """How much makes up a call of SECONDS_PER_CALL: found by doubling from 1."""

    def __init__(self) -> None:
        self.count = 1

    def took(self, count: int, seconds: float) -> None:
        """A call of `count` took that long; one that was cut short by the end of the data says little."""
        if seconds < SECONDS_PER_CALL / 2:
            self.count *= 2 if count == self.count else 1
        elif seconds > SECONDS_PER_CALL * 2:
            self.count = max(1, math.ceil(count * SECONDS_PER_CALL / seconds))


class ThreadTuner:
    """Says for each native call on how many threads it runs and how many steps it takes at the most.

    counts : the numbers of threads to choose from, in ascending order
    best : the place in `counts` of the fastest as far as is known; at first, of the one to start with
    choice, steps : of the coming call; `choice` is a place in `counts`
    seconds_per_step : what the last trial has measured, by the number of threads
    standing : whether the coming call is on the number that has been found the fastest, not part of a trial

    A trial compares the best number with its neighbour in `counts`, below and above it by turns.
    """

    def __init__(self, counts: Sequence[int], best: int) -> None:
        self.counts = list(counts)
        self.best = best
        self.seconds_per_step: dict[int, float] = {}
        self.standing = False
        self._settled = len(self.counts) == 1
        self._latest = math.inf  # seconds per step
        self._calls = self._all_calls()
        self.choice, self.steps = next(self._calls)

    def took(self, steps: int, seconds: float) -> None:
        """The call took `steps` steps (fewer than wanted at the end of an epoch) and that long."""
        if steps > 0:
            self.choice, self.steps = self._calls.send((steps, seconds))

    def settle(self) -> None:
        """Stay with the number that stands: no more trials."""
        self._settled = True

    def _all_calls(self) -> Calls:
        length = CallLength()
        direction = -1
        steps, seconds = yield self.best, 1  # touches everything for the first time
        self._latest = seconds / steps
        while True:
            tried = self.best
            for _ in self.counts[1:]:  # as far as it gets better, at most through all of them
                other = self.best + direction
                if not 0 <= other < len(self.counts):
                    direction = -direction
                    other = self.best + direction
                if not (yield from self._is_better(other)) or not (yield from self._is_better(other)):
                    direction = -direction
                    break
                self.best = other
            if self.best != tried:
                length = CallLength()
            stood = 0.0
            self.standing = True
            while stood < STANDING_SECONDS or self._settled:
                steps, seconds = yield self.best, length.count
                length.took(steps, seconds)
                stood += seconds
            self.standing = False

    def _is_better(self, other: int) -> Generator[tuple[int, int], tuple[int, float], bool]:
        present = yield from self._measure(self.best)
        different = yield from self._measure(other)
        return different < (1 - GAIN) * present

    def _measure(self, place: int) -> Measurement:
        wanted = max(1, min(WARMING_STEPS, int(TRIAL_SECONDS / 4 / self._latest)))
        yield place, wanted
        done, taken = 0, 0.0
        while taken < TRIAL_SECONDS:
            steps, seconds = yield place, wanted
            done, taken = done + steps, taken + seconds
            wanted = max(1, math.ceil((TRIAL_SECONDS - taken) * done / taken))
        self._latest = self.seconds_per_step[self.counts[place]] = taken / done
        return taken / done


# How many processes of one training share the cores that this one may use.
_sharing = 1


def share_cores(processes: int) -> None:
    """So many processes of one training, this one included, share the usable cores from now on."""
    global _sharing
    _sharing = processes


def most_threads() -> int:
    """How many threads there are for a training: this process's share of the usable cores, within Numba's limit."""
    return min(max(1, usable_cores() // _sharing), numba.config.NUMBA_NUM_THREADS)


def threads_for(work: int, n_threads: int | str = "auto", phases: int = 1) -> int:
    """`n_threads`, or as many as so many multiply-adds in all the phases keep busy in each of them."""
    if regions.forked:
        return 1
    if isinstance(n_threads, int):
        return n_threads
    busy = work // (phases * WORK_PER_PHASE)
    return 1 if busy < 2 else min(most_threads(), busy)


def tuner_for(work: int, n_threads: int | str, phases: int) -> ThreadTuner:
    """The tuner of the threads of a training; between powers of two, and all of them, if n_threads is "auto"."""
    first = threads_for(work, n_threads, phases)
    counts = {first}
    if not isinstance(n_threads, int) and not regions.forked:
        most, busy = most_threads(), work / (phases * WORK_PER_PHASE)
        counts |= {
            n for n in ({1 << k for k in range(most.bit_length())} | {most}) if n <= most and _may_be(n, first, busy)
        }
    return ThreadTuner(sorted(counts), sorted(counts).index(first))


def _may_be(n: int, first: int, busy: float) -> bool:
    """Whether n threads might be faster than `first`, of which `busy` threads had enough to do."""
    return n * HOPELESS <= busy if n > first else busy <= first * CERTAIN
