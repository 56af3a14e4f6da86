"""The pages that commands write: that of a run at its end, and what `fastdl report` makes of the folders of runs."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.markup import escape

from fastdl import html
from fastdl.cli import columns, runs, wording
from fastdl.errors import MissingExtraError, OptionError
from fastdl.files.atomic import atomic_write
from fastdl.model import MLP
from fastdl.report import data, page
from fastdl.tables.ensemble import Ensemble, reads_tables

if TYPE_CHECKING:
    from fastdl.report.live import LivePage

COMPARISON = "comparison.html"
SECONDS, SHARE, MOST_SECONDS = 1.0, 0.05, 3.0
"""Importance and partial dependence take a second at most, or 5 % of the training, but never more than three."""
MOST_FEATURES = 1000


def write(folder: Path, run: data.Finished, messages: Console) -> None:
    """Write the page of a run that has just ended, and the values that it is made of; the run is complete without them."""
    if not run.history.loss:
        return
    try:
        with np.errstate(all="ignore"):  # what is not finite is not drawn
            found = data.collect(run, min(MOST_SECONDS, max(SECONDS, SHARE * run.config["result"]["seconds"])))
        text = json.dumps(found, allow_nan=False) + "\n"
        for name, content in ((data.DATA, text), (runs.REPORT, page.of_run(found))):
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
    from fastdl.report.live import LivePage  # with the standard library's web server: 20 ms

    with LivePage(name, output) as shown:
        messages.print(f"watch it on {shown.url}\n", markup=False)
        yield [shown]


def inspection(model: MLP | Ensemble, path: str, out: str, more: Mapping[str, str]) -> None:
    """Write what a model file holds as a page; `more` is said besides. Of several models the layers of the first are shown."""
    shown = model
    if isinstance(model, Ensemble):
        shown = copy.copy(model.members[0])
        shown.metadata = model.metadata
    assert isinstance(shown, MLP)
    body = html.pairs({**wording.facts(shown, path), **more}) + shown._repr_html_()
    if reads_tables(model):
        heads = ("column", "kind", "read as", "features")
        body += html.table(heads, [tuple(entry.values()) for entry in columns.described(model.preprocessor)], "Columns")
    elif shown.scaling is not None:
        names = shown.feature_names or [f"feature {i}" for i in range(shown.layers[0])]
        numbers = [map(wording.number, map(float, values)) for values in (shown.scaling.mean, shown.scaling.scale)]
        body += html.table(("feature", "centre", "scale"), list(zip(names, *numbers))[:MOST_FEATURES], "Features")
    with atomic_write(out) as file:
        file.write(html.document(Path(path).name, body).encode(errors="backslashreplace"))


def report(folders: Sequence[str], out: str | None) -> Path:
    """Write the page of a run again, or one of several runs side by side; where it is."""
    found = [(folder, data.of_folder(Path(folder))) for folder in folders]
    if len(found) == 1:
        target = Path(folders[0], runs.REPORT) if out is None else Path(out)
        text = page.of_run(found[0][1])
    else:
        names = [Path(folder).name or folder for folder in folders]
        if len(set(names)) < len(names):
            names = list(folders)
        if len(set(names)) < len(names):
            raise OptionError(f"RUN: expected different runs to put side by side, got {', '.join(names)}")
        target = Path(COMPARISON if out is None else out)
        text = page.of_runs([(name, kept) for name, (_, kept) in zip(names, found)])
    with atomic_write(target) as file:
        file.write(text.encode(errors="backslashreplace"))
    return target
