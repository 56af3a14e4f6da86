"""The rows that a training learns from: prepared data, and which of its rows are this training's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl import checks, stored
from fastdl.errors import InputError
from fastdl.model import MLP
from fastdl.sparse import SparseRows
from fastdl.stored import Inputs


@dataclass(frozen=True)
class TrainingRows:
    """Inputs and targets as a model takes them; several trainings may share the arrays, each with rows of its own.

    inputs [N, I], targets [N] or [N, O] : of all rows
    weight [N] : of mean 1 over the rows learned from, or None where all weigh the same
    rows [n] : which rows are learned from, as often as they are named; None: all. Row i of the training is row rows[i] of
        the arrays, so that the same bits come out as with arrays of these rows alone
    """

    inputs: Inputs
    targets: NDArray
    weight: NDArray | None = None
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.inputs) if self.rows is None else len(self.rows)

    def places(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in the arrays the rows of the training are that `order` numbers."""
        return order if self.rows is None else self.rows[order]

    @property
    def own_targets(self) -> NDArray:
        """The targets of the rows learned from."""
        return self.targets if self.rows is None else self.targets[self.rows]

    @property
    def alone(self) -> TrainingRows:
        """The same rows in arrays that hold no others; a copy, if there are others."""
        if self.rows is None:
            return self
        weight = None if self.weight is None else self.weight[self.rows]
        return TrainingRows(self.inputs[self.rows], self.targets[self.rows], weight)

    @classmethod
    def given(
        cls,
        model: MLP,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        class_weight: Mapping[int, float] | str | None = None,
    ) -> TrainingRows:
        """X, y and weights as `Trainer.fit` takes them.

        Raises
        ------
        InputError : they do not fit the model, or there are no rows
        """
        inputs = model.prepare_inputs(X)
        if len(inputs) == 0:
            raise InputError("X: expected at least one row to learn from, got an empty array")
        targets = model.prepare_targets(stored.targets_of(X, y), len(inputs))
        return cls.of(model, (inputs, targets), sample_weight, class_weight)

    @classmethod
    def of(
        cls,
        model: MLP,
        prepared: tuple[Inputs, NDArray],
        sample_weight: ArrayLike | None = None,
        class_weight: Mapping[int, float] | str | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> TrainingRows:
        """Prepared inputs and targets with the weights of these rows; `sample_weight` [n] is one for each row of the training."""
        inputs, targets = prepared
        if rows is not None and isinstance(inputs, SparseRows):
            # Which rows share a batch decides how sparse columns are stored: those of other rows must not be there.
            inputs, targets, rows = inputs[rows], targets[rows], None
        data = cls(inputs, targets, None, rows)
        weight = _row_weights(model, sample_weight, class_weight, data)
        if weight is not None and rows is not None:
            scattered = np.zeros(len(inputs), model.dtype)
            scattered[rows] = weight
            weight = scattered
        return cls(inputs, targets, weight, rows)


def _row_weights(
    model: MLP, sample_weight: ArrayLike | None, class_weight: Mapping[int, float] | str | None, data: TrainingRows
) -> NDArray | None:
    """Weights of mean 1, those of the classes folded in; None where all are the same."""
    n_rows = len(data)
    weight = None if sample_weight is None else checks.weights(sample_weight, n_rows)
    if class_weight is not None:
        labels = data.own_targets.reshape(-1)
        if model.output == "sigmoid" and not np.isin(labels, (0, 1)).all():
            raise InputError("class_weight: expected labels 0 and 1, got shares between them; use sample_weight")
        labels = labels.astype(np.int64)
        n_classes = max(2, model.layers[-1])
        if isinstance(class_weight, Mapping):
            by_class = np.array([class_weight.get(k, 1.0) for k in range(n_classes)])
        else:
            by_class = 1.0 / np.maximum(1, np.bincount(labels, minlength=n_classes))
        weight = by_class[labels] * (1.0 if weight is None else weight)
        weight = checks.weights(weight, n_rows, "class_weight")
    return None if weight is None else (weight / weight.mean()).astype(model.dtype)
