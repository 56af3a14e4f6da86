"""Dates and times: the formats that are recognised, and the numbers that they become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastdl.tables import text
from fastdl.tables.text import polars, without

if TYPE_CHECKING:
    import polars as pl

_DAYS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%m/%d/%y",
    "%d/%m/%y", "%d.%m.%y", "%d-%B-%Y", "%d-%B-%y", "%d %B %Y", "%B %d, %Y", "%B %d %Y", "%d/%B/%Y",
)  # fmt: skip
_TIMES = ("", " %H:%M", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p", " %H:%M:%S%.f%#z", " %H:%M%#z")


@dataclass(frozen=True)
class DateFormat:
    """A pattern of strftime; cells get `prefix` in front before they are read, as months and times have no day."""

    pattern: str
    prefix: str = ""

    def parse(self, cells: pl.Series) -> pl.Series:
        """The moments of text cells as Datetime, null where there is none; with a time zone they are those of UTC."""
        pl = polars()
        cells = cells.str.replace(r"^(\d{4}-\d{1,2}-\d{1,2})[Tt](\d)", "$1 $2")
        cells = cells.str.replace(r"\s+(Z|[+-]\d\d:?\d\d)$", "$1")
        if self.prefix:
            cells = self.prefix + cells
        times = cells.str.to_datetime(self.pattern, strict=False, time_unit="us")
        if getattr(times.dtype, "time_zone", None) is not None:
            times = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        # `%Y` takes the year 19 as well, which is meant for `%y`.
        year = times.dt.year()
        return without(times, (year < 1000) | (year > 9999)).cast(pl.Datetime("us"))

    @property
    def words(self) -> str:
        """The format for people: `day.month.year`."""
        names = {"%Y": "year", "%y": "year", "%m": "month", "%B": "month", "%d": "day", "%H": "hour", "%I": "hour",
                 "%M": "minute", "%S": "second", "%.f": "", "%p": "am/pm", "%#z": " zone"}  # fmt: skip
        shown = self.pattern[len(_PREFIXED.get(self.prefix, "")) :]
        for code, name in names.items():
            shown = shown.replace(code, name)
        return shown


_PREFIXED = {"1970-01-01 ": "%Y-%m-%d ", "1 ": "%d "}
TIME_OF_DAY = DateFormat("%Y-%m-%d %H:%M:%S%.f", "1970-01-01 ")
FORMATS = (
    *(DateFormat(day + time) for time in _TIMES for day in _DAYS),
    DateFormat("%Y-%m-%d %H:%M", "1970-01-01 "),
    TIME_OF_DAY,
    DateFormat("%Y-%m-%d %I:%M %p", "1970-01-01 "),
    DateFormat("%d %Y-%m", "1 "),
    DateFormat("%d %Y/%m", "1 "),
    DateFormat("%d %B %Y", "1 "),
    DateFormat("%d %B-%y", "1 "),
    DateFormat("%d %B-%Y", "1 "),
)
"""All formats that are tried, in this order; of 03/04/2020 the month is taken to come first unless a cell forbids it."""

SAMPLE = 200


def format_of(cells: pl.Series, share: float = 0.95) -> DateFormat | None:
    """The format in which at least `share` of the cells that are not missing are dates, or None."""
    found = cells.drop_nulls()
    if len(found) == 0:
        return None
    sample = found.head(SAMPLE).unique(maintain_order=True)
    looks = sample.str.contains(r"^\s*[\w.,/:+ -]{4,40}$") & sample.str.contains(r"\d.*[-/.: ].*\d|[A-Za-z]{3}.*\d{2}")
    if text.share(looks) < share:
        return None
    best: tuple[float, DateFormat] | None = None
    for candidate in FORMATS:
        if candidate.parse(sample).count() < share * len(sample):
            continue
        whole = candidate.parse(found).count() / len(found)
        if whole >= share and (best is None or whole > best[0]):
            best = whole, candidate
            if whole == 1:
                break
    return None if best is None else best[1]


def _days(times: pl.Series) -> Any:
    return times.dt.epoch("us").cast(polars().Float64) / 86_400e6


def _hours(times: pl.Series) -> Any:
    pl = polars()
    return times.dt.hour().cast(pl.Float64) + times.dt.minute().cast(pl.Float64) / 60


PARTS: dict[str, Callable[[Any], Any]] = {
    "days": _days,
    "year": lambda times: times.dt.year(),
    "month": lambda times: times.dt.month(),
    "day of week": lambda times: times.dt.weekday(),
    "day of year": lambda times: times.dt.ordinal_day(),
    "hour": _hours,
}
"""What a moment becomes, as far as it varies: days since 1970 with their fraction, and the calendar's and clock's numbers."""
