"""The phases of a training step: what each thread of a team does from one barrier to the next.

A phase takes a `Worker`, which thread this is, and a `Step`, which rows and rates; it writes to the memory of the step,
to the parameters and their states. Phases are copied into `step.work`, so that nothing is passed in memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastdl.engine.backward import add_partial, backward
from fastdl.engine.forward import forward, parts_of
from fastdl.engine.gather import gather
from fastdl.engine.input_stage import embed, has_stage, update_stage
from fastdl.engine.loss import loss_rows
from fastdl.engine.places import update_jobs, update_of
from fastdl.engine.sparse import (
    catch_up_columns,
    column_jobs,
    sparse_forward,
    sparse_update_block,
    turned,
    update_columns,
)
from fastdl.engine.sparse_batch import turn
from fastdl.engine.structs import (
    BACKWARD,
    CLIP,
    DENSE,
    EAGER,
    EMBED,
    FORWARD,
    GATHER,
    LAZY,
    N_IN,
    N_OUT,
    OUTPUT,
    ROWS,
    SCALE,
    STEP_COLUMNS,
    UPDATE,
    Rows,
    Z,
    input_of,
    plan_of,
    skip,
)
from fastdl.engine.update import clip_factor, clipped_update, penalised_block, step_rates, update_block
from fastdl_kernels.serial import (
    TILE_ROWS,
    barrier,
    claim,
    first_job,
    grid,
    inlined,
    jit,
    job_block,
    job_rows,
    mix,
    n_jobs,
    sum_of,
    ticks,
)
from fastdl_kernels.simd import null, pointer


class Worker(NamedTuple):
    """One thread of a team of `size`, the state in which they meet, and its own row of ticks if it is `clocked`."""

    rank: Any
    size: Any
    state: Any
    ticks: Any
    clocked: Any


class Step(NamedTuple):
    """One step: its number in the epoch; its rows, and how many; what the gradient of their losses is divided by, and its loss
    multiplied by; rates, and the key of its masks."""

    number: Any
    batch: Rows
    rows: Any
    divisor: Any
    scale: Any
    rates: Any
    key: Any


@jit
def start_clock(worker):
    """What `stop_clock` takes: the time, if somebody wants to know it."""
    return ticks() if worker.clocked else 0


@jit
def stop_clock(worker, kind, start):
    """Add the time since `start` to the thread's time for this kind of job."""
    if worker.clocked:
        worker.ticks[kind] += ticks() - start


@jit
def _place_of(batch, batches):
    """Where a batch is gathered to, by its number in the epoch."""
    return skip(batches.places, batch % batches.n_places * batches.size)


@jit
def step_of(i, run, network, loss, update, batches):
    """The step number i of a call."""
    inlined()
    rows = min(batches.size, batches.n_rows - (run.batch + i) * batches.size)
    all_rows = min(run.all_size, run.all_rows - (run.batch + i) * run.all_size)
    n_out = plan_of(network, network.n_layers - 1)[N_OUT]
    own = pointer(run.table, (run.batch + i) * STEP_COLUMNS)
    return Step(
        run.batch + i,
        _place_of(run.batch + i, batches),
        rows,
        float(all_rows * n_out if loss.per_output else all_rows) / own[SCALE],
        own[SCALE],
        step_rates(update.hyper, own, run.update + i),
        mix(run.seed, run.step + i),
    )


@jit
def kept_of(network, layer, memory):
    """Where z of a layer is kept; null if it is not."""
    plan = plan_of(network, layer)
    return pointer(memory.outputs, plan[Z]) if plan[Z] >= 0 else null(network.alphas[layer])


@jit
def _forward_block(block, layer, step, network, batches, memory):
    """One layer for one block of rows and columns."""
    inlined()
    plan = plan_of(network, layer)
    above = pointer(memory.outputs, plan[OUTPUT])
    kept = kept_of(network, layer, memory)
    if layer == 0 and batches.sparse.mode != DENSE:
        start = step.number * batches.size
        sparse_forward(block, network, batches.sparse.stored, batches.order, start, above, kept, step.key)
    elif layer == 0 and has_stage(network):
        embed(block[0], block[1], network, input_of(network, 0, step.batch, memory.outputs), above, kept)
    else:
        forward(block, network, layer, input_of(network, layer, step.batch, memory.outputs), above, kept, step.key)


@jit
def _loss_block(first, last, step, network, loss, memory):
    """Losses of the rows first .. last, and their gradient in the last layer's d_outputs."""
    inlined()
    top = plan_of(network, network.n_layers - 1)
    above, d_above = pointer(memory.outputs, top[OUTPUT]), pointer(memory.d_outputs, top[OUTPUT])
    loss_rows(first, last, top[N_OUT], above, step.batch, loss, step.divisor, d_above, memory.losses)


@jit
def _row_block(job, row_blocks, rows):
    """(first row, one behind the last) of a block that goes through all layers: whole tiles, as even as they can be."""
    first = (job * rows // row_blocks + TILE_ROWS // 2) // TILE_ROWS * TILE_ROWS
    stop = ((job + 1) * rows // row_blocks + TILE_ROWS // 2) // TILE_ROWS * TILE_ROWS
    return min(first, rows), min(stop, rows) if job + 1 < row_blocks else rows


@jit
def fused_row_blocks(worker, row_blocks, step, network, loss, update, batches, memory):
    """Forward, loss and backward of all layers, and partial gradients where there are any: one phase."""
    inlined()
    last, most_rows = network.n_layers - 1, job_rows(network.itemsize) - TILE_ROWS
    job = first_job(worker.state, worker.rank)
    while job < row_blocks:
        first, stop = _row_block(job, row_blocks, step.rows)
        low = first
        while True:
            high = min(stop, low + most_rows)
            start = start_clock(worker)
            for layer in range(network.n_layers):
                _forward_block((low, high, 0, plan_of(network, layer)[N_OUT]), layer, step, network, batches, memory)
                if layer == 0 and has_stage(network):
                    stop_clock(worker, EMBED, start)
                    start = start_clock(worker)
            _loss_block(low, high, step, network, loss, memory)
            stop_clock(worker, FORWARD, start)
            start = start_clock(worker)
            for layer in range(last, 0, -1):
                backward((low, high, 0, plan_of(network, layer)[N_IN]), network, layer, memory, step.key)
            stop_clock(worker, BACKWARD, start)
            start = start_clock(worker)
            for layer in range(network.n_layers if update.n_partial else 0):
                below = input_of(network, layer, step.batch, memory.outputs)
                d_above = pointer(memory.d_outputs, plan_of(network, layer)[OUTPUT])
                partial = pointer(update.partial, job * update.partial_size)
                add_partial(low, network, layer, high - low, below, d_above, partial, low - first)
            stop_clock(worker, UPDATE, start)
            low = high
            if low >= stop:
                break
        job = claim(worker.state, worker.size)
    barrier(worker.state, worker.size)


@jit
def row_jobs(rows):
    """How many jobs of ROWS rows there are."""
    return (rows + ROWS - 1) // ROWS


@jit
def forward_layers(worker, step, network, loss, batches, memory):
    """Forward of one layer after the other, a phase each, and the loss, with the last layer if its jobs are whole rows."""
    inlined()
    last, rows = network.n_layers - 1, step.rows
    fused = grid(rows, plan_of(network, last)[N_OUT], network.itemsize, 1, True)[2] == 1
    for layer in range(network.n_layers):
        n_out, needed = plan_of(network, layer)[N_OUT], parts_of(worker.size, rows, network, layer)
        ends = layer == last and fused
        stage = layer == 0 and has_stage(network)
        in_rows = stage or (layer == 0 and batches.sparse.mode != DENSE)
        jobs = row_jobs(rows) if in_rows else n_jobs(rows, n_out, network.itemsize, needed, ends)
        job = first_job(worker.state, worker.rank)
        while job < jobs:
            start = start_clock(worker)
            block = job_block(job, rows, n_out, network.itemsize, needed, ends)
            if in_rows:
                block = job * ROWS, min(rows, (job + 1) * ROWS), 0, n_out
            _forward_block(block, layer, step, network, batches, memory)
            if ends:
                _loss_block(block[0], block[1], step, network, loss, memory)
            stop_clock(worker, EMBED if stage else FORWARD, start)
            job = claim(worker.state, worker.size)
        barrier(worker.state, worker.size)
    if not fused:
        job = first_job(worker.state, worker.rank)
        while job < row_jobs(rows):
            start = start_clock(worker)
            _loss_block(job * ROWS, min(rows, (job + 1) * ROWS), step, network, loss, memory)
            stop_clock(worker, FORWARD, start)
            job = claim(worker.state, worker.size)
        barrier(worker.state, worker.size)


@jit
def batch_loss(step, network, loss, memory):
    """The sum of the rows' losses: the same on every thread, so that all take the same decision."""
    total = sum_of(memory.losses, (step.rows + TILE_ROWS - 1) // TILE_ROWS)
    return step.scale * (total / plan_of(network, network.n_layers - 1)[N_OUT] if loss.per_output else total)


@jit
def backward_and_update(worker, fused, run, following, step, network, update, batches, memory):
    """From the last layer's d_z to new parameters; batch number `following` is gathered meanwhile, unless it is -1.

    Layer by layer, a phase takes the gradient through layer `passed` and updates the one above. The last phase has
    nothing left to take it through, updates all the layers that are left and gathers the next batch. A call may do some of
    these phases only, from layer run.top to run.bottom; where `fused` row blocks have done the rest, there is the last one alone.
    """
    inlined()
    rows, high = step.rows, network.n_layers if fused else min(network.n_layers, run.top + 2)
    there = _place_of(following, batches)
    for passed in range(0 if fused else run.top, run.bottom - 1, -1):
        low = passed + 1 if passed else 0
        downs = needed = n_in = 0
        if passed:
            n_in = plan_of(network, passed)[N_IN]
            needed = parts_of(worker.size, rows, network, passed)
            downs = n_jobs(rows, n_in, network.itemsize, needed)
        ups, before = update_jobs(network, low, high), update_jobs(network, 0, low)
        rest = _gather_jobs(batches) if passed == 0 and following >= 0 else 0
        # Of sparse inputs: the next batch is turned, and where updates are lazy, they and the biases make up jobs of their own.
        sparse = 0
        if passed == 0 and batches.sparse.mode != DENSE:
            sparse = 1 if batches.sparse.mode == EAGER else 2 + column_jobs(turned(step.number, batches))
        job = first_job(worker.state, worker.rank) - sparse
        while job < downs + ups + rest:
            start = start_clock(worker)
            if job < 0:
                _sparse_job(job + sparse, following, worker, step, network, update, batches, memory, start)
            elif job < downs:
                block = job_block(job, rows, n_in, network.itemsize, needed)
                backward(block, network, passed, memory, step.key)
                stop_clock(worker, BACKWARD, start)
            elif job < downs + ups:
                # The lowest layer's jobs come first: they are the long ones as a rule.
                layer, number = update_of(job - downs, network, low)
                below = input_of(network, layer, step.batch, memory.outputs)
                d_above = pointer(memory.d_outputs, plan_of(network, layer)[OUTPUT])
                square = before + job - downs
                by_unit = kept_of(network, layer, memory)
                if layer == 0 and batches.sparse.mode != DENSE:
                    columns = turned(step.number, batches)
                    sparse_update_block(
                        number, network, rows, update, worker.rank, step.rates, columns, d_above, by_unit, square
                    )  # fmt: skip
                elif layer == 0 and has_stage(network):
                    update_stage(number, network, rows, update, worker.rank, step.rates, below, memory, square)
                else:
                    update_block(
                        number, network, layer, rows, update, worker.rank, step.rates, below, d_above, by_unit, square
                    )  # fmt: skip
                stop_clock(worker, EMBED if layer == 0 and has_stage(network) else UPDATE, start)
            else:
                gather(job - downs - ups, following, batches, there)
                stop_clock(worker, GATHER, start)
            job = claim(worker.state, worker.size) - sparse
        barrier(worker.state, worker.size)
        high = low


@jit
def _sparse_job(job, following, worker, step, network, update, batches, memory, start):
    """Job 0 turns the next batch, which takes longest; the others update the first layer."""
    inlined()
    if job == 0:
        if following >= 0:
            turn_batch(following, network, batches)
        stop_clock(worker, GATHER, start)
    else:
        d_above = pointer(memory.d_outputs, plan_of(network, 0)[OUTPUT])
        update_columns(
            job - 2, network, step.number, step.rows, update, worker.rank, step.rates, batches, d_above,
            kept_of(network, 0, memory),
        )  # fmt: skip
        stop_clock(worker, UPDATE, start)


@jit
def turn_batch(number, network, batches):
    """Write down a batch of sparse rows by columns, in its place."""
    sparse, start = batches.sparse, number * batches.size
    rows = min(batches.size, batches.n_rows - start)
    n_columns = plan_of(network, 0)[N_IN]
    to = turned(number, batches)
    turn(start, rows, n_columns, sparse.stored, batches.order, to, sparse.scratch, sparse.counts)


@jit
def catch_up(worker, step, network, update, batches):
    """Rows of the first layer's weights that the step uses catch up with the steps that did not."""
    inlined()
    if batches.sparse.mode != LAZY or step.number == 0:
        return
    jobs = column_jobs(turned(step.number, batches))
    job = first_job(worker.state, worker.rank)
    while job < jobs:
        start = start_clock(worker)
        catch_up_columns(job, network, update, batches, step.number)
        stop_clock(worker, UPDATE, start)
        job = claim(worker.state, worker.size)
    barrier(worker.state, worker.size)


@jit
def penalise_sum(worker, step, network, update):
    """Add the L2 penalty's gradient to all blocks of a gradient, and take their sums of squares."""
    inlined()
    jobs = update_jobs(network, 0, network.n_layers)
    job = first_job(worker.state, worker.rank)
    while job < jobs:
        layer, number = update_of(job, network, 0)
        penalised_block(number, network, layer, update, step.rates, job)
        job = claim(worker.state, worker.size)
    barrier(worker.state, worker.size)


@jit
def clip_and_update(worker, step, network, update):
    """The optimizer on all blocks of a gradient that is scaled to the norm that is allowed, if there is a limit."""
    inlined()
    jobs = update_jobs(network, 0, network.n_layers)
    factor = clip_factor(update, jobs) if update.hyper[CLIP] > 0.0 else 1.0
    job = first_job(worker.state, worker.rank)
    while job < jobs:
        start = start_clock(worker)
        layer, number = update_of(job, network, 0)
        clipped_update(number, network, layer, update, step.rates, factor)
        stop_clock(worker, UPDATE, start)
        job = claim(worker.state, worker.size)
    barrier(worker.state, worker.size)


@jit
def _gather_jobs(batches):
    return (batches.size + ROWS - 1) // ROWS if batches.n_places > 1 else 0


@jit
def gather_first(worker, run, network, batches):
    """The first batch of a call; the others are gathered during the step before."""
    for job in range(worker.rank, _gather_jobs(batches), worker.size):
        gather(job, run.batch, batches, _place_of(run.batch, batches))
    if worker.rank == 0 and batches.sparse.mode != DENSE and batches.n_places > 1 and run.n_batches:
        turn_batch(run.batch, network, batches)
    barrier(worker.state, worker.size)
