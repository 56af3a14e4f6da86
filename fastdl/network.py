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


# Multiply-adds that a cosine takes, and its share of the gradient with a sine.
COSINE_WORK = 16


@dataclass(frozen=True)
class InputStage:
    """What becomes of inputs before the first layer: some are embedded, and each output is multiplied by a learnt scale.

    Outputs are the `size` numbers of each embedded input, in the order of `embedded`, then the other inputs in theirs.

    embedded : which inputs
    frequencies : cosines of each of them
    size : numbers that each of them becomes
    scaled : whether there are scales
    """

    embedded: tuple[int, ...]
    frequencies: int
    size: int
    scaled: bool

    @property
    def row(self) -> int:
        """How many numbers are learnt for an embedded input."""
        return 2 * self.frequencies + (self.frequencies + 1) * (self.size - 1) if self.embedded else 0

    @property
    def work(self) -> int:
        """Multiply-adds of a row's way through the embedding."""
        return len(self.embedded) * self.frequencies * (COSINE_WORK + self.size)

    def n_outputs(self, n_inputs: int) -> int:
        """How many numbers so many inputs become."""
        return n_inputs + len(self.embedded) * (self.size - 1)

    def n_parameters(self, n_inputs: int) -> int:
        """How many numbers are learnt."""
        return len(self.embedded) * self.row + (self.n_outputs(n_inputs) if self.scaled else 0)

    def order(self, n_inputs: int) -> list[int]:
        """All inputs in the order of their outputs."""
        return [*self.embedded, *sorted(set(range(n_inputs)) - set(self.embedded))]

    def views(self, flat: NDArray) -> StageViews:
        """Views of a buffer that holds what is learnt here: a row for each embedded input, then the scales."""
        n, waves, maps = len(self.embedded), self.frequencies, self.size - 1
        block = flat[: n * self.row].reshape(n, self.row)
        weights = block[:, 2 * waves : (2 + maps) * waves].reshape(n, maps, waves)
        scale = flat[n * self.row :]
        return StageViews(block[:, :waves], block[:, waves : 2 * waves], weights, block[:, (2 + maps) * waves :], scale)


class StageViews(NamedTuple):
    """The numbers that an input stage learns, for E embedded inputs: frequencies and phases [E, J], weights [E, size - 1, J] and
    biases [E, size - 1] of its linear maps, and the scale [outputs] (empty where there is none)."""

    frequencies: NDArray
    phases: NDArray
    weights: NDArray
    biases: NDArray
    scale: NDArray


@dataclass(frozen=True)
class Architecture:
    """What the engine must know of a model: everything but the numbers that are learned.

    layers : sizes of all layers, inputs first and outputs last; with an input stage, its outputs come second
    hidden : the activation of each hidden layer
    loss : what is minimised, as a function of the last layer's raw outputs
    dtype : of parameters and arithmetic
    stage : what stands before the first layer with weights
    """

    layers: tuple[int, ...]
    hidden: tuple[Unit, ...]
    loss: LossTerm
    dtype: np.dtype
    stage: InputStage | None = None

    @property
    def dense(self) -> tuple[int, ...]:
        """Sizes of the layers that have weights, from what the first one reads on."""
        return self.layers if self.stage is None else self.layers[1:]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each layer, an input stage included."""
        return list(itertools.pairwise(self.layers))

    @property
    def n_parameters(self) -> int:
        """How many numbers are learned."""
        stage = 0 if self.stage is None else self.stage.n_parameters(self.layers[0])
        return n_parameters(self.dense) + stage

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Where (weights, biases) of each layer start in the flat buffer.

        An input stage's numbers come last: those of its embedding, then its scales (-1 where it has none).
        """
        if self.stage is None:
            return offsets(self.layers)
        first = n_parameters(self.dense)
        scales = first + len(self.stage.embedded) * self.stage.row if self.stage.scaled else -1
        return [(first, scales), *offsets(self.dense)]

    @property
    def work_per_row(self) -> int:
        """Multiply-adds of a row's way through all layers."""
        stage = 0 if self.stage is None else self.stage.work
        return stage + sum(n_in * n_out for n_in, n_out in itertools.pairwise(self.dense))

    def stage_views(self, flat: NDArray) -> StageViews | None:
        """The input stage's part of a flat buffer, as views of it; None where there is no stage."""
        return None if self.stage is None else self.stage.views(flat[self.offsets[0][0] :])


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
