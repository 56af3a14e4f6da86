"""Features in a compact form: what stands between a table's columns and the matrix that a network reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdl.scaling import Scaling, robust_statistics, robust_statistics_of_ones

BLOCK = 1024
"""Rows that are encoded at a time: a float64 block of 100 features is 0.8 MB and stays in the cache."""
SHARE = 1 << 16
"""Rows that a thread takes at a time."""
SUMMED = 1 << 14
"""Numbers of a feature that are added at a time: 0.1 MB."""


class OneHot(NamedTuple):
    """`width` features of which row r has a 1 at `codes[r]` and 0 elsewhere; nowhere where the code is `width`."""

    codes: NDArray[np.integer[Any]]
    width: int


Part = NDArray[Any] | OneHot
"""One feature as numbers [N], or several as their codes."""


@dataclass(frozen=True)
class Encoded:
    """The features of N rows, column by column: a view of the table's own numbers where that is possible."""

    n_rows: int
    parts: Sequence[Part]

    @classmethod
    def of_matrix(cls, X: NDArray[Any], columns: Sequence[Any]) -> Encoded:
        """What `EncodedRows.matrix` made X [N, I] of, where these `Column`s have the features."""
        parts: list[Part] = []
        at = 0
        for column in columns:
            end = at + len(column.feature_names)
            own = X[:, at:end]
            if column.n_parts < end - at:
                parts.append(OneHot(np.where(own.any(axis=1), own.argmax(axis=1), end - at), end - at))
            else:
                parts.extend(own.T)
            at = end
        return cls(len(X), parts)

    @property
    def width(self) -> int:
        """How many features there are."""
        return sum(part.width if isinstance(part, OneHot) else 1 for part in self.parts)

    def rows(self, rows: NDArray[np.int64] | None = None) -> EncodedRows:
        """Some of the rows, in this order, or all."""
        return EncodedRows(self, np.arange(self.n_rows) if rows is None else rows)


@dataclass(frozen=True)
class EncodedRows:
    """Rows of an encoded table: what a model that knows the table takes, and what its statistics are taken of."""

    encoded: Encoded
    index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    def matrix(self, scaling: Scaling | None = None, dtype: np.dtype | type = np.float64) -> NDArray[Any]:
        """The features [N, I] in `dtype`; with `scaling` standardised by it, in float64 before they are rounded.

        Memory: the matrix and one block of rows.
        """
        width = self.encoded.width
        out = np.empty((len(self), width), dtype)
        of_one_hot = np.ones(width), np.zeros(width)
        with np.errstate(over="ignore"):  # what leaves the range of `dtype` is infinite, which the model refuses
            if scaling is not None:
                of_one_hot = tuple(scaling.clipped((x - scaling.mean) / scaling.scale) for x in of_one_hot)  # type: ignore[assignment]
            on, off = (values.astype(dtype) for values in of_one_hot)
            _in_threads(
                lambda start: self._encode(out[start : start + SHARE], start, on, off, scaling),
                range(0, len(self), SHARE),
            )
        return out

    @cached_property
    def _first(self) -> int:
        """Where the rows begin, if they are neighbours in order; else -1."""
        index = self.index
        in_order = len(index) and int(index[-1]) - int(index[0]) == len(index) - 1 and bool((np.diff(index) == 1).all())
        return int(index[0]) if in_order else -1

    def _places(self, start: int = 0, count: int | None = None) -> slice | NDArray[np.int64]:
        """Which rows of the table some rows, or all, are: a slice, where that will do, which gives views instead of copies."""
        end = len(self) if count is None else start + count
        return slice(self._first + start, self._first + end) if self._first >= 0 else self.index[start:end]

    def _encode(
        self,
        out: NDArray[Any],
        first: int,
        on: NDArray[Any],
        off: NDArray[Any],
        scaling: Scaling | None,
    ) -> None:
        """Write the rows from `first` on; a one-hot feature is `on` where it is 1 and `off` elsewhere."""
        with np.errstate(over="ignore"):
            for start in range(0, len(out), BLOCK):
                block = out[start : start + BLOCK]
                block[:] = off
                self._fill(block, first + start, on, scaling)

    def _fill(self, block: NDArray[Any], start: int, on: NDArray[Any], scaling: Scaling | None) -> None:
        """Write the rows from `start` on into a block that holds what a one-hot feature is where it is 0; `on` is what it
        is where it is 1. Other features are scaled."""
        index = self._places(start, len(block))
        places = np.arange(len(block))
        at = 0
        for part in self.encoded.parts:
            if isinstance(part, OneHot):
                codes = part.codes[index].astype(np.intp)
                rows = places
                if codes.max(initial=0) >= part.width:
                    rows = np.flatnonzero(codes < part.width)
                    codes = codes[rows]
                codes += at
                block[rows, codes] = on[codes]
                at += part.width
            else:
                values = part[index]
                if scaling is not None:
                    values = (values.astype(np.float64, copy=False) - scaling.mean[at]) / scaling.scale[at]
                    values = scaling.clipped(values, at)
                block[:, at] = values
                at += 1

    def statistics(self) -> Scaling:
        """Mean and deviation of each feature, as `Scaling.of` finds them in the matrix: the same sums in the same order.

        Memory: one block of rows, and the columns whose values are nearly the same, if there are any.
        """
        width = self.encoded.width
        if width == 1 or len(self) <= BLOCK:
            return Scaling.of(self.matrix())
        groups = [EncodedRows(Encoded(self.encoded.n_rows, parts), self.index) for parts in _halves(self.encoded.parts)]
        found = _in_threads(EncodedRows._sums, groups)
        mean, scale, low, high = (np.concatenate(columns) for columns in zip(*found))
        # Columns that hardly vary, or whose squares leave float64's range, are looked at as a whole.
        usual = (high - low > 1e-9 * np.maximum(np.abs(low), np.abs(high))) & (scale > 0) & np.isfinite(scale + mean)
        usual &= np.abs(mean) <= 1e6 * scale
        odd = np.flatnonzero(~usual)
        if len(odd):
            whole = Scaling.of(self._columns(odd))
            mean[odd], scale[odd] = whole.mean, whole.scale
        return Scaling(mean, scale)

    def robust_statistics(self) -> Scaling:
        """Medians and distances of quartiles, as `Scaling.robust` finds them in the matrix. Memory: one column for a thread."""
        found = _in_threads(self._robust_part, self.encoded.parts)
        mean, scale = np.concatenate(found, axis=1)
        return Scaling(mean, scale)

    def _robust_part(self, part: Part) -> NDArray[np.float64]:
        """Median and scale [2, width] of the features of one part; those of one-hot features follow from their counts."""
        if not isinstance(part, OneHot):
            return np.array([robust_statistics(part[self._places()])]).T
        counts = np.bincount(part.codes[self._places()].astype(np.intp), minlength=part.width)[: part.width]
        return np.array([robust_statistics_of_ones(int(count), len(self)) for count in counts]).reshape(-1, 2).T

    def _sums(self) -> tuple[NDArray[np.float64], ...]:
        """Mean, deviation, least and largest value of each feature; sums go from row to row."""
        n = len(self)
        found: list[NDArray[np.float64]] = []
        with np.errstate(over="ignore", invalid="ignore"):
            for part in self.encoded.parts:
                if isinstance(part, OneHot):
                    codes = part.codes[self._places()].astype(np.intp)
                    counts = np.bincount(codes, minlength=part.width)[: part.width]
                    mean = counts / n
                    squares = _sum_of_one_hot(codes, (1 - mean) * (1 - mean), (0 - mean) * (0 - mean))
                    found.append(np.array([mean, np.sqrt(squares / n), counts == n, counts > 0], dtype=np.float64))
                else:
                    values = part[self._places()]
                    middle = _sum(values) / n
                    square = _sum(values, middle)
                    found.append(np.array([[middle], [np.sqrt(square / n)], [values.min()], [values.max()]]))
        return tuple(np.concatenate(found, axis=1))

    def _columns(self, wanted: NDArray[np.int64]) -> NDArray[np.float64]:
        """Some of the features [N, len(wanted)]."""
        out = np.empty((len(self), len(wanted)))
        for i in range(0, len(self), BLOCK):
            out[i : i + BLOCK] = EncodedRows(self.encoded, self.index[i : i + BLOCK]).matrix()[:, wanted]
        return out


def _sum(values: NDArray[Any], middle: np.float64 | None = None) -> np.float64:
    """The sum of the values, or of their squared distances from `middle`, one after the other in float64, as NumPy adds the
    rows of a matrix."""
    memory = np.zeros(SUMMED + 1)  # the first number is the sum so far
    for start in range(0, len(values), SUMMED):
        part = values[start : start + SUMMED]
        memory[1 : 1 + len(part)] = part if middle is None else np.square(part - middle)
        memory[0] = np.add.accumulate(memory[: 1 + len(part)])[-1]
    return memory[0]


def _sum_of_one_hot(
    codes: NDArray[np.intp], on: NDArray[np.float64], off: NDArray[np.float64]
) -> NDArray[np.float64]:  # fmt: skip
    """For each feature k, the sum of on[k] where the code is k and off[k] elsewhere, one after the other as `_sum` adds."""
    width = len(on)
    # The first row is the sum so far. NumPy adds the rows of a matrix one after the other, but not the numbers of a single
    # column: there are always two. What has no feature of its own goes into a column more.
    memory = np.zeros((BLOCK + 1, max(2, width) + 1))
    places, more = np.arange(1, BLOCK + 1), np.append(on, 0.0)
    for start in range(0, len(codes), BLOCK):
        block = np.minimum(codes[start : start + BLOCK], width)
        memory[1:, :width] = off
        memory[places[: len(block)], np.where(block < width, block, -1)] = more[block]
        memory[0] = np.add.reduce(memory[: 1 + len(block)], axis=0)
    return memory[0, :width].copy()


def _in_threads(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """The function of each item; several at a time, as NumPy works without the interpreter's lock."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(len(items), os.cpu_count() or 1)) as pool:
        return list(pool.map(function, items))


def _halves(parts: Sequence[Part]) -> list[Sequence[Part]]:
    """The parts in groups of neighbours, one for each processor, about as wide."""
    widths = np.cumsum([part.width if isinstance(part, OneHot) else 1 for part in parts])
    count = min(os.cpu_count() or 1, 8, len(parts))
    ends = [int(np.searchsorted(widths, widths[-1] * (k + 1) / count)) + 1 for k in range(count)]
    ends[-1] = len(parts)
    groups = [parts[start:end] for start, end in zip([0, *ends], ends)]
    return [group for group in groups if len(group)]
