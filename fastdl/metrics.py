"""Metrics of validation data, by output unit: accuracy, or root mean squared error and R²."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fastdl.model import MLP

METRICS: dict[str, tuple[str, ...]] = {"softmax": ("accuracy",), "sigmoid": ("accuracy",), "linear": ("rmse", "r2")}
"""Registry: the metrics of each output unit, the one to show first in front."""


def evaluate(model: MLP, raw: NDArray, y: NDArray, weight: NDArray | None = None) -> dict[str, float]:
    """The metrics of raw outputs [N, O] against prepared targets; `weight` [N] weights the rows.

    accuracy: the share of rows (softmax) or of labels (sigmoid) that are right.
    rmse: sqrt(mean (p - t)²) in the units of the data. r2: 1 - Σ(p - t)² / Σ(t - mean t)², averaged over targets; where a
    target is constant, 1 if it is met up to rounding and 0 otherwise.
    """
    if model.output == "softmax":
        return {"accuracy": float(np.average(raw.argmax(axis=1) == y, weights=weight))}
    if model.output == "sigmoid":
        return {"accuracy": float(np.average(((raw > 0) == (y > 0.5)).mean(axis=1), weights=weight))}
    predictions: NDArray[np.floating] = raw.astype(np.float64)
    targets: NDArray[np.floating] = y.astype(np.float64)
    if model.loss.is_log_link:
        predictions = np.exp(predictions)
    if model.scaling is not None:
        predictions, targets = model.scaling.untargets(predictions), model.scaling.untargets(targets)
    w = np.ones(len(targets)) if weight is None else weight.astype(np.float64)
    squares = w @ (predictions - targets) ** 2
    middle = np.average(targets, axis=0, weights=w)
    spread = w @ (targets - middle) ** 2
    # What rounding alone makes of a constant target, and of predictions that meet it.
    size = w.sum() * np.abs(targets).max(axis=0, initial=0.0) ** 2
    constant = spread <= size * (8 * np.finfo(np.float64).eps) ** 2
    met = squares <= size * (8 * np.finfo(model.dtype).eps) ** 2
    explained = np.where(constant, met, 1 - squares / np.where(constant, 1.0, spread))
    return {"rmse": float(np.sqrt(squares.sum() / (w.sum() * targets.shape[1]))), "r2": float(explained.mean())}
