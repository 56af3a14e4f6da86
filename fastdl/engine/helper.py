"""What the second process does while the first one compiles: see `compile`."""

from __future__ import annotations

import numpy as np
from numba.np.numpy_support import from_dtype

from fastdl.engine.compile import HELPERS
from fastdl.engine.engine import Engine
from fastdl.network import Architecture, LossTerm, aligned_zeros
from fastdl_kernels.serial import LOSSES


def compile_half(name: str) -> None:
    """Leave half of the training code, and prediction, in the cache for a dtype by name."""
    dtype = np.dtype(name)
    for unit in HELPERS:
        unit.ensure(from_dtype(dtype))
    architecture = Architecture((1, 2), (), LossTerm(LOSSES["softmax_cross_entropy"], takes_labels=True), dtype)
    engine = Engine(architecture, aligned_zeros(architecture.n_parameters, dtype))
    raw = engine.forward(np.zeros((1, 1), dtype))
    engine.mean_loss(raw, np.zeros(1, np.int64))
