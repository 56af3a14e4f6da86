"""How far many trainings are: one bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TypeVar

from fastdl.errors import MissingExtraError
from fastdl.training.pool import ManyProgress

try:
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
except ImportError as error:
    raise MissingExtraError(
        'progress=True needs rich, which is not installed: pip install "fastdl[cli]", or pass a function'
    ) from error

LINES = 10
"""About so many lines, where there is no terminal."""


Area = TypeVar("Area", bound="LiveArea")


def can_be_live(console: Console) -> bool:
    """Whether what a console shows can be drawn anew: on a terminal that is one for stderr too."""
    return console.is_terminal and sys.stderr.isatty() and not console.is_dumb_terminal


class LiveArea:
    """A console with a part that is drawn anew while the body of a `with` runs; lines stay above it.

    Parameters
    ----------
    console : where to write
    live : whether there is such a part; lines alone otherwise
    """

    def __init__(self, console: Console, live: bool) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if live else None

    def __enter__(self: Area) -> Area:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()


class Display(LiveArea):
    """What `fit_many` may call with its progress; a context manager around the trainings.

    Parameters
    ----------
    console : where to write; stderr if left out
    live : show a bar that moves instead of lines; None: where the console is a terminal
    what : what is trained
    """

    def __init__(self, console: Console | None = None, live: bool | None = None, what: str = "models") -> None:
        console = Console(stderr=True, highlight=False) if console is None else console
        super().__init__(console, can_be_live(console) if live is None else live)
        self._what, self._said, self._drawn = what, ("", 0), -1.0

    def __call__(self, progress: ManyProgress, before: str = "") -> None:
        """Show it behind the words `before`, unless little has changed."""
        text = f"{before}{self.words(progress)}"
        if self._live is None:
            step = before, progress.finished * LINES // progress.models
            if step[1] and step != self._said:
                self._said = step
                self._console.print(text, markup=False)
        elif progress.seconds - self._drawn >= 0.1:
            self._drawn = progress.seconds
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_row(ProgressBar(total=1.0, completed=progress.done, width=36), text)
            self._live.update(grid, refresh=True)

    def words(self, progress: ManyProgress) -> str:
        """`12 of 64 models trained, 1 failed, 4 s left`."""
        failed = f", {progress.failed} failed" if progress.failed else ""
        left = ""
        if 0 < progress.done < 1:
            left = f", {progress.seconds / progress.done * (1 - progress.done):.0f} s left"
        return f"{progress.finished} of {progress.models} {self._what} trained{failed}{left}"
