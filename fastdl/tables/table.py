"""A table in memory: named columns of text, numbers, booleans or times, and where each row came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import InputError
from fastdl.suggest import did_you_mean
from fastdl.tables.text import listed, polars

if TYPE_CHECKING:
    import polars as pl


class Table:
    """A polars frame with what messages need.

    Parameters
    ----------
    frame : the columns, tidy: see `text.tidied`
    label : how messages call the table: a path, or "X"
    notes : what is to be said about how it was read
    places : how messages call a row, by its number
    bad : rows whose cells could not be told apart, with the reason; all their cells are missing
    """

    def __init__(
        self,
        frame: pl.DataFrame,
        label: str,
        files: Sequence[Path] = (),
        notes: Sequence[str] = (),
        places: Callable[[int], str] | None = None,
        bad: dict[int, str] | None = None,
    ) -> None:
        self.frame = frame
        self.label = label
        self.files = tuple(files)
        self.notes = list(notes)
        self.bad = bad or {}
        self._places = places

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.frame.columns)

    def __len__(self) -> int:
        return int(self.frame.height)

    def where(self, row: int, name: str | None = None) -> str:
        """How an error names a cell: file, line and column."""
        place = f"{self.label}, row {row} (counted from 0)" if self._places is None else self._places(row)
        return place if name is None else f"{place}, column {name!r}"

    def find(self, name: str, what: str) -> str:
        """`name`, if a column is called so; `what` says who asks."""
        if name not in self.frame.columns:
            close = did_you_mean(name, self.names) or f"; the columns are {listed(self.names)}"
            raise InputError(f"{what}: expected a column of {self.label}, got {name!r}{close}")
        return name

    def check_rows(self) -> None:
        """Refuse a table with rows that could not be read; all of them are named."""
        if self.bad:
            places = [f"{self.where(row)}: {reason}" for row, reason in list(self.bad.items())[:10]]
            more = f"; and {len(self.bad) - 10:,} more rows" if len(self.bad) > 10 else ""
            raise InputError("; ".join(places) + more)


def unique_names(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of which each occurs once, as `a`, `a_2`, `a_3`, and those that occurred more often."""
    counts = Counter(names)
    taken, seen, out = set(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        new = name
        if seen[name] > 1:
            number = seen[name]
            while (new := f"{name}_{number}") in taken:
                number += 1
            taken.add(new)
        out.append(new)
    return out, [name for name, count in counts.items() if count > 1]


def stacked(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Frames below each other, columns by their names; one that is text in some of them is text in all."""
    lib = polars()
    for name in dict.fromkeys(name for frame in frames for name in frame.columns):
        dtypes = {frame[name].dtype for frame in frames if name in frame.columns}
        if len(dtypes) > 1:
            to = lib.Float64 if all(d.is_numeric() or d == lib.Null for d in dtypes) else lib.String
            cast = lib.col(name).cast(to)
            frames = [frame.with_columns(cast) if name in frame.columns else frame for frame in frames]
    whole: pl.DataFrame = lib.concat(frames, how="diagonal")
    return whole


def joined(tables: Sequence[Table]) -> Table:
    """Tables below each other, columns by their names; a column that one does not have is missing there."""
    if len(tables) == 1:
        return tables[0]
    starts = np.cumsum([0, *(len(table) for table in tables)])
    names = list(dict.fromkeys(name for table in tables for name in table.names))
    notes = list(dict.fromkeys(f"{table.label}: {note}" for table in tables for note in table.notes))
    for table in tables:
        missing = [name for name in names if name not in table.names]
        if missing:
            notes.append(f"{table.label} has no column {listed([repr(m) for m in missing], 6)}")

    def place(row: int) -> str:
        which = int(np.searchsorted(starts, row, side="right")) - 1
        return tables[which].where(row - int(starts[which]))

    bad = {int(start) + row: why for start, table in zip(starts, tables) for row, why in table.bad.items()}
    label = tables[0].label if len(tables) == 1 else f"{tables[0].label} and {len(tables) - 1} more"
    frame = stacked([table.frame for table in tables])
    return Table(frame, label, [file for table in tables for file in table.files], notes, place, bad)


def kept_rows(bad: Sequence[int], n_rows: int) -> NDArray[np.int64]:
    """All rows but some."""
    mask = np.ones(n_rows, dtype=bool)
    mask[list(bad)] = False
    return np.flatnonzero(mask)
