"""Update: the gradient of a block of weights, and at once the optimizer on the block just computed."""

from __future__ import annotations

import math

from numba.core import types

from fastdl.engine.arrays import INTS_2, floats_1
from fastdl.engine.backward import weight_gradient
from fastdl.engine.forward import parts_of
from fastdl.engine.places import alphas_of, is_whole, own_part, places_of, slot_bias, table_of, weights_group
from fastdl.engine.structs import (
    ADAM,
    BETA1,
    BETA2,
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
    OF_UNIT_ALPHAS,
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
    UNIT_ALPHAS,
    UPDATE_ROWS,
    UPDATES,
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
                width = plan[layer, CATEGORY_SIZE]
                room = max(room, slot_bias(last - first, width) + width)
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
def alpha_gradient(job, network, layer, rows, update, rank, by_unit):
    """The gradient of the units' own numbers: what the rows add to it (`backward`), one after the other."""
    _, n, d_alphas = alphas_of(job, network, layer, update, rank, is_whole(update))
    if n:
        sum_rows(by_unit, plan_of(network, layer)[STRIDE], rows, n, d_alphas)


@jit
def use_gradient(job, network, layer, update, rank, rates, square):
    """What an update job does with the gradient of its block, which is in its place."""
    whole = is_whole(update)
    n_out = plan_of(network, layer)[N_OUT]
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
        penalise(job, network, layer, update, rates, square)


@jit
def penalise(job, network, layer, update, rates, square):
    """Add the L2 penalty's gradient to the block of an `update_block` job, which is in its place in the flat buffer;
    update.squares[square] = Σ g²."""
    _, _, at, bias, n, n_bias, _, _ = places_of(job, network, layer, update, 0, True)
    alphas, n_alphas, _ = alphas_of(job, network, layer, update, 0, True)
    at, n = own_part(update, at, n)
    bias, n_bias = own_part(update, bias, n_bias)
    alphas, n_alphas = own_part(update, alphas, n_alphas)
    d_weight, l2 = pointer(update.gradient, at), rates[3] if plan_of(network, layer)[SIZE] == 0 else 0.0
    if l2 > 0.0:
        add_multiple(d_weight, pointer(network.parameters, at), number_like(network.alphas[layer], l2), n)
    bias_square = square_sum(pointer(update.gradient, bias), n_bias) if n_bias else 0.0
    if n_alphas:
        bias_square += square_sum(pointer(update.gradient, alphas), n_alphas)
    update.squares[square] = square_sum(d_weight, n) + bias_square


@linked(lambda x: (I64, network_type(x), I64, update_type(x), RATES, I64))
def penalised_block(job, network, layer, update, rates, square):
    """`penalise` for a gradient that processes have added up."""
    penalise(job, network, layer, update, rates, square)


@jit
def clip_factor(update, jobs):
    """What the gradient is multiplied by to have at most the norm that is allowed; `jobs` blocks make it up."""
    limit = update.hyper[CLIP]
    norm = math.sqrt(sum_of(update.squares, jobs))
    return limit / norm if norm > limit else (1.0 if norm <= limit else norm)  # a NaN stays one


@linked(lambda x: (I64, network_type(x), I64, update_type(x), RATES, F64))
def clipped_update(job, network, layer, update, rates, factor):
    """The optimizer on the block of an `update_block` job, whose gradient is first multiplied by factor <= 1."""
    _, _, at, bias, n, n_bias, _, _ = places_of(job, network, layer, update, 0, True)
    alphas, n_alphas, _ = alphas_of(job, network, layer, update, 0, True)
    at, n = own_part(update, at, n)
    bias, n_bias = own_part(update, bias, n_bias)
    alphas, n_alphas = own_part(update, alphas, n_alphas)
    d_weight, d_bias, d_alphas = (
        pointer(update.gradient, at), pointer(update.gradient, bias), pointer(update.gradient, alphas)
    )  # fmt: skip
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
