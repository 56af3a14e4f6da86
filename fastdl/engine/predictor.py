"""Prediction: the forward pass over any number of rows, in chunks that go through all layers while they are in the cache.

What else a prediction has to do with its rows happens on the way, where it costs no pass over memory: the inputs are looked
through for NaN and infinity, and classes are picked from raw outputs in the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numba.core import types
from numpy.typing import NDArray

from fastdl.engine.arrays import (
    I64,
    INTS_1,
    INTS_2,
    SOURCE,
    floats_1,
    floats_2,
    floats_3,
    network_arrays,
    stored_arrays,
)
from fastdl.engine.boundary import check, check_inputs
from fastdl.engine.compile import for_arithmetic, for_network, for_prediction, for_sparse
from fastdl.engine.forward import forward
from fastdl.engine.input_stage import embed, has_stage
from fastdl.engine.plan import FEWEST_ROWS, Layout
from fastdl.engine.source import arguments_of, for_source, read_rows
from fastdl.engine.sparse import sparse_forward
from fastdl.engine.structs import (
    N_IN,
    N_OUT,
    STRIDE,
    Matrix,
    Source,
    Stored,
    network_of,
    plan_of,
    source_of,
    stored_of,
)
from fastdl.engine.thread_tuner import CallLength, threads_for
from fastdl.sparse import SparseRows
from fastdl.stored import Inputs, StoredRows
from fastdl_kernels.serial import FLOAT32, TILE_ROWS, jit, job_block, n_jobs, native, noinline, run_jobs
from fastdl_kernels.simd import (
    broadcast,
    first_lanes,
    first_true,
    flush_subnormals,
    fma,
    hmax,
    hsum,
    is_null,
    lanes_of,
    like,
    load,
    load_up_to,
    maximum,
    null,
    number_like,
    pointer,
    restore_mode,
    select,
)

# Rows of a chunk of prediction: enough for a tile to use its panel of weights many times.
CHUNK_ROWS = 192
NO_CLASSES = np.zeros(0, np.int64)


@jit
def is_finite(data, n):
    """Whether data[:n] has neither NaN nor infinity: times 0, nothing else is 0."""
    noinline()
    lanes = lanes_of(data)
    zero = broadcast(number_like(data[0], 0))
    a, b, c, d = zero, zero, zero, zero
    i = 0
    while i + 4 * lanes <= n:
        a = fma(load(data, i), zero, a)
        b = fma(load(data, i + lanes), zero, b)
        c = fma(load(data, i + 2 * lanes), zero, c)
        d = fma(load(data, i + 3 * lanes), zero, d)
        i += 4 * lanes
    while i < n:
        a = fma(load_up_to(data, i, n - i), zero, a)
        i += lanes
    return hsum((a + b) + (c + d)) == 0.0


@jit
def argmax(row, n):
    """Where the greatest of row[:n] is: the first of equals, or the first NaN, as `numpy.argmax` says."""
    lanes = lanes_of(row)
    lowest = like(broadcast(row[0]), -np.inf)
    top = lowest
    for i in range(0, n, lanes):
        v = load_up_to(row, i, n - i)
        v = select(first_lanes(v, n - i), v, lowest)
        nan = first_true(v != v)
        if nan < lanes:
            return i + nan
        top = maximum(top, v)
    top_number = broadcast(hmax(top))
    for i in range(0, n, lanes):
        where = first_true(load_up_to(row, i, n - i) == top_number)
        if where < min(lanes, n - i):
            return i + where
    return 0


@jit
def _predict_chunk(c, chunk, network, data, stored, source, n_rows, work, room, raw, picks, classes):
    """All layers for one chunk of rows; work holds the layers by turns, `room` numbers apart, the rows of a `source` where the
    second layer will be. Are its inputs finite?
    """
    noinline()
    first = c * chunk
    rows = min(chunk, n_rows - first)
    last = network.n_layers - 1
    no_mask, no_z = np.uint64(0), null(network.alphas[0])  # a prediction drops no units and keeps no z
    n_inputs = plan_of(network, 0)[N_IN]
    below = Matrix(pointer(data, first * n_inputs), n_inputs)
    if source.n_parts:
        below = Matrix(pointer(work, room), n_inputs)
        read_rows(below, source, null(first), first, first + rows, n_rows)
    is_sparse = not is_null(stored.starts)
    finite = is_sparse or is_finite(below.data, rows * n_inputs)
    for layer in range(network.n_layers):
        plan = plan_of(network, layer)
        n_out = plan[N_OUT]
        above = pointer(work, layer % 2 * room)
        if layer == last and not picks:
            above = pointer(raw, first * n_out)
        if layer == 0 and is_sparse:
            sparse_forward((0, rows, 0, n_out), network, stored, null(first), first, above, no_z, no_mask)
        embeds = layer == 0 and has_stage(network)
        if embeds:
            embed(0, rows, network, below, above, no_z)
        for job in range(0 if embeds or (layer == 0 and is_sparse) else n_jobs(rows, n_out, network.itemsize, 1)):
            forward(job_block(job, rows, n_out, network.itemsize, 1), network, layer, below, above, no_z, no_mask)
        below = Matrix(above, plan[STRIDE])
    if picks:
        for row in range(rows):
            classes[first + row] = argmax(pointer(below.data, row * below.stride), plan_of(network, last)[N_OUT])
    return finite


@jit
def _predict_chunks(t, n_threads, chunk, network, data, stored, source, n_rows, work, room, raw, picks, classes):
    own = pointer(work, 2 * t * room)
    finite = True
    mode = flush_subnormals()
    for c in range(t, (n_rows + chunk - 1) // chunk, n_threads):
        finite &= _predict_chunk(c, chunk, network, data, stored, source, n_rows, own, room, raw, picks, classes)
    restore_mode(mode)
    own[0] = number_like(own[0], 1 if finite else 0)  # the answer, in a place that only this thread writes to


def _signature(x: types.Type) -> tuple[types.Type, ...]:
    return (I64, I64, INTS_2, floats_1(x), floats_1(x), floats_2(x), floats_3(x), floats_2(x), INTS_1)


def _sparse_signature(x: types.Type) -> tuple[types.Type, ...]:
    return (I64, I64, network_arrays(x), stored_arrays(x), floats_3(x), floats_2(x), INTS_1)


@native(_signature)
def predict_chunks(n_threads, chunk, plan, alphas, parameters, data, work, raw, classes):
    """raw [N, O] = outputs of the last layer for all N rows of data, or classes [N] = their greatest outputs.

    What is not wanted is empty. work [n_threads, 2, chunk * widest] is scratch. Returns whether all of the data are finite;
    where they are not, results mean nothing.
    """
    nothing = Stored(null(n_threads), null(np.int32(0)), null(parameters[0]))
    run_jobs(
        _predict_chunks, n_threads, n_threads > 1,
        (
            n_threads, chunk, network_of(plan, alphas, parameters), pointer(data, 0), nothing, _no_source(n_threads),
            data.shape[0], pointer(work, 0), work.shape[2], pointer(raw, 0), classes.size > 0, pointer(classes, 0),
        ),
    )  # fmt: skip
    return _all_said_yes(n_threads, work)


@jit
def _no_source(n):
    """Rows that are read as they are."""
    return Source(null(n), 0, null(1.0), null(1.0), null(1.0), null(1.0))


@jit
def _all_said_yes(n_threads, work):
    finite = True
    for t in range(n_threads):
        finite &= work[t, 0, 0] != 0.0
    return finite


@native(lambda x: (I64, I64, network_arrays(x), SOURCE, I64, floats_3(x), floats_2(x), INTS_1))
def predict_stored_chunks(n_threads, chunk, network, source, n_rows, work, raw, classes):
    """The same for rows that are converted as they are read: network is (plan, alphas, parameters), source as `source_of` takes
    it; work is wide enough for the inputs as well.
    """
    plan, alphas, parameters = network
    nothing = Stored(null(n_threads), null(np.int32(0)), null(parameters[0]))
    run_jobs(
        _predict_chunks, n_threads, n_threads > 1,
        (
            n_threads, chunk, network_of(plan, alphas, parameters), pointer(raw, 0), nothing, source_of(source), n_rows,
            pointer(work, 0), work.shape[2], pointer(raw, 0), classes.size > 0, pointer(classes, 0),
        ),
    )  # fmt: skip
    return _all_said_yes(n_threads, work)


@native(_sparse_signature)
def predict_sparse_chunks(n_threads, chunk, network, data, work, raw, classes):
    """The same for sparse rows, whose numbers are finite: network is (plan, alphas, parameters), data (starts, columns,
    values)."""
    run_jobs(
        _predict_chunks, n_threads, n_threads > 1,
        (
            n_threads, chunk, network_of(network[0], network[1], network[2]), pointer(data[2], 0),
            stored_of(data[0], data[1], data[2]), _no_source(n_threads), data[0].size - 1, pointer(work, 0), work.shape[2],
            pointer(raw, 0), classes.size > 0, pointer(classes, 0),
        ),
    )  # fmt: skip


def _predict_sparse(
    n_threads: int, chunk: int, plan: NDArray, alphas: NDArray, parameters: NDArray, x: SparseRows, work: NDArray,
    raw: NDArray, classes: NDArray[np.int64],
) -> bool:  # fmt: skip
    """`predict_chunks` for sparse rows."""
    data = x.starts, x.columns, x.values
    predict_sparse_chunks.of(x.values.dtype)(n_threads, chunk, (plan, alphas, parameters), data, work, raw, classes)
    return True


def _predict_stored(
    n_threads: int, chunk: int, plan: NDArray, alphas: NDArray, parameters: NDArray, x: StoredRows, work: NDArray,
    raw: NDArray, classes: NDArray[np.int64],
) -> bool:  # fmt: skip
    """`predict_chunks` for rows that are converted as they are read."""
    return predict_stored_chunks.of(raw.dtype)(
        n_threads, chunk, (plan, alphas, parameters), arguments_of(x), len(x), work, raw, classes
    )  # fmt: skip


class Predictor:
    """Predictions with one network's parameters."""

    def __init__(self, layout: Layout, parameters: NDArray) -> None:
        architecture = layout.architecture
        self._layout, self._parameters = layout, parameters
        self._few_plan = layout.plan(1, trains=False)
        self.arithmetic = FLOAT32
        self._n_inputs, self._n_outputs, self._dtype = (
            architecture.layers[0],
            architecture.layers[-1],
            architecture.dtype,
        )
        self._shape = (architecture.n_parameters,)
        self._widest = max(layout.strides[1:])
        self._work_per_row = architecture.work_per_row
        self._no_raw = np.empty((0, 0), self._dtype)
        self._chunks: Callable[..., bool] | None = None
        self._length = CallLength()  # in rounds of a chunk for each thread

    @property
    def arithmetic(self) -> int:
        """What the products of large layers are done in, for calls of FEWEST_ROWS rows or more."""
        return self._arithmetic

    @arithmetic.setter
    def arithmetic(self, arithmetic: int) -> None:
        for_arithmetic(arithmetic)
        self._arithmetic = arithmetic
        is_usual = arithmetic == FLOAT32
        self._plan = self._few_plan if is_usual else self._layout.plan(1, trains=False, arithmetic=arithmetic)

    def outputs(self, x: Inputs, n_threads: int | str = "auto") -> tuple[NDArray, bool]:
        """(raw outputs [N, O] of inputs [N, I], whether the inputs are finite: they mean nothing where they are not)."""
        raw = np.empty((len(x), self._n_outputs), self._dtype)
        return raw, self._predict(x, raw, NO_CLASSES, n_threads)

    def classes(self, x: Inputs) -> tuple[NDArray[np.int64], bool]:
        """(which raw output is the greatest [N], whether the inputs are finite)."""
        classes = np.empty(len(x), np.int64)
        return classes, self._predict(x, self._no_raw, classes, "auto")

    def _predict(self, x: Inputs, raw: NDArray, classes: NDArray[np.int64], n_threads: int | str) -> bool:
        """Fill `raw`, or `classes` where it is not empty."""
        predict = self._chunks or self.prepare()
        rows = len(x)
        check_inputs("x", x, self._dtype, (rows, self._n_inputs))
        check("parameters", self._parameters, self._dtype, self._shape)
        plan = self._few_plan if rows < FEWEST_ROWS else self._plan
        arguments = plan, self._layout.alphas, self._parameters
        per_row, widest = self._work_per_row, self._widest
        if isinstance(x, StoredRows):
            for_source(x)
            predict, widest = _predict_stored, max(widest, self._n_inputs)
        if isinstance(x, SparseRows):
            for_sparse(self._layout.architecture, trains=False)
            predict = _predict_sparse
            per_row -= (self._n_inputs - len(x.values) // max(1, rows)) * self._layout.architecture.layers[1]
        if rows <= CHUNK_ROWS:  # a short way: a single row takes a few microseconds in all
            work = np.empty((1, 2, max(1, rows) * widest), self._dtype)
            return predict(1, max(1, rows), *arguments, x, work, raw, classes)
        threads = min(threads_for(rows * per_row, n_threads), -(-rows // CHUNK_ROWS))
        # Equal chunks, as many for each thread.
        rounds = -(-rows // (threads * CHUNK_ROWS))
        chunk = -(-rows // (rounds * threads * TILE_ROWS)) * TILE_ROWS
        work = np.empty((threads, 2, chunk * widest), self._dtype)
        done, finite = 0, True
        while done < rows and finite:
            count = self._length.count
            part = slice(done, done + count * threads * chunk)
            start = time.perf_counter()
            inputs = x[part] if isinstance(x, np.ndarray) else x.part(part)
            finite = predict(threads, chunk, *arguments, inputs, work, raw[part], classes[part])
            self._length.took(count, time.perf_counter() - start)
            done = part.stop
        return finite

    def prepare(self) -> Callable[..., bool]:
        """Have the compiled code ready, and return what native calls go to.

        It is called as it is: Numba's look at the types of all arguments takes as long as the check does.
        """
        if self._chunks is not None:
            return self._chunks
        for_prediction(self._dtype)
        for_network(self._layout.architecture)
        self._chunks = predict_chunks.of(self._dtype)
        return self._chunks
