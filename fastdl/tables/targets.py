"""The target's columns of a table as numbers or texts; rows without a target are left out and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import InputError
from fastdl.tables import numbers
from fastdl.tables.kinds.boolean import words_of
from fastdl.tables.table import Table
from fastdl.tables.tasks import TargetColumn
from fastdl.tables.text import as_text, polars, shown

if TYPE_CHECKING:
    import polars as pl


def read(
    table: Table,
    names: Sequence[str],
    task: str | None = None,
    as_classes: bool | None = None,
    decimal: str | None = None,
) -> tuple[list[TargetColumn], NDArray[np.int64], list[str]]:
    """The target columns of the rows that have a target, these rows, and what is to be said.

    as_classes : the cells are classes of a known model: text as it is (True) or numbers (False)

    Raises
    ------
    InputError : cells of a column of numbers are none (all are named), or no row has a target
    """
    numeric = len(names) > 1 or task in ("regression", "multilabel")
    notes: list[str] = []
    columns = [_column(table, name, task, True if numeric else None, as_classes, decimal, notes) for name in names]
    present = np.ones(len(table), dtype=bool)
    for column in columns:
        present &= _present(column.values)
    rows = np.flatnonzero(present)
    if len(rows) == 0:
        raise InputError(f"{table.label}: expected a target in some row of {', '.join(map(repr, names))}, got none")
    if len(rows) < len(table):
        count = len(table) - len(rows)
        notes.append(f"left out {count:,} row{'s' if count > 1 else ''} without a target")
        columns = [
            replace(column, values=column.values[rows], where=_moved(table, column.name, rows)) for column in columns
        ]
    if any(column.is_text for column in columns):
        columns = [replace(c, values=c.values.astype(str)) if c.is_text else c for c in columns]
    return columns, rows, notes


def _moved(table: Table, name: str, rows: NDArray[np.int64]) -> Any:
    return lambda row: table.where(int(rows[row]), name)


def _present(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind == "f":
        return ~np.isnan(values)
    return np.array([value is not None for value in values], dtype=bool)


def _column(
    table: Table,
    name: str,
    task: str | None,
    numeric: bool | None,
    as_classes: bool | None,
    decimal: str | None,
    notes: list[str],
) -> TargetColumn:
    """One column: float64 with NaN, or texts with None, where the target is missing."""
    pl = polars()
    values = table.frame[name]
    dtype = values.dtype

    def where(row: int) -> str:
        return table.where(row, name)

    if as_classes:
        return TargetColumn(name, as_text(values).to_numpy(), where)
    if dtype == pl.Boolean:
        return TargetColumn(name, _floats(values.cast(pl.Float64)), where, True)
    if dtype.is_numeric() or dtype == pl.Null:
        plain = _floats(values.cast(pl.Float64))
        _refuse(table, name, np.isinf(plain), values, "a finite number")
        return TargetColumn(name, plain, where)
    if dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise InputError(
            f"the target {name!r}: expected numbers or classes, got cells of type {dtype}; convert it, or name another"
        )
    cells = as_text(values)
    filled = cells.drop_nulls()
    words = words_of(filled) if len(filled) else None
    if words is not None and words[0].lower() == "true" and not as_classes:
        truth = cells.str.to_lowercase() == "true"
        return TargetColumn(name, _floats(truth.cast(pl.Float64)), where, True)
    style = numbers.style_of(filled, decimal)
    found = style.parse(cells)
    count = found.count()
    mostly = 2 * count >= len(filled)
    chosen = task in ("binary", "multiclass") and count < len(filled)
    if not numeric and not as_classes and as_classes is not False and (chosen or not mostly):
        return TargetColumn(name, cells.to_numpy(), where)
    if not mostly and as_classes is None and len(filled):
        row = int(np.argmax((found.is_null() & cells.is_not_null()).to_numpy()))
        hint = "text is a class: try --task multiclass" if task == "regression" else "name one text column alone"
        raise InputError(f"{where(row)}: expected a number, got {shown(cells[row])}; {hint}")
    wrong = (found.is_null() & cells.is_not_null()).to_numpy()
    _refuse(table, name, wrong, cells, "a number")
    if style.decimal == ",":
        notes.append(f"decimal commas are read in the target {name!r}")
    return TargetColumn(name, _floats(found), where)


def _floats(values: pl.Series) -> NDArray[np.float64]:
    return np.asarray(values.fill_null(float("nan")).to_numpy(), dtype=np.float64)


def _refuse(table: Table, name: str, wrong: NDArray[np.bool_], cells: pl.Series, expected: str) -> None:
    """Name all cells that are wrong, ten at most."""
    rows = np.flatnonzero(wrong)
    if len(rows) == 0:
        return
    first = int(rows[0])
    others = ", ".join(f"{shown(cells[int(row)])} in {table.where(int(row)).rsplit(', ', 1)[-1]}" for row in rows[1:10])
    more = f" (and {others}{f', and {len(rows) - 10:,} more' if len(rows) > 10 else ''})" if others else ""
    raise InputError(
        f"{table.where(first, name)}: expected {expected}, got {shown(cells[first])}{more}; correct the cell or empty it, "
        f"or use --task multiclass if the target's texts are classes"
    )
