"""Medians of rounds, and how sure a ratio is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Median, minimum and all the samples, in the order of the rounds."""
    return {"median": float(np.median(samples)), "min": float(min(samples)), "samples": [float(s) for s in samples]}


def rates(samples: Sequence[float]) -> dict[str, Any]:
    """Median, maximum and all the samples of a rate."""
    return {"median": float(np.median(samples)), "max": float(max(samples)), "samples": [float(s) for s in samples]}


def ratio(samples: Sequence[float], base: Sequence[float], resamples: int = 1000) -> dict[str, float]:
    """samples / base, round by round: the median, and a 95 % bootstrap interval of it.

    The two of a round were measured one right after the other, so that a change of clock or a busy neighbour meets both.
    """
    pairs = np.asarray(samples) / np.asarray(base)
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(pairs, (resamples, pairs.size)), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return {"median": float(np.median(pairs)), "low": float(low), "high": float(high)}


def share(rates: Sequence[float], limits: Sequence[float]) -> float:
    """rates / limits, round by round: the median over the rounds in which the limit was really measured.

    A limit under half of the greatest says that the machine stood still for a moment, not what it can do: divided by it, a
    rate could come out as several times the limit.
    """
    measured = np.asarray(limits) >= max(limits) / 2
    return float(np.median(np.asarray(rates)[measured] / np.asarray(limits)[measured]))
