"""Which kind each column of a table is, by its values and its name, or as the user says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastdl.errors import InputError
from fastdl.tables import dates, numbers
from fastdl.tables.kinds import (
    BooleanColumn,
    CategoryColumn,
    Column,
    ConstantColumn,
    DateColumn,
    IdentifierColumn,
    IgnoredColumn,
    NumberColumn,
    TextColumn,
)
from fastdl.tables.kinds.boolean import words_of
from fastdl.tables.numbers import Style
from fastdl.tables.text import as_text, cleaned, option, polars, share, shown

if TYPE_CHECKING:
    import polars as pl

MOSTLY = 0.95
"""A column whose cells are numbers, or dates, to this share is one of numbers or dates; the other cells are missing."""
_ID_NAME = re.compile(r"(^|[^a-z])(ids?|idx|index|uuid|guid|key)$|[a-z](Id|ID)$", re.IGNORECASE)
_CAMEL_ID = re.compile(r"[a-z](Id|ID)$")


@dataclass(frozen=True)
class Choices:
    """What the user says about columns, by name.

    decimal : the mark before the fraction of numbers, "." or ",", or None where each column shows it
    """

    categorical: Sequence[str] = ()
    numeric: Sequence[str] = ()
    date: Sequence[str] = ()
    ignore: Sequence[str] = ()
    reasons: dict[str, str] = field(default_factory=dict)
    na_values: tuple[str, ...] = ()
    decimal: str | None = None


@dataclass(frozen=True)
class Kind:
    """A kind that was recognised, and what learning the column needs besides its training rows."""

    kind: type[Column]
    arguments: tuple[Any, ...] = ()

    def learn(self, name: str, values: pl.Series) -> Column:
        """The column that the training rows `values` show."""
        if self.kind in (ConstantColumn, IdentifierColumn, IgnoredColumn):
            return self.kind(name, *self.arguments)
        return self.kind.learn(name, values, *self.arguments)  # type: ignore[attr-defined]


def kind_of(name: str, values: pl.Series, choices: Choices) -> Kind:
    """The kind of a column: as `choices` says, or by its values.

    Raises
    ------
    InputError : the user says that it holds numbers or dates, and it does not
    """
    pl = polars()
    if name in choices.ignore:
        return Kind(IgnoredColumn, (choices.reasons.get(name, "as --ignore says"),))
    if name in choices.categorical:
        return Kind(CategoryColumn, (choices.na_values,))
    if name in choices.numeric:
        return _declared_number(name, values, choices)
    if name in choices.date:
        return _declared_date(name, values, choices)
    if isinstance(values.dtype, (pl.List, pl.Array, pl.Struct)) or values.dtype in (pl.Binary, pl.Object):
        return Kind(IgnoredColumn, (f"cells of type {values.dtype} hold no single value",))
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        return _of_text(name, values, choices)
    if values.null_count() == len(values):
        return Kind(ConstantColumn, ("no values",))
    if values.dtype == pl.Boolean:
        constant = not values.has_nulls() and values.min() == values.max()
        return _constant(values) if constant else Kind(BooleanColumn, (("true", "false"), choices.na_values))
    if values.dtype in (pl.Datetime, pl.Date, pl.Time):
        if not values.has_nulls() and values.min() == values.max():
            return _constant(values)
        format = dates.TIME_OF_DAY if values.dtype == pl.Time else dates.DateFormat("%Y-%m-%d")
        return Kind(DateColumn, (format, choices.na_values))
    return _of_numbers(name, values, choices)


def _of_numbers(name: str, values: pl.Series, choices: Choices) -> Kind:
    pl = polars()
    if values.dtype.is_float():
        values = values.fill_nan(None)
    if values.dtype == pl.Duration:
        values = values.cast(pl.Int64)
    if values.null_count() == len(values):
        return Kind(ConstantColumn, ("no values",))
    if not values.has_nulls() and values.min() == values.max():
        return _constant(values)
    reason = _identifies(name, values)
    if reason:
        return Kind(IdentifierColumn, (reason,))
    return Kind(NumberColumn, (Style(choices.decimal or "."), choices.na_values))


def _identifies(name: str, values: pl.Series) -> str:
    """Why a column of numbers tells rows apart and nothing else, or an empty string."""
    n = len(values)
    if n < 8 or values.has_nulls():
        return ""
    head = values.head(1000)
    if not ((head.floor() == head).all() if head.dtype.is_float() else True):
        return ""
    if values[0] in (0, 1) and (head.diff().drop_nulls() == 1).all() and (values.diff().drop_nulls() == 1).all():
        return f"counts the rows from {values[0]:.0f}"
    named = _CAMEL_ID.search(name) or _ID_NAME.search(name.lower())
    if named and (values.floor() == values).all() and values.n_unique() > 0.9 * n:
        return "nearly all values differ"
    return ""


def _of_text(name: str, values: pl.Series, choices: Choices) -> Kind:
    cells = cleaned(values.cast(polars().String), choices.na_values)
    filled = cells.drop_nulls()
    n = len(filled)
    if n == 0:
        return Kind(ConstantColumn, ("no values",))
    distinct = filled.n_unique()
    if distinct == 1 and n == len(cells):
        return _constant(filled)
    if (words := words_of(filled)) is not None:
        return Kind(BooleanColumn, (words, choices.na_values))
    # A look at some cells first: most columns of text are no numbers and no dates.
    some = filled.head(200)
    style = numbers.style_of(filled, choices.decimal)
    if style.parse(some).count() >= 0.5 * len(some):
        found = style.parse(filled)
        if found.count() >= MOSTLY * n and (found.count() == n or found.n_unique() > 20):
            return Kind(NumberColumn, (style, choices.na_values))
    if (format := dates.format_of(filled, MOSTLY)) is not None:
        return Kind(DateColumn, (format, choices.na_values))
    if distinct <= max(10, n // 2):
        many_words = distinct > 32 and float(filled.head(1000).str.count_matches(r"\s+").sum()) >= 3 * min(1000, n)
        return Kind(TextColumn if many_words else CategoryColumn, (choices.na_values,))
    if share(filled.head(1000).str.contains(r"\w[\s,;_-]+\w")) >= 0.5:
        return Kind(TextColumn, (choices.na_values,))
    return Kind(IdentifierColumn, ("nearly all values differ" if distinct > 0.9 * n else "too many values",))


def _declared_number(name: str, values: pl.Series, choices: Choices) -> Kind:
    style = Style(choices.decimal or ".")
    if values.dtype == polars().String:
        cells = cleaned(values, choices.na_values).drop_nulls()
        style = numbers.style_of(cells, choices.decimal)
        if len(cells) and style.parse(cells).count() == 0:
            raise InputError(
                f"--numeric: expected numbers in the column {name!r}, got {shown(cells[0])} and none that can be read; "
                f"use {option('--categorical', [name])} or {option('--ignore', [name])}"
            )
    return Kind(NumberColumn, (style, choices.na_values))


def _declared_date(name: str, values: pl.Series, choices: Choices) -> Kind:
    pl = polars()
    format: dates.DateFormat | None = dates.DateFormat("%Y-%m-%d")
    if values.dtype not in (pl.Datetime, pl.Date, pl.Time):
        cells = as_text(values, choices.na_values).drop_nulls()
        format = dates.format_of(cells, 0.5)
        for pattern in ("%Y%m%d", "%Y%m%d%H%M%S"):
            compact = dates.DateFormat(pattern)
            if format is None and len(cells) and compact.parse(cells).count() >= 0.5 * len(cells):
                format = compact
        if format is None:
            first = shown(cells[0]) if len(cells) else "no values"
            raise InputError(
                f"--date: expected dates or times such as 2024-05-31, 31.5.2024 or 5/31/2024 14:30 in the column {name!r}, "
                f"got {first}; use {option('--categorical', [name])} or {option('--ignore', [name])}"
            )
    return Kind(DateColumn, (format, choices.na_values))


def _constant(values: pl.Series) -> Kind:
    value = values[0]
    return Kind(ConstantColumn, (f"always {value:g}" if isinstance(value, float) else f"always {shown(value)}",))
