"""The input stage: embeddings of numbers and learnt scales, before the first layer that has weights.

It stands in the plan as the lowest layer: what the embedding learns for an input is a row of its weights, and the scales are its
biases. Forward goes over rows of the batch, vectors of them at a time; the gradient over cosines, and adds up the rows one after
the other. So no sum depends on how jobs are spread. Formulas are those of `fastdl.embeddings.PBLD`.
"""

from __future__ import annotations

import math

from fastdl.engine.structs import (
    BIAS,
    FREQUENCIES,
    I64,
    N_IN,
    N_OUT,
    OUTPUT,
    PLAN_COLUMNS,
    RATES,
    ROW,
    SIZE,
    STRIDE,
    WEIGHT,
    WEIGHT_ROWS,
    Z,
    floats,
    matrix_type,
    memory_type,
    network_type,
    plan_of,
    update_type,
)
from fastdl.engine.update import is_whole, places_of, use_gradient
from fastdl_kernels.serial import jit, linked, noinline
from fastdl_kernels.simd import (
    broadcast,
    cospi,
    fma,
    is_null,
    lanes_of,
    load_strided,
    load_up_to,
    null,
    number_like,
    pointer,
    sinpi,
    store_strided,
    store_up_to,
)


@jit
def has_stage(network):
    """Whether the lowest layer is an input stage."""
    return plan_of(network, 0)[SIZE] > 0


@jit
def _inputs_in_order(network):
    """All inputs in the order of their outputs: they stand behind the rows of the plan."""
    return pointer(network.plan, network.n_layers * PLAN_COLUMNS)


@jit
def _embed_column(first, last, x, x_stride, numbers, waves, maps, out, stride):
    """out[r * stride + k] = e[k] for the rows first .. last of a column x, with the `numbers` learnt for it; `maps` is size - 1.

    Four linear maps at a time share their cosines.
    """
    noinline()
    lanes = lanes_of(numbers)
    half_turn = number_like(numbers[0], 1.0 / math.pi)
    weights, biases = pointer(numbers, 2 * waves), pointer(numbers, (2 + maps) * waves)
    for r in range(first, last, lanes):
        n = min(lanes, last - r)
        v = load_strided(x, r * x_stride, x_stride, n)
        for k in range(0, maps, 4):
            k1, k2, k3 = min(k + 1, maps - 1), min(k + 2, maps - 1), min(k + 3, maps - 1)
            a, b, c, d = broadcast(biases[k]), broadcast(biases[k1]), broadcast(biases[k2]), broadcast(biases[k3])
            for j in range(waves):
                angle = fma(broadcast(numbers[j] + numbers[j]), v, broadcast(half_turn * numbers[waves + j]))
                cosine = cospi(angle)
                a = fma(broadcast(weights[k * waves + j]), cosine, a)
                b = fma(broadcast(weights[k1 * waves + j]), cosine, b)
                c = fma(broadcast(weights[k2 * waves + j]), cosine, c)
                d = fma(broadcast(weights[k3 * waves + j]), cosine, d)
            at = r * stride + k
            store_strided(out, at, stride, a, n)
            if k + 1 < maps:
                store_strided(out, at + 1, stride, b, n)
            if k + 2 < maps:
                store_strided(out, at + 2, stride, c, n)
            if k + 3 < maps:
                store_strided(out, at + 3, stride, d, n)
        store_strided(out, r * stride + maps, stride, v, n)


@linked(lambda x: (I64, I64, network_type(x), matrix_type(x), floats(x), floats(x)))
def embed(first, last, network, below, above, kept):
    """The outputs of the rows first .. last of a batch; `kept`, laid out like above, receives them before they are scaled, unless
    it is null."""
    plan, order = plan_of(network, 0), _inputs_in_order(network)
    stride, size, embedded = plan[STRIDE], plan[SIZE], plan[WEIGHT_ROWS]
    plain = above if is_null(kept) else kept
    for i in range(embedded):
        numbers = pointer(network.parameters, plan[WEIGHT] + i * plan[ROW])
        x, out = pointer(below.data, order[i]), pointer(plain, i * size)
        _embed_column(first, last, x, below.stride, numbers, plan[FREQUENCIES], size - 1, out, stride)
    behind = embedded * (size - 1)
    for r in range(first, last):
        for i in range(embedded, plan[N_IN]):
            plain[r * stride + behind + i] = below.data[r * below.stride + order[i]]
    if plan[BIAS] >= 0:
        scales = pointer(network.parameters, plan[BIAS])
        for r in range(first, last):
            source, target = pointer(plain, r * stride), pointer(above, r * stride)
            for i in range(0, plan[N_OUT], lanes_of(scales)):
                n = plan[N_OUT] - i
                store_up_to(target, i, load_up_to(scales, i, n) * load_up_to(source, i, n), n)


@jit
def _column_gradient(rows, x, x_stride, numbers, waves, maps, d_out, stride, scales, d_numbers):
    """d_numbers = the gradient of the `numbers` learnt for a column, from that of its scaled outputs (scales are null: there are
    none)."""
    noinline()
    lanes = lanes_of(numbers)
    one = number_like(numbers[0], 1)
    zero = broadcast(number_like(numbers[0], 0))
    half_turn, turn = broadcast(number_like(one, 1.0 / math.pi)), broadcast(number_like(one, -2.0 * math.pi))
    weights, d_weights = pointer(numbers, 2 * waves), pointer(d_numbers, 2 * waves)
    d_biases = pointer(d_numbers, (2 + maps) * waves)
    scaled = not is_null(scales)
    for i in range(0, maps * waves, lanes):
        store_up_to(d_weights, i, zero, maps * waves - i)
    for j in range(0, waves, lanes):
        n = waves - j
        frequencies, phases = load_up_to(numbers, j, n), load_up_to(numbers, waves + j, n) * half_turn
        frequencies = frequencies + frequencies
        d_frequencies, d_phases = zero, zero
        for r in range(rows):
            v = broadcast(x[r * x_stride])
            angle = fma(frequencies, v, phases)
            cosine, d_cosine = cospi(angle), zero
            for k in range(maps):
                d = broadcast(d_out[r * stride + k] * (scales[k] if scaled else one))
                at = k * waves + j
                d_cosine = fma(d, load_up_to(weights, at, n), d_cosine)
                store_up_to(d_weights, at, fma(d, cosine, load_up_to(d_weights, at, n)), n)
            d_angle = d_cosine * sinpi(angle)
            d_phases = d_phases - d_angle
            d_frequencies = fma(d_angle, v, d_frequencies)
        store_up_to(d_numbers, j, turn * d_frequencies, n)
        store_up_to(d_numbers, waves + j, d_phases, n)
    for k in range(maps):
        total = number_like(one, 0)
        for r in range(rows):
            total += d_out[r * stride + k] * (scales[k] if scaled else one)
        d_biases[k] = total


@jit
def _scale_gradient(rows, plain, d_out, stride, n, d_scales):
    """d_scales[:n] = Σ d_out * plain over the rows."""
    noinline()
    for i in range(0, n, lanes_of(d_scales)):
        total = load_up_to(d_out, i, n - i) * load_up_to(plain, i, n - i)
        for r in range(1, rows):
            at = r * stride + i
            total = fma(load_up_to(d_out, at, n - i), load_up_to(plain, at, n - i), total)
        store_up_to(d_scales, i, total, n - i)


@linked(lambda x: (I64, network_type(x), I64, update_type(x), I64, RATES, matrix_type(x), memory_type(x), I64))
def update_stage(job, network, rows, update, rank, rates, below, memory, square):
    """`update_block` of an input stage: gradient and optimizer for a block of its embedded inputs, and the scales of their
    outputs; with the last block come the scales of all other inputs.

    Nobody else reads these numbers meanwhile: the gradient goes through the scales as they were before the step.
    """
    plan, order = plan_of(network, 0), _inputs_in_order(network)
    m0, m1, at, _, _, n_scales, d_numbers, d_scales = places_of(job, network, 0, update, rank, is_whole(update))
    size, stride, row = plan[SIZE], plan[STRIDE], plan[ROW]
    d_out = pointer(memory.d_outputs, plan[OUTPUT])
    scales = pointer(network.parameters, plan[BIAS])
    for i in range(m0, m1):
        numbers = pointer(network.parameters, at + (i - m0) * row)
        own = pointer(scales, i * size) if plan[BIAS] >= 0 else null(numbers[0])
        _column_gradient(
            rows, pointer(below.data, order[i]), below.stride, numbers, plan[FREQUENCIES], size - 1,
            pointer(d_out, i * size), stride, own, pointer(d_numbers, (i - m0) * row),
        )  # fmt: skip
    if n_scales:
        plain = pointer(memory.outputs, plan[Z] + m0 * size)
        _scale_gradient(rows, plain, pointer(d_out, m0 * size), stride, n_scales, d_scales)
    use_gradient(job, network, 0, update, rank, rates, square)
