"""The input stage: embeddings of numbers and categories and learnt scales, before the first layer that has weights.

It stands in the plan as the lowest layer: what the embedding learns for an input is a row of its weights, and the scales are its
biases. Forward goes over rows of the batch, vectors of them at a time; the gradient over cosines or pieces, and adds up the rows
one after the other. So no sum depends on how jobs are spread. Formulas are those of `fastdl.embeddings`.
"""

from __future__ import annotations

import math

from fastdl.engine.places import category_of, is_whole, places_of, table_of
from fastdl.engine.structs import (
    BIAS,
    CATEGORIES,
    CATEGORY_SIZE,
    COUNT,
    EDGES,
    I64,
    N_IN,
    N_OUT,
    OUTPUT,
    PLAN_COLUMNS,
    RATES,
    ROW,
    SIZE,
    STRIDE,
    TABLES,
    TERMS,
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
from fastdl.engine.update import use_gradient
from fastdl.network import Terms
from fastdl_kernels.serial import jit, linked, noinline
from fastdl_kernels.simd import (
    broadcast,
    cospi,
    first_lanes,
    fma,
    is_null,
    lanes_of,
    like,
    load_strided,
    load_up_to,
    maximum,
    minimum,
    null,
    number_like,
    pointer,
    select,
    sinpi,
    store_strided,
    store_up_to,
)

COSINES, WAVES, PIECES = map(int, Terms)


@jit
def has_stage(network):
    """Whether the lowest layer is an input stage."""
    return plan_of(network, 0)[SIZE] > 0


@jit
def _inputs_in_order(network):
    """All inputs in the order of their outputs: they stand behind the rows of the plan."""
    return pointer(network.plan, network.n_layers * PLAN_COLUMNS)


@jit
def _sizes(terms, count, size):
    """(numbers of an input's row before those of its linear maps, what these take, how many maps there are)."""
    if terms == COSINES:
        return 2 * count, count, size - 1
    if terms == WAVES:
        return count, 2 * count, size
    return 0, count, size


@jit
def _edges_of(network, i):
    """The edges of the embedded input number i; of cosines anything."""
    plan = plan_of(network, 0)
    return pointer(network.parameters, plan[EDGES] + i * (plan[COUNT] + 1) if plan[TERMS] == PIECES else 0)


@jit
def _term(j, v, numbers, edges, terms, count):
    """The function number j of a vector of inputs that the linear maps take."""
    if terms == PIECES:
        width = edges[j + 1] - edges[j]
        slope = number_like(width, 1) / width if width > 0 else number_like(width, 0)
        term = (v - broadcast(edges[j])) * broadcast(slope)
        if j > 0:
            term = maximum(term, like(v, 0.0))
        if j < count - 1:
            term = minimum(term, like(v, 1.0))
    else:
        half_turn = number_like(numbers[0], 1.0 / math.pi)
        frequency = numbers[j] if j < count else numbers[j - count]
        phase = number_like(frequency, 0)
        if terms == COSINES:
            phase = half_turn * numbers[count + j]
        elif j >= count:
            phase = number_like(frequency, -0.5)  # a sine
        term = cospi(fma(broadcast(frequency + frequency), v, broadcast(phase)))
    return term


@jit
def _embed_column(first, last, x, x_stride, numbers, edges, terms, count, size, out, stride):
    """out[r * stride + k] = e[k] for the rows first .. last of a column x, with the `numbers` learnt for it.

    Four linear maps at a time share their terms.
    """
    noinline()
    lanes = lanes_of(numbers)
    own, n_terms, maps = _sizes(terms, count, size)
    weights, biases = pointer(numbers, own), pointer(numbers, own + maps * n_terms)
    for r in range(first, last, lanes):
        n = min(lanes, last - r)
        v = load_strided(x, r * x_stride, x_stride, n)
        for k in range(0, maps, 4):
            k1, k2, k3 = min(k + 1, maps - 1), min(k + 2, maps - 1), min(k + 3, maps - 1)
            a, b, c, d = broadcast(biases[k]), broadcast(biases[k1]), broadcast(biases[k2]), broadcast(biases[k3])
            for j in range(n_terms):
                term = _term(j, v, numbers, edges, terms, count)
                a = fma(broadcast(weights[k * n_terms + j]), term, a)
                b = fma(broadcast(weights[k1 * n_terms + j]), term, b)
                c = fma(broadcast(weights[k2 * n_terms + j]), term, c)
                d = fma(broadcast(weights[k3 * n_terms + j]), term, d)
            at = r * stride + k
            store_strided(out, at, stride, a, n)
            if k + 1 < maps:
                store_strided(out, at + 1, stride, b, n)
            if k + 2 < maps:
                store_strided(out, at + 2, stride, c, n)
            if k + 3 < maps:
                store_strided(out, at + 3, stride, d, n)
        if maps < size:
            store_strided(out, r * stride + maps, stride, v, n)


@jit
def row_of(code, rows):
    """The row of a category's table that belongs to a code: row 0 to all that is no code."""
    row = 0
    if code >= 1 and code < rows:
        row = int(code)
        row = row if row == code else 0
    return row


@jit
def _look_up(first, last, codes, codes_stride, table, rows, size, out, stride):
    """out[r * stride:] = the row of a table of so many `rows` that belongs to the code of row r, for the rows first .. last."""
    noinline()
    for r in range(first, last):
        source = pointer(table, row_of(codes[r * codes_stride], rows) * size)
        for i in range(0, size, lanes_of(table)):
            store_up_to(out, r * stride + i, load_up_to(source, i, size - i), size - i)


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
        _embed_column(
            first, last, x, below.stride, numbers, _edges_of(network, i), plan[TERMS], plan[COUNT], size, out, stride
        )  # fmt: skip
    behind = embedded * (size - 1)
    n_categories, row = plan[CATEGORIES], plan[CATEGORY_SIZE]
    n_numbers = plan[N_IN] - n_categories
    for r in range(first, last):
        for i in range(embedded, n_numbers):
            plain[r * stride + behind + i] = below.data[r * below.stride + order[i]]
    for c in range(n_categories):
        start, end = table_of(network, c)
        table = pointer(network.parameters, plan[TABLES] + start * row)
        out = pointer(plain, plan[N_OUT] - (n_categories - c) * row)
        _look_up(
            first, last, pointer(below.data, order[n_numbers + c]), below.stride, table, end - start, row, out, stride
        )
    if plan[BIAS] >= 0:
        scales = pointer(network.parameters, plan[BIAS])
        for r in range(first, last):
            source, target = pointer(plain, r * stride), pointer(above, r * stride)
            for i in range(0, plan[N_OUT], lanes_of(scales)):
                n = plan[N_OUT] - i
                store_up_to(target, i, load_up_to(scales, i, n) * load_up_to(source, i, n), n)


@jit
def _through_maps(j, n, term, weights, n_terms, maps, d_maps, scales, d_weights):
    """The gradient of n terms from number j on, a vector, from that of an input's maps, and for these numbers' weights it is
    added to d_weights."""
    one = number_like(weights[0], 1)
    d_term = like(term, 0.0)
    scaled = not is_null(scales)
    for k in range(maps):
        d = broadcast(d_maps[k] * (scales[k] if scaled else one))
        at = k * n_terms + j
        d_term = fma(d, load_up_to(weights, at, n), d_term)
        store_up_to(d_weights, at, fma(d, term, load_up_to(d_weights, at, n)), n)
    return d_term


@jit
def _wave_gradient(rows, x, x_stride, numbers, terms, count, size, d_out, stride, scales, d_numbers):
    """d_numbers, but for the biases, += the gradient of the `numbers` of an input with cosines (and sines)."""
    lanes = lanes_of(numbers)
    one = number_like(numbers[0], 1)
    half_turn, turn = broadcast(number_like(one, 1.0 / math.pi)), broadcast(number_like(one, -2.0 * math.pi))
    own, n_terms, maps = _sizes(terms, count, size)
    weights, d_weights = pointer(numbers, own), pointer(d_numbers, own)
    for j in range(0, count, lanes):
        n = count - j
        frequencies, phases = load_up_to(numbers, j, n), like(half_turn, 0.0)
        if terms == COSINES:
            phases = load_up_to(numbers, count + j, n) * half_turn
        frequencies = frequencies + frequencies
        d_frequencies, d_phases = like(half_turn, 0.0), like(half_turn, 0.0)
        for r in range(rows):
            v, d_maps = broadcast(x[r * x_stride]), pointer(d_out, r * stride)
            angle = fma(frequencies, v, phases)
            cosine, sine = cospi(angle), sinpi(angle)
            d_angle = _through_maps(j, n, cosine, weights, n_terms, maps, d_maps, scales, d_weights) * sine
            if terms == WAVES:
                d_sine = _through_maps(j + count, n, sine, weights, n_terms, maps, d_maps, scales, d_weights)
                d_angle = d_angle - d_sine * cosine
            d_phases = d_phases - d_angle
            d_frequencies = fma(d_angle, v, d_frequencies)
        store_up_to(d_numbers, j, turn * d_frequencies, n)
        if terms == COSINES:
            store_up_to(d_numbers, count + j, d_phases, n)


@jit
def _piece_gradient(rows, x, x_stride, numbers, edges, count, maps, d_out, stride, scales, d_numbers):
    """d_numbers, but for the biases, += the gradient of the `numbers` of an input with pieces."""
    lanes = lanes_of(numbers)
    zero, one = broadcast(number_like(numbers[0], 0)), broadcast(number_like(numbers[0], 1))
    infinite = broadcast(number_like(numbers[0], math.inf))
    for j in range(0, count, lanes):
        n = count - j
        start = load_up_to(edges, j, n)
        width = load_up_to(edges, j + 1, n) - start
        slope = select(width > zero, one / width, zero)
        least = select(first_lanes(zero, 1), -infinite, zero) if j == 0 else zero
        most = select(first_lanes(one, n - 1), one, infinite) if n <= lanes else one
        for r in range(rows):
            term = minimum(maximum((broadcast(x[r * x_stride]) - start) * slope, least), most)
            _through_maps(j, n, term, numbers, count, maps, pointer(d_out, r * stride), scales, d_numbers)


@jit
def _column_gradient(rows, x, x_stride, numbers, edges, terms, count, size, d_out, stride, scales, d_numbers):
    """d_numbers = the gradient of the `numbers` learnt for a column, from that of its scaled outputs (scales are null: there are
    none)."""
    noinline()
    lanes = lanes_of(numbers)
    one = number_like(numbers[0], 1)
    own, n_terms, maps = _sizes(terms, count, size)
    d_weights, d_biases = pointer(d_numbers, own), pointer(d_numbers, own + maps * n_terms)
    scaled = not is_null(scales)
    zero = broadcast(number_like(one, 0))
    for i in range(0, maps * n_terms, lanes):
        store_up_to(d_weights, i, zero, maps * n_terms - i)
    if terms == PIECES:
        _piece_gradient(rows, x, x_stride, numbers, edges, count, maps, d_out, stride, scales, d_numbers)
    else:
        _wave_gradient(rows, x, x_stride, numbers, terms, count, size, d_out, stride, scales, d_numbers)
    for k in range(maps):
        total = number_like(one, 0)
        for r in range(rows):
            total += d_out[r * stride + k] * (scales[k] if scaled else one)
        d_biases[k] = total


@jit
def _table_gradient(rows, codes, codes_stride, n_rows, size, d_out, stride, scales, d_table):
    """d_table [n_rows, size] = the gradient of a category's table, from that of its scaled outputs."""
    noinline()
    zero = broadcast(number_like(d_table[0], 0))
    for i in range(0, n_rows * size, lanes_of(d_table)):
        store_up_to(d_table, i, zero, n_rows * size - i)
    for r in range(rows):
        d_row = pointer(d_table, row_of(codes[r * codes_stride], n_rows) * size)
        for i in range(0, size, lanes_of(d_table)):
            d = load_up_to(d_out, r * stride + i, size - i)
            if not is_null(scales):
                d = d * load_up_to(scales, i, size - i)
            store_up_to(d_row, i, load_up_to(d_row, i, size - i) + d, size - i)


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
    outputs; with the last block come the scales of all other inputs. Behind them come the tables of categories, a job each.

    Nobody else reads these numbers meanwhile: the gradient goes through the scales as they were before the step.
    """
    plan, order = plan_of(network, 0), _inputs_in_order(network)
    m0, m1, at, bias, _, n_scales, d_numbers, d_scales = places_of(job, network, 0, update, rank, is_whole(update))
    size, stride, row = plan[SIZE], plan[STRIDE], plan[ROW]
    d_out = pointer(memory.d_outputs, plan[OUTPUT])
    scales = pointer(network.parameters, plan[BIAS])
    first, category = bias - plan[BIAS], category_of(job, network, 0)
    if category >= 0:
        own = pointer(scales, first) if plan[BIAS] >= 0 else null(scales[0])
        codes = pointer(below.data, order[plan[N_IN] - plan[CATEGORIES] + category])
        _table_gradient(
            rows, codes, below.stride, m1 - m0, plan[CATEGORY_SIZE], pointer(d_out, first), stride, own, d_numbers
        )  # fmt: skip
    for i in range(m0, m1 if category < 0 else m0):
        numbers = pointer(network.parameters, at + (i - m0) * row)
        own = pointer(scales, i * size) if plan[BIAS] >= 0 else null(numbers[0])
        _column_gradient(
            rows, pointer(below.data, order[i]), below.stride, numbers, _edges_of(network, i), plan[TERMS], plan[COUNT], size,
            pointer(d_out, i * size), stride, own, pointer(d_numbers, (i - m0) * row),
        )  # fmt: skip
    if n_scales:
        _scale_gradient(
            rows, pointer(memory.outputs, plan[Z] + first), pointer(d_out, first), stride, n_scales, d_scales
        )
    use_gradient(job, network, 0, update, rank, rates, square)
