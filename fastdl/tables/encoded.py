"""Features in a compact form: what stands between a table's columns and the matrix that a network reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdl.scaling import Scaling

BLOCK = 4096
"""Rows that are encoded at a time: a float64 block of 100 features is 3 MB and stays in the cache."""


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
        """The features [N, I] in `dtype`; with `scaling` (x - mean) / scale, in float64 before it is rounded.

        Memory: the matrix and one block of rows.
        """
        out = np.empty((len(self), self.encoded.width), dtype)
        width = self.encoded.width
        mean, scale = (np.zeros(width), np.ones(width)) if scaling is None else (scaling.mean, scaling.scale)
        on, off = (1 - mean) / scale, (0 - mean) / scale
        for start in range(0, len(self), BLOCK):
            index = self.index[start : start + BLOCK]
            block = out[start : start + BLOCK]
            at = 0
            for part in self.encoded.parts:
                if isinstance(part, OneHot):
                    end = at + part.width
                    codes = part.codes[index]
                    rows = np.flatnonzero(codes < part.width)
                    where = at + codes[rows].astype(np.intp)
                    block[:, at:end] = off[at:end]
                    block[rows, where] = on[where]
                    at = end
                else:
                    values = part[index].astype(np.float64, copy=False)
                    if scaling is not None:
                        values = (values - mean[at]) / scale[at]
                    block[:, at] = values
                    at += 1
        return out

    def statistics(self) -> Scaling:
        """Mean and deviation of each feature, as `Scaling.of` finds them in the matrix: the same sums in the same order.

        Memory: one block of rows, and the columns whose values are nearly the same, if there are any.
        """
        width = self.encoded.width
        if width == 1 or len(self) <= BLOCK:
            return Scaling.of(self.matrix())
        total, squares = np.zeros((1, width)), np.zeros((1, width))
        low, high = np.full(width, np.inf), np.full(width, -np.inf)
        blocks = [EncodedRows(self.encoded, self.index[i : i + BLOCK]) for i in range(0, len(self), BLOCK)]
        with np.errstate(over="ignore", invalid="ignore"):
            for block in blocks:
                values = block.matrix()
                low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
                total = np.add.reduce(np.concatenate([total, values]), axis=0, keepdims=True)
            mean = total[0] / len(self)
            for block in blocks:
                difference = block.matrix() - mean
                squares = np.add.reduce(np.concatenate([squares, difference * difference]), axis=0, keepdims=True)
            scale = np.sqrt(squares[0] / len(self))
        # Columns that hardly vary, or whose squares leave float64's range, are looked at as a whole.
        usual = (high - low > 1e-9 * np.maximum(np.abs(low), np.abs(high))) & (scale > 0) & np.isfinite(scale + mean)
        usual &= np.abs(mean) <= 1e6 * scale
        odd = np.flatnonzero(~usual)
        if len(odd):
            whole = Scaling.of(self._columns(odd))
            mean[odd], scale[odd] = whole.mean, whole.scale
        return Scaling(mean, scale)

    def _columns(self, wanted: NDArray[np.int64]) -> NDArray[np.float64]:
        """Some of the features [N, len(wanted)]."""
        out = np.empty((len(self), len(wanted)))
        for i in range(0, len(self), BLOCK):
            out[i : i + BLOCK] = EncodedRows(self.encoded, self.index[i : i + BLOCK]).matrix()[:, wanted]
        return out
