"""The jobs that a training step consists of: forward, backward, update, gather and loss, each for one block.

A job is serial, owns what it writes, and is cut by sizes alone: how jobs are spread over threads changes no bit.
"""

from __future__ import annotations

from fastdl.engine.dropout import differentiate, drop, fused_derivative
from fastdl.engine.layout import (
    ACTIVATION,
    ADAM,
    BETA1,
    BETA2,
    BIAS,
    CLIP,
    CLIP_PARTS,
    DROP,
    EPS,
    L2,
    MOMENTUM,
    N_IN,
    N_OUT,
    NESTEROV,
    NO_UPDATE,
    RMSPROP,
    ROWS,
    ROWS_AHEAD,
    STRIDE,
    UPDATE_COLUMNS,
    WEIGHT,
    WEIGHT_DECAY,
    WORK_PER_JOB,
)
from fastdl_kernels.serial import (
    IDENTITY,
    SOFTMAX_CROSS_ENTROPY,
    TILE_ROWS,
    Operand,
    Target,
    adam_range,
    entry,
    grid,
    jit,
    job_block,
    mix,
    momentum_range,
    noinline,
    pair_loss_rows,
    product_job,
    rmsprop_range,
    sgd_range,
    softmax_cross_entropy_rows,
)
from fastdl_kernels.simd import (
    broadcast,
    flush_subnormals,
    fma,
    lanes_of,
    load_up_to,
    null,
    number_like,
    pointer,
    prefetch,
    restore_mode,
    store_up_to,
)


@jit
def parts_of(size, rows, plan, layer):
    """Into how many jobs a layer's product is cut at least, for a team of `size`."""
    return max(1, min(size, rows * plan[layer, N_IN] * plan[layer, N_OUT] // WORK_PER_JOB))


@jit
def forward(job, parts, plan, alphas, layer, rows, params, below, below_stride, above, above_stride, key, whole_rows):
    """above = act(below @ W + b) for one block, and dropout; below and above point to [rows, n_in] and [rows, n_out]."""
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
    if plan[layer, DROP]:
        drop(above, above_stride, m0, m1, n0, n1, plan[layer, DROP], mix(key, layer))


@jit
def backward(job, parts, plan, alphas, layer, rows, params, d_above, below, d_below, key):
    """d_below = (d_above @ W.T) * act'(below) for one block; `below` holds the outputs of the layer underneath."""
    noinline()
    n_in, n_out = plan[layer, N_IN], plan[layer, N_OUT]
    m0, m1, n0, n1 = job_block(job, rows, n_in, params.itemsize, parts)
    alpha = alphas[layer]
    nothing = null(alpha)
    a = Operand(d_above, plan[layer, STRIDE], False)
    b = Operand(pointer(params, plan[layer, WEIGHT]), n_out, False)
    under, stride, share = plan[layer - 1, ACTIVATION], plan[layer - 1, STRIDE], plan[layer - 1, DROP]
    fused = fused_derivative(under, share)
    c = Target(d_below, stride, nothing, IDENTITY, alpha, below, fused, alphas[layer - 1], nothing)
    product_job(m0, m1, n0, n1, n_out, a, b, c)
    if share:
        if fused != under:
            differentiate(d_below, below, stride, m0, m1, n0, n1, share, under, alphas[layer - 1])
        drop(d_below, stride, m0, m1, n0, n1, share, mix(key, layer - 1))


@jit
def step_rates(hyper, lr, step):
    """(learning rate, Adam's 1 / (1 - beta1^step) and 1 / (1 - beta2^step)), computed once for all blocks of a step."""
    return lr, 1.0 / (1.0 - hyper[BETA1] ** step), 1.0 / (1.0 - hyper[BETA2] ** step)


@jit
def _apply(code, hyper, rates, params, grads, state1, state2, at, rows, stride, n, l2, weight_decay):
    """One optimizer step on `rows` pieces of n parameters, `stride` apart from `at` on; `grads` points to their gradients,
    one piece behind the other."""
    noinline()
    one = params[0]
    rate, decay = number_like(one, rates[0]), number_like(one, l2)
    beta1, rest1 = number_like(one, hyper[BETA1]), number_like(one, 1.0 - hyper[BETA1])
    beta2, rest2 = number_like(one, hyper[BETA2]), number_like(one, 1.0 - hyper[BETA2])
    eps = number_like(one, hyper[EPS])
    keep = number_like(one, 1.0 - rates[0] * weight_decay)
    unbias1, unbias2 = number_like(one, rates[1]), number_like(one, rates[2])
    if stride == n:
        rows, n = 1, rows * n
    for r in range(rows):
        i = at + r * stride
        p, g = pointer(params, i), pointer(grads, r * n)
        if code == ADAM:
            m, v = pointer(state1, i), pointer(state2, i)
            adam_range(p, g, m, v, 0, n, decay, keep, rate, beta1, rest1, beta2, rest2, eps, unbias1, unbias2)
        elif code == RMSPROP:
            rmsprop_range(p, g, pointer(state1, i), 0, n, decay, rate, beta1, rest1, eps)
        elif code == MOMENTUM:
            momentum_range(p, g, pointer(state1, i), 0, n, decay, rate, beta1, rest1, hyper[NESTEROV] > 0)
        else:
            sgd_range(p, g, 0, n, decay, rate)


@jit
def update_jobs(plan, layer, itemsize, parts):
    """Jobs of a layer's update: blocks of whole rows of its weights, which lie in one piece in every buffer."""
    return grid(plan[layer, N_IN], plan[layer, N_OUT], itemsize, parts, True)[0]


@jit
def _slot_bias(rows, n_out):
    """Where in a thread's slot of the gradient a layer's biases come: behind the block of weights, on a cache line."""
    return (rows * n_out + 15) // 16 * 16


@entry
def gradient_sizes(plan, itemsize):
    """(jobs of all updates together, numbers in the slot that has room for the gradient of any one of them)."""
    jobs = room = 0
    for layer in range(plan.shape[0]):
        jobs += update_jobs(plan, layer, itemsize, CLIP_PARTS)
        row_size = grid(plan[layer, N_IN], plan[layer, N_OUT], itemsize, 1, True)[1]
        n_out = min(plan[layer, N_OUT], UPDATE_COLUMNS)
        room = max(room, _slot_bias(row_size, n_out) + n_out)
    # Slots of two threads share no cache line, nor its neighbour.
    return jobs, (room + 31) // 32 * 32


@jit
def update(
    job, parts, plan, alphas, layer, rows, params, grads, slot, state1, state2, code, hyper, rates,
    below, below_stride, d_above, squares, square,
):  # fmt: skip
    """d_W of a block of rows, and the optimizer on it; the first job takes d_b as well.

    The gradient of UPDATE_COLUMNS goes to the numbers from `slot` on, is used and forgotten. Where all of it is wanted,
    with NO_UPDATE or a limit on its norm, it goes to its place in the flat buffer instead and the parameters stay. With
    the limit, the L2 penalty is added to it and squares[square] = Σ g².
    """
    noinline()
    n_in, n_out = plan[layer, N_IN], plan[layer, N_OUT]
    row_size = grid(n_in, n_out, params.itemsize, parts, True)[1]
    m0, m1 = job * row_size, min(n_in, (job + 1) * row_size)
    alpha = alphas[layer]
    nothing = null(alpha)
    whole = code == NO_UPDATE or hyper[CLIP] > 0.0
    at, bias = plan[layer, WEIGHT] + m0 * n_out, plan[layer, BIAS]
    a = Operand(below, below_stride, True)
    b = Operand(d_above, plan[layer, STRIDE], True)
    for n0 in range(0, n_out, UPDATE_COLUMNS):
        n = min(UPDATE_COLUMNS, n_out - n0)
        # Where the block's gradient goes, and how far its rows are apart.
        weight_at, stride = (at + n0, n_out) if whole else (slot, n)
        bias_at = bias + n0 if whole else slot + _slot_bias(row_size, n)
        # A product counts rows and columns from the matrix's first.
        first, first_bias = pointer(grads, weight_at - m0 * stride - n0), pointer(grads, bias_at - n0)
        c = Target(first, stride, nothing, IDENTITY, alpha, nothing, IDENTITY, alpha, first_bias)
        product_job(m0, m1, n0, n0 + n, rows, a, b, c)
        if not whole:
            mode = flush_subnormals()
            d_weight, d_bias = pointer(grads, weight_at), pointer(grads, bias_at)
            decay, weight_decay = hyper[L2], hyper[WEIGHT_DECAY]
            _apply(
                code, hyper, rates, params, d_weight, state1, state2, at + n0, m1 - m0, n_out, n, decay, weight_decay
            )
            if m0 == 0:
                _apply(code, hyper, rates, params, d_bias, state1, state2, bias + n0, 1, n, n, 0.0, 0.0)
            restore_mode(mode)
    if whole and code != NO_UPDATE:
        mode = flush_subnormals()
        d_weight, n = pointer(grads, at), (m1 - m0) * n_out
        if hyper[L2] > 0.0:
            _add_multiple(d_weight, pointer(params, at), number_like(alpha, hyper[L2]), n)
        squares[square] = square_sum(d_weight, n) + (square_sum(pointer(grads, bias), n_out) if m0 == 0 else 0.0)
        restore_mode(mode)


@jit
def clipped_update(job, plan, layer, params, grads, state1, state2, code, hyper, rates, factor):
    """The optimizer on the block of an `update` job, whose gradient is first multiplied by factor <= 1."""
    noinline()
    n_in, n_out = plan[layer, N_IN], plan[layer, N_OUT]
    row_size = grid(n_in, n_out, params.itemsize, CLIP_PARTS, True)[1]
    m0, m1 = job * row_size, min(n_in, (job + 1) * row_size)
    at, n = plan[layer, WEIGHT] + m0 * n_out, (m1 - m0) * n_out
    d_weight, d_bias = pointer(grads, at), pointer(grads, plan[layer, BIAS])
    mode = flush_subnormals()
    if factor != 1.0:  # a NaN, too
        _scale(d_weight, number_like(params[0], factor), n)
    _apply(code, hyper, rates, params, d_weight, state1, state2, at, 1, n, n, 0.0, hyper[WEIGHT_DECAY])
    if m0 == 0:
        if factor != 1.0:
            _scale(d_bias, number_like(params[0], factor), n_out)
        _apply(code, hyper, rates, params, d_bias, state1, state2, plan[layer, BIAS], 1, n_out, n_out, 0.0, 0.0)
    restore_mode(mode)


@jit
def _add_multiple(out, x, factor, n):
    """out += factor * x."""
    for i in range(0, n, lanes_of(out)):
        store_up_to(out, i, fma(broadcast(factor), load_up_to(x, i, n - i), load_up_to(out, i, n - i)), n - i)


@jit
def _scale(out, factor, n):
    """out *= factor."""
    for i in range(0, n, lanes_of(out)):
        store_up_to(out, i, broadcast(factor) * load_up_to(out, i, n - i), n - i)


@jit
def square_sum(x, n):
    """Σ x², in float64: four sums by turns, which do not wait for each other, then the rest."""
    noinline()
    s0 = s1 = s2 = s3 = 0.0
    full = n - n % 4
    for i in range(0, full, 4):
        a, b, c, d = float(x[i]), float(x[i + 1]), float(x[i + 2]), float(x[i + 3])
        s0 += a * a
        s1 += b * b
        s2 += c * c
        s3 += d * d
    total = (s0 + s1) + (s2 + s3)
    for i in range(full, n):
        total += float(x[i]) * float(x[i])
    return total


@jit
def gather(job, batch, batch_size, order, data, labels, targets, weights, to_x, to_labels, to_targets, to_weights):
    """Copy ROWS rows of a batch, in the shuffled order, to where the step reads them."""
    noinline()
    start, n = batch * batch_size, data.shape[1]
    for r in range(job * ROWS, min((job + 1) * ROWS, min(batch_size, order.size - start))):
        row = order[start + r]
        source, to = pointer(data, row * n), pointer(to_x, r * to_x.shape[1])
        # The next rows are anywhere: no prefetcher of the hardware knows them, but the order does.
        coming = pointer(data, order[min(start + r + ROWS_AHEAD, order.size - 1)] * n)
        for i in range(0, n, lanes_of(source)):
            prefetch(coming, i)
            store_up_to(to, i, load_up_to(source, i, n - i), n - i)
        if labels.size:
            to_labels[r] = labels[row]
        for i in range(targets.shape[1]):
            to_targets[r, i] = targets[row, i]
        if weights.size:
            to_weights[r] = weights[row]


@jit
def loss_rows(loss, first, last, n, divisor, outputs, labels, targets, weights, d_outputs, parts):
    """parts[i] = sum of the weighted losses of the rows from i * TILE_ROWS on, for first .. last; first is a multiple.

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
