"""From a data set that is ready to a model and its training: what the command line and the estimators do alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl import calibration, metrics, stored
from fastdl.activations import ActivationLike
from fastdl.calibration import Interval
from fastdl.embeddings import PBLD
from fastdl.errors import InputError
from fastdl.losses import LossLike
from fastdl.model import MLP
from fastdl.scaling import Scaling
from fastdl.stored import is_list_of_arrays, is_mapped
from fastdl.tables.data import TrainingData
from fastdl.tables.encoded import Encoded, OneHot
from fastdl.tables.ensemble import Ensemble
from fastdl.tables.leaks import telling
from fastdl.tables.model import TableModel
from fastdl.tables.tasks import TASKS

SMALL = 50
"""Below so many rows a fifth of them says little: the model learns from all, and cross-validation says how well.

With 10 rows held out one row more or less that is right moves the accuracy by 10 points.
"""
FOLDS = 5
FEWEST = 4
"""With fewer rows than this nothing is validated."""


@dataclass(frozen=True)
class Blueprint:
    """What a model is built of, but for what the data say.

    hidden, activation, seed, dtype, loss, init, scale_inputs : as those of `MLP`
    scaling, clip : "standard" or "robust", and how far features get at the most: see `MLP.standardize`
    embedding : "pbld" for `PBLD` embeddings of all features that are numbers, or None
    """

    hidden: Sequence[int]
    activation: ActivationLike | Sequence[ActivationLike]
    seed: int
    dtype: str
    loss: LossLike | None = None
    init: str | float = "auto"
    scaling: str = "standard"
    clip: float | None = None
    embedding: str | None = None
    scale_inputs: bool = False

    def __post_init__(self) -> None:
        if self.scaling not in ("standard", "robust"):
            raise InputError(f"scaling: expected 'standard' or 'robust', got {self.scaling!r}")
        if self.embedding not in (None, "pbld"):
            raise InputError(f"embedding: expected 'pbld' or None, got {self.embedding!r}")

    def model(self, loaded: TrainingData, scaling: Scaling | None = None) -> MLP:
        """A new model for a data set: sized, standardised by the training rows, with the names that predictions need.

        scaling : the statistics of these rows, where another model for them has them already
        """
        output = TASKS[loaded.targets.task].output
        layers = [loaded.n_features, *self.hidden, loaded.targets.n_outputs]
        kind = MLP if loaded.preprocessor is None else TableModel
        numbers = numeric_features(loaded) if self.embedding is not None else []
        model = kind(
            layers, self.activation, output, self.seed, self.dtype, self.init, self.loss,
            PBLD(columns=numbers) if numbers else None, self.scale_inputs,
        )  # fmt: skip
        if scaling is None:
            X, y = loaded.training_pair()
            self._standardize(model, X, y, loaded.pixels)
        else:
            model.scaling = scaling
        if isinstance(model, TableModel) and loaded.preprocessor is not None:
            model.preprocessor = loaded.preprocessor
            model.target_names = loaded.targets.names
        model.classes = loaded.targets.classes
        model.metadata["task"] = loaded.targets.task
        return model

    def _standardize(self, model: MLP, X: Any, y: NDArray, pixels: bool) -> None:
        """Give the model the training rows' statistics.

        Pixels share one unit, hence one scale (the root mean square of their deviations). A scale each would blow up the
        noise of pixels that are nearly always blank: on the digits, 20 seeds, that costs 0.3 points of validation accuracy
        and 0.02 of loss, and a pixel that is blank in all training rows would not be scaled at all.
        """
        of_targets = y if model.output == "linear" and not model.loss.is_log_link else None
        model.standardize(X, of_targets, self.scaling == "robust", self.clip)
        if pixels and model.scaling is not None:
            if is_list_of_arrays(X):  # of a file larger than memory
                standard = Scaling.of(X) if self.scaling == "robust" else model.scaling
                variances = standard.scale**2
                variances[_never_vary(X)] = 0
            else:
                variances = X.var(axis=0, dtype=np.float64)
            deviation = float(np.sqrt(np.mean(variances))) or 1.0
            model.scaling = replace(model.scaling, scale=np.full(model.layers[0], deviation))


def numeric_features(loaded: TrainingData) -> list[int]:
    """The features that have more than two values in the training rows."""
    found, at = [], 0
    if isinstance(loaded.features, Encoded):
        rows = loaded.rows[loaded.train]
        for part in loaded.features.parts:
            if isinstance(part, OneHot):
                at += part.width
                continue
            found += [at] if _varies(part, rows) else []
            at += 1
        return found
    if not is_mapped(loaded.features):
        return [k for k in range(loaded.n_features) if _varies(loaded.features[:, k], loaded.train)]
    parts = loaded.inputs(loaded.train)
    if not len(loaded.train):
        return []
    low, high = _extremes(parts)
    between = [((part != low) & (part != high)).any(axis=0) for part in _some_rows(parts)]
    return np.flatnonzero(np.any(between, axis=0)).tolist()


def _some_rows(parts: Sequence[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """The rows of arrays that follow each other, a block at a time."""
    return (block for _, block in stored.blocks(parts))


def _extremes(parts: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The least and the greatest number of each column."""
    found = [(block.min(axis=0), block.max(axis=0)) for block in _some_rows(parts)]
    return np.min([low for low, _ in found], axis=0), np.max([high for _, high in found], axis=0)


def _never_vary(parts: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Which columns hold one number only."""
    low, high = _extremes(parts)
    return low == high


def _varies(column: NDArray[Any], rows: NDArray[np.int64]) -> bool:
    """Whether there are more than two values in these rows; the first thousand nearly always show it."""
    for some in (rows[:1000], rows):
        values = column[some]
        if len(values) and ((values != values.min()) & (values != values.max())).any():
            return True
    return False


def calibrate(model: MLP, X: Any, y: NDArray) -> float | None:
    """Divide the last layer by the temperature that fits rows best which the model has not learnt from, and return it; None for
    numbers, which have none."""
    if model.output == "linear":
        return None
    targets, raw = model.prepare_targets(y, len(y)), model.forward(X).astype(np.float64)
    loss_of = calibration.careful(lambda t: calibration.log_loss(raw / t, targets), len(raw))
    found = calibration.best_temperature(loss_of)
    for part in (model.weights[-1], model.biases[-1]):
        part /= found
    return found


def check_class_weight(loaded: TrainingData, name: str | None, option: str = "class_weight") -> str | None:
    """ "balanced", or None; see `Trainer`.

    Raises
    ------
    InputError : another name, or targets that have no single class
    """
    if name is None or name == "none":
        return None
    if name != "balanced":
        raise InputError(f"{option}: expected balanced or none, got {name!r}")
    if loaded.targets.labels is None:
        raise InputError(f"{option}: expected classes to balance, got a {loaded.targets.task} task; leave it out")
    return name


def telling_columns(loaded: TrainingData) -> list[str]:
    """The columns that alone predict the target in the training rows."""
    if loaded.preprocessor is None or loaded.targets.task == "multilabel" or not isinstance(loaded.features, Encoded):
        return []
    labels = loaded.targets.labels
    y = loaded.targets.y[loaded.train] if labels is None else labels[loaded.train]
    if labels is None and y.shape[1] != 1:
        return []
    columns = loaded.preprocessor.features
    rows = loaded.rows[loaded.train]
    return telling(columns, loaded.features.parts, rows, y.reshape(-1), labels is not None)


def assess(model: MLP | Ensemble, X: Any, y: NDArray) -> dict[str, float]:
    """All metrics of a model on X and y, and the mean loss."""
    judge = model.head if isinstance(model, Ensemble) else model
    targets = judge.prepare_targets(y, len(y))  # X may be a list of arrays
    raw = model.forward(X)
    return {**metrics.report(judge, raw, targets), "loss": judge.engine.mean_loss(raw, targets)}


def check_interval(loaded: TrainingData, share: float | None, folds: int = 0) -> None:
    """Refuse, before anything is trained, an interval that cannot be found.

    Raises
    ------
    InputError : the share is none, the task is no regression, or there are too few rows that a model does not learn from
    """
    if share is None:
        return
    share = calibration.check_share(share)
    if loaded.targets.task != "regression":
        raise InputError(f"interval: expected a regression, got a {loaded.targets.task} task; leave it out")
    n_rows = len(loaded.rows) if folds else loaded.n_validation
    if n_rows < calibration.fewest_rows(share):
        raise InputError(
            f"interval: expected at least {calibration.fewest_rows(share)} validation rows for a share of {share:g}, got "
            f"{n_rows}; validate on more rows, or use folds"
        )


def give_interval(
    model: MLP | Ensemble, predictions: NDArray[Any], y: NDArray[Any], share: float, seed: int
) -> Interval:  # fmt: skip
    """Find the interval by rows that the model has not learnt from, and let it travel with the model."""
    if isinstance(model.loss.parameter, tuple):
        raise InputError(
            "interval: expected a loss with one prediction for each target, got several quantiles; leave interval out"
        )
    interval = Interval.of(predictions, y, share, seed)
    model.metadata["interval"] = interval.to_json()
    return interval
