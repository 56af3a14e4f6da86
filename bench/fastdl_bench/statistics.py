"""Medians of rounds, and how sure a ratio is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000  # of a bootstrap


def interval(values: Sequence[float] | NDArray[np.floating]) -> dict[str, float]:
    """The median, and its 95 % bootstrap interval."""
    values = np.asarray(values)
    medians = np.median(np.random.default_rng(0).choice(values, (RESAMPLES, values.size)), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return {"median": float(np.median(values)), "low": float(low), "high": float(high)}


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Median with its interval, minimum, and all the samples in the order of the rounds."""
    return interval(samples) | {"min": float(min(samples)), "samples": [float(s) for s in samples]}


def rates(samples: Sequence[float]) -> dict[str, Any]:
    """Median with its interval, maximum, and all the samples of a rate."""
    return interval(samples) | {"max": float(max(samples)), "samples": [float(s) for s in samples]}


def ratio(samples: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """samples / base, round by round: the median, and a 95 % bootstrap interval of it.

    The two of a round were measured one right after the other, so that a change of clock or a busy neighbour meets both.
    """
    return interval(np.asarray(samples) / np.asarray(base))


def share(rates: Sequence[float], limits: Sequence[float]) -> float:
    """rates / limits, round by round: the median over the rounds in which the limit was really measured.

    A limit under half of the greatest says that the machine stood still for a moment, not what it can do: divided by it, a
    rate could come out as several times the limit.
    """
    measured = np.asarray(limits) >= max(limits) / 2
    return float(np.median(np.asarray(rates)[measured] / np.asarray(limits)[measured]))
