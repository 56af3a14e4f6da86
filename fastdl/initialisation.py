"""Initial parameters: small random weights that break symmetry, zero biases."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastdl.checks import is_real
from fastdl.errors import InputError


def deviation(scheme: str | float, fan_in: int, fan_out: int, rectifier: bool) -> float:
    """The standard deviation of a layer's normal weights.

    "he": sqrt(2 / I) (He et al., 2015), for the ReLU family. "glorot": sqrt(2 / (I + O)) (Glorot and Bengio, 2010), for
    the rest. "auto" picks one of the two by the layer's activation. A number is the deviation itself.
    """
    if is_real(scheme):
        if not (math.isfinite(scheme) and scheme > 0):
            raise InputError(f"init: expected a finite standard deviation above 0, got {scheme!r}")
        return float(scheme)
    if scheme == "auto":
        scheme = "he" if rectifier else "glorot"
    if scheme == "he":
        return math.sqrt(2 / fan_in)
    if scheme == "glorot":
        return math.sqrt(2 / (fan_in + fan_out))
    raise InputError(f"init: expected 'auto', 'he', 'glorot' or a standard deviation such as 0.01, got {scheme!r}")


def fill(weights: NDArray, rng: np.random.Generator, scale: float) -> None:
    """Overwrite `weights` with normal numbers of standard deviation `scale`, drawn in float64 for every dtype."""
    weights[...] = rng.standard_normal(weights.shape) * scale
