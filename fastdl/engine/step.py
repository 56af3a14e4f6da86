"""The compiled engine: many mini-batches in one call, by a team of threads.

A step goes through phases; the jobs of a phase write to separate places, and a barrier ends it:

    forward of layer 1, 2, ... L          bias and activation in the tile; the last one goes on to the loss of its rows
    backward of layer L                   d_z[L-1] = (d_z[L] @ W[L].T) * act'
    update of layer L, backward of L-1    d_W = a.T @ d_z, and at once the optimizer on the block just computed
    ...
    update of layers 2 and 1, next batch  rows of the next batch are gathered while the last gradients are computed

Rows have nothing to do with each other until their gradients are added up. Where the parameters and the numbers of a
batch in all layers fit into a core's cache together, there are two phases only:

    forward, loss and backward            a block of rows goes up and down through all layers: fused row blocks
    update of all layers, next batch

With many blocks, each also takes its partial gradient while its numbers are in the cache, and the updates add these up,
one after the other: they depend on the number of rows alone.

The network is data: sizes, offsets, activations, loss and optimizer are numbers in arrays, so that one compiled version
per dtype serves them all. A layer's gradient lives for as long as its block is in the cache: it has no place in memory.

Clipping by the global norm needs the whole gradient before the first update. Then the updates leave it in a flat buffer
with the sum of squares of each block, and one more phase runs the optimizer on the same blocks.
"""

from __future__ import annotations

import math

from numba.core import types

from fastdl.engine.arrays import (
    INTS_1,
    INTS_2,
    NUMBERS_1,
    NUMBERS_2,
    data_arrays,
    floats_1,
    group,
    loss_arrays,
    network_arrays,
    places_arrays,
    sparse_arrays,
    update_arrays,
)
from fastdl.engine.loss import loss_of
from fastdl.engine.phases import (
    Worker,
    backward_and_update,
    batch_loss,
    catch_up,
    clip_and_update,
    forward_layers,
    fused_row_blocks,
    gather_first,
    penalise_sum,
    start_clock,
    step_of,
    stop_clock,
)
from fastdl.engine.sparse_batch import sparse_of
from fastdl.engine.structs import (
    CLIP,
    GRADIENT,
    I64,
    LAST_LOSS,
    LAZY,
    LOSS_SUM,
    PENALTY,
    PENALTY_SUM,
    REPORT,
    RUN,
    SLOT_ROUND,
    STEPS_DONE,
    TEAM,
    TICK_COLUMNS,
    TOTAL,
    UPDATE_OF_SUM,
    Batches,
    Memory,
    Report,
    Run,
    Team,
    Update,
    batches_type,
    loss_type,
    memory_type,
    network_of,
    network_type,
    rows_of,
    source_of,
    update_type,
)
from fastdl.engine.update import penalty_sum
from fastdl_kernels.serial import check_in, jit, linked, native, run_jobs
from fastdl_kernels.simd import flush_subnormals, pointer, restore_mode


@linked(
    lambda x: (I64, TEAM, network_type(x), loss_type(x), update_type(x), batches_type(x), memory_type(x), RUN, REPORT)
)  # fmt: skip
def work(job, team, network, loss, update, batches, memory, run, report):
    """What one thread of the team does: the steps of a call."""
    rank, size = check_in(team.state, team.wanted)
    if rank < 0:
        return
    mode = flush_subnormals()
    worker = Worker(rank, size, team.state, pointer(report.ticks, rank * TICK_COLUMNS), report.clocked)
    begin = start_clock(worker)
    if run.part <= GRADIENT and run.top == network.n_layers - 1:
        gather_first(worker, run, network, batches)
    for i in range(run.n_batches):
        step = step_of(i, run, network, loss, update, batches)
        if run.part > GRADIENT:
            if run.part != UPDATE_OF_SUM:
                penalise_sum(worker, step, network, update)
            if run.part != PENALTY:
                clip_and_update(worker, step, network, update)
            continue
        if run.top < network.n_layers - 1:  # what is above has been done by the calls before
            backward_and_update(worker, False, run, -1, step, network, update, batches, memory)
            continue
        catch_up(worker, step, network, update, batches)
        if team.row_blocks:
            fused_row_blocks(worker, team.row_blocks, step, network, loss, update, batches, memory)
        else:
            forward_layers(worker, step, network, loss, batches, memory)
        loss_sum = batch_loss(step, network, loss, memory)
        if rank == 0:
            report.result[LOSS_SUM] += loss_sum
            report.result[LAST_LOSS] = loss_sum / step.rows
        if not math.isfinite(loss_sum):
            break
        following = run.batch + i + 1 if i + 1 < run.n_batches else -1
        backward_and_update(worker, team.row_blocks > 0, run, following, step, network, update, batches, memory)
        if update.hyper[CLIP] > 0.0:
            clip_and_update(worker, step, network, update)
        if rank == 0:
            if update.penalised:  # nobody writes new ones before all have met again
                first = 1 if batches.sparse.mode >= LAZY else 0  # the first layer's is added up apart: see `sparse`
                report.result[PENALTY_SUM] += 0.5 * step.rates[3] * penalty_sum(update, network, first) * step.rows
            report.result[STEPS_DONE] += 1
    stop_clock(worker, TOTAL, begin)
    restore_mode(mode)


@jit
def _work_job(job, team, network, loss, update, batches, memory, run, report):
    work(job, team, network, loss, update, batches, memory, run, report)


def _signature(x: types.Type) -> tuple[types.Type, ...]:
    numbers = group(I64, I64, NUMBERS_2, I64, I64, I64)
    return (
        group(INTS_1, I64, I64), network_arrays(x), loss_arrays(x), update_arrays(x), data_arrays(x), places_arrays(x),
        sparse_arrays(x), group(floats_1(x), floats_1(x), NUMBERS_1), numbers, group(*[I64] * 7), group(NUMBERS_1, INTS_2),
    )  # fmt: skip


@native(_signature)
def train_batches(team, network, loss, update, data, places, sparse, memory, run, share, report):
    """Train on some batches of an epoch. The arguments are tuples of arrays and numbers, in the order of the struct's fields:

    team : state (zeros at the start), threads wanted, row blocks
    network : plan, alphas, parameters
    loss : code, whether its mean is per output, its parameters
    update : code, hyper, state1, state2, gradient, squares, partial gradients [n, size], row squares (empty: no penalties)
    data : batch size, order, inputs, labels, targets, weights, source (`source.arguments_of`; empty where inputs are the data)
    places : inputs [n_places, batch size, stride], labels, targets, weights likewise; with one of them, it is the data
    sparse : mode, stored rows (starts, columns, values), batches by column (counts, column, first, rows, values: each a row for
        each place), scratch likewise, counters, done, rates, zeros; mode DENSE and empty arrays where inputs are dense
    memory : outputs, d_outputs, losses
    run : batch, n_batches, table [batches, STEP_COLUMNS], step, update, seed
    share : rows of a batch and of an epoch of all processes, part of a step, the layers from and to which gradients are taken,
    the
        first of the parameters that are updated and the one behind the last: see `structs.Run`, `Update`
    report : result (zeros at the start), ticks
    """
    state, wanted, row_blocks = team
    code, hyper, state1, state2, gradient, squares, partial, row_squares = update
    size, order, inputs, labels, targets, weights, source = data
    x, y_labels, y_targets, y_weights = places
    outputs, d_outputs, losses = memory
    batch, n_batches, table, first_step, first_update, seed = run
    all_size, all_rows, part, top, bottom, first, stop = share
    result, clock = report
    slot_size = gradient.size // wanted // SLOT_ROUND * SLOT_ROUND
    run_jobs(
        _work_job, wanted, wanted > 1,
        (
            Team(pointer(state, 0), wanted, row_blocks),
            network_of(network[0], network[1], network[2]),
            loss_of(loss[0], loss[1], loss[2]),
            Update(
                code, pointer(hyper, 0), pointer(state1, 0), pointer(state2, 0), pointer(gradient, 0), slot_size,
                pointer(squares, 0), pointer(partial, 0), partial.shape[0], partial.shape[1], pointer(row_squares, 0),
                row_squares.size > 0, first, stop,
            ),
            Batches(
                size, pointer(order, 0), order.size, rows_of(inputs, labels, targets, weights),
                rows_of(x[0], y_labels[0], y_targets[0], y_weights[0]), x.shape[0], sparse_of(sparse),
                source_of(source),
            ),
            Memory(pointer(outputs, 0), pointer(d_outputs, 0), pointer(losses, 0)),
            Run(
                batch, n_batches, pointer(table, 0), first_step, first_update, seed, all_size, all_rows, part, top, bottom
            ),
            Report(pointer(result, 0), pointer(clock, 0), clock.size > 0),
        ),
    )  # fmt: skip
