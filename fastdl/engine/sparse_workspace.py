"""What steps on sparse inputs need besides: batches by column, and how far each row of the first layer's weights has come."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.engine import structs
from fastdl.engine.arrays import (
    I64,
    NUMBERS_1,
    NUMBERS_2,
    data_arrays,
    network_arrays,
    places_arrays,
    sparse_arrays,
    update_arrays,
)
from fastdl.engine.sparse import NUMBERS_AT_ONCE, RATE_COLUMNS, catch_up_block, rows_of_weights
from fastdl.engine.sparse_batch import COUNTERS, sparse_of, turn_all
from fastdl.engine.structs import Batches, Update, network_of, rows_of, source_of
from fastdl.engine.update import step_rates
from fastdl.network import Architecture
from fastdl.sparse import SparseRows
from fastdl_kernels.serial import jit, native, run_jobs
from fastdl_kernels.simd import flush_subnormals, pointer, restore_mode

# Rows of weights that a thread takes at a time in the last catching up.
_BLOCK = 256

# For tests: update all rows of weights in each step, as if they were not sparse.
ALWAYS_EAGER = False


def turned_batch(places: int, numbers: int, dtype: np.dtype) -> tuple[NDArray, ...]:
    """Memory for so many batches by column: counts, columns, first, rows, values; see `structs.ByColumn`."""
    room = numbers + 1
    return (
        np.zeros((places, 1), np.int64), np.zeros((places, room), np.int32), np.zeros((places, room), np.int64),
        np.zeros((places, room), np.int32), np.zeros((places, room), dtype),
    )  # fmt: skip


class SparseWorkspace:
    """What is the same for all epochs on the same rows, in batches of so many; 0: one batch, of all rows as they stand."""

    def __init__(self, architecture: Architecture, x: SparseRows, batch_size: int) -> None:
        dtype, n_in = architecture.dtype, architecture.layers[0]
        self.x, self.batch_size = x, batch_size
        self.mode, self._steps = structs.EAGER, 0
        self._counts = np.zeros(COUNTERS, np.int64)
        self._stored = x.starts, x.columns, x.values
        if batch_size == 0:
            self._scratch = turned_batch(1, 0, dtype)
            if x.turned is None:
                x.turned = turned_batch(1, len(x.values), dtype)
                scratch = turned_batch(1, len(x.values), dtype)
                turn_all.of(dtype)(n_in, *self._stored, x.turned, scratch, self._counts)
            self._batches = x.turned
        else:
            longest = np.sort(x.lengths)[-batch_size:]
            numbers = int(longest.sum())
            self._batches, self._scratch = turned_batch(2, numbers, dtype), turned_batch(1, numbers, dtype)
        self._done = np.zeros(n_in, np.int64)
        self._zeros = np.zeros(max(architecture.layers[1], NUMBERS_AT_ONCE), dtype)
        self._rates = np.zeros((0, RATE_COLUMNS))

    def begin(
        self, table: NDArray, sizes: tuple[int, int], code: int, hyper: NDArray, first_update: int, done: int
    ) -> None:
        """An epoch begins: its step table, (rows, rows of a batch), and the optimizer's code, numbers and count of updates; or
        it goes on after `done` steps, which all weights have caught up with."""
        self._done[:] = done
        self._steps = len(table)
        if code == structs.NO_UPDATE or hyper[structs.CLIP] > 0 or ALWAYS_EAGER:
            self.mode = structs.EAGER
            return
        idle = code == structs.SGD and not table[:, structs.STEP_L2].any()
        self.mode = structs.IDLE if idle else structs.LAZY
        if len(self._rates) != len(table):
            self._rates = np.zeros((len(table), RATE_COLUMNS))
        fill_rates.of(self._zeros.dtype)(hyper, table, first_update, *sizes, self._rates)

    def catch_up(self, arguments: tuple[Any, ...], steps: int | None) -> None:
        """All rows of weights catch up with the first `steps` steps of the epoch, or with the one that is furthest (None).

        `arguments` are those of a native call.
        """
        if self.mode == structs.EAGER:
            return
        team, network, _, update, data, places, sparse = arguments[:7]
        upto = int(self._done.max()) if steps is None else steps
        catch_up_all.of(self._zeros.dtype)(team[1], network, update, data, places, sparse, upto)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """As `sparse_batch.sparse_of` takes them."""
        return (
            self.mode, self._stored, self._batches, self._scratch, self._counts, self._done, self._rates, self._zeros
        )  # fmt: skip


def no_sparse(dtype: np.dtype) -> tuple[Any, ...]:
    """The same where inputs are dense."""
    nothing = turned_batch(0, 0, dtype)
    stored = np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, dtype)
    numbers = np.zeros(0, np.int64)
    return structs.DENSE, stored, nothing, nothing, numbers, numbers, np.zeros((0, RATE_COLUMNS)), np.zeros(0, dtype)


@native(lambda x: (NUMBERS_1, NUMBERS_2, I64, I64, I64, NUMBERS_2))
def fill_rates(hyper, table, first_update, n_rows, size, rates):
    """rates [steps, 7] of the steps of an epoch of n_rows rows: see `sparse.RATE_COLUMNS`."""
    numbers = pointer(hyper, 0)
    for step in range(table.shape[0]):
        r = step_rates(numbers, pointer(table, step * structs.STEP_COLUMNS), first_update + step)
        rates[step, 0], rates[step, 1], rates[step, 2], rates[step, 3], rates[step, 4], rates[step, 5] = r
        rates[step, 6] = 0.5 * r[3] * min(size, n_rows - step * size)


@jit
def _catch_up_job(job, n_jobs, network, update, batches, steps):
    rows = rows_of_weights(network)
    mode = flush_subnormals()
    for first in range(job * _BLOCK, rows, n_jobs * _BLOCK):
        catch_up_block(first, min(rows, first + _BLOCK), network, update, batches, steps)
    restore_mode(mode)


@native(
    lambda x: (
        I64, network_arrays(x), update_arrays(x), data_arrays(x), places_arrays(x), sparse_arrays(x), I64
    )
)  # fmt: skip
def catch_up_all(n_threads, network, update, data, places, sparse, steps):
    """All rows of weights catch up with the first `steps` steps; the other arguments are those of `step.train_batches`."""
    code, hyper, state1, state2, gradient, squares, partial, row_squares = update
    size, order, inputs, labels, targets, weights, source = data
    x, y_labels, y_targets, y_weights = places
    run_jobs(
        _catch_up_job, n_threads, n_threads > 1,
        (
            n_threads,
            network_of(network[0], network[1], network[2]),
            Update(
                code, pointer(hyper, 0), pointer(state1, 0), pointer(state2, 0), pointer(gradient, 0), 0,
                pointer(squares, 0), pointer(partial, 0), partial.shape[0], partial.shape[1], pointer(row_squares, 0),
                row_squares.size > 0, 0, 0,
            ),
            Batches(
                size, pointer(order, 0), order.size, rows_of(inputs, labels, targets, weights),
                rows_of(x[0], y_labels[0], y_targets[0], y_weights[0]), x.shape[0], sparse_of(sparse),
                source_of(source),
            ),
            steps,
        ),
    )  # fmt: skip
