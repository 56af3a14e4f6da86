"""Numbers: as they are, the median where one is missing, and a 0/1 feature where any was missing in training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from fastdl.files.portable import NumberInput
from fastdl.tables.encoded import Part
from fastdl.tables.kinds.column import Column, Findings, missing_words, with_indicator
from fastdl.tables.numbers import Style
from fastdl.tables.text import polars, without

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class NumberColumn(Column):
    """A column of numbers.

    median : of the training rows; it stands for a missing value
    missing : whether a value was missing in training: there is a feature that says where
    style : how text cells write their numbers
    """

    kind: ClassVar[str] = "number"
    median: float = 0.0
    missing: bool = False
    style: Style = field(default_factory=Style)

    @classmethod
    def learn(cls, name: str, values: pl.Series, style: Style) -> NumberColumn:
        """The column that the training rows `values` show."""
        numbers = as_numbers(values, style)
        median: Any = numbers.median()
        return cls(name, 0.0 if median is None else float(median), numbers.has_nulls(), style)

    @property
    def feature_names(self) -> list[str]:
        return [self.name, f"{self.name} is missing"] if self.missing else [self.name]

    def encode(self, values: pl.Series, findings: Findings) -> list[Part]:
        numbers = as_numbers(values, self.style, self.name, findings)
        return with_indicator(numbers, self.median, self.missing)

    def portable(self) -> NumberInput:
        return NumberInput(self.name, self.median, self.missing, self.style.decimal, self.style.grouped)

    def describe(self) -> str:
        notes = "decimal comma" if self.style.decimal == "," else ""
        return (notes + missing_words(self.missing)).removeprefix(", ")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> NumberColumn:
        return cls(**{**values, "style": Style(**values["style"])})


def as_numbers(
    values: pl.Series,
    style: Style,
    name: str = "",
    findings: Findings | None = None,
) -> pl.Series:
    """Values of any type as finite Float64 numbers, null where there is none; cells that are no numbers are noted."""
    pl = polars()
    dtype = values.dtype
    if dtype.is_numeric() or dtype == pl.Boolean or dtype == pl.Null:
        numbers = values.cast(pl.Float64)
        return numbers if numbers.is_finite().all() else without(numbers, ~numbers.is_finite())
    if dtype in (pl.Datetime, pl.Date, pl.Time, pl.Duration):
        return values.cast(pl.Int64).cast(pl.Float64)
    cells = values.cast(pl.String)
    numbers = style.parse(cells)
    if findings is not None and numbers.null_count() > cells.null_count():
        findings.add("unreadable", name, cells.filter(numbers.is_null() & cells.is_not_null()))
    return numbers
