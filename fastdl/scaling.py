"""Standardisation that a model carries: features to mean 0 and deviation 1, targets of a regression likewise.

`Scaling.robust` centres by medians and scales by quartiles instead; `clip` moves what lies far out smoothly nearer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl.stored import clipped, is_list_of_arrays


@dataclass(frozen=True)
class Scaling:
    """x' = (x - mean) / scale per feature; y' = (y - y_mean) / y_scale per target, where a regression has targets.

    A feature that never varies, but for rounding, keeps scale 1, so that it becomes 0 and not NaN or noise. With `clip`
    features then become x' / sqrt(1 + (x' / clip)^2), which is x' near 0 and never further than `clip` from it.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    y_mean: NDArray[np.float64] | None = None
    y_scale: NDArray[np.float64] | None = None
    clip: float | None = None

    @classmethod
    def of(cls, X: ArrayLike | Sequence[NDArray], y: ArrayLike | None = None) -> Scaling:
        """The statistics of the rows X [N, I], or of a list of such arrays, and of the targets y [N] or [N, O] where given."""
        mean, scale = _statistics(X)
        if y is None:
            return cls(mean, scale)
        targets = np.asarray(y, dtype=np.float64)
        return cls(mean, scale, *_statistics(targets.reshape(len(targets), -1)))

    @classmethod
    def robust(cls, X: ArrayLike | Sequence[NDArray], y: ArrayLike | None = None) -> Scaling:
        """Median and distance of the quartiles of each feature of the rows X [N, I], and mean and deviation of the targets.

        X may be a list of arrays, whose rows follow each other. Some columns at a time are in memory.

        Where the quartiles are the same, as of a feature that is nearly always 0, half the distance of the extremes is the
        scale (Holzmüller, Grinsztajn and Steinwart, 2024).
        """
        parts: list[NDArray] = list(X) if is_list_of_arrays(X) else [np.asarray(X)]  # type: ignore[arg-type]
        n_rows, width = sum(map(len, parts)), parts[0].shape[1]
        count = max(1, _COLUMNS_BLOCK // max(1, n_rows))
        middles = [
            robust_statistics(column)
            for first in range(0, width, count)
            for column in np.concatenate([part[:, first : first + count].T for part in parts], axis=1, dtype=np.float64)
        ]
        mean, scale = np.array(middles).reshape(-1, 2).T
        if y is None:
            return cls(mean, scale)
        of_targets = cls.of(np.asarray(y, dtype=np.float64).reshape(n_rows, -1))
        return cls(mean, scale, of_targets.mean, of_targets.scale)

    def to_json(self) -> dict[str, Any]:
        """The statistics as plain values."""
        values = {name: None if v is None else v.tolist() for name, v in vars(self).items() if name != "clip"}
        return values if self.clip is None else {**values, "clip": self.clip}

    @classmethod
    def from_json(cls, values: dict[str, Any] | None) -> Scaling | None:
        """What `to_json` gave, or None for None."""
        if values is None:
            return None
        clip = values.get("clip")
        arrays = {name: v for name, v in values.items() if name != "clip"}
        return cls(
            **{name: None if v is None else np.array(v, dtype=np.float64) for name, v in arrays.items()},  # type: ignore[arg-type]
            clip=None if clip is None else float(clip),
        )

    def inputs(self, X: NDArray[np.floating], dtype: np.dtype) -> NDArray[np.floating]:
        """X standardised (and clipped) in float64, then rounded to `dtype`."""
        return self.clipped((X - self.mean) / self.scale).astype(dtype)

    def clipped(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        """x' / sqrt(1 + (x' / clip)^2) of standardised features, or x' itself where nothing is clipped."""
        return clipped(x, self.clip)

    def targets(self, y: NDArray[np.floating], dtype: np.dtype) -> NDArray[np.floating]:
        """y [N, O] standardised, where this scaling has target statistics."""
        if self.y_mean is None or self.y_scale is None:
            return y
        return ((y - self.y_mean) / self.y_scale).astype(dtype)

    def untargets(self, y: NDArray[np.floating]) -> NDArray[np.floating]:
        """The inverse of `targets`: network outputs back in the units of the data, computed and given in float64."""
        if self.y_mean is None or self.y_scale is None:
            return y
        return y * self.y_scale + self.y_mean


def robust_statistics(values: NDArray[Any]) -> tuple[float, float]:
    """The median of numbers [N] and the distance of their quartiles, or what stands for it (see `Scaling.robust`)."""
    low, first, median, third, high = np.quantile(np.asarray(values, np.float64), [0, 0.25, 0.5, 0.75, 1])
    with np.errstate(over="ignore"):
        scale = third - first if third > first else (high - low) / 2
    if not (np.isfinite(scale) and scale > _ROUNDING * np.spacing(max(abs(low), abs(high)))):
        scale = 1.0 if np.isfinite(scale) else high / 2 - low / 2
    return float(median), float(scale)


def robust_statistics_of_ones(count: int, n_rows: int) -> tuple[float, float]:
    """The same of a column that is 1 in `count` of `n_rows` rows and 0 in the others."""

    def at(share: float) -> float:
        place = share * (n_rows - 1)
        low, zeros = int(place), n_rows - count
        below, above = float(low >= zeros), float(min(low + 1, n_rows - 1) >= zeros)
        return below + (above - below) * (place - low)

    low, first, median, third, high = (at(share) for share in (0, 0.25, 0.5, 0.75, 1))
    scale = third - first if third > first else (high - low) / 2
    return median, scale if scale > 0 else 1.0


# A column whose values are no further apart than this many units in the last place of the largest is constant: they differ by
# rounding only.
_ROUNDING = 4
# A mean so many times its column's deviation is worked out a second time, from the differences to the first: a sum of large
# numbers rounds away what they differ by.
_FAR = 1e6


# Numbers of a block of rows, or of columns, that statistics are taken of at a time: 8 MB as float64.
_BLOCK = 1 << 20
# The same for medians and quartiles, for which all rows of a column have to be there: 64 MB. Each block of columns reads all of
# the data once, if its rows are in one piece each.
_COLUMNS_BLOCK = 1 << 23


def _statistics(values: ArrayLike | Sequence[NDArray]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and scale of each column; memory: a block of rows, and the columns that are worked out twice."""
    parts: list[NDArray] = list(values) if is_list_of_arrays(values) else [np.asarray(values)]  # type: ignore[arg-type]
    if sum(part.size for part in parts) > _BLOCK and parts[0].ndim > 1 and parts[0].shape[1] > 1:
        if len(parts) > 1 or _by_rows(parts[0]):
            return _of_rows(parts)
        return _of_columns(parts[0])
    array = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return _at_once(array)


def _by_rows(array: NDArray) -> bool:
    """Whether the numbers of a row are nearer to each other than those of a column."""
    return abs(array.strides[1]) <= abs(array.strides[0])


def _of_columns(array: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Those of an array whose columns are in one piece each, some columns at a time: they have nothing to do with each other."""
    count = max(1, _BLOCK // len(array))
    found = [_at_once(array[:, first : first + count]) for first in range(0, array.shape[1], count)]
    return np.concatenate([mean for mean, _ in found]), np.concatenate([scale for _, scale in found])


def _at_once(array: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = array.min(axis=0).astype(np.float64), array.max(axis=0).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = array.mean(axis=0, dtype=np.float64), array.std(axis=0, dtype=np.float64)
    return _mended([array], mean, scale, low, high)


def _of_rows(parts: Sequence[NDArray]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Those of arrays that follow each other, a block of rows at a time; sums go from row to row, as NumPy's do."""
    width, n_rows = parts[0].shape[1], sum(map(len, parts))
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    total, squares = np.zeros(width), np.zeros(width)
    rows = max(1, min(n_rows, _BLOCK // width))
    memory = np.empty((1 + rows, width))  # the first row holds the sums so far

    def blocks() -> Iterator[NDArray]:
        for part in parts:
            for start in range(0, len(part), rows):
                yield part[start : start + rows]

    def added(sums: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        memory[0] = sums
        result: NDArray[np.float64] = np.add.reduce(memory[: 1 + count], axis=0)
        return result

    with np.errstate(over="ignore", invalid="ignore"):
        for block in blocks():
            low = np.minimum(low, block.min(axis=0))
            high = np.maximum(high, block.max(axis=0))
            memory[1 : 1 + len(block)] = block
            total = added(total, len(block))
        mean = total / n_rows
        for block in blocks():
            rest = memory[1 : 1 + len(block)]
            np.subtract(block, mean, out=rest)
            np.multiply(rest, rest, out=rest)
            squares = added(squares, len(block))
        scale = np.sqrt(squares / n_rows)
    return _mended(parts, mean, scale, low, high)


def _mended(
    parts: Sequence[NDArray],
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and scale of columns whose least and greatest numbers these are, where the sums say little: worked out again."""
    largest = np.maximum(np.abs(low), np.abs(high))
    kinds = {part.dtype for part in parts if part.dtype.kind == "f"}
    unit: NDArray[np.float64] | float = 0.0
    for dtype in kinds:
        own = np.spacing(largest.astype(np.promote_types(dtype, np.float32))).astype(np.float64)
        unit = np.maximum(unit, own)
    constant = high - low <= _ROUNDING * unit

    def columns(which: NDArray[np.bool_]) -> NDArray:
        return parts[0][:, which] if len(parts) == 1 else np.concatenate([part[:, which] for part in parts])

    with np.errstate(over="ignore", invalid="ignore"):
        # Squares of very small or large numbers leave float64's range: their statistics are those of x / max |x|.
        lost = ~constant & ~((scale > 0) & np.isfinite(scale) & np.isfinite(mean))
    if lost.any():
        shares = columns(lost) / largest[lost]
        mean[lost], scale[lost] = shares.mean(axis=0) * largest[lost], shares.std(axis=0) * largest[lost]
    far = ~lost & (np.abs(mean) > _FAR * scale)
    if far.any():
        rest = columns(far) - mean[far]
        mean[far] += rest.mean(axis=0, dtype=np.float64)
        scale[far] = rest.std(axis=0, dtype=np.float64)
    return mean, np.where(constant, 1.0, scale)
