"""An exponential moving average of the parameters, which the model gets at the end of a training."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import NDArray

from fastdl import checks
from fastdl.errors import InputError
from fastdl.training.callbacks import Callback, EpochResult


@dataclass
class AverageParameters(Callback):
    """Give the model an average of the parameters after each epoch: Σ decay^(n - i) theta_i / Σ decay^(n - i) over epochs 1 .. n.

    Steps at a high rate jump about a minimum; their mean is nearer to it (Polyak and Juditsky, 1992). The training itself does
    not change, nor do the losses in its history, which are those of theta_i. The model gets the average when `fit` has come to
    its end, not after an exception; a second `fit` goes on from there, with an average of its own. It costs one pass over the
    parameters in each epoch, and a copy of them.

    Parameters
    ----------
    decay : in [0, 1): 0.9 looks back about 10 epochs, and close to 1 it is the mean of all

    Raises
    ------
    InputError : decay is no such number; in `fit`, if early stopping is to restore the best epoch as well
    """

    decay: float = 0.9
    _only_watches = True

    def __post_init__(self) -> None:
        if checks.number(self.decay, "AverageParameters: decay", 0, "how much of the average stays") >= 1:
            raise InputError(f"AverageParameters: expected decay in [0, 1), such as 0.9, got {self.decay!r}")
        self._begin()

    def _begin(self) -> None:
        self._average: NDArray | None = None
        self._epochs = 0

    def on_train_begin(self, epochs: int, rows: int) -> None:
        """Forget other trainings."""
        stopping = self.trainer.early_stopping
        if stopping is not None and stopping.restore_best:
            raise InputError(
                "AverageParameters: expected no early stopping that restores the best epoch, since only one of them can say "
                "what the model ends with; use EarlyStopping(restore_best=False)"
            )
        self._begin()

    def on_epoch_end(self, result: EpochResult) -> None:
        """Take in the epoch's parameters; the first one's are the average so far."""
        parameters = self.trainer.model.parameters
        self._epochs += 1
        if self._average is None:
            self._average = parameters.copy()
        else:
            share = (1 - self.decay) / (1 - self.decay**self._epochs)
            self._average += share * (parameters - self._average)

    def on_train_end(self) -> None:
        """Give the model the average."""
        if self._average is not None:
            self.trainer.model.parameters[:] = self._average
        self._begin()
