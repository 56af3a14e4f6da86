"""The first layer on sparse inputs: forward, gradient and update work on the stored numbers alone.

Forward adds up, for each row, its numbers times the rows of weights that belong to their columns. For the gradient a batch is
turned (`sparse_batch`): a row of weights has the numbers of its column, and one job adds them up and runs the optimizer on that
row. So every sum runs in an order that the batch alone decides.

A step uses few rows of the weights, but an optimizer moves all of them: momentum goes on, and L2 shrinks. What a step does to
a row that it does not use needs no gradient, so it is made up for when the row is used next (`catch_up_columns`): the same
operations in the same order, on numbers that are brought from memory once for all the steps that were missed.
"""

from __future__ import annotations

from fastdl.engine.dropout import drop
from fastdl.engine.forward import activate_units
from fastdl.engine.places import is_whole, places_of
from fastdl.engine.structs import (
    ACTIVATION,
    BIAS,
    BLOCK,
    DROP,
    I64,
    IDLE,
    INTS,
    KEY,
    N_IN,
    N_OUT,
    OF_BIASES,
    OF_UNIT_ALPHAS,
    OF_WEIGHTS,
    RATES,
    ROWS_BEFORE,
    STRIDE,
    UNIT_ALPHAS,
    WEIGHT,
    ByColumn,
    batches_type,
    by_column_type,
    floats,
    network_type,
    plan_of,
    stored_type,
    update_type,
)
from fastdl.engine.sums import row_square, sum_rows
from fastdl.engine.update import alpha_gradient, apply, factors_of, optimize, use_gradient
from fastdl_kernels.serial import IDENTITY, apply_activation, jit, linked, mix, noinline
from fastdl_kernels.simd import (
    broadcast,
    fma,
    is_null,
    lanes_of,
    load,
    load_up_to,
    null,
    number_like,
    pointer,
    prefetch,
    store,
    store_up_to,
)

# Rows of weights in a job of their update: 3 us with 100 outputs, and a job is handed out in 0.1 us.
COLUMNS_PER_JOB = 64
# How many rows of a matrix ahead `add_rows` prefetches, and rows of weights and states ahead an update does: they are anywhere.
ROWS_AHEAD, COLUMNS_AHEAD = 8, 3
# Columns of the table of an epoch's rates: the six of `step_rates`, and half the L2 penalty times the rows of the step.
RATE_COLUMNS = 7
# Numbers of weights that catch up together: with two states they fill half of a first cache of 32 KB.
NUMBERS_AT_ONCE = 1024


@jit
def add_rows(values, places, count, matrix, stride, start, out, n):
    """out[:n] = start[:n] (0 if null) + Σ values[k] * matrix[places[k] * stride:][:n], in the order of k < count."""
    noinline()
    lanes = lanes_of(out)
    has_start = not is_null(start)
    zero = broadcast(number_like(values[0], 0)) if count else broadcast(number_like(out[0], 0))
    i = 0
    while i < n:
        rest = n - i
        if rest >= 8 * lanes:
            a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
            if has_start:
                a, b, c, d = (
                    load(start, i),
                    load(start, i + lanes),
                    load(start, i + 2 * lanes),
                    load(start, i + 3 * lanes),
                )
                e, f = load(start, i + 4 * lanes), load(start, i + 5 * lanes)
                g, h = load(start, i + 6 * lanes), load(start, i + 7 * lanes)
            for k in range(count):
                ahead = places[min(k + ROWS_AHEAD, count - 1)] * stride + i
                for j in range(0, 8 * lanes, 2 * lanes):
                    prefetch(matrix, ahead + j)
                x, row = broadcast(values[k]), pointer(matrix, places[k] * stride + i)
                a, b = fma(x, load(row, 0), a), fma(x, load(row, lanes), b)
                c, d = fma(x, load(row, 2 * lanes), c), fma(x, load(row, 3 * lanes), d)
                e, f = fma(x, load(row, 4 * lanes), e), fma(x, load(row, 5 * lanes), f)
                g, h = fma(x, load(row, 6 * lanes), g), fma(x, load(row, 7 * lanes), h)
            store(out, i, a)
            store(out, i + lanes, b)
            store(out, i + 2 * lanes, c)
            store(out, i + 3 * lanes, d)
            store(out, i + 4 * lanes, e)
            store(out, i + 5 * lanes, f)
            store(out, i + 6 * lanes, g)
            store(out, i + 7 * lanes, h)
            i += 8 * lanes
        elif rest >= 2 * lanes:
            a, b = zero, zero
            if has_start:
                a, b = load(start, i), load(start, i + lanes)
            for k in range(count):
                prefetch(matrix, places[min(k + ROWS_AHEAD, count - 1)] * stride + i)
                x, row = broadcast(values[k]), pointer(matrix, places[k] * stride + i)
                a, b = fma(x, load(row, 0), a), fma(x, load(row, lanes), b)
            store(out, i, a)
            store(out, i + lanes, b)
            i += 2 * lanes
        else:
            a = load_up_to(start, i, rest) if has_start else zero
            for k in range(count):
                row = pointer(matrix, places[k] * stride + i)
                a = fma(broadcast(values[k]), load_up_to(row, 0, rest), a)
            store_up_to(out, i, a, rest)
            i += lanes


@linked(lambda x: (BLOCK, network_type(x), stored_type(x), INTS, I64, floats(x), floats(x), KEY))
def sparse_forward(block, network, stored, order, start, above, kept, key):
    """`forward` of the first layer for rows m0 .. m1 of a batch: row r is the stored row order[start + r] (start + r if null)."""
    m0, m1, n0, n1 = block
    plan = plan_of(network, 0)
    n_out, stride, alpha = plan[N_OUT], plan[STRIDE], network.alphas[0]
    weights, bias = pointer(network.parameters, plan[WEIGHT] + n0), pointer(network.parameters, plan[BIAS] + n0)
    z = above if is_null(kept) else kept
    for r in range(m0, m1):
        row = start + r if is_null(order) else order[start + r]
        first = stored.starts[row]
        values, columns = pointer(stored.values, first), pointer(stored.columns, first)
        out = pointer(z, r * stride + n0)
        add_rows(values, columns, stored.starts[row + 1] - first, weights, n_out, bias, out, n1 - n0)
    if plan[UNIT_ALPHAS] >= 0:
        activate_units(block, network, 0, above, z)
    elif plan[ACTIVATION] != IDENTITY or not is_null(kept):
        at = m0 * stride + n0
        x = pointer(z, at)
        apply_activation(
            plan[ACTIVATION], 0, pointer(above, at), stride, x, stride, x, stride, m1 - m0, n1 - n0, alpha, alpha
        )  # fmt: skip
    if plan[DROP]:
        drop(above, stride, m0, m1, n0, n1, plan[DROP], mix(key, 0), plan[ROWS_BEFORE])


@jit
def turned(number, batches):
    """Batch `number` of the epoch by columns, in its place."""
    t, room = batches.sparse.by_column, batches.sparse.room
    at = number % batches.n_places * room
    return ByColumn(
        pointer(t.count, number % batches.n_places), pointer(t.column, at), pointer(t.first, at), pointer(t.rows, at),
        pointer(t.values, at),
    )  # fmt: skip


@jit
def column_jobs(t):
    """Jobs of a phase that goes over the columns of a turned batch."""
    return (t.count[0] + COLUMNS_PER_JOB - 1) // COLUMNS_PER_JOB


@jit
def _idle_steps(update, network, sparse, first, last, column, rows):
    """What the epoch's steps first .. last do to so many rows of weights, from `column` on, that they do not use."""
    noinline()
    plan = plan_of(network, 0)
    n_out = plan[N_OUT]
    at, factors = plan[WEIGHT] + column * n_out, factors_of(update, 0, OF_WEIGHTS)
    for step in range(first, last):
        r = pointer(sparse.rates, step * RATE_COLUMNS)
        if update.penalised:
            add_penalties(update, network, sparse, step, column, rows)
        rates = (r[0], r[1], r[2], r[3], r[4], r[5])
        optimize(update, rates, network.parameters, sparse.zeros, at, rows * n_out, rates[3], factors)


@jit
def add_penalties(update, network, sparse, step, column, rows):
    """row_squares of rows of weights += their L2 penalty in a step, as it is before the step, times its rows."""
    plan = plan_of(network, 0)
    factor = sparse.rates[step * RATE_COLUMNS + 6]
    for k in range(column, column + rows):
        row = pointer(network.parameters, plan[WEIGHT] + k * plan[N_OUT])
        update.row_squares[k] += factor * row_square(row, plan[N_OUT])


@jit
def _prefetch_row(update, network, column):
    """Ask for a row of weights and of their states."""
    plan = plan_of(network, 0)
    at, n = plan[WEIGHT] + column * plan[N_OUT], plan[N_OUT]
    for i in range(0, n, 2 * lanes_of(update.state1)):
        prefetch(network.parameters, at + i)
        prefetch(update.state1, at + i)
        prefetch(update.state2, at + i)


@linked(lambda x: (I64, network_type(x), update_type(x), batches_type(x), I64))
def catch_up_columns(job, network, update, batches, number):
    """Rows of weights that batch `number` uses catch up with the steps before it."""
    sparse, t = batches.sparse, turned(number, batches)
    count = t.count[0]
    for k in range(job * COLUMNS_PER_JOB, min(count, (job + 1) * COLUMNS_PER_JOB)):
        _prefetch_row(update, network, t.column[min(k + COLUMNS_AHEAD, count - 1)])
        column = t.column[k]
        if sparse.done[column] < number:
            _idle_steps(update, network, sparse, sparse.done[column], number, column, 1)
            sparse.done[column] = number


@linked(lambda x: (I64, network_type(x), I64, I64, update_type(x), I64, RATES, batches_type(x), floats(x), floats(x)))
def update_columns(job, network, number, rows, update, rank, rates, batches, d_above, by_unit):
    """Gradient and update of the rows of weights that batch `number` uses; of the biases in job -1."""
    plan, sparse, t = plan_of(network, 0), batches.sparse, turned(number, batches)
    n_out, alpha = plan[N_OUT], network.alphas[0]
    gradient, nothing = pointer(update.gradient, rank * update.slot_size), null(alpha)
    if job < 0:
        sum_rows(d_above, plan[STRIDE], rows, n_out, gradient)
        apply(update, rates, network.parameters, gradient, plan[BIAS], n_out, 0.0, factors_of(update, 0, OF_BIASES))
        if plan[UNIT_ALPHAS] >= 0:
            sum_rows(by_unit, plan[STRIDE], rows, n_out, gradient)
            factors = factors_of(update, 0, OF_UNIT_ALPHAS)
            apply(update, rates, network.parameters, gradient, plan[UNIT_ALPHAS], n_out, 0.0, factors)
        return
    count = t.count[0]
    for k in range(job * COLUMNS_PER_JOB, min(count, (job + 1) * COLUMNS_PER_JOB)):
        _prefetch_row(update, network, t.column[min(k + COLUMNS_AHEAD, count - 1)])
        column, first = t.column[k], t.first[k]
        values, places = pointer(t.values, first), pointer(t.rows, first)
        add_rows(values, places, t.first[k + 1] - first, d_above, plan[STRIDE], nothing, gradient, n_out)
        if update.penalised:
            add_penalties(update, network, sparse, number, column, 1)
        at = plan[WEIGHT] + column * n_out
        apply(update, rates, network.parameters, gradient, at, n_out, rates[3], factors_of(update, 0, OF_WEIGHTS))
        sparse.done[column] = number + 1


@linked(lambda x: (I64, network_type(x), I64, update_type(x), I64, RATES, by_column_type(x), floats(x), floats(x), I64))
def sparse_update_block(job, network, rows, update, rank, rates, t, d_above, by_unit, square):
    """`update_block` of the first layer: the gradient of all rows of the block, those that the batch does not use included."""
    m0, m1, _, _, n, _, d_weight, d_bias = places_of(job, network, 0, update, rank, is_whole(update))
    plan = plan_of(network, 0)
    n_out, nothing = plan[N_OUT], null(network.alphas[0])
    zero = broadcast(number_like(network.alphas[0], 0))
    for i in range(0, n, lanes_of(d_weight)):
        store_up_to(d_weight, i, zero, n - i)
    k = first_column(t, m0)
    while k < t.count[0] and t.column[k] < m1:
        first = t.first[k]
        values, places = pointer(t.values, first), pointer(t.rows, first)
        out = pointer(d_weight, (t.column[k] - m0) * n_out)
        add_rows(values, places, t.first[k + 1] - first, d_above, plan[STRIDE], nothing, out, n_out)
        k += 1
    if m0 == 0:
        sum_rows(d_above, plan[STRIDE], rows, n_out, d_bias)
    alpha_gradient(job, network, 0, rows, update, rank, by_unit)
    use_gradient(job, network, 0, update, rank, rates, square)


@jit
def first_column(t, column):
    """Where the first column of a turned batch from `column` on stands, by bisection."""
    low, high = 0, t.count[0]
    while low < high:
        middle = (low + high) // 2
        if t.column[middle] < column:
            low = middle + 1
        else:
            high = middle
    return low


@linked(lambda x: (I64, I64, network_type(x), update_type(x), batches_type(x), I64))
def catch_up_block(first, last, network, update, batches, steps):
    """Rows first .. last of weights catch up with all of an epoch's first `steps` steps; neighbours that missed the same go
    together."""
    sparse, plan = batches.sparse, plan_of(network, 0)
    most = max(1, NUMBERS_AT_ONCE // plan[N_OUT])
    k = first
    while k < last:
        done, n = sparse.done[k], 1
        while n < most and k + n < last and sparse.done[k + n] == done:
            n += 1
        if done < steps and sparse.mode != IDLE:
            _idle_steps(update, network, sparse, done, steps, k, n)
        for i in range(k, k + n):
            sparse.done[i] = steps
        k += n


@jit
def rows_of_weights(network):
    """How many rows of weights the first layer has."""
    return plan_of(network, 0)[N_IN]
