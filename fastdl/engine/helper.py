"""What the second process does while the first one compiles: see `compile`."""

from __future__ import annotations

import numpy as np

from fastdl.engine.compile import half
from fastdl.engine.engine import Engine
from fastdl.network import Architecture, LossTerm, aligned_zeros
from fastdl_kernels.serial import LOSSES


def compile_half(name: str, loss: int, activations: list[int]) -> None:
    """Leave half of the training code, and prediction, in the cache for a dtype by name and these losses and activations."""
    dtype = np.dtype(name)
    half(dtype, loss, activations)
    architecture = Architecture((1, 2), (), LossTerm(LOSSES["softmax_cross_entropy"], takes_labels=True), dtype)
    engine = Engine(architecture, aligned_zeros(architecture.n_parameters, dtype))
    raw = engine.forward(np.zeros((1, 1), dtype))
    engine.mean_loss(raw, np.zeros(1, np.int64))
