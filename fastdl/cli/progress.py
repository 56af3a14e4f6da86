"""The training as it happens: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fastdl.cli import wording
from fastdl.training.callbacks import Callback, EpochResult
from fastdl.training.display import LiveArea

LINES = 20
"""About so many epochs get a line that stays; the live display shows the others."""
LONGEST_SILENCE = 30.0
"""Seconds after which an epoch gets its line anyway."""


class Progress(LiveArea, Callback):
    """A callback of the trainer, and a context manager around the training.

    Parameters
    ----------
    console : where to write; lines that stay are written for about `LINES` epochs, evenly
    live : show a bar that moves besides (needs a terminal)
    """

    _only_watches = True

    def __init__(self, console: Console, live: bool) -> None:
        super().__init__(console, live)
        self._epochs = self._rows = 0
        self._before = 0  # epochs that were done when this process began
        self._first = True
        self._moving: EpochResult | None = None  # the last epoch, when it has no line that stays
        self._partial = (1, 0)  # epoch under way, rows of it that are done
        self._long_epochs = False  # epochs report rows before their end: they get a bar of their own
        self._start = self._printed = self._drawn = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, value, trace)
        if self._moving is not None:
            self._write(self._moving)

    def on_train_begin(self, epochs: int, rows: int) -> None:
        """Note how much there is to do."""
        self._epochs, self._rows = epochs, rows
        self._before = 0 if self.trainer is None else len(self.trainer.history)
        self._start = self._printed = time.monotonic()
        self._draw(force=True)

    def on_progress(self, epoch: int, rows_done: int) -> None:
        """Move the bar within an epoch."""
        self._partial = (epoch, rows_done)
        self._long_epochs |= rows_done < self._rows
        self._draw()

    def on_epoch_end(self, result: EpochResult) -> None:
        """Write the epoch's line, if it is one of those that stay, and move the bar."""
        self._partial = (result.epoch + 1, 0)
        first, self._moving = self._first, result
        self._first = False
        stride = -(-result.epochs // LINES)
        due = time.monotonic() - self._printed >= LONGEST_SILENCE
        if result.epoch in (1, result.epochs) or result.epoch % stride == 0 or due:
            self._printed, self._moving = time.monotonic(), None
            if first and self._live is not None:
                self._console.print(self._row(result, header=True), soft_wrap=False)
            self._write(result)
        self._draw(force=result.epoch == result.epochs)

    def _write(self, result: EpochResult) -> None:
        """Write the line of an epoch that stays."""
        if self._live is None:
            self._console.print(self._line(result))
        else:
            self._console.print(self._row(result), soft_wrap=False)

    def _seconds_left(self) -> float | None:
        epoch, rows = self._partial
        done = epoch - 1 + rows / max(1, self._rows)
        elapsed = time.monotonic() - self._start
        return None if done <= self._before else elapsed / (done - self._before) * (self._epochs - done)

    def _line(self, result: EpochResult) -> str:
        """One epoch as a line that can be read, and searched, alone."""
        values = {"loss": result.loss}
        if result.val_loss is not None:
            values["val_loss"] = result.val_loss
        values |= result.metrics
        left = self._seconds_left()
        width = len(str(result.epochs))
        parts = [
            f"epoch {result.epoch:{width}}/{result.epochs}",
            *(f"{k} {wording.metric(k, v):<7}" for k, v in values.items()),
        ]
        parts.append(f"{wording.rate(result.rows / max(result.seconds, 1e-9))} rows/s")
        if left is not None and result.epoch < result.epochs:
            parts.append(f"{wording.duration(left)} left")
        return "   ".join(parts)

    def _row(self, result: EpochResult, header: bool = False) -> Table:
        """One epoch as a row of a table whose columns have fixed widths."""
        cells = {"epoch": f"{result.epoch}/{result.epochs}", "loss": wording.metric("loss", result.loss)}
        if result.val_loss is not None:
            cells["val loss"] = wording.metric("loss", result.val_loss)
        for name, value in result.metrics.items():
            cells[wording.LABELS.get(name, name)] = wording.metric(name, value)
        cells["rows/s"] = wording.rate(result.rows / max(result.seconds, 1e-9))
        table = Table.grid(padding=(0, 2, 0, 0))
        for name in cells:
            table.add_column(
                justify="right", min_width=2 * len(str(result.epochs)) + 1 if name == "epoch" else 8, no_wrap=True
            )
        if header:
            table.add_row(*(Text(name, "dim") for name in cells))
        else:
            styles = {"epoch": "dim", "rows/s": "dim"}
            table.add_row(*(Text(text, styles.get(name, "")) for name, text in cells.items()))
        return table

    def _draw(self, force: bool = False) -> None:
        now = time.monotonic()
        if self._live is None or (now - self._drawn < 0.1 and not force):
            return
        self._drawn = now
        epoch, rows = self._partial if self._partial[0] <= self._epochs else (self._epochs, self._rows)
        done = (epoch - 1) * self._rows + rows
        left = self._seconds_left()
        total = max(1, self._epochs * self._rows)
        bars = Table.grid(padding=(0, 2, 0, 0))
        for _ in range(3):
            bars.add_column(no_wrap=True)
        name = Text(f"epoch {epoch}/{self._epochs}")
        if self._long_epochs:
            share = 100 * rows // max(1, self._rows)
            bars.add_row(name, ProgressBar(total=max(1, self._rows), completed=rows, width=36), Text(f"{share} %"))
            name = Text("training")
        text = "starting" if left is None else f"{wording.duration(left)} left"
        bars.add_row(name, ProgressBar(total=total, completed=done, width=36), Text(text))
        shown = [bars] if self._moving is None else [self._row(self._moving), bars]
        self._live.update(Group(*shown), refresh=True)
