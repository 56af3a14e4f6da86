"""The pages that commands write: that of a run at its end, and what `fastdl report` makes of the folders of runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape

from fastdl.cli import runs
from fastdl.errors import MissingExtraError, OptionError
from fastdl.files.atomic import atomic_write
from fastdl.report import data, page
from fastdl.report.live import LivePage

COMPARISON = "comparison.html"
SECONDS = 1.0
"""Importance and partial dependence take so long at most: 30 columns of 2,000 rows take 0.2 s with the usual network."""


def write(folder: Path, run: data.Finished, messages: Console) -> None:
    """Write the page of a run that has just ended, and the values that it is made of; the run is complete without them."""
    if not run.trainer.history.loss:
        return
    try:
        with np.errstate(all="ignore"):  # what is not finite is not drawn
            found = data.collect(run, SECONDS)
        text = json.dumps(found, allow_nan=False) + "\n"
        html = page.of_run(found)
        for name, content in ((data.DATA, text), (runs.REPORT, html)):
            with atomic_write(folder / name) as file:
                file.write(content.encode(errors="backslashreplace"))
    except MissingExtraError as error:
        messages.print(escape(str(error)))
    except KeyboardInterrupt:
        messages.print("interrupted: the page of the run is not made")
    except Exception as error:  # a page that fails must not cost the training
        messages.print(escape(f"the page of the run is not made ({type(error).__name__}: {error})"))


@contextlib.contextmanager
def live(wanted: bool, name: str, output: str, messages: Console) -> Iterator[list[LivePage]]:
    """The page of a training while it runs, as a list of callbacks, which is empty unless it is wanted; its address is told."""
    if not wanted:
        yield []
        return
    with LivePage(name, output) as shown:
        messages.print(f"watch it on {shown.url}\n", markup=False)
        yield [shown]


def report(folders: Sequence[str], out: str | None) -> Path:
    """Write the page of a run again, or one of several runs side by side; where it is."""
    found = [(folder, data.of_folder(Path(folder))) for folder in folders]
    if len(found) == 1:
        target = Path(folders[0], runs.REPORT) if out is None else Path(out)
        html = page.of_run(found[0][1])
    else:
        names = [Path(folder).name or folder for folder in folders]
        if len(set(names)) < len(names):
            names = list(folders)
        if len(set(names)) < len(names):
            raise OptionError(f"RUN: expected different runs to put side by side, got {', '.join(names)}")
        target = Path(COMPARISON if out is None else out)
        html = page.of_runs([(name, kept) for name, (_, kept) in zip(names, found)])
    with atomic_write(target) as file:
        file.write(html.encode(errors="backslashreplace"))
    return target
