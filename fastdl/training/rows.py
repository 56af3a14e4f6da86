"""The rows that a training learns from: checked, weighted, as the engine takes them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl import checks, stored
from fastdl.errors import InputError
from fastdl.model import MLP
from fastdl.stored import Inputs

# Targets of a regression beyond this size (their median) get a warning if nothing scales them: a network's outputs start near 0.
LARGE_TARGETS = 1000.0


class Rows(NamedTuple):
    """Inputs, targets and weights (None: all the same)."""

    inputs: Inputs
    targets: NDArray
    weight: NDArray | None


def rows_of(
    model: MLP, class_weight: Mapping[int, float] | str | None, X: Any, y: Any, sample_weight: ArrayLike | None
) -> Rows:
    """X, y and weights for a model, as `Trainer.fit` takes them.

    Raises
    ------
    InputError : they do not fit the model, or there are none
    """
    inputs = model.prepare_inputs(X)
    n_rows = len(inputs)
    if n_rows == 0:
        raise InputError("X: expected at least one row to learn from, got an empty array")
    targets = model.prepare_targets(stored.targets_of(X, y), n_rows)
    weight = _weights(model, class_weight, sample_weight, targets)
    _warn_of_large(model, targets)
    model.note_names(X)
    return Rows(inputs, targets, weight)


def _weights(
    model: MLP, class_weight: Mapping[int, float] | str | None, sample_weight: ArrayLike | None, targets: NDArray
) -> NDArray | None:
    """Weights of mean 1, those of the classes folded in; None where all are the same."""
    n_rows = len(targets)
    weight = None if sample_weight is None else checks.weights(sample_weight, n_rows)
    if class_weight is not None:
        labels = targets.reshape(-1)
        if model.output == "sigmoid" and not np.isin(labels, (0, 1)).all():
            raise InputError("class_weight: expected labels 0 and 1, got shares between them; use sample_weight")
        labels = labels.astype(np.int64)
        n_classes = max(2, model.layers[-1])
        if isinstance(class_weight, dict):
            by_class = np.array([class_weight.get(k, 1.0) for k in range(n_classes)])
        else:
            by_class = 1.0 / np.maximum(1, np.bincount(labels, minlength=n_classes))
        weight = by_class[labels] * (1.0 if weight is None else weight)
        weight = checks.weights(weight, n_rows, "class_weight")
    return None if weight is None else (weight / weight.mean()).astype(model.dtype)


def _warn_of_large(model: MLP, targets: NDArray) -> None:
    """Warn whoever called `fit` if the targets of a regression are far from 0 and nothing scales them."""
    scaling = model.scaling
    if model.output != "linear" or model.loss.is_log_link or (scaling is not None and scaling.y_mean is not None):
        return
    middle = float(np.median(np.abs(targets[:: max(1, len(targets) // 1000)])))
    if middle > LARGE_TARGETS:
        warnings.warn(
            f"y: the targets are around {middle:.3g} and nothing scales them, while a network starts near 0: "
            f"model.standardize(X, y) makes the training find them",
            UserWarning,
            stacklevel=4,
        )
