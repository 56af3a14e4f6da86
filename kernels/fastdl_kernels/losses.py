"""Losses computed from logits, numerically stable, with their gradients.

Dims: B rows, N classes, labels or targets. The serial bodies (`*_rows`) take pointers and optional weights per row, and
return the sum of the rows' losses; the engine uses them too. Losses are summed in float64, in chunks that the shape
fixes: the same bits for any number of threads.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastdl_kernels._jit import inlined, jit, linked
from fastdl_kernels.kernel import kernel, overlap
from fastdl_kernels.packing import scratch, transpose_block
from fastdl_kernels.regions import run_jobs
from fastdl_kernels.simd import (
    absolute,
    broadcast,
    exp,
    first_lanes,
    flush_subnormals,
    hmax,
    hsum,
    is_null,
    lanes_of,
    like,
    load,
    load_strided,
    load_up_to,
    log,
    maximum,
    null,
    number_like,
    pointer,
    restore_mode,
    select,
    store,
    store_strided,
    store_up_to,
)
from fastdl_kernels.simd.vector import call_llvm, element_pointer, first_mask, vec_type

SQUARED_ERROR = 0
SIGMOID_CROSS_ENTROPY = 1
SOFTMAX_CROSS_ENTROPY = 2

LOSSES: dict[str, int] = {
    "squared_error": SQUARED_ERROR,
    "sigmoid_cross_entropy": SIGMOID_CROSS_ENTROPY,
    "softmax_cross_entropy": SOFTMAX_CROSS_ENTROPY,
}
"""Registry: the name of each loss and its code."""

# Classes up to which rows are computed side by side, one in each lane.
FEW = 32
columns_scratch = scratch(FEW * 64)
square_scratch = scratch(16 * 64)
# Classes from which on turning squares of rows into columns takes less time than picking numbers one by one.
WORTH_TRANSPOSING = 5

# Numbers per chunk of rows: 20 us of exponentials. A call of one chunk stays on its thread.
CHUNK = 8 * 1024


@jit
def log_number(x):
    """The logarithm of one number, by the vector function."""
    return hmax(log(broadcast(x)))


@jit
def exp_row(logits, n, out):
    """out[:n] = exp(logits[:n] - top); returns (top, sum of out[:n]) with top the maximum. In place is allowed."""
    lanes = lanes_of(logits)
    lowest = like(broadcast(logits[0]), -np.inf)
    tops = lowest
    for i in range(0, n, lanes):
        v = load_up_to(logits, i, n - i)
        tops = maximum(tops, select(first_lanes(v, n - i), v, lowest))
    top = hmax(tops)
    total = like(lowest, 0.0)
    for i in range(0, n, lanes):
        e = exp(load_up_to(logits, i, n - i) - broadcast(top))
        store_up_to(out, i, e, n - i)
        total = total + select(first_lanes(e, n - i), e, like(e, 0.0))
    return top, hsum(total)


@jit
def scale_row(row, n, factor):
    """row[:n] *= factor."""
    for i in range(0, n, lanes_of(row)):
        store_up_to(row, i, load_up_to(row, i, n - i) * broadcast(factor), n - i)


@intrinsic
def whole_numbers(typingctx, x, numbers, i, n):
    """numbers[i], numbers[i + 1], ... (int64) as floats of x's type; 0 in the lanes from n on."""
    if x not in (types.float32, types.float64) or not all(isinstance(t, types.Integer) for t in (i, n)):
        return None
    result = vec_type(x)

    def codegen(context, builder, sig, args):
        index, n_ = (context.cast(builder, args[k], sig.args[k], types.int64) for k in (2, 3))
        address = element_pointer(context, builder, sig.args[1], args[1], index)
        wide = ir.VectorType(ir.IntType(64), result.count)
        mask = first_mask(builder, result.count, n_)
        zeros = ir.Constant(wide, [0] * result.count)
        address = builder.bitcast(address, wide.as_pointer())
        loaded = call_llvm(
            builder,
            f"llvm.masked.load.v{result.count}i64.p0",
            wide,
            [address, ir.Constant(ir.IntType(32), 8), mask, zeros],
        )
        return builder.sitofp(loaded, context.get_value_type(result))

    return result(x, numbers, i, n), codegen


@jit
def load_columns(logits, first, rows, n, columns):
    """columns[j] = logits[:, j] of up to a vector of rows, one in each lane; returns their maxima.

    With few classes a row does not fill a vector; side by side, rows need no sums across lanes and share one logarithm.
    """
    inlined()
    lanes = lanes_of(logits)
    for j in range(0, n, lanes):
        if n - j >= WORTH_TRANSPOSING:
            transpose_block(columns, j * lanes, lanes, logits, first * n + j, n, rows, n - j)
        else:
            for c in range(j, n):
                store(columns, c * lanes, load_strided(logits, first * n + c, n, rows))
    top = load(columns, 0)
    for j in range(1, n):
        top = maximum(top, load(columns, j * lanes))
    return top


@jit
def store_columns(out, first, rows, n, columns, turned):
    """out[:, j] = columns[j] for `rows` rows, the reverse of `load_columns`; turned has room for a square of lanes."""
    inlined()
    lanes = lanes_of(out)
    for j in range(0, n, lanes):
        if n - j >= WORTH_TRANSPOSING:
            transpose_block(turned, 0, lanes, columns, j * lanes, lanes, lanes, lanes)
            for r in range(rows):
                store_up_to(out, (first + r) * n + j, load(turned, r * lanes), n - j)
        else:
            for c in range(j, n):
                store_strided(out, first * n + c, n, load(columns, c * lanes), rows)


@jit
def exp_columns(columns, n, top):
    """columns[j] = exp(columns[j] - top) for n columns; returns their sum."""
    lanes = lanes_of(columns)
    total = like(top, 0.0)
    for j in range(n):
        e = exp(load(columns, j * lanes) - top)
        store(columns, j * lanes, e)
        total = total + e
    return total


@linked(
    lambda x: (types.boolean, types.int64, types.int64, types.int64, types.CPointer(x), types.CPointer(x)), lazily=True
)
def _softmax_rows(logarithm, first, last, n, logits, out):
    """out = softmax(logits), or its logarithm, for rows first .. last."""
    if n <= FEW:
        columns, turned, lanes = columns_scratch(logits[0]), square_scratch(logits[0]), lanes_of(logits)
        for r in range(first, last, lanes):
            rows = min(lanes, last - r)
            top = load_columns(logits, r, rows, n, columns)
            total = exp_columns(columns, n, top)
            factor, shift = like(total, 1.0) / total, log(total)
            if logarithm:
                load_columns(logits, r, rows, n, columns)
            for j in range(n):
                v = load(columns, j * lanes)
                store(columns, j * lanes, v - top - shift if logarithm else v * factor)
            store_columns(out, r, rows, n, columns, turned)
        return
    for r in range(first, last):
        row, out_row = pointer(logits, r * n), pointer(out, r * n)
        top, total = exp_row(row, n, out_row)
        if logarithm:
            shift = log_number(total)
            for i in range(0, n, lanes_of(row)):
                store_up_to(out_row, i, load_up_to(row, i, n - i) - broadcast(top) - broadcast(shift), n - i)
        else:
            scale_row(out_row, n, number_like(total, 1) / total)


@jit
def softmax_cross_entropy_rows(logits, labels, weights, first, last, n, scale, d_logits):
    """Sum of w_r * loss of the rows; d_logits = scale * w_r * (softmax - onehot). In place is allowed."""
    loss = 0.0
    if n <= FEW:
        columns, turned, lanes = columns_scratch(scale), square_scratch(scale), lanes_of(logits)
        for r in range(first, last, lanes):
            rows = min(lanes, last - r)
            wanted = whole_numbers(scale, labels, r, rows)
            top = load_columns(logits, r, rows, n, columns)
            chosen = top
            for j in range(n):
                chosen = select(wanted == broadcast(number_like(scale, j)), load(columns, j * lanes), chosen)
            total = exp_columns(columns, n, top)
            weight = like(total, 1.0) if is_null(weights) else load_up_to(weights, r, rows)
            factor = broadcast(scale) * weight
            share = factor / total
            for j in range(n):
                d = load(columns, j * lanes) * share
                store(columns, j * lanes, select(wanted == broadcast(number_like(scale, j)), d - factor, d))
            store_columns(d_logits, r, rows, n, columns, turned)
            row_losses = weight * (log(total) - (chosen - top))
            loss += np.float64(hsum(select(first_lanes(top, rows), row_losses, like(top, 0.0))))
        return loss
    for r in range(first, last):
        row, d_row = pointer(logits, r * n), pointer(d_logits, r * n)
        label = labels[r]
        logit = row[label]
        factor = scale if is_null(weights) else scale * weights[r]
        top, total = exp_row(row, n, d_row)
        scale_row(d_row, n, factor / total)
        d_row[label] -= factor
        row_loss = np.float64(log_number(total) - (logit - top))
        loss += row_loss if is_null(weights) else row_loss * weights[r]
    return loss


@jit
def _pairs(kind, outputs, targets, start, stop, scale, d_outputs):
    """Sum over elements of the sigmoid cross-entropy or of the squared error; d_outputs = scale * its derivative."""
    lanes = lanes_of(outputs)
    loss = 0.0
    for block in range(start, stop, 64 * lanes):
        zero = like(broadcast(scale), 0.0)
        one = like(zero, 1.0)
        total = zero
        for i in range(block, min(stop, block + 64 * lanes), lanes):
            n = stop - i
            z, t = load_up_to(outputs, i, n), load_up_to(targets, i, n)
            if kind == SIGMOID_CROSS_ENTROPY:
                e = exp(-absolute(z))
                u = one + e
                # log(1 + e) with what 1 + e rounds away: exact to the last place for small e as well.
                log1p = log(u) - ((u - one) - e) / u
                term = maximum(zero, z) - z * t + log1p
                d = select(z >= zero, one, e) / u - t
            else:
                d = z - t
                term = d * d
                d = d + d
            store_up_to(d_outputs, i, d * broadcast(scale), n)
            if n < lanes:
                term = select(first_lanes(term, n), term, zero)
            total = total + term
        loss += np.float64(hsum(total))
    return loss


@jit
def pair_loss_rows(kind, outputs, targets, weights, first, last, n, scale, d_outputs):
    """Sum of w_r * loss of the rows, where a row's loss is the sum over its n elements; gradients times scale * w_r."""
    if is_null(weights):
        return _pairs(kind, outputs, targets, first * n, last * n, scale, d_outputs)
    loss = 0.0
    for r in range(first, last):
        w = weights[r]
        loss += w * _pairs(kind, outputs, targets, r * n, (r + 1) * n, scale * w, d_outputs)
    return loss


@jit
def chunk_rows(n_rows, n):
    """Rows of a chunk: a function of the shape alone."""
    return max(1, min(n_rows, CHUNK // max(1, n)))


@jit
def _softmax_job(c, logarithm, size, logits, out):
    n_rows, n = logits.shape
    mode = flush_subnormals()
    _softmax_rows(logarithm, c * size, min(n_rows, (c + 1) * size), n, pointer(logits, 0), pointer(out, 0))
    restore_mode(mode)


@kernel({"logits": "B N", "out": "B N"}, outputs=["out"])
def softmax(logits, out):
    """out[b, n] = exp(logits[b, n]) / sum over k of exp(logits[b, k]), with the row's maximum subtracted first.

    Parameters
    ----------
    logits : float32 or float64 [B, N], C-contiguous, read
    out : same dtype [B, N], overwritten; must not overlap logits

    Cost: about 25 B N flop; 2 B N itemsize bytes. Edges: B = 0 or N = 0 is a no-op; NaN fills its row.
    """
    n_rows, n = logits.shape
    if out.shape != logits.shape or overlap(out, logits):
        raise ValueError("softmax: expected logits [B, N] and out [B, N] in memory of its own")
    if out.size == 0:  # a row of no classes has no maximum to read
        return
    size = chunk_rows(n_rows, n)
    chunks = (n_rows + size - 1) // size
    run_jobs(_softmax_job, chunks, chunks > 1, (False, size, logits, out))


@kernel({"logits": "B N", "out": "B N"}, outputs=["out"])
def log_softmax(logits, out):
    """out[b, n] = logits[b, n] - log(sum over k of exp(logits[b, k])), with the row's maximum subtracted first.

    Parameters, cost and edges as for `softmax`.
    """
    n_rows, n = logits.shape
    if out.shape != logits.shape or overlap(out, logits):
        raise ValueError("log_softmax: expected logits [B, N] and out [B, N] in memory of its own")
    if out.size == 0:  # a row of no classes has no maximum to read
        return
    size = chunk_rows(n_rows, n)
    chunks = (n_rows + size - 1) // size
    run_jobs(_softmax_job, chunks, chunks > 1, (True, size, logits, out))


@jit
def sum_of(parts, n):
    """parts[0] + parts[1] + ... + parts[n - 1], one after the other."""
    result = 0.0
    for i in range(n):
        result += parts[i]
    return result


@jit
def _softmax_cross_entropy_job(c, size, logits, labels, d_logits, sums):
    n_rows, n = logits.shape
    scale = logits.dtype.type(1.0 / n_rows)
    mode = flush_subnormals()
    sums[c] = softmax_cross_entropy_rows(
        pointer(logits, 0), labels, null(scale), c * size, min(n_rows, (c + 1) * size), n, scale, pointer(d_logits, 0)
    )
    restore_mode(mode)


@kernel({"logits": "B N", "labels": "B", "d_logits": "B N"}, outputs=["d_logits"], integers=["labels"])
def softmax_cross_entropy(logits, labels, d_logits):
    """Mean over rows of -log_softmax(logits)[label]; d_logits = (softmax(logits) - onehot(labels)) / B.

    Parameters
    ----------
    logits : float32 or float64 [B, N], C-contiguous, read
    labels : int64 [B], 0 .. N - 1, read; one out of range raises ValueError before anything is written
    d_logits : same dtype as logits [B, N], overwritten; must not overlap the inputs

    Returns the loss as a float64 number; 0.0 for B = 0.

    Cost: about 27 B N flop; 2 B N itemsize bytes. Numerics: log-sum-exp with the maximum subtracted; finite for any
    finite logits. NaN in a row gives NaN in its gradient and in the loss.
    """
    n_rows, n = logits.shape
    if d_logits.shape != logits.shape or labels.shape[0] != n_rows:
        raise ValueError("softmax_cross_entropy: expected logits [B, N], labels [B], d_logits [B, N]")
    if overlap(d_logits, logits) or overlap(d_logits, labels):
        raise ValueError("softmax_cross_entropy: expected d_logits in memory of its own")
    if n_rows == 0:
        return 0.0
    for r in range(n_rows):
        if labels[r] < 0 or labels[r] >= n:
            raise ValueError("softmax_cross_entropy: expected labels from 0 to N - 1")
    size = chunk_rows(n_rows, n)
    chunks = (n_rows + size - 1) // size
    sums = np.empty(chunks)
    run_jobs(_softmax_cross_entropy_job, chunks, chunks > 1, (size, logits, labels, d_logits, sums))
    return sum_of(sums, chunks) / n_rows


@jit
def _pair_job(c, kind, size, divisor, outputs, targets, d_outputs, sums):
    n_rows, n = outputs.shape
    scale = outputs.dtype.type(1.0 / divisor)
    mode = flush_subnormals()
    sums[c] = pair_loss_rows(
        kind, pointer(outputs, 0), pointer(targets, 0), null(scale), c * size, min(n_rows, (c + 1) * size), n, scale,
        pointer(d_outputs, 0),
    )  # fmt: skip
    restore_mode(mode)


@kernel({"logits": "B N", "targets": "B N", "d_logits": "B N"}, outputs=["d_logits"])
def sigmoid_cross_entropy(logits, targets, d_logits):
    """Mean over rows of the sum over labels of softplus(z) - t z; d_logits = (sigmoid(z) - t) / B.

    Parameters
    ----------
    logits : float32 or float64 [B, N], C-contiguous, read: one column for each independent label
    targets : same dtype [B, N], in 0 .. 1, read
    d_logits : same dtype [B, N], overwritten; must not overlap the inputs

    Returns the loss as a float64 number; 0.0 for B = 0.

    Cost: about 45 B N flop; 3 B N itemsize bytes. Numerics: max(z, 0) - t z + log(1 + e^-|z|): finite for finite z.
    """
    n_rows, n = logits.shape
    if targets.shape != logits.shape or d_logits.shape != logits.shape:
        raise ValueError("sigmoid_cross_entropy: expected logits, targets and d_logits [B, N]")
    if overlap(d_logits, logits) or overlap(d_logits, targets):
        raise ValueError("sigmoid_cross_entropy: expected d_logits in memory of its own")
    if n_rows == 0:
        return 0.0
    size = chunk_rows(n_rows, n)
    chunks = (n_rows + size - 1) // size
    sums = np.empty(chunks)
    run_jobs(_pair_job, chunks, chunks > 1, (SIGMOID_CROSS_ENTROPY, size, n_rows, logits, targets, d_logits, sums))
    return sum_of(sums, chunks) / n_rows


@kernel({"predictions": "B N", "targets": "B N", "d_predictions": "B N"}, outputs=["d_predictions"])
def squared_error(predictions, targets, d_predictions):
    """Mean over rows and targets of (p - t)²; d_predictions = 2 (p - t) / (B N).

    Parameters
    ----------
    predictions, targets : float32 or float64 [B, N], C-contiguous, read
    d_predictions : same dtype [B, N], overwritten; must not overlap the inputs

    Returns the loss as a float64 number; 0.0 for B = 0.

    Cost: 4 B N flop; 3 B N itemsize bytes.
    """
    n_rows, n = predictions.shape
    if targets.shape != predictions.shape or d_predictions.shape != predictions.shape:
        raise ValueError("squared_error: expected predictions, targets and d_predictions [B, N]")
    if overlap(d_predictions, predictions) or overlap(d_predictions, targets):
        raise ValueError("squared_error: expected d_predictions in memory of its own")
    if n_rows * n == 0:
        return 0.0
    size = chunk_rows(n_rows, n)
    chunks = (n_rows + size - 1) // size
    sums = np.empty(chunks)
    run_jobs(
        _pair_job, chunks, chunks > 1, (SQUARED_ERROR, size, n_rows * n, predictions, targets, d_predictions, sums)
    )
    return sum_of(sums, chunks) / (n_rows * n)
