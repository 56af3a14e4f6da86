"""The shape of a network: layer sizes, where each layer's numbers lie in one flat buffer, and views of such a buffer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CACHE_LINE = 64  # bytes


class Unit(NamedTuple):
    """An activation as compiled code takes it: its code, and its parameter (0 where it has none)."""

    code: int
    alpha: float = 0.0


class LossTerm(NamedTuple):
    """A loss as compiled code takes it.

    code : of `fastdl_kernels.serial.LOSSES`
    takes_labels : targets are class indices [N], not numbers [N, O]
    per_output : the mean is taken over rows and outputs, not over rows alone
    parameters : numbers of the loss itself, in the order of its kernel
    """

    code: int
    takes_labels: bool = False
    per_output: bool = False
    parameters: tuple[float, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """What the engine must know of a model: everything but the numbers that are learned.

    layers : sizes of all layers, inputs first and outputs last
    hidden : the activation of each hidden layer
    loss : what is minimised, as a function of the last layer's raw outputs
    dtype : of parameters and arithmetic
    """

    layers: tuple[int, ...]
    hidden: tuple[Unit, ...]
    loss: LossTerm
    dtype: np.dtype

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each layer with weights."""
        return list(itertools.pairwise(self.layers))

    @property
    def n_parameters(self) -> int:
        """How many numbers are learned."""
        return n_parameters(self.layers)

    @property
    def work_per_row(self) -> int:
        """Multiply-adds of a row's way through all layers."""
        return sum(n_in * n_out for n_in, n_out in self.pairs)


def n_parameters(layers: Sequence[int]) -> int:
    """How many weights and biases layers of these sizes have."""
    return sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(layers))


def offsets(layers: Sequence[int]) -> list[tuple[int, int]]:
    """Where (weights, biases) of each layer start in the flat buffer: weights row by row, biases, the next layer's weights."""
    result, start = [], 0
    for n_in, n_out in itertools.pairwise(layers):
        result.append((start, start + n_in * n_out))
        start += (n_in + 1) * n_out
    return result


def views(layers: Sequence[int], flat: NDArray) -> tuple[tuple[NDArray, ...], tuple[NDArray, ...]]:
    """Weights (in, out) and biases (out,) of each layer as views of the flat buffer."""
    weights, biases = [], []
    for (n_in, n_out), (weight, bias) in zip(itertools.pairwise(layers), offsets(layers), strict=True):
        weights.append(flat[weight:bias].reshape(n_in, n_out))
        biases.append(flat[bias : bias + n_out])
    return tuple(weights), tuple(biases)


def aligned_zeros(n: int, dtype: np.dtype) -> NDArray:
    """n zeros that start on a cache line (64 bytes): NumPy promises only 16."""
    raw = np.zeros(n * dtype.itemsize + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + n * dtype.itemsize].view(dtype)


def aligned_copy(array: NDArray) -> NDArray:
    """The numbers of a flat array in memory of their own, writable and aligned."""
    copy = aligned_zeros(array.size, array.dtype)
    copy[:] = array
    return copy
