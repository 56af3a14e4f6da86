"""What a page shows of predicted classes: confusion, ROC, precision and recall, calibration, the most confident mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl import metrics
from fastdl.report.values import plain, short, thin

MOST_CLASSES = 20
"""A confusion matrix shows so many classes, those with the most mistakes; the others are one."""
MOST_CURVES = 8
"""So many classes have ROC curves, the most frequent ones."""
MOST_POINTS = 100
MOST_PAIRS = 10
BINS = 10


def confusion(truth: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Counts [true class, predicted class]."""
    counts = np.bincount(truth * n_classes + predicted, minlength=n_classes * n_classes)
    return counts.reshape(n_classes, n_classes)


def roc(scores: NDArray, positive: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(false positive rate, true positive rate) at each threshold from high to low, from (0, 0) on; both classes are there."""
    hits, said = _counts(scores, positive)
    misses = said - hits
    return np.r_[0, misses / misses[-1]], np.r_[0, hits / hits[-1]]


def precision_recall(scores: NDArray, positive: NDArray[np.bool_]) -> tuple[NDArray, NDArray, float]:
    """(recall, precision) at each threshold from high to low, and the average precision Σ (R[k] - R[k-1]) P[k]."""
    hits, said = _counts(scores, positive)
    recall, precision = hits / hits[-1], hits / said
    return recall, precision, float(np.sum(np.diff(np.r_[0, recall]) * precision))


def _counts(scores: NDArray, positive: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """At each different score from high to low: how many rows at or above it are positive, and how many there are."""
    order = np.argsort(-scores, kind="stable")
    values = scores[order]
    last = np.r_[np.flatnonzero(values[1:] != values[:-1]), len(values) - 1]
    hits: NDArray[np.int64] = np.cumsum(positive[order], dtype=np.int64)[last]
    return hits, last + 1


def calibration(chances: NDArray, came: NDArray[np.bool_], bins: int = BINS) -> dict[str, Any]:
    """In bins of the predicted chance, of one width: its mean, the share of rows where it came true, and how many rows.

    error : the mean over the rows of |mean chance - share| of their bins
    """
    edges = np.linspace(0, 1, bins + 1)
    which = np.searchsorted(edges[1:-1], chances)
    counts = np.bincount(which, minlength=bins)
    full = counts > 0
    mean = np.bincount(which, chances, bins)[full] / counts[full]
    share = np.bincount(which, came, bins)[full] / counts[full]
    error = float(np.sum(np.abs(mean - share) * counts[full]) / len(chances))
    return {"mean": mean, "share": share, "rows": counts[full], "error": error}


def described(chances: NDArray, truth: NDArray[np.int64], names: Sequence[Any]) -> dict[str, Any]:
    """All of it as plain values, for probabilities [N, K] of classes and the true ones [N]; `mistakes` are rows of these."""
    n_classes = chances.shape[1]
    predicted = chances.argmax(axis=1)
    counts = confusion(truth, predicted, n_classes)
    shown = [short(name) for name in names]
    frequent = [1] if n_classes == 2 else np.argsort(-counts.sum(axis=1), kind="stable")[:MOST_CURVES].tolist()
    curves = [_curves(chances[:, k], truth == k, shown[k]) for k in frequent if 0 < counts[k].sum() < len(truth)]
    if n_classes == 2:
        calibrated = calibration(chances[:, 1].astype(np.float64), truth == 1)
    else:
        calibrated = calibration(chances.max(axis=1).astype(np.float64), predicted == truth)
    wrong = np.flatnonzero(predicted != truth)
    order = wrong[np.argsort(-chances[wrong, predicted[wrong]], kind="stable")[:MOST_PAIRS]]
    found = {
        "confusion": _grouped(counts, shown),
        "pairs": _pairs(counts, shown),
        "curves": curves,
        "calibration": {**calibrated, "of": f"the probability of {shown[1]}" if n_classes == 2 else "the confidence"},
        "mistakes": [
            {
                "place": int(row),
                "truth": shown[truth[row]],
                "predicted": shown[predicted[row]],
                "chance": float(chances[row, predicted[row]]),
                "chance_of_truth": float(chances[row, truth[row]]),
            }
            for row in order
        ],
        "n_mistakes": len(wrong),
    }
    result: dict[str, Any] = plain(found)
    return result


def labels_described(chances: NDArray, truth: NDArray[np.bool_], names: Sequence[Any]) -> dict[str, Any]:
    """The same for several labels to a row: counts and curves of each, probabilities and truth [N, labels]."""
    said = chances > 0.5
    shown = [short(name) for name in names]
    rows = []
    for k, name in enumerate(shown[: 2 * MOST_CLASSES]):
        right, wrong = said[:, k] & truth[:, k], said[:, k] & ~truth[:, k]
        rows.append(
            {
                "name": name,
                "true": int(truth[:, k].sum()),
                "hits": int(right.sum()),
                "false_alarms": int(wrong.sum()),
                "accuracy": float((said[:, k] == truth[:, k]).mean()),
                "f1": metrics.f1(said[:, k], truth[:, k]),
            }
        )
    curves = [
        _curves(chances[:, k], truth[:, k], name)
        for k, name in enumerate(shown[:MOST_CURVES])
        if 0 < truth[:, k].sum() < len(truth)
    ]
    calibrated = calibration(chances.reshape(-1).astype(np.float64), truth.reshape(-1))
    result: dict[str, Any] = plain(
        {"labels": rows, "curves": curves, "calibration": {**calibrated, "of": "the probabilities of the labels"}}
    )
    return result


def _curves(scores: NDArray, positive: NDArray[np.bool_], name: str) -> dict[str, Any]:
    fpr, tpr = roc(scores, positive)
    recall, precision, average = precision_recall(scores, positive)
    first, second = thin(len(fpr), MOST_POINTS), thin(len(recall), MOST_POINTS)
    return {
        "name": name,
        "auc": metrics.auc(scores, positive),
        "average_precision": average,
        "roc": [fpr[first], tpr[first]],
        "precision_recall": [recall[second], precision[second]],
    }


def _grouped(counts: NDArray[np.int64], names: list[str]) -> dict[str, Any]:
    """The matrix of the classes with the most mistakes, and of the others as one."""
    n_classes = len(names)
    if n_classes <= MOST_CLASSES:
        return {"names": names, "counts": counts}
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    kept = np.sort(np.argsort(-mistakes, kind="stable")[: MOST_CLASSES - 1])
    place = np.full(n_classes, MOST_CLASSES - 1)
    place[kept] = np.arange(MOST_CLASSES - 1)
    grouped = np.zeros((MOST_CLASSES, MOST_CLASSES), np.int64)
    np.add.at(grouped, (place[:, None], place[None, :]), counts)
    others = n_classes - MOST_CLASSES + 1
    return {"names": [*(names[k] for k in kept), f"{others} others"], "counts": grouped, "grouped": others}


def _pairs(counts: NDArray[np.int64], names: list[str]) -> list[dict[str, Any]]:
    """Which class was taken for which, the most frequent first."""
    mistakes = counts - np.diag(counts.diagonal())
    order = np.argsort(-mistakes, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [divmod(int(k), len(names)) for k in order]
    return [
        {"truth": names[i], "predicted": names[j], "rows": int(mistakes[i, j]), "of": int(counts[i].sum())}
        for i, j in pairs
        if mistakes[i, j]
    ]
