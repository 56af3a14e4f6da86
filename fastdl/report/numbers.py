"""What a page shows of predicted numbers: against the actual ones, residuals, a histogram of errors, the largest errors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.report.values import plain, thin

MOST_POINTS = 400
MOST_ROWS = 10
BINS = 30
MIDDLES = 12


def described(predicted: NDArray[np.float64], actual: NDArray[np.float64], name: str) -> dict[str, Any]:
    """Predictions and targets [N] of one target as plain values; errors are predicted - actual.

    points : of rows spread evenly over the order of the predictions
    middles : mean residual of the rows in as many groups by their prediction, all about as large
    errors : edges and counts of a histogram; errors beyond its ends are counted in its first and last bar
    largest : the rows with the largest errors; `place` is the row
    """
    errors = predicted - actual
    order = np.argsort(predicted, kind="stable")
    few = order[thin(len(order), MOST_POINTS)]
    groups = [group for group in np.array_split(order, min(MIDDLES, len(order))) if len(group)]
    low, high = np.quantile(errors, [0.005, 0.995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(errors, low, high), BINS, (low, high))
    worst = np.argsort(-np.abs(errors), kind="stable")[:MOST_ROWS]
    found: dict[str, Any] = plain(
        {
            "name": name,
            "points": [predicted[few], actual[few]],
            "middles": [[predicted[g].mean() for g in groups], [errors[g].mean() for g in groups]],
            "errors": {"edges": edges, "counts": counts},
            "largest": [
                {"place": int(i), "actual": float(actual[i]), "predicted": float(predicted[i]), "error": float(errors[i])}
                for i in worst
            ],
        }
    )  # fmt: skip
    return found
