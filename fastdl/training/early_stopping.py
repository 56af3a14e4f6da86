"""Early stopping: end a training when it has stopped getting better, and take the best parameters back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdl import checks
from fastdl.errors import InputError
from fastdl.suggest import did_you_mean

if TYPE_CHECKING:
    from fastdl.training.history import History

_HIGHER_IS_BETTER = ("accuracy", "r2")


@dataclass(frozen=True)
class EarlyStopping:
    """End the training after `patience` epochs in which the monitored value did not get better.

    Parameters
    ----------
    patience : epochs without an improvement until the training ends
    monitor : "val_loss", a metric of the validation data ("accuracy", or "rmse" and "r2"), or "loss" of the training
    min_delta : an improvement is a change for the better by more than this
    restore_best : give the model the parameters of the best epoch at the end, whatever ended the training but an exception

    `history.best_epoch` says which epoch was the best. It costs one copy of the parameters, in each epoch that is better.

    Raises
    ------
    InputError : a value is not as above
    """

    patience: int = 10
    monitor: str = "val_loss"
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        checks.count(self.patience, "EarlyStopping: patience", 1, "the epochs to wait for an improvement")
        checks.number(self.min_delta, "EarlyStopping: min_delta", 0, "the smallest improvement")
        if not isinstance(self.monitor, str):
            raise InputError(f"EarlyStopping: expected monitor to be a name such as 'val_loss', got {self.monitor!r}")
        if not isinstance(self.restore_best, bool):
            raise InputError(f"EarlyStopping: expected restore_best to be True or False, got {self.restore_best!r}")

    def check_monitor(self, metrics: tuple[str, ...]) -> None:
        """Raise InputError unless `monitor` is a loss or one of these metrics."""
        choices = ("val_loss", "loss", *metrics)
        if self.monitor not in choices:
            raise InputError(
                f"EarlyStopping: expected monitor to be one of {', '.join(choices)} for this model, "
                f"got {self.monitor!r}{did_you_mean(self.monitor, choices)}"
            )


class Watch:
    """What early stopping knows during one `fit`."""

    def __init__(self, settings: EarlyStopping, parameters: NDArray) -> None:
        self._settings = settings
        self._parameters = parameters
        self._best = -np.inf
        self._copy = np.empty_like(parameters) if settings.restore_best else None

    def is_over(self, history: History) -> bool:
        """Look at the epoch that has just been recorded: True when the training should end."""
        name, epoch = self._settings.monitor, len(history)
        values = {"loss": history.loss, "val_loss": history.val_loss, **history.metrics}[name]
        value = values[-1] if name in _HIGHER_IS_BETTER else -values[-1]
        if value > self._best + self._settings.min_delta:
            self._best = value
            history.best_epoch = epoch
            if self._copy is not None:
                self._copy[:] = self._parameters
        return epoch - (history.best_epoch or 0) >= self._settings.patience

    def restore(self, history: History) -> None:
        """Give the model the best parameters, if that was asked for and any epoch was good."""
        if self._copy is not None and history.best_epoch is not None:
            self._parameters[:] = self._copy
