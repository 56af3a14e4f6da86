"""Dates and times: elapsed days, year, month, day of week, day of year and hour, as far as they vary in training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastdl.files.portable import MomentInput
from fastdl.tables.dates import PARTS, DateFormat
from fastdl.tables.encoded import Part
from fastdl.tables.kinds.column import Column, Findings, missing_words, with_indicator
from fastdl.tables.text import polars

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class DateColumn(Column):
    """A column of moments.

    format : how text cells write them
    medians : of each part that becomes a feature, over the training rows; they stand for a missing moment
    missing : whether a moment was missing in training: there is a feature that says where
    """

    kind: ClassVar[str] = "date"
    format: DateFormat = field(default_factory=lambda: DateFormat("%Y-%m-%d"))
    medians: dict[str, float] = field(default_factory=dict)
    missing: bool = False

    @classmethod
    def learn(cls, name: str, values: pl.Series, format: DateFormat) -> DateColumn:
        """The column that the training rows `values` show."""
        times = as_times(values, format)
        medians = {}
        for part, of in PARTS.items():
            numbers = of(times)
            if numbers.min() != numbers.max():
                medians[part] = float(numbers.median())
        return cls(name, format, medians, times.has_nulls())

    @property
    def feature_names(self) -> list[str]:
        names = [f"{self.name}: {part}" for part in self.medians]
        return [*names, f"{self.name} is missing"] if self.missing else names

    def encode(self, values: pl.Series, findings: Findings) -> list[Part]:
        times = as_times(values, self.format, self.name, findings)
        parts: list[Part] = []
        for part, median in self.medians.items():
            numbers = with_indicator(PARTS[part](times), median, False)[0]
            assert not isinstance(numbers, tuple)
            small = part in ("year", "month", "day of week", "day of year") and median == int(median)
            parts.append(numbers.astype(np.int16) if small else numbers)
        return [*parts, times.is_null().to_numpy().astype(np.uint8)] if self.missing else parts

    def portable(self) -> MomentInput:
        return MomentInput(self.name, dict(self.medians), self.missing, self.format.pattern, self.format.prefix)

    def describe(self) -> str:
        parts = ", ".join(self.medians) or "always the same"
        return f"{self.format.words}: {parts}{missing_words(self.missing)}"

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> DateColumn:
        return cls(**{**values, "format": DateFormat(**values["format"])})


def as_times(
    values: pl.Series,
    format: DateFormat,
    name: str = "",
    findings: Findings | None = None,
) -> pl.Series:
    """Values of any type as moments without a time zone, null where there is none; cells that are none are noted."""
    pl = polars()
    dtype = values.dtype
    if dtype == pl.Datetime:
        zone = getattr(dtype, "time_zone", None)
        moments = values if zone is None else values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return moments.cast(pl.Datetime("us"))
    if dtype == pl.Date:
        return values.cast(pl.Datetime("us"))
    if dtype == pl.Time:
        return (values.cast(pl.Int64) // 1000).cast(pl.Datetime("us"))
    cells = text_of_numbers(values)
    times = format.parse(cells)
    if findings is not None and times.null_count() > cells.null_count():
        findings.add("unreadable", name, cells.filter(times.is_null() & cells.is_not_null()))
    return times


def text_of_numbers(values: pl.Series) -> pl.Series:
    """Values as text; whole numbers such as 20190102 without a fraction."""
    pl = polars()
    if values.dtype.is_float():
        values = values.fill_nan(None).cast(pl.Int64, strict=False)
    return values.cast(pl.String)
