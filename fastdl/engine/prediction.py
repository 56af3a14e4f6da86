"""The compiled forward pass over any number of rows, in chunks that go through all layers while they are in the cache.

What else a prediction has to do with its rows happens on the way, where it costs no pass over memory: the inputs are looked
through for NaN and infinity, and of raw outputs in the cache the greatest is picked.
"""

from __future__ import annotations

import numpy as np

from fastdl.engine.layout import N_IN, N_OUT, STRIDE
from fastdl.engine.phases import forward
from fastdl.engine.views import net_of, plan_of
from fastdl_kernels.serial import entry, jit, job_block, n_jobs, noinline, run_jobs
from fastdl_kernels.simd import (
    broadcast,
    first_lanes,
    first_true,
    flush_subnormals,
    fma,
    hmax,
    hsum,
    lanes_of,
    like,
    load,
    load_up_to,
    maximum,
    number_like,
    pointer,
    restore_mode,
    select,
)


@jit
def _is_finite(data, n):
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
def _greatest(row, n):
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
    greatest = broadcast(hmax(top))
    for i in range(0, n, lanes):
        where = first_true(load_up_to(row, i, n - i) == greatest)
        if where < min(lanes, n - i):
            return i + where
    return 0


@jit
def _predict_chunk(c, chunk, net, data, n_rows, work, room, raw, picks, classes):
    """All layers for one chunk of rows; work holds the layers by turns, `room` numbers apart. Are its inputs finite?"""
    noinline()
    first = c * chunk
    rows = min(chunk, n_rows - first)
    last = net.n_layers - 1
    nothing = np.uint64(0)  # no layer of this plan drops units
    n_inputs = plan_of(net, 0)[N_IN]
    below, below_stride = pointer(data, first * n_inputs), n_inputs
    finite = _is_finite(below, rows * n_inputs)
    for layer in range(net.n_layers):
        plan = plan_of(net, layer)
        n_out = plan[N_OUT]
        above = pointer(work, layer % 2 * room)
        if layer == last and not picks:
            above = pointer(raw, first * n_out)
        for job in range(n_jobs(rows, n_out, net.itemsize, 1)):
            forward(job_block(job, rows, n_out, net.itemsize, 1), net, layer, below, below_stride, above, nothing)
        below, below_stride = above, plan[STRIDE]
    if picks:
        for row in range(rows):
            classes[first + row] = _greatest(pointer(below, row * below_stride), plan_of(net, last)[N_OUT])
    return finite


@jit
def _predict_chunks(t, n_threads, chunk, net, data, n_rows, work, room, raw, picks, classes):
    own = pointer(work, 2 * t * room)
    finite = True
    mode = flush_subnormals()
    for c in range(t, (n_rows + chunk - 1) // chunk, n_threads):
        finite &= _predict_chunk(c, chunk, net, data, n_rows, own, room, raw, picks, classes)
    restore_mode(mode)
    own[0] = number_like(own[0], 1 if finite else 0)  # the answer, in a place that only this thread writes to


@entry
def predict_chunks(n_threads, chunk, plan, alphas, params, data, work, raw, classes):
    """raw [N, O] = outputs of the last layer for all N rows of data, or classes [N] = their greatest outputs.

    What is not wanted is empty. work [n_threads, 2, chunk * widest] is scratch. Returns whether all of the data are finite;
    where they are not, results mean nothing.
    """
    run_jobs(
        _predict_chunks, n_threads, n_threads > 1,
        (
            n_threads, chunk, net_of(plan, alphas, params), pointer(data, 0), data.shape[0], pointer(work, 0),
            work.shape[2], pointer(raw, 0), classes.size > 0, pointer(classes, 0),
        ),
    )  # fmt: skip
    finite = True
    for t in range(n_threads):
        finite &= work[t, 0, 0] != 0.0
    return finite
