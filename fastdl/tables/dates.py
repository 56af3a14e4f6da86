"""Dates and times: the formats that are recognised, and the numbers that they become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastdl.tables import text
from fastdl.tables.text import polars

if TYPE_CHECKING:
    import polars as pl

_DAYS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%m/%d/%y",
    "%d/%m/%y", "%d.%m.%y", "%d-%B-%Y", "%d-%B-%y", "%d %B %Y", "%B %d, %Y", "%B %d %Y", "%d/%B/%Y",
)  # fmt: skip
_TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p", " %H:%M:%S%.f%#z", " %H:%M%#z")


@dataclass(frozen=True)
class DateFormat:
    """A pattern of strftime; cells get `prefix` in front before they are read, as months and times have no day."""

    pattern: str
    prefix: str = ""

    def parse(self, cells: pl.Series) -> pl.Series:
        """The moments of text cells as Datetime, null where there is none; with a time zone they are those of UTC."""
        times = self._parse(cells)
        if times.null_count() > cells.null_count():
            rows = (times.is_null() & cells.is_not_null()).arg_true()
            times = times.scatter(rows, self._parse(usual(cells.gather(rows))))
        return times

    def _parse(self, cells: pl.Series) -> pl.Series:
        pl = polars()
        if self.prefix:
            cells = self.prefix + cells
        times = cells.str.to_datetime(self.pattern, strict=False, time_unit="us")
        if getattr(times.dtype, "time_zone", None) is not None:
            times = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        times = times.cast(pl.Datetime("us"))
        # `%Y` takes the year 19 as well, which is meant for `%y`.
        low, high = pl.datetime(1000, 1, 1), pl.datetime(9999, 12, 31)
        return pl.select(pl.when(pl.lit(times).is_between(low, high)).then(pl.lit(times))).to_series()

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


def usual(cells: pl.Series) -> pl.Series:
    """Cells without the T between date and time, and the space before a time zone, of ISO 8601."""
    return cells.str.replace(r"^(\d{4}-\d{1,2}-\d{1,2})[Tt](\d)", "$1 $2").str.replace(r"\s+(Z|[+-]\d\d:?\d\d)$", "$1")


def format_of(cells: pl.Series, share: float = 0.95) -> tuple[DateFormat, pl.Series] | None:
    """The format in which at least `share` of the cells that are not missing are dates, and these; or None."""
    n = len(cells) - cells.null_count()
    sample = cells.drop_nulls().head(SAMPLE).unique(maintain_order=True) if n else cells
    if len(sample) == 0:
        return None
    looks = sample.str.contains(r"^\s*[\w.,/:+ -]{4,40}$") & sample.str.contains(r"\d.*[-/.: ].*\d|[A-Za-z]{3}.*\d{2}")
    if text.share(looks) < share:
        return None
    best: tuple[int, DateFormat, pl.Series] | None = None
    for candidate in FORMATS:
        if candidate.parse(sample).count() < share * len(sample):
            continue
        times = candidate.parse(cells)
        found = times.count()
        if found >= share * n and (best is None or found > best[0]):
            best = found, candidate, times
            if found == n:
                break
    return None if best is None else best[1:]


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
