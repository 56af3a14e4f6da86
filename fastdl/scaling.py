"""Standardisation that a model carries: features to mean 0 and deviation 1, targets of a regression likewise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Scaling:
    """x' = (x - mean) / scale per feature; y' = (y - y_mean) / y_scale per target, where a regression has targets.

    A feature that never varies, but for rounding, keeps scale 1, so that it becomes 0 and not NaN or noise.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    y_mean: NDArray[np.float64] | None = None
    y_scale: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, X: ArrayLike, y: ArrayLike | None = None) -> Scaling:
        """The statistics of the rows X [N, I], and of the targets y [N] or [N, O] where they are given."""
        mean, scale = _statistics(X)
        if y is None:
            return cls(mean, scale)
        targets = np.asarray(y, dtype=np.float64)
        return cls(mean, scale, *_statistics(targets.reshape(len(targets), -1)))

    def to_json(self) -> dict[str, list[float] | None]:
        """The statistics as plain values."""
        return {name: None if values is None else values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, list[float] | None] | None) -> Scaling | None:
        """What `to_json` gave, or None for None."""
        if values is None:
            return None
        return cls(**{name: None if v is None else np.array(v, dtype=np.float64) for name, v in values.items()})  # type: ignore[arg-type]

    def inputs(self, X: NDArray[np.floating], dtype: np.dtype) -> NDArray[np.floating]:
        """X standardised in float64, then rounded to `dtype`."""
        return ((X - self.mean) / self.scale).astype(dtype)

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


# A column whose values are no further apart than this many units in the last place of the largest is constant: they differ by
# rounding only.
_ROUNDING = 4
# A mean so many times its column's deviation is worked out a second time, from the differences to the first: a sum of large
# numbers rounds away what they differ by.
_FAR = 1e6


def _statistics(values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    array = np.asarray(values)
    low, high = array.min(axis=0).astype(np.float64), array.max(axis=0).astype(np.float64)
    largest = np.maximum(np.abs(low), np.abs(high))
    unit = np.spacing(largest.astype(array.dtype)).astype(np.float64) if array.dtype.kind == "f" else 0.0
    constant = high - low <= _ROUNDING * unit
    with np.errstate(over="ignore", invalid="ignore"):
        mean = array.mean(axis=0, dtype=np.float64)
        scale = array.std(axis=0, dtype=np.float64)
        # Squares of very small or large numbers leave float64's range: their statistics are those of x / max |x|.
        lost = ~constant & ~((scale > 0) & np.isfinite(scale) & np.isfinite(mean))
    if lost.any():
        shares = array[:, lost] / largest[lost]
        mean[lost], scale[lost] = shares.mean(axis=0) * largest[lost], shares.std(axis=0) * largest[lost]
    far = ~lost & (np.abs(mean) > _FAR * scale)
    if far.any():
        rest = array[:, far] - mean[far]
        mean[far] += rest.mean(axis=0, dtype=np.float64)
        scale[far] = rest.std(axis=0, dtype=np.float64)
    return mean, np.where(constant, 1.0, scale)
