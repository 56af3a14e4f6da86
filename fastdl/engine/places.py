"""Where the numbers of an update job are: in the parameters, and in the memory of gradients."""

from __future__ import annotations

from fastdl.engine.structs import (
    BIAS,
    CATEGORIES,
    CATEGORY_SIZE,
    CLIP,
    N_IN,
    N_OUT,
    NO_UPDATE,
    OF_TABLES,
    OF_WEIGHTS,
    PLAN_COLUMNS,
    ROW,
    SIZE,
    TABLES,
    UNIT_ALPHAS,
    UPDATE_ROWS,
    UPDATES,
    WEIGHT,
    WEIGHT_ROWS,
    plan_of,
)
from fastdl_kernels.serial import jit
from fastdl_kernels.simd import pointer


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
def own_part(update, at, n):
    """(first, how many) of the parameters at .. at + n whose gradient this process uses."""
    first = max(at, update.first)
    return first, max(0, min(at + n, update.stop) - first)
