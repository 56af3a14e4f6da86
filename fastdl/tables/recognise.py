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
    Findings,
    IdentifierColumn,
    IgnoredColumn,
    NumberColumn,
    TextColumn,
)
from fastdl.tables.kinds.boolean import as_truth, words_of
from fastdl.tables.kinds.category import as_categories
from fastdl.tables.kinds.number import as_numbers
from fastdl.tables.numbers import Style
from fastdl.tables.text import as_text, option, polars, share, shown

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
    embeds : whether categories become codes that a model embeds, where there are more than a few
    """

    categorical: Sequence[str] = ()
    numeric: Sequence[str] = ()
    date: Sequence[str] = ()
    ignore: Sequence[str] = ()
    reasons: dict[str, str] = field(default_factory=dict)
    decimal: str | None = None
    embeds: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind that was recognised, and what learning the column needs besides its training rows."""

    kind: type[Column]
    arguments: tuple[Any, ...] = ()
    converted: pl.Series | None = None  # the values as numbers, booleans, times or categories, where they were text

    def learn(self, name: str, values: pl.Series) -> Column:
        """The column that the training rows of the converted values show."""
        if self.kind in (ConstantColumn, IdentifierColumn, IgnoredColumn):
            return self.kind(name, *self.arguments)
        return self.kind.learn(name, values, *self.arguments)  # type: ignore[attr-defined]


def kind_of(name: str, values: pl.Series, choices: Choices, findings: Findings | None = None) -> Kind:
    """The kind of a column: as `choices` says, or by its values; cells that are none of the kind are noted in `findings`.

    Raises
    ------
    InputError : the user says that it holds numbers or dates, and it does not
    """
    pl = polars()
    findings = Findings() if findings is None else findings
    if name in choices.ignore:
        return Kind(IgnoredColumn, (choices.reasons.get(name, "as --ignore says"),))
    if isinstance(values.dtype, (pl.List, pl.Array, pl.Struct)) or values.dtype in (pl.Binary, pl.Object):
        return Kind(IgnoredColumn, (f"cells of type {values.dtype} hold no single value",))
    if name in choices.categorical:
        return Kind(CategoryColumn, (), as_categories(values))
    if name in choices.numeric:
        return _declared_number(name, values, choices, findings)
    if name in choices.date:
        return _declared_date(name, values, findings)
    if values.null_count() == len(values):
        return Kind(ConstantColumn, ("no values",))
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        return _of_text(name, values.cast(pl.String), choices, findings)
    if not values.has_nulls() and values.min() == values.max():
        return _constant(values[0])
    if values.dtype == pl.Boolean:
        return Kind(BooleanColumn, (("true", "false"),))
    if values.dtype in (pl.Datetime, pl.Date, pl.Time):
        return Kind(DateColumn, (dates.TIME_OF_DAY if values.dtype == pl.Time else dates.DateFormat("%Y-%m-%d"),))
    reason = _identifies(name, values.cast(pl.Int64) if values.dtype == pl.Duration else values)
    if reason:
        return Kind(IdentifierColumn, (reason,))
    return Kind(NumberColumn, (Style(choices.decimal or "."),))


def _identifies(name: str, values: pl.Series) -> str:
    """Why a column of numbers tells rows apart and nothing else, or an empty string."""
    n = len(values)
    if n < 8 or values.has_nulls():
        return ""
    head = values.head(1000)
    if head.dtype.is_float() and not (head.floor() == head).all():
        return ""
    if values[0] in (0, 1) and (head.diff().drop_nulls() == 1).all() and (values.diff().drop_nulls() == 1).all():
        return f"counts the rows from {values[0]:.0f}"
    named = _CAMEL_ID.search(name) or _ID_NAME.search(name.lower())
    if named and (values.floor() == values).all() and values.n_unique() > 0.9 * n:
        return "nearly all values differ"
    return ""


def _of_text(name: str, cells: pl.Series, choices: Choices, findings: Findings) -> Kind:
    n = len(cells) - cells.null_count()
    # A look at some cells first: most columns of text are no numbers and no dates.
    some = cells.head(10_000).drop_nulls().head(200)
    some = some if len(some) else cells.drop_nulls().head(200)
    style = numbers.style_of(some, choices.decimal)
    if style.parse(some).count() >= 0.5 * len(some):
        style = numbers.style_of(cells, choices.decimal)
        lost = Findings()
        found = as_numbers(cells, style, name, lost)
        if found.count() == n or (found.count() >= MOSTLY * n and found.n_unique() > 20):
            findings.merge(lost)
            same = not found.has_nulls() and found.min() == found.max()
            return _constant(cells[0]) if same else Kind(NumberColumn, (style,), found)
    if (dated := dates.format_of(cells, MOSTLY)) is not None:
        format, times = dated
        findings.add("unreadable", name, cells.filter(times.is_null() & cells.is_not_null()))
        same = not times.has_nulls() and times.min() == times.max()
        return _constant(cells[0]) if same else Kind(DateColumn, (format,), times)
    categories = as_categories(cells)
    distinct = categories.drop_nulls().unique().cast(polars().String)
    if len(distinct) == 1 and n == len(cells):
        return _constant(cells[0])
    if (words := words_of(distinct)) is not None:
        return Kind(BooleanColumn, (words,), as_truth(cells))
    filled = cells.head(10_000).drop_nulls().head(1000)
    if len(distinct) <= max(10, n // 2):
        many_words = len(distinct) > 32 and int(filled.str.count_matches(r"\s+").sum()) >= 3 * len(filled)
        return Kind(TextColumn) if many_words else Kind(CategoryColumn, (), categories)
    if share(filled.str.contains(r"\w[\s,;_-]+\w")) >= 0.5:
        return Kind(TextColumn)
    return Kind(IdentifierColumn, ("nearly all values differ" if len(distinct) > 0.9 * n else "too many values",))


def _declared_number(name: str, values: pl.Series, choices: Choices, findings: Findings) -> Kind:
    if values.dtype not in (polars().String, polars().Categorical, polars().Enum):
        return Kind(NumberColumn, (Style(choices.decimal or "."),))
    cells = as_text(values)
    style = numbers.style_of(cells, choices.decimal)
    found = as_numbers(cells, style, name, findings)
    if found.count() == 0 and cells.count():
        raise InputError(
            f"--numeric: expected numbers in the column {name!r}, got {shown(cells.drop_nulls()[0])} and none that can be "
            f"read; use {option('--categorical', [name])} or {option('--ignore', [name])}"
        )
    return Kind(NumberColumn, (style,), found)


def _declared_date(name: str, values: pl.Series, findings: Findings) -> Kind:
    pl = polars()
    if values.dtype in (pl.Datetime, pl.Date, pl.Time):
        return Kind(DateColumn, (dates.TIME_OF_DAY if values.dtype == pl.Time else dates.DateFormat("%Y-%m-%d"),))
    cells = as_text(values)
    dated = dates.format_of(cells, 0.5)
    for pattern in ("%Y%m%d", "%Y%m%d%H%M%S"):
        format = dates.DateFormat(pattern)
        if dated is None and cells.count() and (times := format.parse(cells)).count() >= 0.5 * cells.count():
            dated = format, times
    if dated is None:
        first = shown(cells.drop_nulls()[0]) if cells.count() else "no values"
        raise InputError(
            f"--date: expected dates or times such as 2024-05-31, 31.5.2024 or 5/31/2024 14:30 in the column {name!r}, "
            f"got {first}; use {option('--categorical', [name])} or {option('--ignore', [name])}"
        )
    findings.add("unreadable", name, cells.filter(dated[1].is_null() & cells.is_not_null()))
    return Kind(DateColumn, (dated[0],), dated[1])


def _constant(value: Any) -> Kind:
    return Kind(ConstantColumn, (f"always {value:g}" if isinstance(value, float) else f"always {shown(value)}",))
