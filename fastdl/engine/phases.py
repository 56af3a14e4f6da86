"""The jobs that a training step consists of: forward, backward, update, gather and loss, each for one block.

A job is serial, owns what it writes, and is cut by sizes alone: how jobs are spread over threads changes no bit. Callers
flush subnormal numbers.
"""

from __future__ import annotations

from numba.core import types

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
    OUTPUT,
    RMSPROP,
    ROWS,
    ROWS_AHEAD,
    SLOT_ROUND,
    STRIDE,
    UPDATE_ROWS,
    UPDATES,
    WEIGHT,
    WEIGHT_DECAY,
    WORK_PER_JOB,
)
from fastdl.engine.views import BLOCK, I64, INTS, KEY, NUMBERS, RATES, net_of, net_type, plan_of, rows_type, rule_type
from fastdl_kernels.serial import (
    IDENTITY,
    TILE_ROWS,
    Operand,
    Target,
    adam_range,
    entry,
    grid,
    jit,
    job_rows,
    linked,
    mix,
    momentum_range,
    noinline,
    product_job,
    rmsprop_range,
    sgd_range,
)
from fastdl_kernels.serial import loss_rows as row_losses
from fastdl_kernels.simd import (
    broadcast,
    fma,
    lanes_of,
    load_up_to,
    null,
    number_like,
    pointer,
    prefetch,
    store_up_to,
)


@jit
def parts_of(size, rows, net, layer):
    """Into how many jobs a layer's product is cut at least, for a team of `size`."""
    plan = plan_of(net, layer)
    return max(1, min(size, rows * plan[N_IN] * plan[N_OUT] // WORK_PER_JOB))


@linked(lambda x: (BLOCK, net_type(x), I64, types.CPointer(x), I64, types.CPointer(x), KEY))
def forward(block, net, layer, below, below_stride, above, key):
    """above = act(below @ W + b) for one block, and dropout; below and above point to [rows, n_in] and [rows, n_out]."""
    m0, m1, n0, n1 = block
    plan = plan_of(net, layer)
    n_in, n_out, stride = plan[N_IN], plan[N_OUT], plan[STRIDE]
    alpha = net.alphas[layer]
    nothing = null(alpha)
    a = Operand(below, below_stride, False)
    b = Operand(pointer(net.params, plan[WEIGHT]), n_out, True)
    bias = pointer(net.params, plan[BIAS])
    c = Target(above, stride, bias, plan[ACTIVATION], alpha, nothing, IDENTITY, alpha, nothing, 0, nothing)
    product_job(m0, m1, n0, n1, n_in, a, b, c)
    if plan[DROP]:
        drop(above, stride, m0, m1, n0, n1, plan[DROP], mix(key, layer))


@linked(lambda x: (BLOCK, net_type(x), I64, types.CPointer(x), types.CPointer(x), KEY))
def backward(block, net, layer, outputs, d_outputs, key):
    """d_z of the layer underneath = (d_z @ W.T) * act' there, for one block."""
    m0, m1, n0, n1 = block
    plan, under = plan_of(net, layer), plan_of(net, layer - 1)
    n_out = plan[N_OUT]
    d_above = pointer(d_outputs, plan[OUTPUT])
    below, d_below = pointer(outputs, under[OUTPUT]), pointer(d_outputs, under[OUTPUT])
    alpha, alpha_under = net.alphas[layer], net.alphas[layer - 1]
    nothing = null(alpha)
    a = Operand(d_above, plan[STRIDE], False)
    b = Operand(pointer(net.params, plan[WEIGHT]), n_out, False)
    stride, share = under[STRIDE], under[DROP]
    fused = fused_derivative(under[ACTIVATION], share)
    c = Target(d_below, stride, nothing, IDENTITY, alpha, below, fused, alpha_under, nothing, 0, nothing)
    product_job(m0, m1, n0, n1, n_out, a, b, c)
    if share:
        if fused != under[ACTIVATION]:
            differentiate(d_below, below, stride, m0, m1, n0, n1, share, under[ACTIVATION], alpha_under)
        drop(d_below, stride, m0, m1, n0, n1, share, mix(key, layer - 1))


@jit
def step_rates(hyper, lr, step):
    """(learning rate, Adam's 1 / (1 - beta1^step) and 1 / (1 - beta2^step)), computed once for all blocks of a step."""
    return lr, 1.0 / (1.0 - hyper[BETA1] ** step), 1.0 / (1.0 - hyper[BETA2] ** step)


@jit
def _apply(rule, rates, params, grads, at, n, l2, weight_decay):
    """One optimizer step on n parameters from `at` on; `grads` points to their gradients."""
    noinline()
    one, code, hyper = params[0], rule.code, rule.hyper
    rate, decay = number_like(one, rates[0]), number_like(one, l2)
    beta1, rest1 = number_like(one, hyper[BETA1]), number_like(one, 1.0 - hyper[BETA1])
    beta2, rest2 = number_like(one, hyper[BETA2]), number_like(one, 1.0 - hyper[BETA2])
    eps = number_like(one, hyper[EPS])
    keep = number_like(one, 1.0 - rates[0] * weight_decay)
    unbias1, unbias2 = number_like(one, rates[1]), number_like(one, rates[2])
    p = pointer(params, at)
    if code == ADAM:
        m, v = pointer(rule.state1, at), pointer(rule.state2, at)
        adam_range(p, grads, m, v, 0, n, decay, keep, rate, beta1, rest1, beta2, rest2, eps, unbias1, unbias2)
    elif code == RMSPROP:
        rmsprop_range(p, grads, pointer(rule.state1, at), 0, n, decay, rate, beta1, rest1, eps)
    elif code == MOMENTUM:
        momentum_range(p, grads, pointer(rule.state1, at), 0, n, decay, rate, beta1, rest1, hyper[NESTEROV] > 0)
    else:
        sgd_range(p, grads, 0, n, decay, rate)


@jit
def update_block(job, net, layer):
    """(first row, one behind the last) of an update job's weights, which lie in one piece in every buffer."""
    plan = plan_of(net, layer)
    return job * plan[UPDATE_ROWS], min(plan[N_IN], (job + 1) * plan[UPDATE_ROWS])


@jit
def _slot_bias(rows, n_out):
    """Where in a thread's slot of the gradient a layer's biases come: behind the block of weights, on a cache line."""
    return (rows * n_out + 15) // 16 * 16


@entry
def cut_updates(size, rows, clips, plan, alphas, params):
    """Write into `plan` how updates are cut for a team of `size` and batches of `rows`: into blocks of whole rows.

    Returns (jobs of all updates together, numbers in the slot that has room for the gradient of any one of them). Sums of
    squares must not depend on the number of threads: if `clips`, neither does the cut.
    """
    net = net_of(plan, alphas, params)
    jobs = room = 0
    for layer in range(net.n_layers):
        n_in, n_out = plan[layer, N_IN], plan[layer, N_OUT]
        parts = CLIP_PARTS if clips else parts_of(size, rows, net, layer)
        plan[layer, UPDATES], plan[layer, UPDATE_ROWS], _, _ = grid(n_in, n_out, net.itemsize, parts, True)
        jobs += plan[layer, UPDATES]
        room = max(room, _slot_bias(plan[layer, UPDATE_ROWS], n_out) + n_out)
    return jobs, (room + SLOT_ROUND - 1) // SLOT_ROUND * SLOT_ROUND


@jit
def _gradient(m0, m1, net, layer, rows, below, below_stride, d_above, d_weight, d_bias, adds):
    """d_weight = below.T @ d_above (+ d_weight) for rows m0 .. m1 of the weights; from row 0 on, d_bias as well."""
    plan = plan_of(net, layer)
    n_out, alpha = plan[N_OUT], net.alphas[layer]
    nothing = null(alpha)
    a = Operand(below, below_stride, True)
    b = Operand(d_above, plan[STRIDE], True)
    # A product counts its rows from the matrix's first.
    first = pointer(d_weight, -m0 * n_out)
    c = Target(first, n_out, nothing, IDENTITY, alpha, nothing, IDENTITY, alpha, d_bias, adds, nothing)
    product_job(m0, m1, 0, n_out, rows, a, b, c)


@linked(
    lambda x: (I64, net_type(x), I64, I64, types.CPointer(x), I64, types.CPointer(x), types.CPointer(x), I64)
)  # fmt: skip
def add_share(first, net, layer, rows, below, below_stride, d_above, share, adds):
    """A layer's gradient over `rows` rows from `first` on, written or added to its place in a flat share of the gradient."""
    plan = plan_of(net, layer)
    n_in, n_out, at = plan[N_IN], plan[N_OUT], plan[WEIGHT]
    x, d = pointer(below, first * below_stride), pointer(d_above, first * plan[STRIDE])
    most = job_rows(net.itemsize)
    for m0 in range(0, n_in, most):
        d_weight = pointer(share, at + m0 * n_out)
        _gradient(
            m0, min(n_in, m0 + most), net, layer, rows, x, below_stride, d, d_weight, pointer(share, plan[BIAS]), adds
        )


@jit
def _add_shares(rule, at, n, total):
    """total[:n] = the numbers from `at` on of all shares, added up one share after the other."""
    noinline()
    for i in range(0, n, lanes_of(total)):
        s = load_up_to(rule.shares, at + i, n - i)
        for share in range(1, rule.n_shares):
            s = s + load_up_to(rule.shares, share * rule.share_size + at + i, n - i)
        store_up_to(total, i, s, n - i)


@linked(
    lambda x: (
        I64, net_type(x), I64, I64, rule_type(x), I64, RATES, types.CPointer(x), I64, types.CPointer(x), I64,
    )
)  # fmt: skip
def update(job, net, layer, rows, rule, slot, rates, below, below_stride, d_above, square):
    """d_W of a block of rows, and the optimizer on it; the first job takes d_b as well. Where there are shares of the gradient
    (`add_share`), they are added up instead of multiplying.

    The block's gradient goes to the numbers from `slot` on, is used and forgotten. Where all of it is wanted, with
    NO_UPDATE or a limit on its norm, it goes to its place in the flat buffer instead and the parameters stay. With the
    limit, the L2 penalty is added to it and rule.squares[square] = Σ g².
    """
    plan = plan_of(net, layer)
    n_out = plan[N_OUT]
    m0, m1 = update_block(job, net, layer)
    alpha, grads = net.alphas[layer], rule.grads
    whole = rule.code == NO_UPDATE or rule.hyper[CLIP] > 0.0
    at, bias, n = plan[WEIGHT] + m0 * n_out, plan[BIAS], (m1 - m0) * n_out
    d_weight = pointer(grads, at if whole else slot)
    d_bias = pointer(grads, bias if whole else slot + _slot_bias(m1 - m0, n_out))
    if rule.n_shares:
        _add_shares(rule, at, n, d_weight)
        if m0 == 0:
            _add_shares(rule, bias, n_out, d_bias)
    else:
        _gradient(m0, m1, net, layer, rows, below, below_stride, d_above, d_weight, d_bias, 0)
    if not whole:
        _apply(rule, rates, net.params, d_weight, at, n, rule.hyper[L2], rule.hyper[WEIGHT_DECAY])
        if m0 == 0:
            _apply(rule, rates, net.params, d_bias, bias, n_out, 0.0, 0.0)
    elif rule.code != NO_UPDATE:
        if rule.hyper[L2] > 0.0:
            _add_multiple(d_weight, pointer(net.params, at), number_like(alpha, rule.hyper[L2]), n)
        bias_square = square_sum(d_bias, n_out) if m0 == 0 else 0.0
        rule.squares[square] = square_sum(d_weight, n) + bias_square


@linked(lambda x: (I64, net_type(x), I64, rule_type(x), RATES, types.float64))
def clipped_update(job, net, layer, rule, rates, factor):
    """The optimizer on the block of an `update` job, whose gradient is first multiplied by factor <= 1."""
    plan = plan_of(net, layer)
    n_out, bias = plan[N_OUT], plan[BIAS]
    m0, m1 = update_block(job, net, layer)
    at, n = plan[WEIGHT] + m0 * n_out, (m1 - m0) * n_out
    d_weight, d_bias = pointer(rule.grads, at), pointer(rule.grads, bias)
    if factor != 1.0:  # a NaN, too
        _scale(d_weight, number_like(net.params[0], factor), n)
    _apply(rule, rates, net.params, d_weight, at, n, 0.0, rule.hyper[WEIGHT_DECAY])
    if m0 == 0:
        if factor != 1.0:
            _scale(d_bias, number_like(net.params[0], factor), n_out)
        _apply(rule, rates, net.params, d_bias, bias, n_out, 0.0, 0.0)


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


@linked(lambda x: (I64, I64, I64, INTS, I64, rows_type(x), rows_type(x)))
def gather(job, batch, batch_size, order, n_rows, data, to):
    """Copy ROWS rows of a batch, in the shuffled order, to where the step reads them: both are `Rows`."""
    start, n = batch * batch_size, data.n_inputs
    for r in range(job * ROWS, min((job + 1) * ROWS, min(batch_size, n_rows - start))):
        row = order[start + r]
        source, target = pointer(data.inputs, row * n), pointer(to.inputs, r * to.n_inputs)
        # The next rows are anywhere: no prefetcher of the hardware knows them, but the order does.
        ahead = order[min(start + r + ROWS_AHEAD, n_rows - 1)]
        prefetch(data.labels, ahead * data.n_labels)
        for i in range(0, n, lanes_of(source)):
            prefetch(data.inputs, ahead * n + i)
            store_up_to(target, i, load_up_to(source, i, n - i), n - i)
        for i in range(data.n_labels):
            to.labels[r + i] = data.labels[row + i]
        for i in range(data.n_targets):
            to.targets[r * data.n_targets + i] = data.targets[row * data.n_targets + i]
        for i in range(data.n_weights):
            to.weights[r + i] = data.weights[row + i]


@linked(lambda x: (I64, I64, I64, I64, types.float64, types.CPointer(x), rows_type(x), types.CPointer(x), NUMBERS))
def loss_rows(loss, first, last, n, divisor, outputs, batch, d_outputs, parts):
    """parts[i] = sum of the weighted losses of the rows from i * TILE_ROWS on, for first .. last; first is a multiple.

    d_outputs = their gradient / divisor, where the batch's mean is taken.
    """
    scale = number_like(outputs[0], 1.0 / divisor)
    weights = batch.weights if batch.n_weights else null(scale)
    for start in range(first, last, TILE_ROWS):
        stop = min(last, start + TILE_ROWS)
        part = row_losses(
            loss, outputs, batch.labels, batch.targets, weights, null(scale), start, stop, n, scale, d_outputs
        )  # fmt: skip
        parts[start // TILE_ROWS] = part
