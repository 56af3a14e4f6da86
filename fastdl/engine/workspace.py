"""Memory that the steps of a training work in, for batches of up to so many rows and each number of threads to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastdl.engine import structs
from fastdl.engine.dropout import UNITS
from fastdl.engine.plan import FEWEST_ROWS, Layout
from fastdl.engine.thread_tuner import CERTAIN, WORK_PER_PHASE, most_threads, tuner_for
from fastdl.engine.update import cut_updates
from fastdl.network import Architecture, aligned_zeros
from fastdl_kernels.serial import FLOAT32, STATE_SIZE, TILE_ROWS, job_rows

# As many multiply-adds as what a row of a batch takes besides the products: gathering, the loss, short passes (50 ns).
WORK_PER_ROW = 2_000
# The same for the update of a weight that has a gradient, which must be brought from memory with its states.
WORK_PER_WEIGHT = 10
# Bytes of the parameters and of a block of rows in all layers, together, up to which such a block goes through all layers in
# one job: an L2 of 512 KB holds them beside the optimizer's states. With 1,400 parameters a step on two threads took 0.75 to
# 0.95 of its time; with 30,000 or more, products shared out one by one were as fast or faster.
FUSED_BYTES = 128 * 1024
# Blocks of rows from which on each also takes its partial gradient, while its numbers are in the cache: these are added up
# instead of going through all rows once more. And the most partial gradients, which then stand for several blocks each.
FEWEST_PARTIAL, MOST_PARTIAL = 4, 32


@dataclass(frozen=True)
class Crew:
    """A number of threads, and how they share a step out: fused row blocks (0: none), and the plan."""

    n_threads: int
    row_blocks: int
    plan: NDArray[np.int64]


class Workspace:
    """All that a step writes to but parameters and states; nothing of it is worth keeping between two calls.

    Parameters
    ----------
    layout : of the network
    parameters : only their dtype and size count
    batch_size : the most rows of a batch
    n_threads : "auto" or their number
    clips : whether the norm of the gradient is limited
    whole : whether all of the gradient is wanted in `gradient`
    penalised : whether the squares of weights are added up, row by row
    clocked : whether ticks are counted in `ticks` [threads, kinds]: see `structs.FORWARD` and what follows it
    arithmetic : of the products of large layers, for batches that are not small
    stored : of sparse inputs, how many numbers a row has; 0: inputs are dense
    """

    def __init__(
        self,
        layout: Layout,
        parameters: NDArray,
        batch_size: int,
        n_threads: int | str,
        clips: bool,
        whole: bool,
        clocked: bool,
        penalised: bool,
        arithmetic: int = FLOAT32,
        stored: int = 0,
    ) -> None:
        architecture, dtype = layout.architecture, layout.architecture.dtype
        arithmetic = arithmetic if batch_size >= FEWEST_ROWS else FLOAT32
        widths, n_parameters = sum(layout.strides[1:]), architecture.n_parameters
        self.batch_size, self.layout = batch_size, layout
        most_rows = job_rows.py_func(dtype.itemsize) - TILE_ROWS
        numbers = min(batch_size, most_rows) * (widths + layout.numbers_per_row)
        fused = (n_parameters + numbers) * dtype.itemsize <= FUSED_BYTES
        blocks = -(-batch_size // most_rows)
        n_partial = min(blocks, MOST_PARTIAL) if fused and blocks >= FEWEST_PARTIAL else 0
        is_plain = architecture.stage is None and not any(unit.parametric for unit in architecture.hidden)
        n_partial = n_partial if is_plain and not stored else 0
        self.stored = stored
        self.phases = 2 if fused else 2 * (len(architecture.layers) - 1)
        self.work = work_of(architecture, batch_size)
        if stored:
            n_in, n_out = architecture.pairs[0]
            self.work -= batch_size * (3 * n_in - (2 + WORK_PER_WEIGHT) * min(n_in, stored)) * n_out
        self.tuner = tuner_for(self.work, n_threads, self.phases)
        self.crews: list[Crew] = []
        room = jobs = 0
        for count in self.tuner.counts:
            # Two tiles of rows to a block are little enough; the boundaries between blocks are rounded to tiles.
            row_blocks = n_partial or max(min(count, batch_size // (2 * TILE_ROWS)), blocks) if fused else 0
            crew = Crew(count, row_blocks, layout.plan(batch_size, arithmetic=arithmetic))
            jobs, slot = cut_updates.of(dtype)(count, batch_size, clips, crew.plan, layout.alphas, parameters)
            room = max(room, slot * count)
            self.crews.append(crew)
        self._first_updates = [crew.plan[0, structs.UPDATES] for crew in self.crews]
        self.gradient = aligned_zeros(n_parameters if whole or clips else room, dtype)
        self.squares = np.zeros(jobs if clips else 0)
        self.row_squares = np.zeros(sum(architecture.layers[:-1]) if penalised else 0)
        size = -(-n_parameters // structs.SLOT_ROUND) * structs.SLOT_ROUND
        self.partial = aligned_zeros(n_partial * size, dtype).reshape(n_partial, size)
        self.ticks = np.zeros((self.tuner.counts[-1] if clocked else 0, structs.TICK_COLUMNS), np.int64)
        self.outputs = aligned_zeros(batch_size * layout.numbers_per_row, dtype)
        self.d_outputs = aligned_zeros(batch_size * widths, dtype)
        self.losses = np.zeros(-(-batch_size // TILE_ROWS))
        self.state = np.zeros(STATE_SIZE, np.int64)
        self.result = np.zeros(structs.RESULT_SIZE)
        self._places: tuple[NDArray, ...] = ()
        self._kinds: tuple[bool, bool, int, bool] | None = None  # of data that the places are for

    def cut_first(self, lazy: bool) -> None:
        """Whether the first layer of sparse inputs is updated by columns: then it is not cut into blocks."""
        for crew, updates in zip(self.crews, self._first_updates):
            crew.plan[0, structs.UPDATES] = 0 if lazy else updates

    def begin_at(self, row: int) -> None:
        """The first row of a batch counts as this one for dropout: other ranks have those before it."""
        for crew in self.crews:
            crew.plan[: len(self.layout.architecture.pairs), structs.ROWS_BEFORE] = row

    def drop(self, rates: Sequence[float]) -> None:
        """Set the dropout rate of each hidden layer; none are 0."""
        architecture = self.layout.architecture
        first, n_layers = int(architecture.stage is not None), len(architecture.pairs)
        for crew in self.crews:
            crew.plan[:n_layers, structs.DROP] = 0
            crew.plan[first : first + len(rates), structs.DROP] = [
                min(UNITS - 1, round(rate * UNITS)) for rate in rates
            ]

    def places(self, labels: NDArray, targets: NDArray, weights: NDArray) -> tuple[NDArray, ...]:
        """Two places by turns where batches of such data are gathered: (inputs, labels, targets, weights)."""
        rows, dtype = self.batch_size, self.layout.architecture.dtype
        kinds = labels.size > 0, targets.size > 0, targets.shape[1], weights.size > 0
        if self._kinds != kinds:
            self._places = (
                np.zeros((2, rows, 0 if self.stored else self.layout.strides[0]), dtype),
                np.zeros((2, rows if labels.size else 0), np.int64),
                np.zeros((2, rows if targets.size else 0, targets.shape[1]), dtype),
                np.zeros((2, rows if weights.size else 0), dtype),
            )
            self._kinds = kinds
        return self._places


def work_of(architecture: Architecture, batch_size: int) -> int:
    """Multiply-adds of a step on dense inputs, about."""
    return batch_size * (3 * architecture.work_per_row + WORK_PER_ROW)


def keeps_all_cores_busy(architecture: Architecture, batch_size: int) -> bool:
    """Whether a step has so much work on dense inputs that the thread tuner, on all cores, would not even try a single thread."""
    phases = 2 * (len(architecture.layers) - 1)
    return work_of(architecture, batch_size) > phases * WORK_PER_PHASE * CERTAIN * most_threads()
