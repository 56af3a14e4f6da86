"""Columns of a table as the numbers of a network: numeric columns as they are, categorical ones one-hot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import InputError, ModelFileError, OptionError
from fastdl.suggest import did_you_mean
from fastdl.tables.csv_file import Table, listed, polars

MOST_CATEGORIES = 1000
"""One-hot columns beyond this number are refused: a column of names or numbers, not of categories."""


@dataclass(frozen=True)
class Column:
    """A column that features are made of: numeric, or categorical with its known values in order."""

    name: str
    categories: tuple[str, ...] | None = None

    @property
    def feature_names(self) -> list[str]:
        """The features that the column becomes: itself, or `name=value` for each category."""
        if self.categories is None:
            return [self.name]
        return [f"{self.name}={category}" for category in self.categories]

    def to_json(self) -> dict[str, Any]:
        """The column as it is kept in a model file."""
        return (
            {"name": self.name} if self.categories is None else {"name": self.name, "categories": list(self.categories)}
        )


def from_json(entries: Any) -> tuple[Column, ...]:
    """The columns that a model file keeps."""
    try:
        return tuple(Column(str(e["name"]), tuple(e["categories"]) if "categories" in e else None) for e in entries)
    except (TypeError, KeyError) as error:
        raise ModelFileError(f"the model's metadata: expected a list of feature columns, got {entries!r}") from error


def choose(
    table: Table, targets: Sequence[str], categorical: Sequence[str], ignore: Sequence[str]
) -> tuple[Column, ...]:
    """All columns but the targets and the ignored ones, the categories of categorical ones not learnt yet.

    Raises
    ------
    InputError : a column that is not declared categorical or ignored holds text or an empty cell
    OptionError : the options name a column that does not exist, or name one twice; or nothing is left
    """
    for option, names in (("--categorical", categorical), ("--ignore", ignore)):
        for name in names:
            try:
                table.find(name, option)
            except InputError as error:
                raise OptionError(str(error)) from error
            if name in targets:
                raise OptionError(f"{option}: expected feature columns, got {name!r}, which is the target")
    both = [name for name in categorical if name in ignore]
    if both:
        raise OptionError(f"--ignore: expected columns that --categorical does not name, got {both[0]!r} in both")
    left_out = {*targets, *ignore}
    columns = tuple(Column(name, () if name in categorical else None) for name in table.names if name not in left_out)
    if not columns:
        raise OptionError(
            f"{table.path}: expected at least one feature column beside the target and --ignore, got none"
        )
    text = [c.name for c in columns if c.categories is None and table.is_text(c.name)]
    for column in columns:
        if column.categories is None:
            table.numbers(column.name, _mend(table, column.name, text))
        else:
            table.texts(column.name)
    return columns


def learn(table: Table, columns: Sequence[Column], rows: NDArray[np.int64]) -> tuple[Column, ...]:
    """The columns with the categories that `rows` hold."""
    return tuple(
        column
        if column.categories is None
        else replace(column, categories=tuple(table.texts(column.name)[rows].unique().sort().to_list()))
        for column in columns
    )


def check_categories(table: Table, columns: Sequence[Column]) -> None:
    """Refuse a categorical column with so many values that it is none."""
    for column in columns:
        if column.categories is not None:
            count = table.texts(column.name).n_unique()
            if count > MOST_CATEGORIES or 2 * count > max(len(table), 8):
                raise OptionError(
                    f"--categorical: expected a column of few values that come again and again, got {column.name!r} "
                    f"with {count:,} different values in {len(table):,} rows; leave it out with --ignore {column.name}"
                )


def unseen(table: Table, columns: Sequence[Column], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of `rows` hold a category that the columns do not know."""
    mask = np.zeros(len(rows), dtype=bool)
    for column in columns:
        if column.categories is not None:
            mask |= ~table.texts(column.name)[rows].is_in(list(column.categories)).to_numpy()
    return mask


def encode(table: Table, columns: Sequence[Column]) -> NDArray[np.float64]:
    """The features of all rows, [N, I].

    Raises
    ------
    InputError : a column is missing, a cell is no finite number, or a category is unknown
    """
    for column in columns:
        if column.name not in table.names:
            close = did_you_mean(column.name, table.names) or f"; the columns are {listed(table.names)}"
            raise InputError(
                f"{table.path}: expected the column {column.name!r}, a feature of the model, "
                f"found none of this name{close}"
            )
    matrix = np.zeros((len(table), sum(len(column.feature_names) for column in columns)))
    start = 0
    for column in columns:
        if column.categories is None:
            matrix[:, start] = table.numbers(column.name, "correct the cell or delete the row")
            start += 1
        else:
            matrix[np.arange(len(table)), start + _codes(table, column)] = 1
            start += len(column.categories)
    return matrix


def _codes(table: Table, column: Column) -> NDArray[np.int64]:
    categories = list(column.categories or ())
    cells = table.texts(column.name)
    pl = polars()
    codes = cells.replace_strict(categories, list(range(len(categories))), default=None, return_dtype=pl.Int64)
    if codes.has_nulls():
        row = int(np.argmax(codes.is_null().to_numpy()))
        raise InputError(
            f"{table.where(row, column.name)}: expected one of the categories learnt in training "
            f"({listed(categories)}), got {cells[row]!r}{did_you_mean(cells[row], categories)}"
        )
    return np.asarray(codes.to_numpy())


def _mend(table: Table, name: str, text: Sequence[str]) -> str:
    """What to do about a column that is not all numbers; names all such columns, so that one more run is enough."""
    if not table.is_text(name):
        return f"fill or delete such rows, or leave the column out with --ignore {_quoted(name)}"
    if table.is_mostly_numbers(name):
        return (
            f"correct the cell, or leave the column out with --ignore {_quoted(name)}, "
            f"or take its values for categories with --categorical {_quoted(name)}"
        )
    others = [other for other in text if not table.is_mostly_numbers(other)]
    also = f" (the columns of text are {_quoted(','.join(others))})" if len(others) > 1 else ""
    return (
        f"take its values for categories with --categorical {_quoted(name)}, "
        f"or leave the column out with --ignore {_quoted(name)}{also}"
    )


def _quoted(names: str) -> str:
    return f"'{names}'" if " " in names else names
