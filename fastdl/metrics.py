"""Metrics of validation data, by output unit: accuracy, or root mean squared error and R²."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fastdl.model import MLP

METRICS: dict[str, tuple[str, ...]] = {"softmax": ("accuracy",), "sigmoid": ("accuracy",), "linear": ("rmse", "r2")}
"""Registry: the metrics of each output unit, the one to show first in front."""


def evaluate(model: MLP, raw: NDArray, y: NDArray) -> dict[str, float]:
    """The metrics of raw outputs [N, O] against prepared targets.

    accuracy: the share of rows (softmax) or of labels (sigmoid) that are right.
    rmse: sqrt(mean (p - t)²) in the units of the data. r2: 1 - Σ(p - t)² / Σ(t - mean t)², averaged over targets.
    """
    if model.output == "softmax":
        return {"accuracy": float((raw.argmax(axis=1) == y).mean())}
    if model.output == "sigmoid":
        return {"accuracy": float(((raw > 0) == (y > 0.5)).mean())}
    predictions: NDArray[np.floating] = raw.astype(np.float64)
    targets: NDArray[np.floating] = y.astype(np.float64)
    if model.scaling is not None:
        predictions, targets = model.scaling.untargets(predictions), model.scaling.untargets(targets)
    squares = ((predictions - targets) ** 2).sum(axis=0)
    spread = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    # A constant target has no variance to explain: R² is 1 when it is met exactly and 0 otherwise.
    explained = np.where(spread > 0, 1 - squares / np.where(spread > 0, spread, 1), squares == 0)
    return {"rmse": float(np.sqrt(squares.sum() / targets.size)), "r2": float(explained.mean())}
