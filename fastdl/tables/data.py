"""What training, prediction and evaluation take from files: features and targets, checked, encoded and split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import InputError, OptionError
from fastdl.model import MLP
from fastdl.suggest import did_you_mean
from fastdl.tables import arrays, encoding, tasks
from fastdl.tables.arrays import ArrayData
from fastdl.tables.csv_file import Table, listed
from fastdl.tables.encoding import Column
from fastdl.tables.tasks import TargetColumn, Targets


@dataclass(frozen=True)
class TrainingData:
    """A data set that is ready for a trainer.

    train, validation : the rows of X and of targets.y for each, in the order of the file
    columns : the table's columns that the features are made of, or None for array files
    pixels : all features share one unit, so they are scaled by one number
    notes : what a user should know about how the file was read
    """

    name: str
    files: tuple[Path, ...]
    X: NDArray
    targets: Targets
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    columns: tuple[Column, ...] | None = None
    pixels: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def feature_names(self) -> list[str] | None:
        """One name per feature, or None for array files."""
        return None if self.columns is None else [name for column in self.columns for name in column.feature_names]


def open_data(files: Sequence[str], with_targets: bool = True) -> Table | ArrayData:
    """Read `digits`, a CSV or NPZ file, or a pair of NPY or IDX files, told apart by their content."""
    if list(files) == ["digits"]:
        return arrays.digits()
    if len(files) > 2:
        raise OptionError(f"expected one file, or two with features and targets, got {len(files)}: {' '.join(files)}")
    paths = tuple(Path(file) for file in files)
    for path in paths:
        if not path.is_file():
            raise arrays.no_such_file(path)
    kind = arrays.kind(paths[0])
    if len(paths) == 2 and kind in ("csv", "npz"):
        raise OptionError(f"expected one {kind.upper()} file, got two: {' '.join(files)}; pairs are NPY or IDX files")
    if kind == "csv":
        return Table(paths[0])
    if kind == "npz":
        return arrays.read_npz(paths[0], with_targets)
    if kind == "npy":
        return arrays.read_npy(paths, with_targets)
    return arrays.read_idx(paths, with_targets)


def load_training(
    files: Sequence[str],
    *,
    target: str | None = None,
    task: str | None = None,
    categorical: str = "",
    ignore: str = "",
    validation: float = 0.2,
    seed: int = 0,
) -> TrainingData:
    """Read a data set, find its task, split it by `seed` and encode its features.

    target, categorical, ignore : names of columns of a CSV file, separated by commas
    task : a name from `tasks.TASKS`, or None to infer it from the targets
    validation : the share of rows that is kept for validation, in [0, 1)

    Raises
    ------
    InputError : the files cannot be used (`OptionError` where an option is at fault)
    """
    source = open_data(files)
    stem = re.sub(r"([.-]idx\d-ubyte|\.\w+)?(\.gz)?$", "", Path(files[0]).name)
    name = re.sub(r"[^\w.-]+", "_", stem) or "data"
    if isinstance(source, ArrayData):
        for option, value in (("--target", target), ("--categorical", categorical), ("--ignore", ignore)):
            if value:
                raise OptionError(f"{option}: expected a CSV file, whose columns have names, got {' '.join(files)}")
        if task is None and source.labels:
            targets = _labels(source.targets())
        else:
            targets = tasks.resolve(source.targets(), task)
        train, held_out = split(len(source), validation, seed, targets.labels)
        return TrainingData(name, source.files, source.X, targets, train, held_out, pixels=source.pixels)

    table = source
    names = target_names(table, target)
    columns = encoding.choose(table, names, column_names(table, categorical), column_names(table, ignore))
    encoding.check_categories(table, columns)
    targets = tasks.resolve(target_columns(table, names, task), task)
    train, held_out = split(len(table), validation, seed, targets.labels)
    columns = encoding.learn(table, columns, train)
    # A category that no training row shows could not be encoded: such validation rows move to training.
    moved = encoding.unseen(table, columns, held_out)
    if moved.any():
        train, held_out = np.sort(np.concatenate([train, held_out[moved]])), held_out[~moved]
        columns = encoding.learn(table, columns, train)
    notes = [f"left out column {n}, which has no name" for n in table.unnamed]
    X = encoding.encode(table, columns)
    return TrainingData(name, (table.path,), X, targets, train, held_out, columns, notes=notes)


def load_features(files: Sequence[str], model: MLP) -> NDArray:
    """The features [N, I] of a file as `model` takes them: a CSV file's columns by name, arrays as they are."""
    return _features(open_data(files, with_targets=False), model)


def load_labelled(files: Sequence[str], model: MLP, target: str | None = None) -> tuple[NDArray, NDArray[Any]]:
    """Features [N, I] and targets of a file as `model` takes them; `target` names other columns than in training."""
    source = open_data(files)
    if isinstance(source, ArrayData):
        if target:
            raise OptionError(f"--target: expected a CSV file, whose columns have names, got {' '.join(files)}")
        X, columns = _features(source, model), source.targets()
    else:
        names = model.target_names if target is None and model.target_names else target_names(source, target)
        missing = [name for name in names if name not in source.names]
        if missing:
            close = did_you_mean(missing[0], source.names)
            raise OptionError(
                f"{source.path}: expected the target {missing[0]!r} as in training, found no column of this name{close}"
                f"{'' if close else ';'} say what it is called here with --target"
            )
        X = _features(source, model, names)
        text = len(names) == 1 and any(isinstance(c, str) for c in model.classes or ())
        columns = [_target_column(source, name, text) for name in names]
    return X, tasks.known_targets(columns, model.output, model.layers[-1], model.classes)


def split(
    n_rows: int, share: float, seed: int, labels: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows for training and for validation, both ascending: round(share * n_rows) are drawn by `seed` for validation.

    With `labels` each class has its share in both (to within one row), and no class is missing from training.
    """
    if not 0 <= share < 1:
        raise OptionError(f"--validation: expected a share of the rows in [0, 1), such as 0.2, got {share:g}")
    rows = np.random.default_rng(seed).permutation(n_rows)
    n_held_out = round(share * n_rows) if share == 0 else max(1, round(share * n_rows))
    if n_held_out >= n_rows:
        raise InputError(
            f"expected at least 2 rows to train on some and validate on others, got {n_rows}; use --validation 0"
        )
    if labels is not None:
        rows = rows[np.argsort(labels[rows], kind="stable")]
    # Every (n_rows / n_held_out)-th row: evenly over the classes, as their rows are neighbours now.
    place = np.arange(n_rows)
    chosen = (place + 1) * n_held_out // n_rows > place * n_held_out // n_rows
    if labels is not None:
        ordered = labels[rows]
        first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        lost = np.logical_and.reduceat(chosen, first)
        chosen[first[lost]] = False
    return np.sort(rows[~chosen]), np.sort(rows[chosen])


def column_names(table: Table, text: str) -> list[str]:
    """The names in a comma-separated list; a column whose own name has a comma is found too."""
    if text in table.names:
        return [text]
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def target_names(table: Table, target: str | None) -> list[str]:
    """The target columns that the user named."""
    names = column_names(table, target or "")
    if not names:
        raise OptionError(
            f"{table.path}: expected --target with the name of the target's column, got none; "
            f"the columns are {listed(table.names, 40)}"
        )
    for name in names:
        try:
            table.find(name, "--target")
        except InputError as error:
            raise OptionError(str(error)) from error
    return names


def target_columns(table: Table, names: Sequence[str], task: str | None) -> list[TargetColumn]:
    """The target columns as numbers, or as text where that makes a class of it."""
    numeric = len(names) > 1 or task in ("regression", "multilabel")
    columns = []
    for name in names:
        # A number column with a typo is no text column, unless the user says that it holds classes.
        text = not numeric and table.is_text(name) and (task is not None or not table.is_mostly_numbers(name))
        columns.append(_target_column(table, name, text))
    return columns


def _target_column(table: Table, name: str, text: bool) -> TargetColumn:
    if text:
        return TargetColumn(name, table.texts(name).to_numpy().astype(str), lambda row: table.where(row, name))
    mend = "correct the cell or delete the row"
    if table.is_text(name):
        mend += "; if the target's texts are classes, name it alone and use --task multiclass"
    values = table.numbers(name, mend)
    return TargetColumn(name, values, lambda row: table.where(row, name), table.is_boolean(name))


def _labels(columns: list[TargetColumn]) -> Targets:
    """The targets of a file of labels: classes, however many there are."""
    n_classes = len(tasks.distinct(columns[0]))
    targets = tasks.resolve(columns, "binary" if n_classes == 2 else "multiclass")
    return Targets(**{**vars(targets), "reason": f"the labels are {n_classes} different values"})


def _features(source: Table | ArrayData, model: MLP, targets: Sequence[str] = ()) -> NDArray:
    n_features = model.layers[0]
    columns = encoding.from_json(model.metadata.get("columns") or ())
    if isinstance(source, ArrayData):
        if any(column.categories is not None for column in columns):
            raise InputError(
                f"{source.files[0]}: expected a CSV file with the columns {listed([c.name for c in columns])}, "
                f"as the model encodes its categories, got an array file"
            )
        if source.X.shape[1] != n_features:
            raise InputError(
                f"{source.files[0]}: expected {n_features} features for this model, got {source.X.shape[1]} "
                f"in an array of shape {source.X.shape}"
            )
        return source.X
    names = model.feature_names or [name for name in source.names if name not in targets]
    columns = columns or tuple(Column(name) for name in names)
    if sum(len(column.feature_names) for column in columns) != n_features:
        raise InputError(
            f"{source.path}: expected {n_features} columns, as the model's features have no names, "
            f"got {len(columns)}: {listed([column.name for column in columns])}"
        )
    return encoding.encode(source, columns)
