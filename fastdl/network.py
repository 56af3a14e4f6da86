"""The shape of a network: layer sizes, where each layer's numbers lie in one flat buffer, and views of such a buffer."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CACHE_LINE = 64  # bytes


class Unit(NamedTuple):
    """An activation as compiled code takes it: its code, its parameter (0 where it has none), and whether it is parametric: then
    each unit of its layer has a number of its own that is learnt."""

    code: int
    alpha: float = 0.0
    parametric: bool = False


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


class Terms(enum.IntEnum):
    """The functions of a number that the linear maps of an embedding take: cosines with phases, cosines and sines, or pieces.

    With COSINES the number itself stands beside the maps.
    """

    COSINES = 0
    WAVES = 1
    PIECES = 2


# Multiply-adds that such a function takes, and its share of the gradient: a cosine also needs a sine there.
TERM_WORK = {Terms.COSINES: 16, Terms.WAVES: 16, Terms.PIECES: 3}


@dataclass(frozen=True)
class InputStage:
    """What becomes of inputs before the first layer: some are embedded, and each output is multiplied by a learnt scale.

    Outputs are the `size` numbers of each embedded input, in the order of `embedded`, then the other inputs in theirs, but for
    categories, then the `category_size` numbers of each of these.

    embedded : which inputs
    count : frequencies or pieces of each of them
    size : numbers that each of them becomes
    scaled : whether there are scales
    terms : functions of a number that the linear maps take
    categories : (input, rows of its table) of inputs that are codes of categories, in the order of the inputs
    category_size : numbers of such a row
    """

    embedded: tuple[int, ...]
    count: int
    size: int
    scaled: bool
    terms: Terms = Terms.COSINES
    categories: tuple[tuple[int, int], ...] = ()
    category_size: int = 0

    @property
    def starts(self) -> list[int]:
        """Where the table of each category starts, in rows of all tables, and where the last one ends."""
        return list(itertools.accumulate((rows for _, rows in self.categories), initial=0))

    @property
    def n_table_numbers(self) -> int:
        """How many numbers all tables have."""
        return self.starts[-1] * self.category_size

    @property
    def n_terms(self) -> int:
        """How many numbers the linear maps of an input take."""
        return self.count * (2 if self.terms == Terms.WAVES else 1)

    @property
    def n_maps(self) -> int:
        """How many linear maps an input has."""
        return self.size - 1 if self.terms == Terms.COSINES else self.size

    @property
    def row(self) -> int:
        """How many numbers are learnt for an embedded input."""
        own = {Terms.COSINES: 2, Terms.WAVES: 1, Terms.PIECES: 0}[self.terms] * self.count
        return own + (self.n_terms + 1) * self.n_maps if self.embedded else 0

    @property
    def n_edges(self) -> int:
        """How many ends of pieces there are: they stand behind all that is learnt, and no step changes them."""
        return len(self.embedded) * (self.count + 1) if self.terms == Terms.PIECES else 0

    @property
    def work(self) -> int:
        """Multiply-adds of a row's way through the embedding."""
        work = len(self.embedded) * self.n_terms * (TERM_WORK[self.terms] + self.size)
        return work + len(self.categories) * self.category_size

    def n_outputs(self, n_inputs: int) -> int:
        """How many numbers so many inputs become."""
        return n_inputs + len(self.embedded) * (self.size - 1) + len(self.categories) * (self.category_size - 1)

    def n_parameters(self, n_inputs: int) -> int:
        """How many numbers there are: those that are learnt, and edges."""
        scales = self.n_outputs(n_inputs) if self.scaled else 0
        return len(self.embedded) * self.row + scales + self.n_table_numbers + self.n_edges

    def order(self, n_inputs: int) -> list[int]:
        """All inputs in the order of their outputs."""
        codes = [column for column, _ in self.categories]
        return [*self.embedded, *sorted(set(range(n_inputs)) - {*self.embedded, *codes}), *codes]

    def views(self, flat: NDArray) -> StageViews:
        """Views of a buffer that holds what stands here: a row for each embedded input, the scales, the tables, the edges."""
        n, maps, terms = len(self.embedded), self.n_maps, self.n_terms
        edges_at = flat.size - self.n_edges
        block, scale, tables, edges = np.split(flat, [n * self.row, edges_at - self.n_table_numbers, edges_at])
        frequencies, phases, weights, biases = np.split(
            block.reshape(n, self.row), self._starts if n else [0, 0, 0], axis=1
        )
        return StageViews(
            frequencies,
            phases,
            weights.reshape(n, maps, terms),
            biases,
            scale,
            edges.reshape(n, -1 if self.n_edges else 0),
            tables.reshape(-1, self.category_size) if self.categories else tables.reshape(0, 0),
        )

    @property
    def _starts(self) -> list[int]:
        """Where phases, weights and biases of an input's row start."""
        frequencies = 0 if self.terms == Terms.PIECES else self.count
        phases = self.count if self.terms == Terms.COSINES else 0
        weights = frequencies + phases
        return [frequencies, weights, weights + self.n_maps * self.n_terms]


class StageViews(NamedTuple):
    """The numbers of an input stage with E embedded inputs: frequencies and phases [E, J], weights [E, maps, terms] and biases
    [E, maps] of its linear maps, the scale [outputs], edges of pieces [E, T + 1], and the tables of all categories, one below the
    other [rows, category_size]; empty is what it has not."""

    frequencies: NDArray
    phases: NDArray
    weights: NDArray
    biases: NDArray
    scale: NDArray
    edges: NDArray
    tables: NDArray

    def cosines(self) -> tuple[NDArray, NDArray]:
        """(frequencies, phases) [E, terms] with which all terms are cosines: sin t = cos(t - π/2)."""
        if self.phases.size:
            return self.frequencies, self.phases
        quarter = np.full_like(self.frequencies, -np.pi / 2)
        twice = np.concatenate([self.frequencies, self.frequencies], axis=1)
        return twice, np.concatenate([np.zeros_like(quarter), quarter], axis=1)

    def pieces(self) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """(starts [E, T], slopes [E, T], least [T], most [T]): a term is (x - start) * slope, and within these bounds."""
        starts, widths = self.edges[:, :-1], np.diff(self.edges, axis=1)
        slopes = np.divide(1, widths, out=np.zeros_like(widths), where=widths > 0)
        least, most = np.zeros(starts.shape[1], starts.dtype), np.ones(starts.shape[1], starts.dtype)
        least[:1], most[-1:] = -np.inf, np.inf
        return starts, slopes, least, most

    def terms(self, x: NDArray) -> NDArray:
        """What the linear maps take [N, E, terms] of embedded columns [N, E], in the precision of both."""
        x = x[:, :, None]
        if self.edges.size:
            starts, slopes, least, most = self.pieces()
            return np.clip((x - starts) * slopes, least, most)
        frequencies, phases = self.cosines()
        return np.cos(x.dtype.type(2 * np.pi) * frequencies * x + phases)

    def looked_up(self, codes: NDArray, starts: Sequence[int]) -> NDArray:
        """The rows [N, C * category_size] of codes [N, C]; starts are `InputStage.starts`. What is no code has row 0."""
        known = (codes >= 1) & (codes < np.diff(starts)) & (codes == np.floor(codes))
        rows = np.where(known, codes, 0).astype(np.int64) + np.array(starts[:-1], np.int64)
        return self.tables[rows].reshape(len(codes), -1)


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
        return self._stage_at + stage

    @property
    def unit_alphas(self) -> list[tuple[int, int]]:
        """(where the units' own numbers start, how many) of each hidden layer, behind all weights and biases."""
        found, at = [], n_parameters(self.dense)
        for unit, size in zip(self.hidden, self.dense[1:-1], strict=True):
            found.append((at, size if unit.parametric else 0))
            at += found[-1][1]
        return found

    @property
    def _stage_at(self) -> int:
        """Where an input stage's numbers start."""
        return n_parameters(self.dense) + sum(count for _, count in self.unit_alphas)

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Where (weights, biases) of each layer start in the flat buffer.

        An input stage's numbers come last: those of its embedding, its scales (-1 where it has none), tables and edges.
        """
        if self.stage is None:
            return offsets(self.layers)
        first = self._stage_at
        scales = first + len(self.stage.embedded) * self.stage.row if self.stage.scaled else -1
        return [(first, scales), *offsets(self.dense)]

    @property
    def work_per_row(self) -> int:
        """Multiply-adds of a row's way through all layers."""
        stage = 0 if self.stage is None else self.stage.work
        return stage + sum(n_in * n_out for n_in, n_out in itertools.pairwise(self.dense))

    def alpha_views(self, flat: NDArray) -> tuple[NDArray, ...]:
        """The units' own numbers of each hidden layer in a flat buffer, as views of it; empty where a layer has none."""
        return tuple(flat[at : at + count] for at, count in self.unit_alphas)

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
