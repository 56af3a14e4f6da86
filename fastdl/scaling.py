"""Standardisation that a model carries: features to mean 0 and deviation 1, targets of a regression likewise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Scaling:
    """x' = (x - mean) / scale per feature; y' = (y - y_mean) / y_scale per target, where a regression has targets.

    A feature that never varies keeps scale 1, so that it becomes 0 and not NaN.
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

    @classmethod
    def of_moments(
        cls, mean: NDArray[np.float64], deviation: NDArray[np.float64], constant: NDArray[np.bool_]
    ) -> Scaling:
        """Scaling by means and deviations [I] that were taken elsewhere; `constant` says which features never vary."""
        return cls(mean, _usable(mean, deviation, constant))

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
        """The inverse of `targets`: network outputs back in the units of the data."""
        if self.y_mean is None or self.y_scale is None:
            return y
        return (y * self.y_scale + self.y_mean).astype(y.dtype)


def _statistics(values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    array = np.asarray(values)
    mean = array.mean(axis=0, dtype=np.float64)
    scale = array.std(axis=0, dtype=np.float64)
    return mean, _usable(mean, scale, array.max(axis=0) == array.min(axis=0))


def _usable(
    mean: NDArray[np.float64], deviation: NDArray[np.float64], constant: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The deviations, and 1 where a feature does not vary by more than its numbers are rounded to.

    Numbers such as 1e15 + i vary: they are standardised in float64.
    """
    rounding = 4 * np.finfo(np.float64).eps * np.abs(mean)
    return np.where(constant | (deviation <= rounding), 1.0, deviation)
