"""A callback that keeps a checkpoint of the training under way."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from typing import Any

from fastdl import checks
from fastdl.errors import InputError
from fastdl.training.callbacks import Callback, EpochResult, agreed


@dataclass
class Checkpoint(Callback):
    """Keep a checkpoint of the training in a file, from which `Trainer.from_checkpoint` goes on to the same bits.

    It is written before the first step, then every so often, also within an epoch, and at the end. An old one is replaced in
    one go: whenever the process ends, the file holds one whole checkpoint.

    Parameters
    ----------
    path : the file
    every_seconds : how often it is written, at least 0 (after each call of compiled code, of about 50 ms)

    Raises
    ------
    InputError : a value is not as above; the file cannot be written before the first step, or at the end. On the way a
        warning is given instead, and the file written again later.
    """

    path: str | os.PathLike[str]
    every_seconds: float = 30.0
    _only_watches = True
    _comes_last = True

    def __post_init__(self) -> None:
        if not isinstance(self.path, (str, os.PathLike)):
            raise InputError(f"Checkpoint: expected path to be the name of a file, got {self.path!r}")
        checks.number(self.every_seconds, "Checkpoint: every_seconds", 0, "the time between two writes")
        self._written = -float("inf")

    def describe(self) -> dict[str, Any]:
        """The settings as plain values."""
        return {"path": os.fspath(self.path), "every_seconds": self.every_seconds}

    def on_train_begin(self, epochs: int, rows: int) -> None:
        """Write what is needed to begin again."""
        self.write()

    def on_progress(self, epoch: int, rows_done: int) -> None:
        """Write, if it is time."""
        self._write_if_due()

    def on_epoch_end(self, result: EpochResult) -> None:
        """Write, if it is time."""
        self._write_if_due()

    def on_train_end(self) -> None:
        """Write the trained model: the next `fit` is a further one."""
        self.trainer._fit = None  # all other callbacks have been called
        self.write()

    def write(self) -> None:
        """Write the checkpoint now."""
        if not hasattr(self.trainer, "save_checkpoint"):
            raise InputError(
                f"Checkpoint: expected to be a callback of fastdl.Trainer, got one of {type(self.trainer).__name__}, which "
                f"cannot be taken up again; leave it out"
            )
        self.trainer.save_checkpoint(self.path)
        self._written = time.monotonic()

    def pause(self) -> float:
        """Seconds between two writes."""
        return self.every_seconds

    def failed(self, error: InputError) -> None:
        """A write on the way has failed; the next one is tried after a pause."""
        warnings.warn(f"the training goes on without a new checkpoint: {error}", UserWarning, stacklevel=2)

    def _write_if_due(self, now: bool = False) -> None:
        due = now or time.monotonic() - self._written >= self.pause()
        if not agreed(self.trainer, due):
            return
        try:
            self.write()
        except InputError as error:
            self._written = time.monotonic()
            self.failed(error)
