"""Callbacks that watch a value: end a training that has stopped getting better, or lower its learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl import checks
from fastdl.errors import InputError
from fastdl.suggest import did_you_mean
from fastdl.training.callbacks import Callback, EpochResult

HIGHER_IS_BETTER = ("accuracy", "balanced_accuracy", "auc", "f1", "r2")
LOWER_IS_BETTER = ("loss", "val_loss", "log_loss", "rmse", "mae")


@dataclass
class Watcher(Callback):
    """Base of callbacks that follow one value and count the epochs in which it did not get better.

    Parameters
    ----------
    patience : epochs without an improvement until something happens
    monitor : "val_loss", a metric of the validation data ("accuracy", or "rmse" and "r2", or one of
        `Trainer(metrics=...)`), or "loss" of the training
    min_delta : an improvement is a change for the better by more than this
    mode : "min" or "max", whether lower or higher is better; "auto" knows it of losses and of fastdl's metrics

    Raises
    ------
    InputError : a value is not as above
    """

    patience: int = 10
    monitor: str = "val_loss"
    min_delta: float = 0.0
    mode: str = field(default="auto", kw_only=True)

    def __post_init__(self) -> None:
        name = type(self).__name__
        checks.count(self.patience, f"{name}: patience", 1, "the epochs to wait for an improvement")
        checks.number(self.min_delta, f"{name}: min_delta", 0, "the smallest improvement")
        if not isinstance(self.monitor, str):
            raise InputError(f"{name}: expected monitor to be a name such as 'val_loss', got {self.monitor!r}")
        if self.mode not in ("auto", "min", "max"):
            raise InputError(f"{name}: expected mode to be 'auto', 'min' or 'max', got {self.mode!r}")
        self._begin()

    def _begin(self) -> None:
        self._best, self._waited, self._seen = -np.inf, 0, 0
        self._whole = True  # False while it is in the middle of an epoch's end

    @property
    def seen(self) -> int:
        """How many epochs of the training it has looked at."""
        return self._seen

    def progress(self) -> dict[str, Any] | None:
        """How far the watching has come, as plain values, for a checkpoint; None if it was interrupted in the middle."""
        return {"best": float(self._best), "waited": self._waited, "seen": self._seen} if self._whole else None

    def go_on(self, progress: Mapping[str, Any], best: NDArray | None) -> None:
        """Watch on from what `progress` gave; `best` are the parameters that were kept, if any were."""
        self._best, self._waited, self._seen = (
            float(progress["best"]),
            int(progress["waited"]),
            int(progress["seen"]),
        )

    @property
    def best_parameters(self) -> NDArray | None:
        """The parameters that are kept, if any are."""
        return None

    def check_monitor(self, metrics: Iterable[str]) -> None:
        """Raise InputError unless `monitor` is a loss or one of these metrics, and the better direction is known."""
        choices, name = ("val_loss", "loss", *metrics), type(self).__name__
        if self.monitor not in choices:
            raise InputError(
                f"{name}: expected monitor to be one of {', '.join(choices)} for this model, "
                f"got {self.monitor!r}{did_you_mean(self.monitor, choices)}"
            )
        if self.mode == "auto" and self.monitor not in HIGHER_IS_BETTER + LOWER_IS_BETTER:
            raise InputError(
                f"{name}: expected mode='min' or mode='max' with monitor={self.monitor!r}, got 'auto', "
                f"which knows losses and fastdl's own metrics"
            )

    def on_train_begin(self, epochs: int, rows: int) -> None:
        """Forget what other trainings have shown."""
        self._begin()

    def is_better(self, result: EpochResult) -> bool:
        """Look at a finished epoch: whether its value is the best so far. `_waited` counts the epochs that were not."""
        value = result.value(self.monitor)
        self._whole = False
        self._seen += 1
        if self.mode == "min" or (self.mode == "auto" and self.monitor not in HIGHER_IS_BETTER):
            value = -value
        better = value > self._best + self.min_delta
        if better:
            self._best = value
        self._waited = 0 if better else self._waited + 1
        return better

    def describe(self) -> dict[str, Any]:
        """The settings as plain values, for a run's record."""
        return {name: value for name, value in vars(self).items() if name in type(self).__dataclass_fields__}


@dataclass
class EarlyStopping(Watcher):
    """End the training after `patience` epochs in which the monitored value did not get better.

    Parameters
    ----------
    patience, monitor, min_delta, mode : see `Watcher`
    restore_best : give the model the parameters of the best epoch at the end, whatever ended the training but an exception

    `history.best_epoch` says which epoch was the best. It costs one copy of the parameters, in each epoch that is better.
    """

    restore_best: bool = True
    _only_watches = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.restore_best, bool):
            raise InputError(f"EarlyStopping: expected restore_best to be True or False, got {self.restore_best!r}")

    def _begin(self) -> None:
        super()._begin()
        self._copy: NDArray | None = None

    @property
    def best_parameters(self) -> NDArray | None:
        """Those of the best epoch so far, while a training is under way."""
        return self._copy

    def go_on(self, progress: Mapping[str, Any], best: NDArray | None) -> None:
        """Watch on, with the parameters of the best epoch so far."""
        super().go_on(progress, best)
        self._copy = None if best is None or not self.restore_best else best.copy()

    def on_epoch_end(self, result: EpochResult) -> None:
        """Keep the parameters of an epoch that is the best so far; end the training when there was none for long."""
        if self.is_better(result):
            self.trainer.history.best_epoch = result.epoch
            if self.restore_best:
                if self._copy is None:
                    self._copy = np.empty_like(self.trainer.model.parameters)
                self._copy[:] = self.trainer.model.parameters
        elif self._waited >= self.patience:
            self.trainer.stop()
        self._whole = True

    def on_train_end(self) -> None:
        """Give the model the best parameters, if that was asked for and any epoch was good."""
        if self._copy is not None:
            self.trainer.model.parameters[:] = self._copy
            self._copy = None


@dataclass
class ReduceOnPlateau(Watcher):
    """Multiply the learning rate by `factor` after `patience` epochs without an improvement, and again after as many more.

    It acts on what the schedule says (`trainer.rate_factor`), and not below `lowest` times it. torch's ReduceLROnPlateau
    and Keras' ReduceLROnPlateau do the same.

    Parameters
    ----------
    patience, monitor, min_delta, mode : see `Watcher`
    factor : in (0, 1)
    lowest : the smallest product of all factors, in [0, 1]
    """

    patience: int = 5
    factor: float = 0.5
    lowest: float = 1e-3
    _only_watches = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low, high in (("factor", 0.0, 1.0), ("lowest", -1.0, 1.0)):
            value = getattr(self, name)
            if not checks.is_real(value) or not low < value <= high or (name == "factor" and value == 1):
                raise InputError(f"ReduceOnPlateau: expected {name} between 0 and 1, such as 0.5, got {value!r}")

    def on_epoch_end(self, result: EpochResult) -> None:
        """Lower the rate, if it is time."""
        if not self.is_better(result) and self._waited >= self.patience:
            self._waited = 0
            self.trainer.rate_factor = max(self.lowest, self.trainer.rate_factor * self.factor)
        self._whole = True
