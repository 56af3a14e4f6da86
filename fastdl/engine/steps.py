"""The compiled engine: many mini-batches in one call, by a team of threads.

A step goes through phases; the jobs of a phase write to separate places, and a barrier ends it:

    forward of layer 1, 2, ... L          bias and activation in the tile; the last one goes on to the loss of its rows
    backward of layer L                   d_z[L-1] = (d_z[L] @ W[L].T) * act'
    update of layer L, backward of L-1    d_W = a.T @ d_z, and at once the optimizer on the block just computed
    ...
    update of layers 2 and 1, next batch  rows of the next batch are gathered while the last gradients are computed

Rows have nothing to do with each other until their gradients are added up. Where the parameters and the numbers of a
batch in all layers fit into a core's cache together, there are two phases only:

    forward, loss and backward            a block of rows goes up and down through all layers
    update of all layers, next batch

With many blocks, each also takes its share of the gradient while its numbers are in the cache, and the updates add the shares
up, one after the other: they depend on the number of rows alone.

The network is data: sizes, offsets, activations, loss and optimizer are numbers in arrays, so that one compiled version
per dtype serves them all. A layer's gradient lives for as long as its block is in the cache: it has no place in memory.

Clipping by the global norm needs the whole gradient before the first update. Then the updates leave it in a flat buffer
with the sum of squares of each block, and one more phase runs the optimizer on the same blocks.
"""

from __future__ import annotations

import math

import numpy as np
from numba.core import types

from fastdl.engine.layout import (
    BACKWARD,
    CLIP,
    CLOCK_COLUMNS,
    FORWARD,
    GATHER,
    LAST_LOSS,
    LOSS_SUM,
    N_IN,
    N_OUT,
    OUTPUT,
    PENALTY_SUM,
    ROWS,
    SCALE,
    SLOT_ROUND,
    STEP_COLUMNS,
    STEP_L2,
    STEPS_DONE,
    STRIDE,
    TOTAL,
    UPDATE,
    UPDATES,
)
from fastdl.engine.phases import (
    add_share,
    backward,
    clipped_update,
    forward,
    gather,
    loss_rows,
    parts_of,
    penalty_sum,
    step_rates,
    update,
)
from fastdl.engine.views import (
    BOOL,
    I64,
    INTS,
    NUMBERS,
    Rule,
    net_of,
    net_type,
    plan_of,
    rows_of,
    rows_type,
    rule_type,
    skip,
)
from fastdl_kernels.serial import (
    SQUARED_ERROR,
    TILE_ROWS,
    barrier,
    check_in,
    claim,
    entry,
    first_job,
    grid,
    jit,
    job_block,
    job_rows,
    linked,
    mix,
    n_jobs,
    run_jobs,
    sum_of,
    ticks,
)
from fastdl_kernels.simd import flush_subnormals, pointer, restore_mode


@jit
def _start(clocked):
    """What `_stop` takes: the time, if somebody wants to know it."""
    return ticks() if clocked else 0


@jit
def _stop(clocked, clock, kind, start):
    """Add the time since `start` to the thread's time for this kind of job."""
    if clocked:
        clock[kind] += ticks() - start


@jit
def _factor(squares, blocks, limit):
    """What the gradient is multiplied by to have at most the norm `limit`; squares holds the sums of its blocks."""
    norm = math.sqrt(sum_of(squares, blocks))
    return limit / norm if norm > limit else (1.0 if norm <= limit else norm)  # a NaN stays one


@jit
def _inputs(net, layer, batch, outputs):
    """(what a layer reads, how far its rows are apart): the batch, or the outputs of the layer underneath."""
    if layer == 0:
        return batch.inputs, batch.n_inputs
    under = plan_of(net, layer - 1)
    return pointer(outputs, under[OUTPUT]), under[STRIDE]


@jit
def _chain_block(job, chains, rows):
    """(first row, one behind the last) of a block that goes through all layers: whole tiles, as even as they can be."""
    first = (job * rows // chains + TILE_ROWS // 2) // TILE_ROWS * TILE_ROWS
    stop = ((job + 1) * rows // chains + TILE_ROWS // 2) // TILE_ROWS * TILE_ROWS
    return min(first, rows), min(stop, rows) if job + 1 < chains else rows


@jit
def _updates(net, low, high):
    """Jobs of the updates of the layers low .. high."""
    jobs = 0
    for layer in range(low, high):
        jobs += plan_of(net, layer)[UPDATES]
    return jobs


@jit
def _update_of(job, net, low):
    """(layer, number of its update's block) of a job of the layers from `low` on."""
    layer = low
    while job >= plan_of(net, layer)[UPDATES]:
        job -= plan_of(net, layer)[UPDATES]
        layer += 1
    return layer, job


@linked(
    lambda x: (
        I64, INTS, I64, I64, net_type(x), rule_type(x), I64, NUMBERS, I64, I64, I64, I64, I64, INTS, I64,
        rows_type(x), rows_type(x), I64, I64, types.CPointer(x), types.CPointer(x), NUMBERS, INTS, BOOL, NUMBERS,
    )
)  # fmt: skip
def work(
    job, state, wanted, chains, net, rule, loss, rates, step, seed, batch_size, batch, n_batches, order, n_rows, data,
    batches, places, slot_size, outputs, d_outputs, parts, clock, clocked, result,
):  # fmt: skip
    """What one thread of the team does: `n_batches` steps from `batch` on.

    `chains` is into how many blocks of rows a batch is cut that go through all layers; 0: one layer after the other.
    rates [batches of the epoch, STEP_COLUMNS] are the settings of its steps; order [n_rows] says which of the `data` make up
    the batches, which `batches` has `places` for. outputs and d_outputs hold a[l] and d_z[l] of all layers; parts [blocks] the
    losses of the blocks of rows. clock [threads, CLOCK_COLUMNS] is kept if `clocked`.
    """
    rank, size = check_in(state, wanted)
    if rank < 0:
        return
    mode = flush_subnormals()
    times = pointer(clock, rank * CLOCK_COLUMNS)
    begin = _start(clocked)
    slot = rank * slot_size
    last, clips = net.n_layers - 1, rule.hyper[CLIP] > 0.0
    top = plan_of(net, last)
    n_out = top[N_OUT]
    above, d_above = pointer(outputs, top[OUTPUT]), pointer(d_outputs, top[OUTPUT])
    # A batch that is all of the data is read where it is: then there is one place for batches and nothing to gather.
    gathers = (batch_size + ROWS - 1) // ROWS if places > 1 else 0
    most_rows = job_rows(net.itemsize) - TILE_ROWS
    for job in range(rank, gathers, size):
        gather(job, batch, batch_size, order, n_rows, data, batches)
    barrier(state, size)
    for i in range(n_batches):
        here, there = skip(batches, i % places * batch_size), skip(batches, (i + 1) % places * batch_size)
        own = pointer(rates, (batch + i) * STEP_COLUMNS)
        now, key = step_rates(rule.hyper, own, step + i), mix(seed, step + i)
        rows = min(batch_size, n_rows - (batch + i) * batch_size)
        # Squared error is the mean over rows and targets, the cross-entropies over rows.
        divisor = float(rows * n_out if loss == SQUARED_ERROR else rows) / own[SCALE]
        fused = grid(rows, n_out, net.itemsize, 1, True)[2] == 1
        job = first_job(state, rank)
        while job < chains:
            first, stop = _chain_block(job, chains, rows)
            low = first
            while True:
                high = min(stop, low + most_rows)
                start = _start(clocked)
                for layer in range(net.n_layers):
                    below, below_stride = _inputs(net, layer, here, outputs)
                    block = (low, high, 0, plan_of(net, layer)[N_OUT])
                    forward(block, net, layer, below, below_stride, pointer(outputs, plan_of(net, layer)[OUTPUT]), key)
                loss_rows(loss, low, high, n_out, divisor, above, here, d_above, parts)
                _stop(clocked, times, FORWARD, start)
                start = _start(clocked)
                for layer in range(last, 0, -1):
                    backward((low, high, 0, plan_of(net, layer)[N_IN]), net, layer, outputs, d_outputs, key)
                _stop(clocked, times, BACKWARD, start)
                start = _start(clocked)
                for layer in range(net.n_layers if rule.n_shares else 0):
                    below, below_stride = _inputs(net, layer, here, outputs)
                    d_layer = pointer(d_outputs, plan_of(net, layer)[OUTPUT])
                    share = pointer(rule.shares, job * rule.share_size)
                    add_share(low, net, layer, high - low, below, below_stride, d_layer, share, low - first)
                _stop(clocked, times, UPDATE, start)
                low = high
                if low >= stop:
                    break
            job = claim(state, size)
        if chains:
            barrier(state, size)
        for layer in range(0 if chains else net.n_layers):
            plan = plan_of(net, layer)
            below, below_stride = _inputs(net, layer, here, outputs)
            needed = parts_of(size, rows, net, layer)
            # Jobs of whole rows go on to the loss.
            ends = layer == last and fused
            jobs = n_jobs(rows, plan[N_OUT], net.itemsize, needed, ends)
            job = first_job(state, rank)
            while job < jobs:
                start = _start(clocked)
                block = job_block(job, rows, plan[N_OUT], net.itemsize, needed, ends)
                forward(block, net, layer, below, below_stride, pointer(outputs, plan[OUTPUT]), key)
                if ends:
                    loss_rows(loss, block[0], block[1], n_out, divisor, above, here, d_above, parts)
                _stop(clocked, times, FORWARD, start)
                job = claim(state, size)
            barrier(state, size)
        if not (fused or chains):
            job = first_job(state, rank)
            while job < (rows + ROWS - 1) // ROWS:
                start = _start(clocked)
                first, stop = job * ROWS, min(rows, (job + 1) * ROWS)
                loss_rows(loss, first, stop, n_out, divisor, above, here, d_above, parts)
                _stop(clocked, times, FORWARD, start)
                job = claim(state, size)
            barrier(state, size)
        loss_sum = sum_of(parts, (rows + TILE_ROWS - 1) // TILE_ROWS)
        if loss == SQUARED_ERROR:
            loss_sum /= n_out
        loss_sum *= own[SCALE]
        # Every thread has the same sum and takes the same decision; the first one writes it down.
        if rank == 0:
            result[LOSS_SUM] += loss_sum
            result[LAST_LOSS] = loss_sum / rows
        if not math.isfinite(loss_sum):
            break
        # Layer by layer, a phase takes the gradient through layer `passed` and updates the one above. The last phase has
        # nothing left to take it through, updates all the layers that are left and gathers the next batch.
        high = net.n_layers
        for passed in range(0 if chains else last, -1, -1):
            low = passed + 1 if passed else 0
            downs = needed = n_in = 0
            if passed:
                n_in = plan_of(net, passed)[N_IN]
                needed = parts_of(size, rows, net, passed)
                downs = n_jobs(rows, n_in, net.itemsize, needed)
            ups, before = _updates(net, low, high), _updates(net, 0, low)
            rest = gathers if passed == 0 and i + 1 < n_batches else 0
            job = first_job(state, rank)
            while job < downs + ups + rest:
                start = _start(clocked)
                if job < downs:
                    block = job_block(job, rows, n_in, net.itemsize, needed)
                    backward(block, net, passed, outputs, d_outputs, key)
                    _stop(clocked, times, BACKWARD, start)
                elif job < downs + ups:
                    # The lowest layer's jobs come first: they are the long ones as a rule.
                    layer, number = _update_of(job - downs, net, low)
                    below, below_stride = _inputs(net, layer, here, outputs)
                    d_layer = pointer(d_outputs, plan_of(net, layer)[OUTPUT])
                    square = before + job - downs
                    update(number, net, layer, rows, rule, slot, now, below, below_stride, d_layer, square)
                    _stop(clocked, times, UPDATE, start)
                else:
                    gather(job - downs - ups, batch + i + 1, batch_size, order, n_rows, data, there)
                    _stop(clocked, times, GATHER, start)
                job = claim(state, size)
            barrier(state, size)
            high = low
        if clips:
            blocks = _updates(net, 0, net.n_layers)
            factor = _factor(rule.squares, blocks, rule.hyper[CLIP])
            job = first_job(state, rank)
            while job < blocks:
                start = _start(clocked)
                layer, number = _update_of(job, net, 0)
                clipped_update(number, net, layer, rule, now, factor)
                _stop(clocked, times, UPDATE, start)
                job = claim(state, size)
            barrier(state, size)
        if rank == 0:
            if rule.penalised:  # nobody writes new ones before all have met again
                result[PENALTY_SUM] += 0.5 * own[STEP_L2] * penalty_sum(rule, net) * rows
            result[STEPS_DONE] += 1
    _stop(clocked, times, TOTAL, begin)
    restore_mode(mode)


@jit
def _work_job(
    job, state, wanted, chains, net, rule, loss, rates, step, seed, batch_size, batch, n_batches, order, n_rows, data,
    batches, places, slot_size, outputs, d_outputs, parts, clock, clocked, result,
):  # fmt: skip
    work(
        job, state, wanted, chains, net, rule, loss, rates, step, seed, batch_size, batch, n_batches, order, n_rows, data,
        batches, places, slot_size, outputs, d_outputs, parts, clock, clocked, result,
    )  # fmt: skip


@entry
def train_batches(
    n_threads, chains, state, plan, alphas, loss, params, grads, state1, state2, code, hyper, rates, step, seed, batch_size,
    batch, n_batches, order, data, labels, targets, weights, x, y_labels, y_targets, y_weights, outputs, d_outputs, parts,
    squares, shares, row_squares, clock, result,
):  # fmt: skip
    """Train on `n_batches` batches of `order` from `batch` on; `state` and `result` start as zeros. See `work`.

    x [places, batch_size, stride] and y_* are the places for batches; with one of them, it is the data.
    """
    rule = Rule(
        code, pointer(hyper, 0), pointer(state1, 0), pointer(state2, 0), pointer(grads, 0), pointer(squares, 0),
        pointer(shares, 0), shares.shape[0], shares.shape[1], pointer(row_squares, 0), row_squares.size > 0,
    )  # fmt: skip
    batches = rows_of(x[0], y_labels[0], y_targets[0], y_weights[0])
    run_jobs(
        _work_job, n_threads, n_threads > 1,
        (
            pointer(state, 0), n_threads, chains, net_of(plan, alphas, params), rule, loss, pointer(rates, 0), step, seed,
            batch_size, batch, n_batches, pointer(order, 0), order.size, rows_of(data, labels, targets, weights), batches,
            x.shape[0], grads.size // n_threads // SLOT_ROUND * SLOT_ROUND, pointer(outputs, 0), pointer(d_outputs, 0),
            pointer(parts, 0), pointer(clock, 0), clock.size > 0, pointer(result, 0),
        ),
    )  # fmt: skip


@entry
def total_loss(loss, outputs, labels, targets, weights, scratch):
    """Sum of the rows' weighted losses, on one thread: a few per cent of the forward pass before it.

    `scratch`, as large as outputs, is overwritten.
    """
    n_rows, n = outputs.shape
    blocks = (n_rows + TILE_ROWS - 1) // TILE_ROWS
    parts = np.empty(blocks)
    rows = rows_of(outputs, labels, targets, weights)
    mode = flush_subnormals()
    loss_rows(loss, 0, n_rows, n, 1.0, rows.inputs, rows, pointer(scratch, 0), pointer(parts, 0))
    restore_mode(mode)
    return sum_of(parts, blocks)
