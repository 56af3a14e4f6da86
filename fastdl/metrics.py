"""Metrics of predictions: the few that are taken after each epoch, and the full report with the naive baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fastdl.model import MLP

METRICS: dict[str, tuple[str, ...]] = {"softmax": ("accuracy",), "sigmoid": ("accuracy",), "linear": ("rmse", "r2")}
"""Registry: the metrics of each output unit after an epoch, the one to show first in front."""


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
    return _of_numbers(_predicted(model, raw), _in_units(model, y), model.dtype, weight)


def _of_numbers(
    predictions: NDArray, targets: NDArray, dtype: np.dtype, weight: NDArray | None = None
) -> dict[str, float]:
    """rmse and r2 of predictions [N, O] that were rounded to `dtype`; inf and -inf where the squares leave float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _rmse_and_r2(predictions, targets, dtype, weight)


def _rmse_and_r2(predictions: NDArray, targets: NDArray, dtype: np.dtype, weight: NDArray | None) -> dict[str, float]:
    w = np.ones(len(targets)) if weight is None else weight.astype(np.float64)
    squares = w @ (predictions - targets) ** 2
    middle = np.average(targets, axis=0, weights=w)
    spread = w @ (targets - middle) ** 2
    # What rounding alone makes of a constant target, and of predictions that meet it.
    size = w.sum() * np.abs(targets).max(axis=0, initial=0.0) ** 2
    constant = spread <= size * (8 * np.finfo(np.float64).eps) ** 2
    met = squares <= size * (8 * np.finfo(dtype).eps) ** 2
    explained = np.where(constant, met, 1 - squares / np.where(constant, 1.0, spread))
    return {"rmse": float(np.sqrt(squares.sum() / (w.sum() * targets.shape[1]))), "r2": float(explained.mean())}


def report(model: MLP, raw: NDArray, y: NDArray) -> dict[str, float]:
    """All metrics of raw outputs [N, O] against prepared targets; those of `evaluate` come first.

    Of classes, and of a binary label: accuracy; balanced_accuracy, the mean over the classes of the share of their rows
    that are right; auc, the area under the ROC curve (of several classes the mean of one against the rest); log_loss, the
    mean of -log p(true class); f1, the harmonic mean of precision and recall of the second of two classes (of several
    classes the mean over them). Of several labels: accuracy, and f1 and auc as means over the labels. Of numbers: rmse,
    mae = mean |p - t|, and r2. What is not defined, such as the AUC of one class, is left out.

    Cost: O(N log N) for each output.
    """
    few = evaluate(model, raw, y)
    if model.output == "linear":
        errors = np.abs(_predicted(model, raw) - _in_units(model, y))
        return {"rmse": few["rmse"], "mae": float(errors.mean()), "r2": few["r2"]}
    if model.output == "sigmoid" and raw.shape[1] > 1:
        labels = y > 0.5
        pairs = [(auc(raw[:, j], labels[:, j]), f1(raw[:, j] > 0, labels[:, j])) for j in range(raw.shape[1])]
        means = {"auc": [a for a, _ in pairs], "f1": [f for _, f in pairs]}
        return {**few, **{name: _mean(values) for name, values in means.items() if _defined(values)}}
    if model.output == "sigmoid":
        scores = raw[:, 0].astype(np.float64)
        truth = (y.reshape(len(raw)) > 0.5).astype(np.int64)
        log_loss = float(np.mean(np.logaddexp(0, np.where(truth == 1, -scores, scores))))
        areas = [auc(scores, truth == 1)]
        predicted, n_classes = (scores > 0).astype(np.int64), 2
        harmonic = [f1(predicted == 1, truth == 1)]
    else:
        truth, n_classes = y, raw.shape[1]
        logits = raw.astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        totals = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        log_loss = float(np.mean(totals[:, 0] - logits[np.arange(len(raw)), truth]))
        predicted = raw.argmax(axis=1)
        present = np.unique(truth)
        scores = logits - totals
        areas = [auc(scores[:, k], truth == k) for k in present]
        harmonic = [f1(predicted == k, truth == k) for k in present]
    counts = np.bincount(truth, minlength=n_classes)
    right = np.bincount(truth[predicted == truth], minlength=n_classes)
    shown = counts > 0
    values = {
        **few,
        "balanced_accuracy": float((right[shown] / counts[shown]).mean()),
        "auc": _mean(areas),
        "log_loss": log_loss,
        "f1": _mean(harmonic),
    }
    return {name: value for name, value in values.items() if np.isfinite(value)}


def baseline(model: MLP, train: NDArray, y: NDArray) -> dict[str, float]:
    """The metrics of the naive answer, which knows the training targets alone: their most frequent class, or their mean.

    train, y : the training targets, and those to be predicted, as the model was given them: class indices [N], labels or
    numbers [N, O]

    accuracy and balanced_accuracy of always saying the most frequent class, log_loss of saying the classes' shares;
    rmse, mae and r2 of always saying the mean.
    """
    if model.output == "linear":
        mean = train.reshape(len(train), -1).mean(axis=0)
        targets = y.reshape(len(y), -1)
        few = _of_numbers(np.broadcast_to(mean, targets.shape), targets.astype(np.float64), model.dtype)
        return {"rmse": few["rmse"], "mae": float(np.abs(targets - mean).mean()), "r2": few["r2"]}
    if model.output == "sigmoid":
        shares = train.reshape(len(train), -1).mean(axis=0)
        labels = y.reshape(len(y), -1)
        if labels.shape[1] > 1:
            return {"accuracy": float(((shares > 0.5) == (labels > 0.5)).mean())}
        train, y = train.reshape(-1).astype(np.int64), y.reshape(-1).astype(np.int64)
    counts = np.bincount(train, minlength=int(max(train.max(), y.max())) + 1)
    shares = np.maximum(counts / len(train), 1e-15)
    return {
        "accuracy": float((y == counts.argmax()).mean()),
        "balanced_accuracy": 1 / len(np.unique(y)) if (y == counts.argmax()).any() else 0.0,
        "log_loss": float(-np.log(shares[y]).mean()),
    }


def auc(scores: NDArray, positive: NDArray[np.bool_]) -> float:
    """The area under the ROC curve: how often a positive row has the higher score than a negative one, ties count half.

    NaN where all rows are of one class. Source: Mann and Whitney, 1947.
    """
    n_positive = int(positive.sum())
    n_negative = len(scores) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    order = np.argsort(scores, kind="stable")
    values = scores[order]
    new = np.r_[True, values[1:] != values[:-1]]
    group = np.cumsum(new) - 1
    sizes = np.bincount(group)
    # The mean rank of the rows that share a score, counted from 1.
    ranks = np.cumsum(sizes) - (sizes - 1) / 2
    total = ranks[group][positive[order]].sum()
    return float((total - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def f1(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """2 TP / (2 TP + FP + FN); 0 where nothing is positive and nothing is said to be."""
    hits = int((predicted & truth).sum())
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * hits / total if total else 0.0


def _predicted(model: MLP, raw: NDArray) -> NDArray[np.float64]:
    """What raw outputs of a regression predict."""
    return _in_units(model, np.exp(raw.astype(np.float64)) if model.loss.is_log_link else raw)


def _in_units(model: MLP, values: NDArray) -> NDArray[np.float64]:
    """Standardised targets, or raw outputs, of a regression in the units of the data."""
    numbers: NDArray[np.float64] = values.astype(np.float64)
    return numbers if model.scaling is None else model.scaling.untargets(numbers).astype(np.float64, copy=False)


def _defined(values: list[float]) -> bool:
    return bool(np.isfinite(values).any())


def _mean(values: list[float]) -> float:
    found = [value for value in values if np.isfinite(value)]
    return float(np.mean(found)) if found else float("nan")
