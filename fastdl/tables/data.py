"""What training, prediction and evaluation take: features and targets, checked, encoded and split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import OptionError
from fastdl.stored import is_mapped, picked
from fastdl.tables import targets, tasks
from fastdl.tables.arrays import ArrayData
from fastdl.tables.dialect import Wishes
from fastdl.tables.encoded import Encoded
from fastdl.tables.kinds import Column, Findings
from fastdl.tables.kinds.date import as_times
from fastdl.tables.known import load_features, load_labelled
from fastdl.tables.names import Options, check_columns, names_in
from fastdl.tables.preprocessor import Outcomes, Preprocessor
from fastdl.tables.recognise import Choices, Kind
from fastdl.tables.sources import open_data
from fastdl.tables.split import check_share, groups_of, split, split_arrays, split_by_group, split_by_time
from fastdl.tables.table import Table
from fastdl.tables.tasks import Targets
from fastdl.tables.text import as_text, option

__all__ = [
    "Options",
    "TrainingData",
    "load_features",
    "load_labelled",
    "load_training",
    "open_data",
    "prepare",
    "split",
]

MOST_KEPT = 10_000
"""Rows up to which a table is kept beside its features, for columns to be learnt again in cross-validation."""
MOST_CLASSES = 10
"""Of how many classes the shares in a category of many values become features."""


@dataclass(frozen=True)
class TrainingData:
    """A data set that is ready for a trainer.

    targets : of all rows that have one
    train, validation : which of these rows are for what, in the order of the file
    held_out : rows of a file of their own for validation, features and targets; `validation` is empty then
    preprocessor : how a table's columns become features, or None for array files
    pixels : all features share one unit, so they are scaled by one number
    table : what it was made of, where that is small; kinds : of its columns
    notes : what a user should know about how the file was read
    """

    name: str
    files: tuple[Path, ...]
    features: NDArray[Any] | Encoded
    rows: NDArray[np.int64]
    targets: Targets
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    preprocessor: Preprocessor | None = None
    held_out: tuple[Any, NDArray[Any]] | None = None
    pixels: bool = False
    notes: list[str] = field(default_factory=list)
    table: Table | None = None
    kinds: dict[str, Kind] = field(default_factory=dict)

    @property
    def feature_names(self) -> list[str] | None:
        """One name per feature, or None for array files."""
        return None if self.preprocessor is None else self.preprocessor.feature_names

    @property
    def columns(self) -> tuple[Column, ...] | None:
        """The columns that features are made of, or None for array files."""
        return None if self.preprocessor is None else self.preprocessor.features

    @property
    def n_features(self) -> int:
        """How many features a row has."""
        return self.features.width if isinstance(self.features, Encoded) else int(self.features.shape[1])

    @property
    def X(self) -> NDArray[Any]:
        """The features [N, I] of all rows that have a target, as float64 where they come from a table."""
        return self.features.rows(self.rows).matrix() if isinstance(self.features, Encoded) else self.features

    def inputs(self, rows: NDArray[np.int64]) -> Any:
        """The features of some rows, as the model takes them."""
        return (
            self.features.rows(self.rows[rows]) if isinstance(self.features, Encoded) else picked(self.features, rows)
        )

    def copied(self, rows: NDArray[np.int64]) -> Any:
        """The same in memory, where the data are in a file that is mapped: for few rows."""
        return self.inputs(rows) if isinstance(self.features, Encoded) else self.features[rows]

    def most_rows(self, most: int, numbers: int) -> int:
        """As many rows as are copied of features that are mapped: `most`, or fewer, so that they hold `numbers` at most."""
        return min(most, max(1, numbers // self.n_features)) if self.is_mapped else most

    @property
    def is_mapped(self) -> bool:
        """Whether the features are read from a file as they are needed."""
        return isinstance(self.features, np.ndarray) and is_mapped(self.features)

    def training_pair(self) -> tuple[Any, NDArray[Any]]:
        """Features and targets to train on."""
        return self.inputs(self.train), self.targets.y[self.train]

    def validation_pair(self) -> tuple[Any, NDArray[Any]] | None:
        """Features and targets to validate on, or None."""
        if self.held_out is not None:
            return self.held_out
        return (self.inputs(self.validation), self.targets.y[self.validation]) if len(self.validation) else None

    @property
    def n_validation(self) -> int:
        """How many rows validate."""
        return len(self.validation) if self.held_out is None else len(self.held_out[1])


def open_source(files: Sequence[str], options: Options) -> Table | ArrayData:
    """The files as the options say that they are written."""
    return open_data(files, wishes=with_names(options), as_text=texts_of(options), mapped=options.mapped)


def count_rows(source: Table | ArrayData, options: Options) -> int:
    """How many rows of a table, or of arrays, have a target; all, where the target is not named well."""
    if isinstance(source, Table):
        names = names_in(source.names, options.target)
        known = [name for name in names if name in source.names]
        cells = [as_text(source.frame[name]).is_null().to_numpy() for name in known]
        return len(source) - int(np.any(cells, axis=0).sum()) if cells else len(source)
    return len(source)


def load_training(
    files: Sequence[str], options: Options | None = None, source: Table | ArrayData | None = None, **settings: Any
) -> TrainingData:
    """Read a data set, find its task, split it by the seed and encode its features; `settings` are fields of `Options`.

    source : what `open_source` gave, where the files are open already

    Raises
    ------
    InputError : the files cannot be used (`OptionError` where an option is at fault)
    """
    options = options or Options(**settings)
    check_share(options.validation)
    source = open_source(files, options) if source is None else source
    name = name_of(files)
    if isinstance(source, Table):
        data = prepare(source, options, name)
        return with_validation_file(data, options) if options.validation_data else data
    for which in ("target", "categorical", "numeric", "date", "ignore", "group", "time"):
        if getattr(options, which):
            raise OptionError(f"--{which}: expected a table, whose columns have names, got {' '.join(files)}")
    if options.validation_data:
        raise OptionError(f"--validation-data: expected a table to train on, got {' '.join(files)}")
    labels = options.task is None and source.labels
    found = tasks.of_labels(source.targets()) if labels else tasks.resolve(source.targets(), options.task)
    train, held_out, notes = split_arrays(source.X, options.validation, options.seed, found.labels)
    rows = np.arange(len(source))
    return TrainingData(name, source.files, source.X, rows, found, train, held_out, pixels=source.pixels, notes=notes)


def name_of(files: Sequence[str]) -> str:
    """What data are called: the first file without its endings."""
    stem = re.sub(r"([.-]idx\d-ubyte|\.\w+)?(\.(gz|xz|zst|bz2))?$", "", Path(files[0]).name)
    return re.sub(r"[^\w.-]+", "_", stem).strip("_") or "data"


def prepare(table: Table, options: Options, name: str = "data") -> TrainingData:
    """The same for a table in memory."""
    check_share(options.validation)
    table.check_rows()
    names = names_in(table.names, options.target)
    check_columns(table, names, options)
    wishes = options.wishes
    columns, rows, notes = targets.read(table, names, options.task, decimal=wishes.decimal)
    found = tasks.resolve(columns, options.task)
    train, held_out = split_table(table, rows, found, options)
    choices = choices_of(table, options)
    findings, kinds = Findings(), dict[str, Kind]()
    learnt = None if len(train) == len(table) else rows[train]
    outcomes = outcomes_of(found, train)
    preprocessor, frame = Preprocessor.fit_tidy(
        table.frame, learnt, choices, names, wishes.na_values, findings, outcomes, kinds
    )
    if not preprocessor.feature_names:
        raise OptionError(
            f"{table.label}: expected at least one feature column that varies beside the target and --ignore, got none"
        )
    encoded = preprocessor.encode(frame, findings, table.label)
    encoded = preprocessor.cross_fitted(encoded, frame, rows[train], outcomes, options.seed)
    kept = table if len(table) <= MOST_KEPT or options.keeps_table else None
    notes = [*table.notes, *notes, *(s for s in findings.sentences() if s.startswith("cells"))]
    return TrainingData(
        name, table.files, encoded, rows, found, train, held_out, preprocessor, notes=notes, table=kept,
        kinds={} if kept is None else kinds,
    )  # fmt: skip


def refitted(
    data: TrainingData, options: Options, train: NDArray[np.int64], held_out: NDArray[np.int64]
) -> TrainingData:
    """The same data with other rows to train and to validate on; a table's columns are learnt again."""
    if data.table is None:
        return replace(data, train=train, validation=held_out)
    choices = choices_of(data.table, options)
    rows, names = data.rows[train], data.targets.names
    outcomes = outcomes_of(data.targets, train)
    preprocessor, frame = Preprocessor.fit_tidy(
        data.table.frame, rows, choices, names, options.wishes.na_values, outcomes=outcomes, kinds=data.kinds
    )
    encoded = preprocessor.cross_fitted(preprocessor.encode(frame), frame, rows, outcomes, options.seed)
    return replace(data, features=encoded, preprocessor=preprocessor, train=train, validation=held_out)


def outcomes_of(found: Targets, train: NDArray[np.int64]) -> Outcomes:
    """The targets of the training rows as numbers: of more than ten classes the most frequent ones."""
    y = found.y[train]
    if found.task != "multiclass":
        return Outcomes(tuple(found.names), y.reshape(len(train), -1).astype(np.float64))
    counts = np.bincount(y, minlength=found.n_outputs)
    classes = np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES])
    names = tuple(f"{found.names[0]}={(found.classes or range(found.n_outputs))[k]}" for k in classes.tolist())
    return Outcomes(names, (y[:, None] == classes).astype(np.float64))


def with_names(options: Options) -> Wishes:
    """The wishes with the names that options hold: they tell a line of names from one of data."""
    names: list[str] = []
    for which in (options.target, options.categorical, options.numeric, options.date, options.ignore):
        for text in [which] if isinstance(which, str) else which or ():
            names += [text, *(part.strip() for part in text.split(","))]
    names += [name for name in (options.group, options.time) if name]
    return replace(options.wishes, names=tuple(name for name in names if name))


def texts_of(options: Options) -> list[str]:
    """Columns that the user declares categorical: `007` is not `7` there."""
    names = [options.categorical] if isinstance(options.categorical, str) else list(options.categorical)
    return [*names, *(part.strip() for text in names for part in text.split(","))]


def choices_of(table: Table, options: Options) -> Choices:
    names = table.names
    ignore, reasons = names_in(names, options.ignore), {}
    if options.group is not None and options.group not in ignore:
        ignore = [*ignore, options.group]
        reasons[options.group] = "says which rows belong together"
    return Choices(
        names_in(names, options.categorical),
        names_in(names, options.numeric),
        names_in(names, options.date),
        ignore,
        reasons,
        options.wishes.decimal,
        options.embeds,
    )


def split_table(
    table: Table, rows: NDArray[np.int64], found: Targets, options: Options
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    everything = np.arange(len(rows)), np.arange(0)
    if options.validation_data or options.validation == 0:
        return everything
    if options.group is not None:
        groups = groups_of(table.frame[options.group], rows)
        return split_by_group(groups, options.validation, options.seed)
    if options.time is not None:
        return split_by_time(_times(table, options)[rows], options.validation)
    return split(len(rows), options.validation, options.seed, found.labels)


def _times(table: Table, options: Options) -> NDArray[np.float64]:
    """The column that --time names, as numbers; rows without a time come first."""
    from fastdl.tables.kinds import DateColumn, NumberColumn
    from fastdl.tables.kinds.number import as_numbers
    from fastdl.tables.recognise import kind_of

    assert options.time is not None
    values = table.frame[options.time]
    choices = choices_of(table, options)
    kind = kind_of(options.time, values, replace(choices, ignore=()))
    column = kind.learn(options.time, values)
    if isinstance(column, DateColumn):
        found = as_times(values, column.format).dt.epoch("us").cast(float)
    elif values.dtype.is_numeric():
        found = values.cast(float)
    elif isinstance(column, NumberColumn):
        found = as_numbers(values, column.style)
    else:
        raise OptionError(
            f"--time: expected a column of dates, times or numbers, got {options.time!r}, which is one of {column.kind}; "
            f"{option('--date', [options.time])} says that it holds dates"
        )
    return np.nan_to_num(np.asarray(found.fill_null(float("nan")).to_numpy()), nan=-np.inf)


def with_validation_file(data: TrainingData, options: Options) -> TrainingData:
    """The data with the rows of `--validation-data` to validate on."""
    assert data.preprocessor is not None
    wishes = with_names(options)
    table = open_data(options.validation_data, wishes=wishes, as_text=data.preprocessor.text_columns)
    if not isinstance(table, Table):
        raise OptionError(f"--validation-data: expected a table, got {' '.join(options.validation_data)}")
    table.check_rows()
    names = data.targets.names
    for name in names:
        table.find(name, "--validation-data")
    text = len(names) == 1 and any(isinstance(c, str) for c in data.targets.classes or ())
    columns, rows, notes = targets.read(table, names, as_classes=text, decimal=wishes.decimal)
    output = tasks.TASKS[data.targets.task].output
    y = tasks.known_targets(columns, output, data.targets.n_outputs, data.targets.classes)
    findings = Findings()
    encoded = data.preprocessor.encode(table.frame, findings, table.label)
    told = [f"{table.label}: {note}" for note in (*table.notes, *notes, *findings.sentences())]
    return replace(data, held_out=(encoded.rows(rows), y), notes=[*data.notes, *told])
