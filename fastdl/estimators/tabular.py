"""Estimators for data frames as they are: strings, categories, dates, missing values and string labels.

>>> import fastdl
>>> model = fastdl.TabularClassifier(seed=0).fit(frame, labels)  # doctest: +SKIP
>>> model.predict(frame.head())  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl import checks, schedules
from fastdl.activations import ActivationLike
from fastdl.errors import InputError, MissingExtraError
from fastdl.optimizers import OPTIMIZERS, Optimizer
from fastdl.tables.data import Options, TrainingData, prepare
from fastdl.tables.dialect import Wishes
from fastdl.tables.frames import to_polars, to_series
from fastdl.tables.kinds import Findings
from fastdl.tables.model import TableModel, as_array, labels_of
from fastdl.tables.names import names_in
from fastdl.tables.table import Table
from fastdl.tables.text import tidied
from fastdl.training.fitting import Recipe, check_class_weight
from fastdl.training.history import History
from fastdl.training.trainer import Trainer

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise MissingExtraError(
        'the estimators need scikit-learn, which is not installed: pip install "fastdl[sklearn]"'
    ) from error

BATCH_SIZE = 32
_TARGET = "y"


class _Tabular(BaseEstimator):
    """What both estimators do.

    Parameters
    ----------
    hidden : sizes of the hidden layers
    activation : a name, or one for each hidden layer
    optimizer : a name, or an instance such as `fastdl.Adam(lr=1e-3)`
    lr : learning rate, where `optimizer` is a name; None for the optimizer's own
    batch_size : rows per step; None for 32, or all if there are fewer
    epochs : passes over the training rows
    l2 : penalty on the weights
    schedule, clip_norm, dropout, early_stopping : as those of `fastdl.Trainer`
    categorical, numeric, date, ignore : names of columns of which you say what they are; the others show it
    na_values : more words for missing values in columns of text
    validation : share of the rows that is held out and measured after each epoch; None for 0.2 where `early_stopping`,
        `group` or `time` need such rows, and for 0, all rows to learn from, elsewhere
    group, time : a column that says which rows belong together, or which come last: those are held out
    seed : of the split, the weights and the shuffling
    threads : how many threads work on a step, or "auto"
    dtype : "float32" or "float64"

    Attributes
    ----------
    model_ : the trained `fastdl.TableModel`; `model_.save(path)` writes what `fastdl.load` and `fastdl predict` read
    history_ : the `fastdl.History` of the training
    preprocessor_ : how each column is read
    n_features_in_, feature_names_in_ : the columns of X
    """

    _task: str | None = None

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (256, 128),
        activation: ActivationLike | Sequence[ActivationLike] = "relu",
        optimizer: str | Optimizer = "adam",
        lr: float | None = None,
        batch_size: int | None = None,
        epochs: int = 40,
        l2: float = 1e-3,
        schedule: schedules.Schedule | None = None,
        clip_norm: float | None = None,
        dropout: float | Sequence[float] = 0.0,
        early_stopping: int | None = None,
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
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.optimizer = optimizer
        self.lr = lr
        self.batch_size = batch_size
        self.epochs = epochs
        self.l2 = l2
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.dropout = dropout
        self.early_stopping = early_stopping
        self.categorical = categorical
        self.numeric = numeric
        self.date = date
        self.ignore = ignore
        self.na_values = na_values
        self.validation = validation
        self.group = group
        self.time = time
        self.seed = seed
        self.threads = threads
        self.dtype = dtype

    def _fit(self, X: Any, y: Any, sample_weight: ArrayLike | None, class_weight: str | None) -> None:
        loaded, n_rows = self._load(X, y)
        class_weight = check_class_weight(loaded, class_weight)
        weights = None
        if sample_weight is not None:
            weights = checks.weights(sample_weight, n_rows, "sample_weight")[loaded.rows][loaded.train]
        recipe = Recipe(list(self.hidden), self.activation, self.seed, self.dtype)
        model = recipe.model(loaded)
        assert isinstance(model, TableModel)
        rows = len(loaded.train)
        trainer = Trainer(
            model,
            self._optimizer(),
            self.batch_size or min(BATCH_SIZE, rows),
            self.epochs,
            self.l2,
            self.seed,
            self.threads,
            schedule=self.schedule,
            clip_norm=self.clip_norm,
            dropout=self.dropout,
            early_stopping=self.early_stopping,
            class_weight=class_weight,
        )
        inputs, targets = loaded.training_pair()
        trainer.fit(inputs, targets, validation_data=loaded.validation_pair(), sample_weight=weights)
        self.model_: TableModel = model
        self.history_: History = trainer.history
        self.preprocessor_ = model.preprocessor
        self.n_features_in_ = len(model.preprocessor.columns)
        self.feature_names_in_ = np.array([column.name for column in model.preprocessor.columns], dtype=object)

    def _load(self, X: Any, y: Any) -> tuple[TrainingData, int]:
        """X and y as one table, ready for a trainer, and how many rows it has."""
        frame = to_polars(X)
        if frame.height == 0:
            raise InputError("X: expected at least one row to learn from, got an empty table")
        names, frame = self._with_targets(frame, y)
        held_out = self.early_stopping is not None or self.group is not None or self.time is not None
        options = Options(
            target=names,
            task=self._chosen_task(names),
            categorical=names_in(frame.columns, self.categorical),
            numeric=names_in(frame.columns, self.numeric),
            date=names_in(frame.columns, self.date),
            ignore=names_in(frame.columns, self.ignore),
            group=self.group,
            time=self.time,
            validation=(0.2 if held_out else 0.0) if self.validation is None else self.validation,
            seed=checks.count(self.seed, "seed", 0, "the seed of split, weights and shuffling"),
            wishes=Wishes(na_values=tuple(self.na_values)),
        )
        loaded = prepare(Table(tidied(frame, options.wishes.na_values), "X"), options)
        return loaded, frame.height

    def _chosen_task(self, names: list[str]) -> str | None:
        return self._task

    def _with_targets(self, frame: Any, y: Any) -> tuple[list[str], Any]:
        """The frame with the columns of y, and their names there."""
        if y is None:
            raise InputError("y: expected a target for each row, got None")
        name = getattr(y, "name", None)
        columns = self._target_columns(y)
        base = str(name) if isinstance(name, str) and name else _TARGET
        names = [base] if len(columns) == 1 else [f"{base}{i}" for i in range(len(columns))]
        while set(names) & set(frame.columns):
            names = [f"{n}_" for n in names]
        for column in columns:
            if len(column) != frame.height:
                raise InputError(f"y: expected one target for each of the {frame.height} rows of X, got {len(column)}")
        return names, frame.with_columns([c.alias(n) for c, n in zip(columns, names)])

    def _target_columns(self, y: Any) -> list[Any]:
        array = y if hasattr(y, "iloc") or hasattr(y, "__arrow_c_stream__") else np.asarray(y)
        if getattr(array, "ndim", 1) == 2 and array.shape[1] > 1:
            frame = to_polars(y, "y")
            return list(frame.get_columns())
        if getattr(array, "ndim", 1) == 2:
            return [to_polars(y, "y").to_series()]
        return [to_series(y, "y")]

    def _optimizer(self) -> Optimizer:
        if isinstance(self.optimizer, Optimizer):
            return self.optimizer
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        kind: Any = OPTIMIZERS[self.optimizer]
        made: Optimizer = kind() if self.lr is None else kind(lr=self.lr)
        return made

    def _rows(self, X: Any) -> Any:
        check_is_fitted(self, "model_")
        return self.model_.encode(X, Findings())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file that `fastdl.load` and `fastdl predict` read."""
        check_is_fitted(self, "model_")
        self.model_.save(path)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


class TabularClassifier(ClassifierMixin, _Tabular):
    """A multi-layer perceptron that learns classes from a data frame as it is.

    X may be a frame of pandas, polars or Arrow, or an array; columns of text, categories, booleans, dates and missing
    values are read as `fastdl train` reads them. y holds the classes: text, numbers or booleans; rows without one are left
    out. `class_weight="balanced"` makes each class count alike. See `_Tabular` for the other parameters.

    Attributes
    ----------
    classes_ : the classes, in the order of the columns of `predict_proba`
    """

    __doc__ += "\n".join((_Tabular.__doc__ or "").split("\n")[1:])

    def __init__(
        self,
        *,
        class_weight: str | None = None,
        hidden: Sequence[int] = (256, 128),
        activation: ActivationLike | Sequence[ActivationLike] = "relu",
        optimizer: str | Optimizer = "adam",
        lr: float | None = None,
        batch_size: int | None = None,
        epochs: int = 40,
        l2: float = 1e-3,
        schedule: schedules.Schedule | None = None,
        clip_norm: float | None = None,
        dropout: float | Sequence[float] = 0.0,
        early_stopping: int | None = None,
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
    ) -> None:
        self.class_weight = class_weight
        settings = {
            name: value for name, value in locals().items() if name not in ("self", "class_weight", "__class__")
        }
        super().__init__(**settings)

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
        chances = self.model_.predict_proba(rows)
        return np.hstack([1 - chances, chances]) if chances.shape[1] == 1 else chances


class TabularRegressor(RegressorMixin, _Tabular):
    """A multi-layer perceptron that learns numbers from a data frame as it is.

    X may be a frame of pandas, polars or Arrow, or an array; columns of text, categories, booleans, dates and missing
    values are read as `fastdl train` reads them. y holds one number for each row, or several; rows without one are left
    out.
    """

    __doc__ += "\n".join((_Tabular.__doc__ or "").split("\n")[1:])
    _task = "regression"

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> TabularRegressor:
        """Learn the numbers y [N] or [N, O] of the rows of X; `sample_weight` [N] weights the rows' losses."""
        self._fit(X, y, sample_weight, None)
        return self

    def predict(self, X: Any) -> NDArray[np.floating]:
        """The numbers [N], or [N, O] for several, in the units of y."""
        rows = self._rows(X)
        return self.model_.predict(rows)
