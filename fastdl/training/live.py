"""A training in a notebook: its table and curves as they grow, as plain HTML, without any extension."""

from __future__ import annotations

import time
from typing import Any

from fastdl.errors import MissingExtraError
from fastdl.training.callbacks import Callback, EpochResult

SECONDS = 0.5
"""Between two pictures; the last epoch is always shown."""


class LiveCurves(Callback):
    """A callback that shows the history of the training in a Jupyter notebook, and goes on drawing it while it grows.

    Raises
    ------
    MissingExtraError : IPython is not installed
    """

    _only_watches = True

    def __init__(self) -> None:
        _display()
        self._handle: Any = None
        self._drawn = 0.0

    def on_train_begin(self, epochs: int, rows: int) -> None:
        """A new place for the curves, below what the cell has shown."""
        self._handle = _display().display(_display().HTML("training …"), display_id=True)
        self._drawn = time.monotonic()

    def on_epoch_end(self, result: EpochResult) -> None:
        """Draw again, twice a second at most."""
        if time.monotonic() - self._drawn >= SECONDS or result.epoch == result.epochs:
            self._draw()

    def on_train_end(self) -> None:
        """Draw the last epoch, where somebody has stopped the training."""
        self._draw()

    def _draw(self) -> None:
        if self._handle is not None:  # there is none outside of a notebook
            self._handle.update(_display().HTML(self.trainer.history._repr_html_()))
            self._drawn = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """A copy shows in a place of its own."""
        return {**super().__getstate__(), "_handle": None}


def _display() -> Any:
    try:
        from IPython import display
    except ImportError as error:
        raise MissingExtraError(
            "LiveCurves shows a training in a Jupyter notebook, and IPython is not installed: pip install ipython"
        ) from error
    return display
