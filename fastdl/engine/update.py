"""Update: the gradient of a block of weights, and at once the optimizer on the block just computed."""

from __future__ import annotations

import math

from numba.core import types

from fastdl.engine.arrays import INTS_2, floats_1
from fastdl.engine.backward import weight_gradient
from fastdl.engine.forward import parts_of
from fastdl.engine.structs import (
    ADAM,
    BETA1,
    BETA2,
    BIAS,
    CATEGORIES,
    CATEGORY_SIZE,
    CLIP,
    CLIP_PARTS,
    F64,
    FACTORS,
    HYPER_SIZE,
    I64,
    MOMENTUM,
    N_IN,
    N_OUT,
    NESTEROV,
    NO_UPDATE,
    OF_BIASES,
    OF_TABLES,
    OF_UNIT_ALPHAS,
    OF_WEIGHTS,
    PLAN_COLUMNS,
    RATE,
    RATES,
    RMSPROP,
    ROW,
    SIZE,
    SLOT_ROUND,
    STEP_DECAY,
    STEP_EPS,
    STEP_L2,
    STRIDE,
    TABLES,
    UNIT_ALPHAS,
    UPDATE_ROWS,
    UPDATES,
    WEIGHT,
    WEIGHT_ROWS,
    floats,
    matrix_type,
    network_of,
    network_type,
    plan_of,
    update_type,
)
from fastdl.engine.sums import add_multiple, row_squares_of, scale, square_sum, sum_rows
from fastdl_kernels.serial import (
    AdamNumbers,
    adam_range,
    grid,
    jit,
    linked,
    momentum_range,
    native,
    noinline,
    rmsprop_range,
    sgd_range,
    sum_of,
)
from fastdl_kernels.simd import (
    lanes_of,
    load_up_to,
    number_like,
    pointer,
    store_up_to,
)


@jit
def step_rates(hyper, own, step):
    """(learning rate, Adam's 1 / (1 - beta1^step) and 1 / (1 - beta2^step), L2 penalty, eps, weight decay), once for all blocks
    of a step; `own` is the step's row of the table."""
    return (
        own[RATE], 1.0 / (1.0 - hyper[BETA1] ** step), 1.0 / (1.0 - hyper[BETA2] ** step), own[STEP_L2], own[STEP_EPS],
        own[STEP_DECAY],
    )  # fmt: skip


@jit
def factors_of(update, layer, group):
    """(what the learning rate, what the weight decay is multiplied by) for a layer's group: OF_WEIGHTS and those after it."""
    at = HYPER_SIZE + layer * FACTORS + 2 * group
    return update.hyper[at], update.hyper[at + 1]


@jit
def optimize(update, rates, parameters, gradient, at, n, l2, factors):
    """One optimizer step on n parameters from `at` on; `gradient` points to theirs, and `factors` are those of their group."""
    one, code, hyper = parameters[0], update.code, update.hyper
    own_rate = rates[0] * factors[0]
    rate, decay = number_like(one, own_rate), number_like(one, l2)
    beta1, rest1 = number_like(one, hyper[BETA1]), number_like(one, 1.0 - hyper[BETA1])
    beta2, rest2 = number_like(one, hyper[BETA2]), number_like(one, 1.0 - hyper[BETA2])
    eps = number_like(one, rates[4])
    keep = number_like(one, 1.0 - own_rate * (rates[5] * factors[1]))
    unbias1, unbias2 = number_like(one, rates[1]), number_like(one, rates[2])
    p = pointer(parameters, at)
    if code == ADAM:
        m, v = pointer(update.state1, at), pointer(update.state2, at)
        numbers = AdamNumbers(decay, keep, rate, beta1, rest1, beta2, rest2, eps, unbias1, unbias2)
        adam_range(p, gradient, m, v, 0, n, numbers)
    elif code == RMSPROP:
        rmsprop_range(p, gradient, pointer(update.state1, at), 0, n, decay, rate, beta1, rest1, eps)
    elif code == MOMENTUM:
        momentum_range(p, gradient, pointer(update.state1, at), 0, n, decay, rate, beta1, rest1, hyper[NESTEROV] > 0)
    else:
        sgd_range(p, gradient, 0, n, decay, rate)


@jit
def apply(update, rates, parameters, gradient, at, n, l2, factors):
    """The same, one copy of the code for all callers in a compiled function."""
    noinline()
    optimize(update, rates, parameters, gradient, at, n, l2, factors)


@jit
def update_jobs(network, low, high):
    """Jobs of the updates of the layers low .. high."""
    jobs = 0
    for layer in range(low, high):
        jobs += plan_of(network, layer)[UPDATES]
    return jobs


@jit
def update_of(job, network, low):
    """(layer, number of its update's block) of a job of the layers from `low` on."""
    layer = low
    while job >= plan_of(network, layer)[UPDATES]:
        job -= plan_of(network, layer)[UPDATES]
        layer += 1
    return layer, job


@jit
def block_of(job, network, layer):
    """(first row, one behind the last) of an update job's weights, which lie in one piece in every buffer."""
    plan = plan_of(network, layer)
    return job * plan[UPDATE_ROWS], min(plan[WEIGHT_ROWS], (job + 1) * plan[UPDATE_ROWS])


@jit
def biases_of(network, layer, m0, m1):
    """(first, how many) of the biases that the update of the rows m0 .. m1 of weights takes as well.

    The first rows take all biases of a layer. Rows of an input stage take the scales of their outputs, and the last ones those of
    inputs that are neither embedded nor categories.
    """
    plan = plan_of(network, layer)
    if plan[SIZE] == 0:
        return 0, (plan[N_OUT] if m0 == 0 else 0)
    first, last = m0 * plan[SIZE], m1 * plan[SIZE]
    if m1 == plan[WEIGHT_ROWS]:
        last = plan[N_OUT] - plan[CATEGORIES] * plan[CATEGORY_SIZE]
    return first, (last - first if plan[BIAS] >= 0 else 0)


@jit
def category_of(job, network, layer):
    """Which table of an input stage an update job takes, with the scales of its outputs; -1: none."""
    plan = plan_of(network, layer)
    return max(-1, job - (plan[UPDATES] - plan[CATEGORIES]))


@jit
def table_of(network, category):
    """(first row, one behind the last) of a category's table, in rows of all tables."""
    starts = pointer(network.plan, network.n_layers * PLAN_COLUMNS + plan_of(network, 0)[N_IN] + category)
    return starts[0], starts[1]


@jit
def weights_group(job, network, layer):
    """The group that the weights of an update job belong to."""
    return OF_WEIGHTS if category_of(job, network, layer) < 0 else OF_TABLES


@jit
def slot_bias(rows, row):
    """Where in a thread's slot of the gradient a layer's biases come: behind the block of weights, on a cache line."""
    return (rows * row + 15) // 16 * 16


@native(lambda x: (I64, I64, types.boolean, INTS_2, floats_1(x), floats_1(x)))
def cut_updates(size, rows, clips, plan, alphas, parameters):
    """Write into `plan` how updates are cut for a team of `size` and batches of `rows`: into blocks of whole rows.

    Returns (jobs of all updates together, numbers in the slot that has room for the gradient of any one of them). Sums of
    squares must not depend on the number of threads: if `clips`, neither does the cut.
    """
    network = network_of(plan, alphas, parameters)
    jobs = room = 0
    for layer in range(network.n_layers):
        n_in, n_out = plan[layer, N_IN], plan[layer, N_OUT]
        parts = CLIP_PARTS if clips else parts_of(size, rows, network, layer)
        if plan[layer, SIZE] == 0:
            plan[layer, UPDATES], plan[layer, UPDATE_ROWS], _, _ = grid(n_in, n_out, network.itemsize, parts, True)
        else:
            inputs, parts = plan[layer, WEIGHT_ROWS], CLIP_PARTS if clips else 2 * size
            plan[layer, UPDATE_ROWS] = max(1, (inputs + parts - 1) // parts)
            plan[layer, UPDATES] = max(1, (inputs + plan[layer, UPDATE_ROWS] - 1) // plan[layer, UPDATE_ROWS])
            plan[layer, UPDATES] += plan[layer, CATEGORIES]
            for c in range(plan[layer, CATEGORIES]):
                first, last = table_of(network, c)
                size = plan[layer, CATEGORY_SIZE]
                room = max(room, slot_bias(last - first, size) + size)
        jobs += plan[layer, UPDATES]
        behind = 2 * n_out if plan[layer, UNIT_ALPHAS] >= 0 else n_out
        room = max(room, slot_bias(plan[layer, UPDATE_ROWS], plan[layer, ROW]) + behind)
    return jobs, (room + SLOT_ROUND - 1) // SLOT_ROUND * SLOT_ROUND


@jit
def _add_partials(update, at, n, total):
    """total[:n] = the numbers from `at` on of all partial gradients, added up one after the other."""
    noinline()
    for i in range(0, n, lanes_of(total)):
        s = load_up_to(update.partial, at + i, n - i)
        for k in range(1, update.n_partial):
            s = s + load_up_to(update.partial, k * update.partial_size + at + i, n - i)
        store_up_to(total, i, s, n - i)


@linked(
    lambda x: (I64, network_type(x), I64, I64, update_type(x), I64, RATES, matrix_type(x), floats(x), floats(x), I64)
)
def update_block(job, network, layer, rows, update, rank, rates, below, d_above, by_unit, square):
    """d_W of a block of rows, and the optimizer on it; the first job takes d_b as well. Where there are partial gradients
    (`add_partial`), they are added up instead of multiplying.

    The block's gradient goes to the slot of the thread `rank`, is used and forgotten. Where all of it is wanted, with
    NO_UPDATE or a limit on its norm, it goes to its place in the flat buffer instead and the parameters stay. With the
    limit, the L2 penalty is added to it and update.squares[square] = Σ g². `by_unit` is what `backward` left in the place of z.
    """
    whole = is_whole(update)
    m0, m1, at, bias, n, n_bias, d_weight, d_bias = places_of(job, network, layer, update, rank, whole)
    if update.n_partial:
        _add_partials(update, at, n, d_weight)
        if n_bias:
            _add_partials(update, bias, n_bias, d_bias)
    else:
        weight_gradient(m0, m1, network, layer, rows, below, d_above, d_weight, d_bias, 0)
    alpha_gradient(job, network, layer, rows, update, rank, by_unit)
    use_gradient(job, network, layer, update, rank, rates, square)


@jit
def is_whole(update):
    """Whether all of the gradient is wanted in its flat buffer, before anything is updated."""
    return update.code == NO_UPDATE or update.hyper[CLIP] > 0.0


@jit
def places_of(job, network, layer, update, rank, whole):
    """(first row of an update job's weights, one behind the last, where its weights and its biases stand in the parameters, how
    many they are, pointers to their gradients)."""
    plan = plan_of(network, layer)
    category = category_of(job, network, layer)
    if category < 0:
        row, start = plan[ROW], plan[WEIGHT]
        m0, m1 = block_of(job, network, layer)
        first, n_bias = biases_of(network, layer, m0, m1)
    else:
        row, start = plan[CATEGORY_SIZE], plan[TABLES]
        m0, m1 = table_of(network, category)
        first, n_bias = plan[N_OUT] - (plan[CATEGORIES] - category) * row, (row if plan[BIAS] >= 0 else 0)
    at, bias, n = start + m0 * row, plan[BIAS] + first, (m1 - m0) * row
    slot = rank * update.slot_size
    d_weight = pointer(update.gradient, at if whole else slot)
    d_bias = pointer(update.gradient, bias if whole else slot + slot_bias(m1 - m0, row))
    return m0, m1, at, bias, n, n_bias, d_weight, d_bias


@jit
def alphas_of(job, network, layer, update, rank, whole):
    """(where the units' own numbers stand in the parameters, how many of them an update job takes, a pointer to their gradient).

    The first job of a layer with a parametric activation takes them all.
    """
    plan = plan_of(network, layer)
    n = plan[N_OUT] if job == 0 and plan[UNIT_ALPHAS] >= 0 else 0
    slot = rank * update.slot_size + slot_bias(plan[UPDATE_ROWS], plan[ROW]) + plan[N_OUT]
    return plan[UNIT_ALPHAS], n, pointer(update.gradient, plan[UNIT_ALPHAS] if whole else slot)


@jit
def alpha_gradient(job, network, layer, rows, update, rank, by_unit):
    """The gradient of the units' own numbers: what the rows add to it (`backward`), one after the other."""
    _, n, d_alphas = alphas_of(job, network, layer, update, rank, is_whole(update))
    if n:
        sum_rows(by_unit, plan_of(network, layer)[STRIDE], rows, n, d_alphas)


@jit
def use_gradient(job, network, layer, update, rank, rates, square):
    """What an update job does with the gradient of its block, which is in its place."""
    whole = is_whole(update)
    n_out, one = plan_of(network, layer)[N_OUT], network.alphas[layer]
    m0, m1, at, bias, n, n_bias, d_weight, d_bias = places_of(job, network, layer, update, rank, whole)
    alphas, n_alphas, d_alphas = alphas_of(job, network, layer, update, rank, whole)
    is_dense = plan_of(network, layer)[SIZE] == 0
    l2 = rates[3] if is_dense else 0.0
    if update.penalised and is_dense:
        sums = pointer(update.row_squares, rows_before(network, layer) + m0)
        row_squares_of(pointer(network.parameters, at), n_out, m1 - m0, sums)
    group = weights_group(job, network, layer)
    if not whole:
        apply(update, rates, network.parameters, d_weight, at, n, l2, factors_of(update, layer, group))
        if n_bias:
            apply(update, rates, network.parameters, d_bias, bias, n_bias, 0.0, factors_of(update, layer, OF_BIASES))
        if n_alphas:
            factors = factors_of(update, layer, OF_UNIT_ALPHAS)
            apply(update, rates, network.parameters, d_alphas, alphas, n_alphas, 0.0, factors)
    elif update.code != NO_UPDATE:
        if l2 > 0.0:
            add_multiple(d_weight, pointer(network.parameters, at), number_like(one, l2), n)
        bias_square = square_sum(d_bias, n_bias) if n_bias else 0.0
        if n_alphas:
            bias_square += square_sum(d_alphas, n_alphas)
        update.squares[square] = square_sum(d_weight, n) + bias_square


@jit
def clip_factor(update, jobs):
    """What the gradient is multiplied by to have at most the norm that is allowed; `jobs` blocks make it up."""
    limit = update.hyper[CLIP]
    norm = math.sqrt(sum_of(update.squares, jobs))
    return limit / norm if norm > limit else (1.0 if norm <= limit else norm)  # a NaN stays one


@linked(lambda x: (I64, network_type(x), I64, update_type(x), RATES, F64))
def clipped_update(job, network, layer, update, rates, factor):
    """The optimizer on the block of an `update_block` job, whose gradient is first multiplied by factor <= 1."""
    _, _, at, bias, n, n_bias, d_weight, d_bias = places_of(job, network, layer, update, 0, True)
    alphas, n_alphas, d_alphas = alphas_of(job, network, layer, update, 0, True)
    factors = factors_of(update, layer, weights_group(job, network, layer))
    _clipped_step(update, rates, network.parameters, d_weight, at, n, factor, factors)
    if n_bias:
        _clipped_step(
            update, rates, network.parameters, d_bias, bias, n_bias, factor, factors_of(update, layer, OF_BIASES)
        )
    if n_alphas:
        factors = factors_of(update, layer, OF_UNIT_ALPHAS)
        _clipped_step(update, rates, network.parameters, d_alphas, alphas, n_alphas, factor, factors)


@jit
def _clipped_step(update, rates, parameters, gradient, at, n, factor, factors):
    """`apply` of a gradient that is first multiplied by `factor`."""
    if factor != 1.0:  # a NaN, too
        scale(gradient, number_like(parameters[0], factor), n)
    apply(update, rates, parameters, gradient, at, n, 0.0, factors)


@jit
def rows_before(network, layer):
    """How many rows of weights the layers below `layer` have."""
    rows = 0
    for i in range(layer):
        rows += plan_of(network, i)[N_IN]
    return rows


@jit
def penalty_sum(update, network, first):
    """Σ w² over the weights of the layers from `first` on, as they were before the step's updates."""
    before = rows_before(network, first)
    return sum_of(pointer(update.row_squares, before), rows_before(network, network.n_layers) - before)
