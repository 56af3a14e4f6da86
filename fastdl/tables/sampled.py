"""Rows of a table that is read in parts: some evenly from all of it, and some columns whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdl.tables.table import stacked

if TYPE_CHECKING:
    import polars as pl


class Sample:
    """Every so many rows one: as few as make at least `most` rows, once there are so many.

    Attributes
    ----------
    n_rows : how many rows were seen
    mixed : columns that were text in one part and something else in another
    """

    def __init__(self, most: int, whole: Sequence[str] = ()) -> None:
        self.n_rows, self.mixed = 0, set[str]()
        self._most, self._step, self._whole = most, 1, list(whole)
        self._places: list[NDArray[np.int64]] = []
        self._frames: list[pl.DataFrame] = []
        self._columns: list[pl.DataFrame] = []
        self._texts: dict[str, set[bool]] = {}
        self._names: dict[str, None] = {}

    def add(self, frame: pl.DataFrame) -> None:
        """The rows that come next."""
        places = np.arange(self.n_rows, self.n_rows + frame.height)
        self.n_rows += frame.height
        self._columns.append(frame.select([name for name in self._whole if name in frame.columns]))
        self._names |= dict.fromkeys(frame.columns)
        for name, dtype in frame.schema.items():
            if str(dtype) != "Null":
                kinds = self._texts.setdefault(name, set())
                kinds.add(str(dtype) == "String")
                self.mixed |= {name} if len(kinds) > 1 else set()
        self._keep(places, frame)
        while sum(map(len, self._places)) > 2 * self._most:
            self._step *= 2
            before, self._places, self._frames = list(zip(self._places, self._frames)), [], []
            for kept, rows in before:
                self._keep(kept, rows)

    def _keep(self, places: NDArray[np.int64], frame: pl.DataFrame) -> None:
        kept = np.flatnonzero(places % self._step == 0)
        if len(kept):
            self._places.append(places[kept])
            self._frames.append(frame[kept])

    @property
    def frame_names(self) -> list[str]:
        """The columns of all parts."""
        return list(self._names)

    @property
    def places(self) -> NDArray[np.int64]:
        """Which rows are in the sample."""
        return np.concatenate(self._places)

    @property
    def frame(self) -> pl.DataFrame:
        """The rows of the sample."""
        return stacked(self._frames)

    @property
    def whole(self) -> pl.DataFrame:
        """Some columns of all rows."""
        return stacked(self._columns)
