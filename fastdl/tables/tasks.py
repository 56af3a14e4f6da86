"""What a target asks for: regression, or labels of one of three kinds, inferred from its values or as the user says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import InputError, OptionError
from fastdl.suggest import did_you_mean

FEW = 20
"""Up to so many different whole numbers are taken for classes: digits (10) and ratings are, ages and counts are not."""

ASKED = "as --task says"


@dataclass(frozen=True)
class Task:
    """A kind of problem, and the output unit that solves it."""

    name: str
    output: str
    target: str  # what the target holds, for messages


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("regression", "linear", "numbers, in one column or several"),
        Task("binary", "sigmoid", "exactly two different values"),
        Task("multiclass", "softmax", "one of several classes: text or whole numbers"),
        Task("multilabel", "sigmoid", "0 or 1 in each of several columns"),
    )
}
"""Registry: the command line and the tests iterate over it."""


def check_task(name: str | None) -> str | None:
    """The name of a task, or None for one to be inferred."""
    if name is None or name == "auto":
        return None
    if name not in TASKS:
        raise OptionError(f"--task: expected one of {', '.join(TASKS)}, got {name!r}{did_you_mean(name, TASKS)}")
    return name


@dataclass(frozen=True)
class TargetColumn:
    """One column of targets: finite numbers (booleans as 0 and 1) as float64 [N], or texts as str [N]."""

    name: str
    values: NDArray[Any]
    where: Callable[[int], str]  # how an error names a row of it
    boolean: bool = False

    @property
    def is_text(self) -> bool:
        return self.values.dtype.kind in "UO"

    @property
    def is_whole(self) -> bool:
        return not self.is_text and bool((self.values == np.floor(self.values)).all())


@dataclass(frozen=True)
class Targets:
    """The targets of all rows as the trainer takes them, and what they mean.

    y : int64 [N] class indices (multiclass), else float64 [N, outputs]
    classes : the value behind each class index (multiclass), behind 0 and 1 (binary), or None
    reason : why the task was chosen, for the user
    """

    task: str
    y: NDArray[Any]
    names: list[str]
    classes: list[Any] | None
    n_outputs: int
    reason: str

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """One class index per row, for a split that keeps their shares; None where rows have no single class."""
        return self.y.reshape(-1).astype(np.int64) if self.task in ("binary", "multiclass") else None


def resolve(columns: Sequence[TargetColumn], task: str | None) -> Targets:
    """The targets that `columns` hold: for `task`, or for the task that their values suggest where it is None.

    Raises
    ------
    InputError : the values do not suit the task; the message names the row, or what was found instead
    """
    names = [column.name for column in columns]
    chosen, reason = (task, ASKED) if task is not None else _infer(columns)
    if chosen == "regression":
        for column in columns:
            if column.is_text:
                raise InputError(
                    f"{column.where(0)}: expected a number as target of a regression, got {str(column.values[0])!r}; "
                    f"text is a class: try --task multiclass"
                )
        return Targets(chosen, _stack(columns), names, None, len(columns), reason)
    if chosen == "multilabel":
        for column in columns:
            _check_binary(column)
        return Targets(chosen, _stack(columns), names, None, len(columns), reason)
    if len(columns) > 1:
        return _one_hot(columns, chosen, reason)
    classes = distinct(columns[0])
    if chosen == "binary" and len(classes) != 2:
        raise InputError(
            f"{_named(columns[0])}: expected two different values for a binary task, got {len(classes):,}: "
            f"{_listed(classes)}"
        )
    if len(classes) < 2:
        raise InputError(
            f"{_named(columns[0])}: expected at least two classes, got only {_listed(classes)}: nothing to learn"
        )
    if not columns[0].is_text and not columns[0].is_whole:
        row = int(np.argmax(columns[0].values != np.floor(columns[0].values)))
        raise InputError(
            f"{columns[0].where(row)}: expected text or whole numbers as classes, got {columns[0].values[row]:g}; "
            f"for numbers with fractions use --task regression"
        )
    indices = class_indices(columns[0], classes)
    if chosen == "binary":
        return Targets(chosen, indices[:, None].astype(np.float64), names, classes, 1, reason)
    return Targets(chosen, indices, names, classes, len(classes), reason)


def class_indices(column: TargetColumn, classes: Sequence[Any]) -> NDArray[np.int64]:
    """The index in `classes` of each row's value.

    Raises
    ------
    InputError : a row holds none of the classes
    """
    index = {
        str(c) if column.is_text else float(c): i for i, c in enumerate(classes) if column.is_text or _is_number(c)
    }
    values, inverse = np.unique(column.values, return_inverse=True)
    of_value = np.array([index.get(v, -1) for v in values.tolist()], dtype=np.int64)
    indices = of_value[inverse.reshape(-1)]
    if (indices < 0).any():
        row = int(np.argmax(indices < 0))
        value = _shown(column.values[row])
        raise InputError(
            f"{column.where(row)}: expected one of the classes {_listed(classes)}, got {value}"
            f"{did_you_mean(column.values[row], map(str, classes))}"
        )
    return indices


def known_targets(
    columns: Sequence[TargetColumn], output: str, n_outputs: int, classes: list[Any] | None
) -> NDArray[Any]:
    """The targets of `columns` for a trained model: like `Targets.y`, with the classes that it knows."""
    if output == "linear" or (output == "sigmoid" and n_outputs > 1):
        if len(columns) != n_outputs:
            raise InputError(
                f"{_named(columns[0])}: expected {n_outputs} target columns for this model, got {len(columns)}"
            )
        for column in columns:
            if column.is_text:
                raise InputError(f"{column.where(0)}: expected a number, got {str(column.values[0])!r}")
            if output == "sigmoid":
                _check_binary(column)
        return _stack(columns)
    known = list(range(max(2, n_outputs))) if classes is None else classes
    if len(columns) == len(known) and output == "softmax":
        for column in columns:
            _check_binary(column)
        return _stack(columns).argmax(axis=1)
    if len(columns) != 1:
        raise InputError(f"{_named(columns[0])}: expected 1 target column for this model, got {len(columns)}")
    indices = class_indices(columns[0], known)
    return indices if output == "softmax" else indices[:, None].astype(np.float64)


def distinct(column: TargetColumn) -> list[Any]:
    """The different values in order, as plain JSON values: text, booleans, or whole numbers as int."""
    values = np.unique(column.values).tolist()
    if column.boolean:
        return [bool(v) for v in values]
    if column.is_text:
        return [str(v) for v in values]
    return [int(v) if v == int(v) else v for v in values]


def _infer(columns: Sequence[TargetColumn]) -> tuple[str, str]:
    if len(columns) > 1:
        for column in columns:
            if column.is_text:
                raise InputError(
                    f"{column.where(0)}: expected a number, as several target columns are numbers or 0/1 labels, "
                    f"got {str(column.values[0])!r}; name one text column alone to learn its classes"
                )
        if all(np.isin(column.values, (0, 1)).all() for column in columns):
            return "multilabel", f"{len(columns)} target columns of 0 and 1"
        return "regression", f"{len(columns)} target columns of numbers"
    column = columns[0]
    if not column.is_text and not column.is_whole:
        return "regression", "the target has numbers with fractions"
    classes = distinct(column)
    if len(classes) == 2:
        return "binary", f"the target has two values: {_listed(classes[:1])} and {_listed(classes[1:])}"
    if column.is_text:
        if len(classes) > max(FEW, len(column.values) // 2):
            raise InputError(
                f"{_named(column)}: expected a number or a class in each row, got {len(classes):,} different texts in "
                f"{len(column.values):,} rows; name another --target, or say --task multiclass if each is a class"
            )
        return "multiclass", f"the target has {len(classes):,} different texts"
    if len(classes) <= FEW and (2 * len(classes) <= len(column.values) or len(classes) < 2):
        return "multiclass", f"the target has {len(classes):,} different whole numbers"
    return "regression", f"the target has {len(classes):,} different whole numbers"


def _one_hot(columns: Sequence[TargetColumn], task: str, reason: str) -> Targets:
    names = [column.name for column in columns]
    for column in columns:
        if column.is_text:
            raise InputError(
                f"{column.where(0)}: expected 0 or 1, as {len(columns)} target columns are one column for each class, "
                f"got {str(column.values[0])!r}; name one text column alone to learn its classes"
            )
    y = _stack(columns)
    bad = ~(((y == 0) | (y == 1)).all(axis=1) & (y.sum(axis=1) == 1))
    if task == "binary" or bad.any():
        found = "" if task == "binary" else f" (see {columns[0].where(int(np.argmax(bad)))})"
        raise InputError(
            f"the targets {', '.join(names)}: expected one column for --task {task}"
            f"{', or one for each class with a single 1 in each row' if task == 'multiclass' else ''}, "
            f"got {len(columns)} columns{found}; for several labels a row use --task multilabel"
        )
    return Targets(task, y.argmax(axis=1), names, list(names), len(columns), reason)


def _check_binary(column: TargetColumn) -> None:
    if column.is_text:
        raise InputError(f"{column.where(0)}: expected a label 0 or 1, got {str(column.values[0])!r}")
    bad = ~np.isin(column.values, (0, 1))
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"{column.where(row)}: expected a label 0 or 1, got {column.values[row]:g}; try --task regression"
        )


def _stack(columns: Sequence[TargetColumn]) -> NDArray[np.float64]:
    return np.stack([column.values for column in columns], axis=1).astype(np.float64)


def _named(column: TargetColumn) -> str:
    return f"the target {column.name!r}"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (float, np.floating)) else repr(str(value))


def _listed(classes: Sequence[Any], most: int = 6) -> str:
    shown = [repr(c) for c in classes]
    return ", ".join(shown if len(shown) <= most else [*shown[: most - 2], "…", shown[-1]])


def of_labels(columns: Sequence[TargetColumn]) -> Targets:
    """The targets of a file of labels: classes, however many there are."""
    n_classes = len(distinct(columns[0]))
    found = resolve(columns, "binary" if n_classes == 2 else "multiclass")
    return replace(found, reason=f"the labels are {n_classes} different values")
