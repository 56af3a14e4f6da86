"""Probabilities that mean what they say, and intervals that hold the truth as often as they promise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl import checks
from fastdl.errors import InputError

COLDEST, HOTTEST = 0.05, 20.0
"""Between these temperatures the best one is looked for."""
PRIOR_DEVIATION = 1.3
_GRID = 25
_GOLDEN = (math.sqrt(5) - 1) / 2
_PRECISION = 1e-4


def best_temperature(loss_of: Callable[[float], float]) -> float:
    """The T from 0.05 to 20 for which `loss_of(T)` is the least, to 0.01 %; 1 if no other is better.

    The loss is the mean log loss of softmax(z / T), or of an average of several, on rows that the models have not seen. Found on
    a grid of log T, then by golden sections. Source: Guo et al., On Calibration of Modern Neural Networks, 2017.
    """
    grid = np.linspace(math.log(COLDEST), math.log(HOTTEST), _GRID)
    losses = [loss_of(math.exp(t)) for t in grid]
    best = int(np.argmin(losses))
    low, high = float(grid[max(0, best - 1)]), float(grid[min(_GRID - 1, best + 1)])
    while high - low > _PRECISION:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss_of(math.exp(left)) <= loss_of(math.exp(right)):
            high = right
        else:
            low = left
    found = math.exp((low + high) / 2)
    return found if loss_of(found) < loss_of(1.0) else 1.0


def log_loss(raw: NDArray[np.float64], targets: NDArray[Any]) -> float:
    """The mean log loss of raw outputs [N, O] against class indices [N], or, for independent labels, against numbers [N, O]."""
    if targets.ndim > 1:
        return float(np.mean(np.logaddexp(0, raw) - targets * raw))
    from_top = raw - raw.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(from_top).sum(axis=1)) - from_top[np.arange(len(raw)), targets]))


def careful(loss_of: Callable[[float], float], n_rows: int) -> Callable[[float], float]:
    """`loss_of(T)`, the mean over `n_rows`, with a prior for few of them: log T is normal of mean 0 and deviation 1.3.

    A model that is right on all of 30 rows would be given the lowest temperature there is, and be certain of its next mistake.
    """
    return lambda t: loss_of(t) + math.log(t) ** 2 / (2 * PRIOR_DEVIATION**2 * n_rows)


def check_share(share: object, name: str = "interval") -> float:
    """The share of rows that an interval is to hold.

    Raises
    ------
    InputError : it is not between 0 and 1
    """
    if not checks.is_real(share) or not 0 < share < 1:
        raise InputError(f"{name}: expected a share of the rows between 0 and 1, such as 0.9, got {share!r}")
    return float(share)


def fewest_rows(share: float) -> int:
    """How many rows at least say how wide an interval for this share is: the k of `half_widths` must be one of them."""
    n = 1
    while math.ceil(round((n + 1) * share, 9)) > n:
        n += 1
    return n


def half_widths(errors: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """For each target the k-th smallest of |errors| [N, O], k = ceil((N + 1) share): split-conformal prediction.

    If rows come in no order, prediction ± this holds a new row's target with a probability of at least `share`. Source: Lei et
    al., Distribution-Free Predictive Inference for Regression, 2018.

    Raises
    ------
    InputError : there are too few rows for this share
    """
    n = len(errors)
    if n < fewest_rows(share):
        raise InputError(
            f"interval: expected at least {fewest_rows(share)} rows that the model has not learnt from for a share of {share:g}, "
            f"got {n}; hold out more rows, or ask for a smaller share"
        )
    k = math.ceil(round((n + 1) * share, 9))
    found: NDArray[np.float64] = np.sort(np.abs(errors), axis=0)[k - 1]
    return found


@dataclass(frozen=True)
class Interval:
    """Prediction intervals of a regression: prediction ± half_width.

    share : of the rows that an interval is to hold
    half_width : for each target, in its units
    rows : from which that was found
    coverage : the share of rows that intervals held which were found on the other half of `rows`: both halves by turns, all
        targets together; None where the halves are too small
    """

    share: float
    half_width: tuple[float, ...]
    rows: int
    coverage: float | None

    @classmethod
    def of(cls, predictions: NDArray[Any], y: NDArray[Any], share: float, seed: int = 0) -> Interval:
        """From predictions [N, O] for rows that the model has not learnt from, and their targets; `seed` draws the halves."""
        share = check_share(share)
        errors = np.asarray(y, np.float64).reshape(len(y), -1) - np.asarray(predictions, np.float64).reshape(len(y), -1)
        widths = half_widths(errors, share)
        order = np.random.default_rng(seed).permutation(len(errors))
        halves = order[::2], order[1::2]
        coverage = None
        if min(map(len, halves)) >= fewest_rows(share):
            held = [np.abs(errors[b]) <= half_widths(errors[a], share) for a, b in (halves, halves[::-1])]
            coverage = float(np.concatenate(held).mean())
        return cls(share, tuple(widths.tolist()), len(errors), coverage)

    def bounds(self, predictions: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(lower, upper) for predictions [N] or [N, O]."""
        width = np.asarray(self.half_width) if np.ndim(predictions) == 2 else self.half_width[0]
        return predictions - width, predictions + width

    def held(self, predictions: NDArray[Any], y: NDArray[Any]) -> float:
        """The share of targets that lie within their intervals."""
        low, high = self.bounds(np.asarray(predictions, np.float64).reshape(len(y), -1))
        truth = np.asarray(y, np.float64).reshape(len(y), -1)
        return float(((low <= truth) & (truth <= high)).mean())

    def to_json(self) -> dict[str, Any]:
        """The interval as plain values, for a model's metadata."""
        return {**asdict(self), "half_width": list(self.half_width)}

    @classmethod
    def from_json(cls, values: dict[str, Any] | None) -> Interval | None:
        """What `to_json` gave, or None for None."""
        return None if values is None else cls(**{**values, "half_width": tuple(values["half_width"])})
