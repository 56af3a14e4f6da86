"""The compiled engine: many mini-batches in one call, by a team of threads.

A step goes through phases; the jobs of a phase write to separate places, and a barrier ends it:

    forward of layer 1, 2, ... L          bias and activation in the tile; the last one goes on to the loss of its rows
    backward of layer L                   d_z[L-1] = (d_z[L] @ W[L].T) * act'
    update of layer L, backward of L-1    d_W = a.T @ d_z, and at once the optimizer on the block just computed
    ...
    update of layers 2 and 1, next batch  rows of the next batch are gathered while the last gradients are computed

The network is data: sizes, offsets, activations, loss and optimizer are numbers in arrays, so that one compiled version
per dtype serves them all. A layer's gradient lives for as long as its block is in the cache: it has no place in memory.

Clipping by the global norm needs the whole gradient before the first update. Then the updates leave it in a flat buffer
with the sum of squares of each block, and one more phase runs the optimizer on the same blocks.
"""

from __future__ import annotations

import math

import numpy as np

from fastdl.engine.layout import (
    BACKWARD,
    CLIP,
    CLIP_PARTS,
    CLOCK_COLUMNS,
    FORWARD,
    GATHER,
    LAST_LOSS,
    LOSS_SUM,
    N_IN,
    N_OUT,
    OUTPUT,
    ROWS,
    STEPS_DONE,
    STRIDE,
    TOTAL,
    UPDATE,
)
from fastdl.engine.phases import (
    backward,
    clipped_update,
    forward,
    gather,
    loss_rows,
    parts_of,
    step_rates,
    update,
    update_jobs,
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
    mix,
    n_jobs,
    noinline,
    run_jobs,
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
    total = 0.0
    for block in range(blocks):
        total += squares[block]
    norm = math.sqrt(total)
    return limit / norm if norm > limit else (1.0 if norm <= limit else norm)  # a NaN stays one


@jit
def _work(
    job, state, wanted, plan, alphas, loss, params, grads, state1, state2, code, hyper, rates, step, seed, batch_size, batch,
    n_batches, order, data, labels, targets, weights, x, y_labels, y_targets, y_weights, outputs, d_outputs, parts,
    squares, clock, result,
):  # fmt: skip
    """What one thread of the team does: `n_batches` steps from `batch` on.

    grads is the flat gradient, or a slot for each thread. rates [batches of the epoch] are learning rates. x, y_* hold two
    batches each, by turns. outputs and d_outputs hold a[l] and d_z[l] of all layers; parts [blocks] the losses of the
    blocks of rows; squares [update jobs] what the norm is made of. clock [threads, CLOCK_COLUMNS] may be empty.
    """
    noinline()
    rank, size = check_in(state, wanted)
    if rank < 0:
        return
    mode = flush_subnormals()
    clocked, times = clock.size > 0, pointer(clock, rank * CLOCK_COLUMNS)
    begin = _start(clocked)
    itemsize = params.itemsize
    slot = rank * (grads.size // wanted)
    n_layers = plan.shape[0]
    last = n_layers - 1
    n_out = plan[last, N_OUT]
    # A batch that is all of the data is read where it is: then there is one place for batches and nothing to gather.
    places = x.shape[0]
    gathers = (batch_size + ROWS - 1) // ROWS if places > 1 else 0
    for job in range(rank, gathers, size):
        gather(
            job, batch, batch_size, order, data, labels, targets, weights, x[0], y_labels[0], y_targets[0], y_weights[0]
        )
    barrier(state, size)
    for i in range(n_batches):
        here, there = i % places, (i + 1) % places
        now, key = step_rates(hyper, rates[batch + i], step + i), mix(seed, step + i)
        rows = min(batch_size, order.size - (batch + i) * batch_size)
        # Squared error is the mean over rows and targets, the cross-entropies over rows.
        divisor = float(rows * n_out if loss == SQUARED_ERROR else rows)
        fused = grid(rows, n_out, itemsize, 1, True)[2] == 1
        for layer in range(n_layers):
            below = pointer(x[here], 0) if layer == 0 else pointer(outputs, plan[layer - 1, OUTPUT])
            below_stride = x.shape[2] if layer == 0 else plan[layer - 1, STRIDE]
            above, stride = pointer(outputs, plan[layer, OUTPUT]), plan[layer, STRIDE]
            needed = parts_of(size, rows, plan, layer)
            # Jobs of whole rows go on to the loss.
            ends = layer == last and fused
            jobs = n_jobs(rows, plan[layer, N_OUT], itemsize, needed, ends)
            job = first_job(state, rank)
            while job < jobs:
                start = _start(clocked)
                forward(job, needed, plan, alphas, layer, rows, params, below, below_stride, above, stride, key, ends)
                if ends:
                    first, stop, _, _ = job_block(job, rows, n_out, itemsize, needed, True)
                    loss_rows(
                        loss, first, stop, n_out, divisor, above, y_labels[here], y_targets[here], y_weights[here],
                        pointer(d_outputs, plan[last, OUTPUT]), parts,
                    )  # fmt: skip
                _stop(clocked, times, FORWARD, start)
                job = claim(state, size)
            barrier(state, size)
        if not fused:
            above, d_above = pointer(outputs, plan[last, OUTPUT]), pointer(d_outputs, plan[last, OUTPUT])
            job = first_job(state, rank)
            while job < (rows + ROWS - 1) // ROWS:
                start = _start(clocked)
                first, stop = job * ROWS, min(rows, (job + 1) * ROWS)
                loss_rows(
                    loss, first, stop, n_out, divisor, above, y_labels[here], y_targets[here], y_weights[here], d_above,
                    parts,
                )  # fmt: skip
                _stop(clocked, times, FORWARD, start)
                job = claim(state, size)
            barrier(state, size)
        total = 0.0
        for part in range((rows + TILE_ROWS - 1) // TILE_ROWS):
            total += parts[part]
        if loss == SQUARED_ERROR:
            total /= n_out
        # Every thread has the same total and takes the same decision; the first one writes it down.
        if rank == 0:
            result[LOSS_SUM] += total
            result[LAST_LOSS] = total / rows
        if not np.isfinite(total):
            break
        # Phase p takes the gradient through layer last - p and updates the layer above. The last one has nothing left to
        # take it through, updates layer 0 as well and gathers the next batch.
        blocks = 0
        for p in range(n_layers):
            updated, passed = last - p + 1, last - p
            needed_up = needed_down = needed_low = ups = downs = lows = rest = 0
            if p > 0:
                needed_up = CLIP_PARTS if hyper[CLIP] > 0.0 else parts_of(size, rows, plan, updated)
                ups = update_jobs(plan, updated, itemsize, needed_up)
            if passed > 0:
                needed_down = parts_of(size, rows, plan, passed)
                downs = n_jobs(rows, plan[passed, N_IN], itemsize, needed_down)
            else:
                needed_low = CLIP_PARTS if hyper[CLIP] > 0.0 else parts_of(size, rows, plan, 0)
                lows = update_jobs(plan, 0, itemsize, needed_low)
                rest = gathers if i + 1 < n_batches else 0
            job = first_job(state, rank)
            while job < downs + lows + ups + rest:
                start = _start(clocked)
                if job < downs:
                    under = plan[passed - 1, OUTPUT]
                    backward(
                        job, needed_down, plan, alphas, passed, rows, params, pointer(d_outputs, plan[passed, OUTPUT]),
                        pointer(outputs, under), pointer(d_outputs, under), key,
                    )  # fmt: skip
                    _stop(clocked, times, BACKWARD, start)
                elif job < downs + lows + ups:
                    # The first layer's jobs come first: they are the long ones as a rule.
                    layer, block, needed = 0, job, needed_low
                    square = blocks + ups + job
                    if job >= lows:
                        layer, block, needed = updated, job - downs - lows, needed_up
                        square = blocks + block
                    below = pointer(x[here], 0) if layer == 0 else pointer(outputs, plan[layer - 1, OUTPUT])
                    below_stride = x.shape[2] if layer == 0 else plan[layer - 1, STRIDE]
                    update(
                        block, needed, plan, alphas, layer, rows, params, grads, slot, state1, state2, code, hyper, now,
                        below, below_stride, pointer(d_outputs, plan[layer, OUTPUT]), squares, square,
                    )  # fmt: skip
                    _stop(clocked, times, UPDATE, start)
                else:
                    gather(
                        job - lows - ups, batch + i + 1, batch_size, order, data, labels, targets, weights,
                        x[there], y_labels[there], y_targets[there], y_weights[there],
                    )  # fmt: skip
                    _stop(clocked, times, GATHER, start)
                job = claim(state, size)
            barrier(state, size)
            blocks += ups + lows
        if hyper[CLIP] > 0.0:
            factor = _factor(squares, blocks, hyper[CLIP])
            job = first_job(state, rank)
            while job < blocks:
                start = _start(clocked)
                layer, block = last, job
                while block >= update_jobs(plan, layer, itemsize, CLIP_PARTS):
                    block -= update_jobs(plan, layer, itemsize, CLIP_PARTS)
                    layer -= 1
                clipped_update(block, plan, layer, params, grads, state1, state2, code, hyper, now, factor)
                _stop(clocked, times, UPDATE, start)
                job = claim(state, size)
            barrier(state, size)
        if rank == 0:
            result[STEPS_DONE] += 1
    _stop(clocked, times, TOTAL, begin)
    restore_mode(mode)


@entry
def train_batches(
    n_threads, state, plan, alphas, loss, params, grads, state1, state2, code, hyper, rates, step, seed, batch_size, batch,
    n_batches, order, data, labels, targets, weights, x, y_labels, y_targets, y_weights, outputs, d_outputs, parts,
    squares, clock, result,
):  # fmt: skip
    """Train on `n_batches` batches of `order` from `batch` on; `state` and `result` start as zeros. See `_work`."""
    run_jobs(
        _work, n_threads, n_threads > 1,
        (
            state, n_threads, plan, alphas, loss, params, grads, state1, state2, code, hyper, rates, step, seed, batch_size,
            batch, n_batches, order, data, labels, targets, weights, x, y_labels, y_targets, y_weights, outputs, d_outputs,
            parts, squares, clock, result,
        ),
    )  # fmt: skip


@entry
def total_loss(loss, outputs, labels, targets, weights, scratch):
    """Sum of the rows' weighted losses, on one thread: a few per cent of the forward pass before it.

    `scratch`, as large as outputs, is overwritten.
    """
    n_rows, n = outputs.shape
    parts = np.empty((n_rows + TILE_ROWS - 1) // TILE_ROWS)
    loss_rows(loss, 0, n_rows, n, 1.0, pointer(outputs, 0), labels, targets, weights, pointer(scratch, 0), parts)
    return parts.sum()


@jit
def _forward_chunk(c, chunk, plan, alphas, params, data, work, raw):
    """All layers for one chunk of rows, on one thread; work [2, chunk * widest] holds the layers by turns."""
    noinline()
    first = c * chunk
    rows = min(chunk, data.shape[0] - first)
    last = plan.shape[0] - 1
    nothing = np.uint64(0)  # no layer of this plan drops units
    for layer in range(plan.shape[0]):
        below = pointer(data, first * data.shape[1]) if layer == 0 else pointer(work[(layer - 1) % 2], 0)
        below_stride = data.shape[1] if layer == 0 else plan[layer - 1, STRIDE]
        above = pointer(raw, first * raw.shape[1]) if layer == last else pointer(work[layer % 2], 0)
        stride = plan[layer, STRIDE]
        for job in range(n_jobs(rows, plan[layer, N_OUT], params.itemsize, 1)):
            forward(job, 1, plan, alphas, layer, rows, params, below, below_stride, above, stride, nothing, False)


@jit
def _forward_chunks(t, n_threads, chunk, plan, alphas, params, data, work, raw):
    for c in range(t, (data.shape[0] + chunk - 1) // chunk, n_threads):
        _forward_chunk(c, chunk, plan, alphas, params, data, work[t], raw)


@entry
def forward_chunks(n_threads, chunk, plan, alphas, params, data, work, raw):
    """raw = outputs of the last layer for all rows of data; work [n_threads, 2, chunk * widest] is scratch."""
    run_jobs(_forward_chunks, n_threads, n_threads > 1, (n_threads, chunk, plan, alphas, params, data, work, raw))
