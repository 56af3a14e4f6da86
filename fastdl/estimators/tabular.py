"""Estimators for data frames as they are: strings, categories, dates, missing values and string labels.

>>> import fastdl
>>> model = fastdl.TabularClassifier(seed=0).fit(frame, labels)  # doctest: +SKIP
>>> model.predict(frame.head())  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, RegressorMixin

from fastdl import schedules
from fastdl.activations import ActivationLike
from fastdl.calibration import Interval
from fastdl.errors import InputError
from fastdl.estimators.base_tabular import BaseTabular, both_classes
from fastdl.losses import LossLike
from fastdl.optimizers import Optimizer
from fastdl.tables.model import as_array, labels_of


class TabularClassifier(ClassifierMixin, BaseTabular):
    """A multi-layer perceptron that learns classes from a data frame as it is.

    X may be a frame of pandas, polars or Arrow, or an array; columns of text, categories, booleans, dates and missing
    values are read as `fastdl train` reads them. y holds the classes: text, numbers or booleans; rows without one are left
    out. `class_weight="balanced"` makes each class count alike. See `BaseTabular` for the other parameters.

    Attributes
    ----------
    classes_ : the classes, in the order of the columns of `predict_proba`
    """

    __doc__ += "\n".join((BaseTabular.__doc__ or "").split("\n")[1:])

    def __init__(
        self,
        *,
        class_weight: str | None = None,
        recipe: str = "auto",
        settings: Mapping[str, Any] | None = None,
        hidden: Sequence[int] | None = None,
        activation: ActivationLike | Sequence[ActivationLike] | None = None,
        loss: LossLike | None = None,
        optimizer: str | Optimizer | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        l2: float | None = None,
        schedule: schedules.Schedule | None = None,
        clip_norm: float | None = None,
        dropout: float | Sequence[float] | None = None,
        early_stopping: int | None = None,
        ensemble: int = 1,
        cross_validation: int | None = None,
        categorical: Sequence[str] = (),
        numeric: Sequence[str] = (),
        date: Sequence[str] = (),
        ignore: Sequence[str] = (),
        na_values: Sequence[str] = (),
        validation: float | None = None,
        group: str | None = None,
        time: str | None = None,
        seed: int = 0,
        threads: int | str = "auto",
        dtype: str = "float32",
        precision: str = "float32",
    ) -> None:
        self.class_weight = class_weight
        given = {name: value for name, value in locals().items() if name not in ("self", "class_weight", "__class__")}
        super().__init__(**given)

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> TabularClassifier:
        """Learn the classes y [N] of the rows of X; `sample_weight` [N] weights the rows' losses."""
        self._fit(X, y, sample_weight, self.class_weight)
        self.classes_ = as_array(self.model_.classes or [])
        return self

    def _chosen_task(self, names: list[str]) -> str | None:
        return self._n_classes_task

    def _with_targets(self, frame: Any, y: Any) -> tuple[list[str], Any]:
        names, frame = super()._with_targets(frame, y)
        self._n_classes_task = (
            "multiclass" if len(names) > 1 or frame[names[0]].drop_nulls().n_unique() != 2 else "binary"
        )
        return names, frame

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class [N] of each row, as it was given in training."""
        rows = self._rows(X)
        return labels_of(self.model_, self.model_.predict(rows))

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """The probability of each class [N, classes], in the order of `classes_`."""
        rows = self._rows(X)
        return both_classes(self.model_.predict_proba(rows))


class TabularRegressor(RegressorMixin, BaseTabular):
    """A multi-layer perceptron that learns numbers from a data frame as it is.

    X may be a frame of pandas, polars or Arrow, or an array; columns of text, categories, booleans, dates and missing
    values are read as `fastdl train` reads them. y holds one number for each row, or several; rows without one are left
    out. `interval=0.9` finds how far predictions are off for that share of rows that no model has learnt from, folds or
    validation rows: `predict_interval` says so, and `model_.metadata["interval"]` with which measured coverage.
    """

    __doc__ += "\n".join((BaseTabular.__doc__ or "").split("\n")[1:])
    _task = "regression"

    def __init__(
        self,
        *,
        interval: float | None = None,
        recipe: str = "auto",
        settings: Mapping[str, Any] | None = None,
        hidden: Sequence[int] | None = None,
        activation: ActivationLike | Sequence[ActivationLike] | None = None,
        loss: LossLike | None = None,
        optimizer: str | Optimizer | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        l2: float | None = None,
        schedule: schedules.Schedule | None = None,
        clip_norm: float | None = None,
        dropout: float | Sequence[float] | None = None,
        early_stopping: int | None = None,
        ensemble: int = 1,
        cross_validation: int | None = None,
        categorical: Sequence[str] = (),
        numeric: Sequence[str] = (),
        date: Sequence[str] = (),
        ignore: Sequence[str] = (),
        na_values: Sequence[str] = (),
        validation: float | None = None,
        group: str | None = None,
        time: str | None = None,
        seed: int = 0,
        threads: int | str = "auto",
        dtype: str = "float32",
        precision: str = "float32",
    ) -> None:
        self.interval = interval
        settings = {name: value for name, value in locals().items() if name not in ("self", "interval", "__class__")}
        super().__init__(**settings)

    @property
    def _interval(self) -> float | None:
        return self.interval

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> TabularRegressor:
        """Learn the numbers y [N] or [N, O] of the rows of X; `sample_weight` [N] weights the rows' losses."""
        self._fit(X, y, sample_weight, None)
        return self

    def predict(self, X: Any) -> NDArray[np.floating]:
        """The numbers [N], or [N, O] for several, in the units of y."""
        rows = self._rows(X)
        return self.model_.predict(rows)

    def predict_interval(self, X: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(lower, upper) [N], or [N, O] for several, in the units of y: see `fastdl.calibration.Interval`.

        Raises
        ------
        InputError : the model was trained without `interval`
        """
        predictions = self.predict(X)
        interval = Interval.from_json(self.model_.metadata.get("interval"))
        if interval is None:
            raise InputError("predict_interval: expected a fit with interval, such as interval=0.9, got none")
        return interval.bounds(predictions)
