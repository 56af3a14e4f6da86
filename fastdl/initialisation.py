"""Initial parameters: small random weights that break symmetry, zero biases."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastdl.checks import is_real
from fastdl.errors import InputError


def deviation(scheme: str | float, fan_in: int, fan_out: int, usual: str) -> float:
    """The standard deviation of a layer's normal weights.

    "he": sqrt(2 / I) (He et al., 2015), for the ReLU family. "lecun": sqrt(1 / I) (LeCun et al., 1998), for SELU. "glorot":
    sqrt(2 / (I + O)) (Glorot and Bengio, 2010), for the rest. "auto" is the `usual` one for the layer's activation. A number
    is the deviation itself.
    """
    if is_real(scheme):
        if not (math.isfinite(scheme) and scheme > 0):
            raise InputError(f"init: expected a finite standard deviation above 0, got {scheme!r}")
        return float(scheme)
    schemes = {"he": 2 / fan_in, "lecun": 1 / fan_in, "glorot": 2 / (fan_in + fan_out)}
    variance = schemes.get(usual if scheme == "auto" else scheme) if isinstance(scheme, str) else None
    if variance is None:
        raise InputError(
            f"init: expected 'auto', 'he', 'glorot' or a standard deviation such as 0.01, or 'lecun', got {scheme!r}"
        )
    return math.sqrt(variance)


def fill(weights: NDArray, rng: np.random.Generator, scale: float) -> None:
    """Overwrite `weights` with normal numbers of standard deviation `scale`, drawn in float64 for every dtype."""
    weights[...] = rng.standard_normal(weights.shape) * scale
