"""What an epoch is judged by: its loss, or a score on validation data; and when enough epochs have been no better."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.estimators.network import Network
from fastdl.sparse import SparseRows


def accuracy(raw: NDArray, y: NDArray, weight: NDArray | None) -> float:
    """The share of rows (by weight) whose label is right, or all of whose labels are: sklearn.metrics.accuracy_score."""
    right = raw.argmax(axis=1) == y if y.ndim == 1 else ((raw > 0) == (y > 0.5)).all(axis=1)
    return float(np.average(right, weights=weight))


def r2(predicted: NDArray, y: NDArray, weight: NDArray | None) -> float:
    """1 - Σ w (y - p)² / Σ w (y - mean y)², averaged over outputs: sklearn.metrics.r2_score.

    An output that does not vary counts 1 if it is met exactly, and 0 otherwise.
    """
    y = y.astype(np.float64, copy=False)
    column = 1.0 if weight is None else weight[:, None]
    rest = (column * (y - predicted) ** 2).sum(axis=0)
    spread = (column * (y - np.average(y, axis=0, weights=weight)) ** 2).sum(axis=0)
    varies = spread != 0
    scores = np.where(varies, 1.0 - rest / np.where(varies, spread, 1.0), np.where(rest == 0, 1.0, 0.0))
    return float(scores.mean())


class Validation:
    """Rows that are kept out of the training, and the score on them; NaN where a prediction is not finite."""

    def __init__(self, x: NDArray | SparseRows, y: NDArray, weight: NDArray | None) -> None:
        self.x, self.y, self.weight = x, y, weight

    def score(self, network: Network, n_threads: int | str, loss: float) -> float:
        """Accuracy of classes, R² of numbers; NaN as well once the training's loss is not finite any more."""
        if not math.isfinite(loss):
            return math.nan
        raw = network.engine.forward(self.x, n_threads)
        if network.shape.output != "linear":
            return accuracy(raw, self.y, self.weight)
        with np.errstate(over="ignore"):
            predicted = np.exp(raw) if network.shape.loss == "poisson" else raw
            return r2(predicted, self.y, self.weight) if np.isfinite(predicted).all() else math.nan


class Watch:
    """Keeps an estimator's record of losses and scores, and counts the epochs that were no better by `tol`.

    The record is scikit-learn's: `loss_curve_`, `validation_scores_`, `best_loss_`, `best_validation_score_`. It goes on
    through `partial_fit` and warm starts.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator
        self.by_score: bool = estimator.early_stopping
        self.best: NDArray | None = None
        """The parameters with the best score, if that is what counts."""

    @staticmethod
    def begin(estimator: Any, scores: bool) -> None:
        """Empty records."""
        estimator.loss_curve_ = []
        estimator._no_improvement_count = 0
        estimator.validation_scores_ = [] if scores else None
        estimator.best_validation_score_ = -np.inf if scores else None
        estimator.best_loss_ = None if estimator.early_stopping else np.inf

    def look(self, network: Network, score: float | None) -> None:
        """An epoch has ended: its loss is the last of `loss_curve_`."""
        e = self.estimator
        if score is not None:
            e.validation_scores_.append(score)
            if e.verbose:
                print(f"Validation score: {score:f}")
            best = e.best_validation_score_
            if self.by_score:
                e._no_improvement_count = e._no_improvement_count + 1 if score < best + e.tol else 0
            if score > best:
                e.best_validation_score_ = score
                if self.by_score:
                    self.best = network.model.parameters.copy()
        if not self.by_score:
            loss = e.loss_curve_[-1]
            e._no_improvement_count = e._no_improvement_count + 1 if loss > e.best_loss_ - e.tol else 0
            e.best_loss_ = min(e.best_loss_, loss)

    @property
    def message(self) -> str:
        """That training has not got better for too long; empty as long as it has."""
        e = self.estimator
        if e._no_improvement_count <= e.n_iter_no_change:
            return ""
        what = "Validation score" if self.by_score else "Training loss"
        return f"{what} did not improve more than tol={e.tol:f} for {e.n_iter_no_change:d} consecutive epochs."
