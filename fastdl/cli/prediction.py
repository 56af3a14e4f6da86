"""What `predict` and `evaluate` do: predictions part by part, metrics beside the naive answer."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from fastdl import metrics
from fastdl.calibration import Interval
from fastdl.cli import commands, wording
from fastdl.errors import OptionError
from fastdl.files.atomic import atomic_write
from fastdl.model import MLP
from fastdl.suggest import did_you_mean
from fastdl.tables import known, sources
from fastdl.tables.dialect import Wishes
from fastdl.tables.ensemble import Ensemble
from fastdl.tables.kinds import Findings
from fastdl.tables.names import names_in
from fastdl.tables.table import Table
from fastdl.tables.text import listed, polars
from fastdl.training import fitting

if TYPE_CHECKING:
    import polars as pl


def predict(
    model_path: str,
    files: Sequence[str],
    out: str | None,
    ids: Sequence[str],
    only: Sequence[str],
    messages: Console,
    wishes: Wishes | None = None,
) -> None:
    """Write predictions, and probabilities where the model gives them, to `out` or stdout, part by part.

    ids : columns of the table that are copied in front
    only : the columns of predictions to write, if not all
    wishes : how the files are written, as far as that is not to be found out

    A row whose cells could not be told apart gets an empty prediction and is named.
    """
    model = commands.load(model_path)
    findings = Findings()
    bad: list[str] = []
    with _writer(out) as write:
        as_text = [*known.texts_of(model), *_pieces(ids)]
        for part in sources.parts(files, known.wishes_of(model, wishes), as_text):
            write(_predicted(model, part, ids, only, findings))
            if isinstance(part, Table):
                bad += [f"{part.where(row)}: {reason}" for row, reason in part.bad.items()]
    for sentence in findings.sentences():
        messages.print(f"note: {escape(sentence)}")
    if bad:
        more = f"; and {len(bad) - 10:,} more rows" if len(bad) > 10 else ""
        messages.print(
            f"note: no prediction for {wording.plural(len(bad), 'row')}: {escape('; '.join(bad[:10]) + more)}"
        )


def _predicted(
    model: MLP | Ensemble, part: Any, ids: Sequence[str], only: Sequence[str], findings: Findings
) -> pl.DataFrame:
    """The predictions of a part of the data as a frame."""
    pl = polars()
    columns = predictions(model, known.features_of(part, model, findings=findings))
    wanted = names_in(list(columns), only) or list(columns)
    unknown = [name for name in wanted if name not in columns]
    if unknown:
        close = did_you_mean(unknown[0], columns) or f"; there are {listed(list(columns))}"
        raise OptionError(f"--only: expected a column of the predictions, got {unknown[0]!r}{close}")
    frame = pl.DataFrame({name: columns[name] for name in wanted})
    if isinstance(part, Table):
        if part.bad:
            good = pl.Series([row not in part.bad for row in range(len(part))])
            frame = frame.select(pl.when(good).then(pl.all()))
        copied = names_in(part.names, ids)
        for name in copied:
            if name not in part.names:
                close = did_you_mean(name, part.names) or f"; the columns are {listed(part.names)}"
                raise OptionError(f"--id: expected a column of {part.label}, got {name!r}{close}")
        if copied:
            same = [name for name in copied if name in frame.columns]
            frame = part.frame.select(copied).rename({name: f"{name}_" for name in same}).hstack(frame)
    elif ids:
        raise OptionError(f"--id: expected a table, whose columns have names, got arrays and {ids[0]!r}")
    return frame


def _pieces(names: Sequence[str]) -> list[str]:
    return [*names, *(piece.strip() for text in names for piece in text.split(","))]


@contextlib.contextmanager
def _writer(out: str | None) -> Iterator[Any]:
    """A function that writes frames below each other: CSV to stdout or a file, or a Parquet file."""
    if out is None:
        yield _csv_writer(sys.stdout)
        return
    if Path(out).suffix.lower() in (".parquet", ".pq"):
        with atomic_write(out) as file, _parquet_writer(Path(out).absolute().parent, file) as write:
            yield write
        return
    with atomic_write(out) as file:
        yield _csv_writer(file)


@contextlib.contextmanager
def _parquet_writer(folder: Path, file: IO[bytes]) -> Iterator[Any]:
    """The frames go to files of their own in the folder, and in the end from these, a piece at a time, into one."""
    with tempfile.TemporaryDirectory(prefix=".fastdl-", dir=folder) as name:
        parts: list[Path] = []

        def write(frame: pl.DataFrame) -> None:
            parts.append(Path(name, f"{len(parts)}.parquet"))
            frame.write_parquet(parts[-1])

        yield write
        whole = Path(name, "whole.parquet")
        lazy = [polars().scan_parquet(part) for part in parts]
        polars().concat(lazy, how="vertical_relaxed").sink_parquet(whole)
        with whole.open("rb") as source:
            shutil.copyfileobj(source, file)


def _csv_writer(file: IO[Any]) -> Any:
    first = True

    def write(frame: pl.DataFrame) -> None:
        nonlocal first
        text = frame.write_csv(include_header=first)
        file.write(text if file is sys.stdout else text.encode())
        first = False

    return write


def predictions(model: MLP | Ensemble, X: Any) -> dict[str, Any]:
    """The columns of a prediction file: `prediction` and a probability `p_CLASS` of each class, or one pair per label.

    With several targets or labels the columns are `prediction_NAME` (and `p_NAME`). A model with intervals adds the columns
    `prediction_low` and `prediction_high`, or `prediction_NAME_low` and `prediction_NAME_high`.
    """
    n_outputs = model.layers[-1]
    names = model.target_names
    if names is None or len(names) != n_outputs:
        names = [str(i) for i in range(n_outputs)]
    found = model.predict(X)
    if model.output == "linear":
        prefixes = ["prediction"] if n_outputs == 1 else [f"prediction_{name}" for name in names]
        numbers = dict(zip(prefixes, found.reshape(len(found), -1).T))
        interval = Interval.from_json(model.metadata.get("interval"))
        if interval is None:
            return numbers
        low, high = (bound.reshape(len(found), -1) for bound in interval.bounds(found))
        return {
            name: column
            for i, prefix in enumerate(prefixes)
            for name, column in (
                (prefix, numbers[prefix]), (f"{prefix}_low", low[:, i]), (f"{prefix}_high", high[:, i])
            )
        }  # fmt: skip
    chances = model.predict_proba(X)
    if model.output == "sigmoid" and n_outputs > 1:
        columns: dict[str, Any] = {}
        for i, name in enumerate(names):
            columns |= {f"prediction_{name}": found[:, i], f"p_{name}": chances[:, i]}
        return columns
    classes = model.classes if model.classes is not None else list(range(max(2, n_outputs)))
    words = [str(c) if isinstance(c, (bool, str)) else c for c in classes]
    said = {"prediction": [words[i] for i in found.tolist()]}
    if model.output == "sigmoid":
        return {**said, f"p_{classes[1]}": chances[:, 0]}
    return said | {f"p_{c}": chances[:, i] for i, c in enumerate(classes)}


def evaluate(
    model_path: str,
    files: Sequence[str],
    target: Sequence[str],
    output: Console,
    messages: Console,
    wishes: Wishes | None = None,
) -> None:
    """Print loss and metrics of a model on a data set, beside those of the naive answer."""
    model = commands.load(model_path)
    X, y, notes = known.load_labelled(files, model, target, wishes)
    for note in notes:
        messages.print(f"note: {escape(note)}")
    values = fitting.assess(model, X, y)
    naive = metrics.baseline(model.head if isinstance(model, Ensemble) else model, y, y)
    interval = Interval.from_json(model.metadata.get("interval"))
    held = {}
    if interval is not None:
        share = interval.held(model.predict(X), y)
        held["coverage"] = f"{100 * share:.1f} % of the intervals for {100 * interval.share:g} % hold the truth"
    rows = {wording.LABELS.get(k, k): wording.metric(k, v) for k, v in values.items()}
    wording.print_pairs(output, {"rows": f"{len(X):,}", **rows, **held, "baseline": wording.naive(model.output, naive)})
