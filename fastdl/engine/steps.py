"""The compiled engine: many mini-batches in one call, by a team of threads.

A step goes through phases; the jobs of a phase write to separate places, and a barrier ends it:

    forward of layer 1, 2, ... L          bias and activation in the tile; the last one goes on to the loss of its rows
    backward of layer L                   d_z[L-1] = (d_z[L] @ W[L].T) * act'
    update of layer L, backward of L-1    d_W = a.T @ d_z, and at once the optimizer on the block just computed
    ...
    update of layer 1, next batch         rows of the next batch are gathered while the last gradients are computed

The network is data: sizes, offsets, activations, loss and optimizer are numbers in arrays, so that one compiled version
per dtype serves them all. A layer's gradient lives for as long as its block is in the cache.
"""

from __future__ import annotations

import numba
import numpy as np

from fastdl_kernels import IDENTITY
from fastdl_kernels.serial import (
    SOFTMAX_CROSS_ENTROPY,
    SQUARED_ERROR,
    TILE_ROWS,
    Operand,
    Target,
    adam_range,
    barrier,
    check_in,
    claim,
    grid,
    jit,
    job_block,
    momentum_range,
    n_jobs,
    noinline,
    pair_loss_rows,
    parallel_jit,
    product_job,
    rmsprop_range,
    sgd_range,
    softmax_cross_entropy_rows,
)
from fastdl_kernels.simd import flush_subnormals, null, number_like, pointer, restore_mode

# Columns of `plan`, one row per layer.
# OUTPUT is where the layer's outputs start in their buffer and STRIDE how far their rows are apart.
N_IN, N_OUT, WEIGHT, BIAS, ACTIVATION, OUTPUT, STRIDE = range(7)
PLAN_COLUMNS = 7

# Codes of the optimizers; NO_UPDATE leaves the gradient in its buffer.
NO_UPDATE, SGD, MOMENTUM, RMSPROP, ADAM = range(-1, 4)

# Fields of `hyper` (float64): learning rate, beta or beta1, beta2, eps, l2.
LR, BETA1, BETA2, EPS, L2 = range(5)

# Rows per job of the gather and of a loss that is a phase of its own: several times TILE_ROWS, which the loss adds up.
ROWS = 4 * TILE_ROWS
# Multiply-adds below which a product is not shared out: 0.2 us of work, what a barrier costs.
WORK_PER_JOB = 8_000


@jit
def _parts(size, rows, plan, layer):
    """Into how many jobs a layer's product is cut at least, for a team of `size`."""
    return max(1, min(size, rows * plan[layer, N_IN] * plan[layer, N_OUT] // WORK_PER_JOB))


@jit
def _forward(job, parts, plan, alphas, layer, rows, params, below, below_stride, above, above_stride, whole_rows):
    """above = act(below @ W + b) for one block; below and above are pointers to [rows, n_in] and [rows, n_out]."""
    noinline()
    n_in, n_out = plan[layer, N_IN], plan[layer, N_OUT]
    m0, m1, n0, n1 = job_block(job, rows, n_out, params.itemsize, parts, whole_rows)
    alpha = alphas[layer]
    nothing = null(alpha)
    a = Operand(below, below_stride, False)
    b = Operand(pointer(params, plan[layer, WEIGHT]), n_out, True)
    bias = pointer(params, plan[layer, BIAS])
    c = Target(above, above_stride, bias, plan[layer, ACTIVATION], alpha, nothing, IDENTITY, alpha, nothing)
    product_job(m0, m1, n0, n1, n_in, a, b, c)


@jit
def _backward(job, parts, plan, alphas, layer, rows, params, d_above, below, d_below):
    """d_below = (d_above @ W.T) * act'(below) for one block; `below` holds the outputs of the layer underneath."""
    noinline()
    n_in, n_out = plan[layer, N_IN], plan[layer, N_OUT]
    m0, m1, n0, n1 = job_block(job, rows, n_in, params.itemsize, parts)
    alpha = alphas[layer]
    nothing = null(alpha)
    a = Operand(d_above, plan[layer, STRIDE], False)
    b = Operand(pointer(params, plan[layer, WEIGHT]), n_out, False)
    under = plan[layer - 1, ACTIVATION]
    c = Target(d_below, plan[layer - 1, STRIDE], nothing, IDENTITY, alpha, below, under, alphas[layer - 1], nothing)
    product_job(m0, m1, n0, n1, n_out, a, b, c)


@jit
def _apply(code, hyper, step, params, grads, state1, state2, start, stop, l2):
    """One optimizer step on a range of the flat buffers."""
    noinline()
    one = params[0]
    lr = number_like(one, hyper[LR])
    beta1, rest1 = number_like(one, hyper[BETA1]), number_like(one, 1.0 - hyper[BETA1])
    beta2, rest2 = number_like(one, hyper[BETA2]), number_like(one, 1.0 - hyper[BETA2])
    eps, decay = number_like(one, hyper[EPS]), number_like(one, l2)
    p, g = pointer(params, 0), pointer(grads, 0)
    if code == ADAM:
        unbias1 = number_like(one, 1.0 / (1.0 - hyper[BETA1] ** step))
        unbias2 = number_like(one, 1.0 / (1.0 - hyper[BETA2] ** step))
        m, v = pointer(state1, 0), pointer(state2, 0)
        adam_range(p, g, m, v, start, stop, decay, lr, beta1, rest1, beta2, rest2, eps, unbias1, unbias2)
    elif code == RMSPROP:
        rmsprop_range(p, g, pointer(state1, 0), start, stop, decay, lr, beta1, rest1, eps)
    elif code == MOMENTUM:
        momentum_range(p, g, pointer(state1, 0), start, stop, decay, lr, beta1, rest1)
    else:
        sgd_range(p, g, start, stop, decay, lr)


@jit
def _update_jobs(plan, layer, itemsize, parts):
    """Jobs of a layer's update: blocks of whole rows of its weights, which lie in one piece in every buffer."""
    return grid(plan[layer, N_IN], plan[layer, N_OUT], itemsize, parts, True)[0]


@jit
def _update(
    job, parts, plan, alphas, layer, rows, params, grads, state1, state2, code, hyper, step, below, below_stride, d_above
):  # fmt: skip
    """d_W of a block of rows, and the optimizer on it; the first job takes d_b as well."""
    noinline()
    n_in, n_out = plan[layer, N_IN], plan[layer, N_OUT]
    _, row_size, column_blocks, column_size = grid(n_in, n_out, params.itemsize, parts, True)
    m0, m1 = job * row_size, min(n_in, (job + 1) * row_size)
    alpha = alphas[layer]
    nothing = null(alpha)
    weight, bias = plan[layer, WEIGHT], plan[layer, BIAS]
    a = Operand(below, below_stride, True)
    b = Operand(d_above, plan[layer, STRIDE], True)
    sums = pointer(grads, bias)
    c = Target(pointer(grads, weight), n_out, nothing, IDENTITY, alpha, nothing, IDENTITY, alpha, sums)
    for block in range(column_blocks):
        n0 = block * column_size
        product_job(m0, m1, n0, min(n_out, n0 + column_size), rows, a, b, c)
    if code == NO_UPDATE:
        return
    mode = flush_subnormals()
    start, stop = weight + m0 * n_out, weight + m1 * n_out
    _apply(code, hyper, step, params, grads, state1, state2, start, stop, hyper[L2])
    if m0 == 0:
        _apply(code, hyper, step, params, grads, state1, state2, bias, bias + n_out, 0.0)
    restore_mode(mode)


@jit
def _gather(job, batch, batch_size, order, data, labels, targets, weights, to_x, to_labels, to_targets, to_weights):
    """Copy ROWS rows of a batch, in the shuffled order, to where the step reads them."""
    noinline()
    start = batch * batch_size
    for r in range(job * ROWS, min((job + 1) * ROWS, min(batch_size, order.size - start))):
        row = order[start + r]
        for i in range(data.shape[1]):
            to_x[r, i] = data[row, i]
        if labels.size:
            to_labels[r] = labels[row]
        for i in range(targets.shape[1]):
            to_targets[r, i] = targets[row, i]
        if weights.size:
            to_weights[r] = weights[row]


@jit
def _loss(loss, first, last, n, divisor, outputs, labels, targets, weights, d_outputs, parts):
    """parts[i] = sum of the weighted losses of rows i * TILE_ROWS ..., for the rows first .. last; first is a multiple.

    d_outputs = their gradient / divisor, where the batch's mean is taken.
    """
    noinline()
    scale = number_like(outputs[0], 1.0 / divisor)
    w = pointer(weights, 0) if weights.size else null(scale)
    mode = flush_subnormals()
    for start in range(first, last, TILE_ROWS):
        stop = min(last, start + TILE_ROWS)
        if loss == SOFTMAX_CROSS_ENTROPY:
            part = softmax_cross_entropy_rows(outputs, labels, w, start, stop, n, scale, d_outputs)
        else:
            part = pair_loss_rows(loss, outputs, pointer(targets, 0), w, start, stop, n, scale, d_outputs)
        parts[start // TILE_ROWS] = part
    restore_mode(mode)


@jit
def _work(
    state, wanted, plan, alphas, loss, params, grads, state1, state2, code, hyper, step, batch_size, batch, n_batches,
    order, data, labels, targets, weights, x, y_labels, y_targets, y_weights, outputs, d_outputs, parts, result,
):  # fmt: skip
    """What one thread of the team does: `n_batches` steps from `batch` on.

    x, y_* hold two batches each, by turns. outputs and d_outputs hold a[l] and d_z[l] of all layers; parts [blocks] the
    losses of the blocks of rows. result: sum of the rows' losses, steps done, last loss.
    """
    noinline()
    rank, size = check_in(state, wanted)
    if rank < 0:
        return
    itemsize = params.itemsize
    n_layers = plan.shape[0]
    last = n_layers - 1
    n_out = plan[last, N_OUT]
    gathers = (batch_size + ROWS - 1) // ROWS
    for job in range(rank, gathers, size):
        _gather(
            job, batch, batch_size, order, data, labels, targets, weights, x[0], y_labels[0], y_targets[0], y_weights[0]
        )
    barrier(state, size)
    for i in range(n_batches):
        here, there = i % 2, 1 - i % 2
        rows = min(batch_size, order.size - (batch + i) * batch_size)
        # Squared error is the mean over rows and targets, the cross-entropies over rows.
        divisor = float(rows * n_out if loss == SQUARED_ERROR else rows)
        fused = grid(rows, n_out, itemsize, 1, True)[2] == 1
        for layer in range(n_layers):
            below = pointer(x[here], 0) if layer == 0 else pointer(outputs, plan[layer - 1, OUTPUT])
            below_stride = x.shape[2] if layer == 0 else plan[layer - 1, STRIDE]
            above, above_stride = pointer(outputs, plan[layer, OUTPUT]), plan[layer, STRIDE]
            needed = _parts(size, rows, plan, layer)
            whole_rows = layer == last and fused
            jobs = n_jobs(rows, plan[layer, N_OUT], itemsize, needed, whole_rows)
            job = rank
            while job < jobs:
                _forward(
                    job, needed, plan, alphas, layer, rows, params, below, below_stride, above, above_stride, whole_rows
                )
                if whole_rows:
                    first, stop, _, _ = job_block(job, rows, n_out, itemsize, needed, True)
                    _loss(
                        loss, first, stop, n_out, divisor, above, y_labels[here], y_targets[here], y_weights[here],
                        pointer(d_outputs, plan[last, OUTPUT]), parts,
                    )  # fmt: skip
                job = claim(state, size)
            barrier(state, size)
        if not fused:
            job = rank
            while job < (rows + ROWS - 1) // ROWS:
                _loss(
                    loss, job * ROWS, min(rows, (job + 1) * ROWS), n_out, divisor, pointer(outputs, plan[last, OUTPUT]),
                    y_labels[here], y_targets[here], y_weights[here], pointer(d_outputs, plan[last, OUTPUT]), parts,
                )  # fmt: skip
                job = claim(state, size)
            barrier(state, size)
        total = 0.0
        for part in range((rows + TILE_ROWS - 1) // TILE_ROWS):
            total += parts[part]
        if loss == SQUARED_ERROR:
            total /= n_out
        # Every thread has the same total and takes the same decision; the first one writes it down.
        if rank == 0:
            result[0] += total
            result[2] = total / rows
        if not np.isfinite(total):
            return
        # Phase p updates layer last - p + 1 and takes the gradient through layer last - p.
        for p in range(n_layers + 1):
            updated, passed = last - p + 1, last - p
            updates = others = parts_updated = parts_passed = 0
            if p > 0:
                parts_updated = _parts(size, rows, plan, updated)
                updates = _update_jobs(plan, updated, itemsize, parts_updated)
            if passed > 0:
                parts_passed = _parts(size, rows, plan, passed)
                others = n_jobs(rows, plan[passed, N_IN], itemsize, parts_passed)
            elif p == n_layers and i + 1 < n_batches:
                others = gathers
            if updates + others == 0:
                continue
            job = rank
            while job < updates + others:
                # The way down first: it is what the next phase waits for.
                if job >= others:
                    below = pointer(x[here], 0) if updated == 0 else pointer(outputs, plan[updated - 1, OUTPUT])
                    below_stride = x.shape[2] if updated == 0 else plan[updated - 1, STRIDE]
                    _update(
                        job - others, parts_updated, plan, alphas, updated, rows, params, grads, state1, state2, code, hyper, step + i,
                        below, below_stride, pointer(d_outputs, plan[updated, OUTPUT]),
                    )  # fmt: skip
                elif passed > 0:
                    under = plan[passed - 1, OUTPUT]
                    _backward(
                        job, parts_passed, plan, alphas, passed, rows, params, pointer(d_outputs, plan[passed, OUTPUT]),
                        pointer(outputs, under), pointer(d_outputs, under),
                    )  # fmt: skip
                else:
                    _gather(
                        job, batch + i + 1, batch_size, order, data, labels, targets, weights,
                        x[there], y_labels[there], y_targets[there], y_weights[there],
                    )  # fmt: skip
                job = claim(state, size)
            barrier(state, size)
        if rank == 0:
            result[1] += 1


@parallel_jit
def train_batches(
    n_threads, state, plan, alphas, loss, params, grads, state1, state2, code, hyper, step, batch_size, batch, n_batches,
    order, data, labels, targets, weights, x, y_labels, y_targets, y_weights, outputs, d_outputs, parts, result,
):  # fmt: skip
    """Train on `n_batches` batches of `order` from `batch` on; `state` and `result` start as zeros. See `_work`."""
    if n_threads == 1:
        _work(
            state, n_threads, plan, alphas, loss, params, grads, state1, state2, code, hyper, step, batch_size, batch, n_batches,
            order, data, labels, targets, weights, x, y_labels, y_targets, y_weights, outputs, d_outputs, parts, result,
        )  # fmt: skip
    else:
        for _ in numba.prange(n_threads):
            _work(
                state, n_threads, plan, alphas, loss, params, grads, state1, state2, code, hyper, step, batch_size, batch,
                n_batches, order, data, labels, targets, weights, x, y_labels, y_targets, y_weights, outputs, d_outputs,
                parts, result,
            )  # fmt: skip


@jit
def total_loss(loss, outputs, labels, targets, weights, scratch):
    """Sum of the rows' weighted losses, on one thread: a few per cent of the forward pass before it.

    `scratch`, as large as outputs, is overwritten.
    """
    n_rows, n = outputs.shape
    parts = np.empty((n_rows + TILE_ROWS - 1) // TILE_ROWS)
    _loss(loss, 0, n_rows, n, 1.0, pointer(outputs, 0), labels, targets, weights, pointer(scratch, 0), parts)
    return parts.sum()


@jit
def _forward_chunk(c, chunk, plan, alphas, params, data, work, raw):
    """All layers for one chunk of rows, on one thread; work [2, chunk * widest] holds the layers by turns."""
    noinline()
    first = c * chunk
    rows = min(chunk, data.shape[0] - first)
    last = plan.shape[0] - 1
    for layer in range(plan.shape[0]):
        below = pointer(data, first * data.shape[1]) if layer == 0 else pointer(work[(layer - 1) % 2], 0)
        below_stride = data.shape[1] if layer == 0 else plan[layer - 1, STRIDE]
        above = pointer(raw, first * raw.shape[1]) if layer == last else pointer(work[layer % 2], 0)
        for job in range(n_jobs(rows, plan[layer, N_OUT], params.itemsize, 1)):
            _forward(job, 1, plan, alphas, layer, rows, params, below, below_stride, above, plan[layer, STRIDE], False)


@parallel_jit
def forward_chunks(n_threads, chunk, plan, alphas, params, data, work, raw):
    """raw = outputs of the last layer for all rows of data; work [n_threads, 2, chunk * widest] is scratch."""
    chunks = (data.shape[0] + chunk - 1) // chunk
    if n_threads == 1:
        for c in range(chunks):
            _forward_chunk(c, chunk, plan, alphas, params, data, work[0], raw)
    else:
        for t in numba.prange(n_threads):
            for c in range(t, chunks, n_threads):
                _forward_chunk(c, chunk, plan, alphas, params, data, work[t], raw)
