"""What a training tells those who watch it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class EpochResult:
    """One finished epoch."""

    epoch: int  # counted from 1
    epochs: int
    loss: float
    val_loss: float | None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    rows: int = 0


class Callback(Protocol):
    """Anything with these methods may be passed to `Trainer(callbacks=[...])`.

    An exception raised in a method ends the training; the model keeps what it has learned.
    """

    def on_train_begin(self, epochs: int, rows: int) -> None:
        """The training is about to start: how many epochs of how many rows."""

    def on_progress(self, epoch: int, rows_done: int) -> None:
        """Within epoch `epoch` (from 1), `rows_done` rows have been learned from. Called several times a second at most."""

    def on_epoch_end(self, result: EpochResult) -> None:
        """An epoch has ended."""
