"""Is it slower than before? What decides it: logarithms of ratios, their medians, and a bootstrap interval.

A round times the new version and a reference one right after the other and gives one number, log(new / reference).
Clocks and neighbours of a shared machine move both, so that the number stays where times move by tens of per cent. What
remains is noise with long tails, within a session (the rounds of one pair of processes) and between sessions: a process
may keep a memory layout that is a few per cent better or worse for as long as it lives. Hence

* a session counts by the median of its rounds, several sessions by the mean of their medians, and the interval comes from
  drawing both anew, sessions and the rounds in each: on a machine so busy that sessions differ more than rounds do, the
  interval says so;
* two short first sessions only pick suspects: all whose interval reaches the limit. Nothing of them decides, or the unlucky
  ones of many benchmarks would count with the very noise that picked them. One session passed a planted slowdown over twice
  in 30: a process whose layout is 20 % better than the other's looks the same in all of its rounds;
* a suspect is measured again in new processes, session by session with more rounds, until the interval of these sessions
  lies on one side of the limit. It is a regression when the lower bound is above the limit, at most one session in eight is
  below half of it on its own, and the interval is narrower than twice the limit (or all of it is far beyond): a wider one
  says that the machine was too busy to tell, and the verdict is "undecided".

The reference always runs by turns with the new version, on the machine as it is then. Times that were saved earlier, taken
as ratios to a yardstick such as NumPy, did not do for it: between two hours of a shared machine such a ratio moved by as
much as 1.5, and of ten planted slowdowns of 15 % two were found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Sessions = Sequence[Sequence[float]]
"""log(new / reference) of the rounds of each session."""

RESAMPLES = 1000
CONFIDENCE = 0.95  # of the two-sided interval: one lower bound in 40 lies above the truth


@dataclass(frozen=True)
class Change:
    """How many times as long it takes: 1.15 is 15 % slower. low and high bound the 95 % interval."""

    factor: float
    low: float
    high: float


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    rounds : of each of the first sessions
    more_rounds : of each later one
    least_sessions, most_sessions : how many of these decide: two or three nearly always do; where rounds scatter by 10 % and
        sessions by 3 %, 16 find 91 % of slowdowns of 15 % and 8 find 68 % (simulated)
    """

    rounds: int = 6
    more_rounds: int = 20
    least_sessions: int = 2
    most_sessions: int = 16


@dataclass
class Judgement:
    """What became of one benchmark.

    verdict : "slower" (the regression), "faster", "same" (within the limit), "undecided" (still on both sides of the
        limit after all sessions), "missing" (the other side has it and this one has not), "new" (the other way round)
    change : None where there is nothing to compare
    sessions : how many were measured
    note : why something is missing, or what it may be called now
    """

    name: str
    verdict: str
    change: Change | None = None
    sessions: int = 0
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether the guard must not pass it over."""
        return self.verdict in ("slower", "missing")


def _medians(sessions: Sessions, rng: np.random.Generator) -> NDArray[np.float64]:
    """RESAMPLES draws of the mean of the sessions' medians, with the sessions and the rounds in each drawn anew."""
    medians = np.stack(
        [np.median(rng.choice(np.asarray(rounds), (RESAMPLES, len(rounds))), axis=1) for rounds in sessions]
    )
    drawn = rng.integers(len(sessions), size=medians.shape)
    return np.take_along_axis(medians, drawn, axis=0).mean(axis=0)


def change(sessions: Sessions, seed: int = 0) -> Change:
    """The change of the new version against its reference: the mean of the sessions' medians, and its interval."""
    drawn = _medians(sessions, np.random.default_rng(seed))
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    middle = np.mean([np.median(rounds) for rounds in sessions])
    return Change(math.exp(middle), math.exp(low), math.exp(high))


def suspect(found: Change, limit: float) -> bool:
    """Whether the first sessions leave it open that the change is above the limit (0.1 for 10 %)."""
    return found.high > 1 + limit


def verdict(sessions: Sessions, limit: float) -> tuple[str, Change]:
    """What sessions that were not picked by their own result say."""
    found = change(sessions)
    if found.low > 1 + limit:
        least = math.log1p(limit) / 2
        narrow = math.log(found.high / found.low) < 2 * math.log1p(limit) or found.low > 1.5 * (1 + limit)
        agreed = sum(np.median(s) <= least for s in sessions) <= len(sessions) // 8
        return ("slower" if narrow and agreed else "undecided"), found
    if found.high <= 1 + limit:
        return ("faster" if found.high < 1 / (1 + limit) else "same"), found
    return "undecided", found


@dataclass
class Case:
    """One benchmark that is guarded.

    measure : takes a number of rounds; returns log(new / reference) of each, from new processes
    first : the first sessions, which may share their processes with other benchmarks
    """

    name: str
    measure: Callable[[int], list[float]]
    first: Sessions
    sessions: list[list[float]] = field(default_factory=list)


def judge(case: Case, limit: float, plan: Plan) -> Judgement:
    """Decide about one benchmark; measures it again if its first sessions leave anything open."""
    found = change(case.first)
    if not suspect(found, limit):
        return Judgement(case.name, "faster" if found.high < 1 / (1 + limit) else "same", found, len(case.first))
    word = "undecided"
    while word == "undecided" and len(case.sessions) < plan.most_sessions:
        case.sessions.append(case.measure(plan.more_rounds))
        if len(case.sessions) >= plan.least_sessions:
            word, found = verdict(case.sessions, limit)
    return Judgement(case.name, word, found, len(case.first) + len(case.sessions))
