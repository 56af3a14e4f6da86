"""What the estimators for data frames have in common: the course of `fit`, folds and ensembles, and what is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl import checks, schedules
from fastdl.activations import ActivationLike
from fastdl.errors import InputError, MissingExtraError
from fastdl.losses import LossLike
from fastdl.model import MLP
from fastdl.optimizers import Optimizer
from fastdl.tables.data import Options, TrainingData, prepare
from fastdl.tables.dialect import Wishes
from fastdl.tables.ensemble import Ensemble
from fastdl.tables.frames import to_polars, to_series
from fastdl.tables.kinds import Findings
from fastdl.tables.model import TableModel
from fastdl.tables.names import names_in
from fastdl.tables.table import Table
from fastdl.tables.text import tidied
from fastdl.training.blending import blended
from fastdl.training.ensembles import Members, OutOfFold
from fastdl.training.fitting import SMALL, calibrate, check_class_weight, check_interval, give_interval
from fastdl.training.history import History
from fastdl.training.recipes import (
    BY_RECIPE,
    Facts,
    blueprint_of,
    check_more,
    check_recipe,
    embeds_categories,
    holds_out,
    resolve,
    trainer_settings,
)
from fastdl.training.trainer import Trainer

try:
    from sklearn.base import BaseEstimator
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise MissingExtraError(
        'the estimators need scikit-learn, which is not installed: pip install "fastdl[sklearn]"'
    ) from error

_TARGET = "y"


class BaseTabular(BaseEstimator):
    """What both estimators do.

    Parameters
    ----------
    recipe : "auto", "realmlp" or "plain" (see `fastdl.training.recipes`): what settings are that are None here
    settings : more of the recipe by name, such as {"embedding": None, "scaling": "standard", "ntk": False}
    hidden : sizes of the hidden layers
    activation : a name, or one for each hidden layer
    loss : what is minimised, as that of `fastdl.MLP`; None for the recipe's: that of the task, of smoothed labels
    optimizer : a name, or an instance such as `fastdl.Adam(lr=1e-3)`
    lr : learning rate, where `optimizer` is no instance; None for the recipe's, or that of another optimizer
    batch_size : rows per step
    epochs : passes over the training rows
    l2 : penalty on the weights
    schedule, clip_norm, dropout, early_stopping : as those of `fastdl.Trainer`; early stopping is off with 0
    ensemble : train so many models of other seeds at once (`seed`, `seed` + 1, ...); the mean of them predicts
    cross_validation : cut the rows into so many folds, those of a `group` together, and hold each out from a model, or from
        `ensemble` models; the mean of them all predicts. Each row is then predicted by models that have not seen it: that is
        where `cross_validation_`, `out_of_fold_` and the temperature of the probabilities come from. With `early_stopping` a fold
        chooses the epoch that it is predicted with, which flatters these metrics a little
    categorical, numeric, date, ignore : names of columns of which you say what they are; the others show it
    na_values : more words for missing values in columns of text
    validation : share of the rows that is held out and measured after each epoch; None for 0.2 where recipe, `early_stopping`,
        `group`, `time` or intervals need such rows and there are no folds, and for 0, all rows to learn from, elsewhere (and
        where there are less than 50 rows and only the recipe needs them)
    group, time : a column that says which rows belong together, or which come last: those are held out
    seed : of the split, the weights and the shuffling
    threads : how many threads work on a step, or "auto"
    dtype : "float32" or "float64"
    precision : of the training, "float32" or "bf16": as that of `fastdl.Trainer`

    Attributes
    ----------
    model_ : the trained `fastdl.TableModel`, or `fastdl.Ensemble` of them; `model_.save(path)` writes what `fastdl.load` and
        `fastdl predict` read
    history_ : the `fastdl.History` of the training; of several the mean, as far as all of them go
    cross_validation_ : with folds, {"metrics": of all rows together, "spread": standard deviation over the folds}
    out_of_fold_ : with folds, for each row of X what the models that have not seen it predict: probabilities [N, classes], or
        numbers [N] or [N, O]; NaN for rows without a target
    preprocessor_ : how each column is read
    n_features_in_, feature_names_in_ : the columns of X
    """

    _task: str | None = None

    def __init__(
        self,
        *,
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
        self.recipe = recipe
        self.settings = settings
        self.hidden = hidden
        self.activation = activation
        self.loss = loss
        self.optimizer = optimizer
        self.lr = lr
        self.batch_size = batch_size
        self.epochs = epochs
        self.l2 = l2
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.dropout = dropout
        self.early_stopping = early_stopping
        self.ensemble = ensemble
        self.cross_validation = cross_validation
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
        self.precision = precision

    def _fit(self, X: Any, y: Any, sample_weight: ArrayLike | None, class_weight: str | None) -> None:
        size = checks.count(self.ensemble, "ensemble", 1, "the models to train")
        check_recipe(self.recipe)
        more = check_more(self.settings)
        folds = self._n_folds()
        loaded, options, n_rows = self._load(X, y)
        check_interval(loaded, self._interval, folds)
        class_weight = check_class_weight(loaded, class_weight)
        weights = None
        if sample_weight is not None:
            weights = checks.weights(sample_weight, n_rows, "sample_weight")[loaded.rows]

        given = {name: getattr(self, name) for name in BY_RECIPE}
        chosen = resolve(self.recipe, Facts.of(loaded, folds), given, more)
        fitted = trainer_settings(chosen)

        def trainer_of(model: MLP, rows: int) -> Trainer:
            asked = self.batch_size is not None
            return Trainer(
                model,
                batch_size=chosen["batch_size"] if asked else min(chosen["batch_size"], rows),
                seed=self.seed,
                n_threads=self.threads,
                clip_norm=self.clip_norm,
                precision=self.precision,
                class_weight=class_weight,
                **fitted,
            )

        blueprint = blueprint_of(chosen, self.seed, self.dtype)
        members = Members(
            loaded, options, blueprint, trainer_of, size, folds, weights, chosen["blend_linear"], chosen["calibrate"]
        )  # fmt: skip
        found = None
        if size == 1 and not folds:
            trainer = members.trainers[0]
            inputs, targets = loaded.training_pair()
            own = None if weights is None else weights[loaded.train]
            held_out = loaded.validation_pair()
            trainer.fit(inputs, targets, validation_data=held_out, sample_weight=own)
            if chosen["calibrate"] and held_out is not None:
                calibrate(trainer.model, *held_out)
            model = trainer.model
            if chosen["blend_linear"] and held_out is not None:
                model = blended(model, (inputs, targets), held_out, own, class_weight)
            assert isinstance(model, TableModel)
            self.model_: TableModel | Ensemble = model
        else:
            members.fit()
            held_out = loaded.validation_pair()
            found = members.out_of_fold() if folds else None
            self.model_ = members.ensemble(1.0 if found is None else found.temperature)
            if chosen["calibrate"] and held_out is not None:
                self.model_ = members.calibrated(*held_out)
            self.model_.metadata["task"] = loaded.targets.task
        self.history_: History = members.history
        self._note_folds(loaded, found, n_rows)
        if self._interval is not None:
            held_out = loaded.validation_pair()
            if found is not None:
                told = found.averaged, loaded.targets.y[found.rows]
            else:
                assert held_out is not None
                told = self.model_.predict(held_out[0]), held_out[1]
            give_interval(self.model_, *told, self._interval, self.seed)
        columns = self.model_.preprocessor.columns
        self.preprocessor_ = self.model_.preprocessor
        self.n_features_in_ = len(columns)
        self.feature_names_in_ = np.array([column.name for column in columns], dtype=object)

    @property
    def _interval(self) -> float | None:
        """The share of rows that prediction intervals are to hold."""
        return None

    def _n_folds(self) -> int:
        """How many folds there are, or 0."""
        if self.cross_validation is None:
            return 0
        for name in ("validation", "time"):
            if getattr(self, name):
                raise InputError(
                    f"cross_validation: expected it without {name}, as each row validates once; leave one of them out"
                )
        return checks.count(self.cross_validation, "cross_validation", 2, "the parts that the rows are cut into")

    def _note_folds(self, loaded: TrainingData, found: OutOfFold | None, n_rows: int) -> None:
        """`cross_validation_` and `out_of_fold_`, which a fit without folds takes away."""
        for name in ("cross_validation_", "out_of_fold_"):
            self.__dict__.pop(name, None)
        if found is None:
            return
        assert isinstance(self.model_, Ensemble)
        self.cross_validation_ = {"metrics": found.metrics, "spread": found.spread}
        told: NDArray[Any] = found.averaged
        if self.model_.output != "linear":
            told = both_classes(self.model_.head.engine.probabilities(self.model_.as_raw(told)))
        self.out_of_fold_ = np.full((n_rows, told.shape[1]), np.nan)
        self.out_of_fold_[loaded.rows[found.rows]] = told
        if self.model_.output == "linear" and told.shape[1] == 1:
            self.out_of_fold_ = self.out_of_fold_[:, 0]

    def _load(self, X: Any, y: Any) -> tuple[TrainingData, Options, int]:
        """X and y as one table, ready for a trainer, what it was prepared with, and how many rows it has."""
        frame = to_polars(X)
        if frame.height == 0:
            raise InputError("X: expected at least one row to learn from, got an empty table")
        names, frame = self._with_targets(frame, y)
        wanting = (self.early_stopping or None, self.group, self.time, self._interval)
        of_recipe = self.early_stopping is None and holds_out(self.recipe) and frame.height >= SMALL
        held_out = self.cross_validation is None and (of_recipe or any(want is not None for want in wanting))
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
            keeps_table=self.cross_validation is not None,
            embeds=embeds_categories(self.recipe, check_more(self.settings)),
        )
        loaded = prepare(Table(tidied(frame, options.wishes.na_values), "X"), options)
        return loaded, options, frame.height

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


def both_classes(chances: NDArray[np.floating]) -> NDArray[np.floating]:
    """The probabilities of both classes, where there is one of the second."""
    return np.hstack([1 - chances, chances]) if chances.shape[1] == 1 else chances
