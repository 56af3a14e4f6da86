"""What compiled functions are given: groups of pointers and numbers, and how a network is written down as numbers.

Numba counts references to every array that a function gets. The counters of a training's arrays lie on cache lines that
all of its threads would write to, for each job: with jobs of a microsecond that took longer than the work itself. So
arrays become pointers where Python's call arrives, and everything beyond works on these.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba.core import types

from fastdl_kernels.serial import TILE_ROWS, jit
from fastdl_kernels.simd import null, pointer

# Columns of a plan (int64), one row per layer. WEIGHT and BIAS are places in the parameters. OUTPUT is where the layer's outputs
# start in their buffer and STRIDE how far their rows are apart; Z is where its z = x @ W + b is kept in the same buffer for
# activations whose derivative needs it, -1 if it is not. DROP is the dropout rate in units of 2^-32. The update of its weights
# is cut into UPDATES jobs of UPDATE_ROWS rows; it has WEIGHT_ROWS rows of ROW numbers. UNIT_ALPHAS is the place of the units'
# own numbers of a parametric activation, -1 without; its z is kept. Of an input stage, which is the lowest layer then
# (`input_stage`), TERMS, COUNT (of frequencies or pieces) and SIZE are those of its embedding, whose edges stand at EDGES; SIZE
# is 0 for all other layers. BIAS is -1 where it has no scales. Its CATEGORIES have tables of rows of CATEGORY_SIZE numbers at
# TABLES; the last UPDATES are theirs, one each. LISTED, in the first layer's row, says how many rows follow those of the layers:
# inputs in the order of the stage's outputs, first rows of tables, the last end. ROWS_BEFORE: rows of a batch elsewhere.
N_IN, N_OUT, WEIGHT, BIAS, ACTIVATION, OUTPUT, STRIDE, Z, DROP, UPDATES, UPDATE_ROWS = range(11)
WEIGHT_ROWS, ROW, LISTED, UNIT_ALPHAS, ARITHMETIC = range(11, 16)
TERMS, COUNT, SIZE, EDGES, CATEGORIES, CATEGORY_SIZE, TABLES, ROWS_BEFORE = range(16, 24)
PLAN_COLUMNS = 24  # three cache lines

# Codes of the optimizers; NO_UPDATE leaves the gradient in its buffer.
NO_UPDATE, SGD, MOMENTUM, RMSPROP, ADAM = range(-1, 4)

# Fields of `hyper` (float64): beta or beta1, beta2, eps, decoupled weight decay, nesterov (0 or 1), L2 penalty, the limit of the
# gradient's norm (0: none). What may differ from step to step stands in a table of its own. Behind them come, for each layer,
# what the learning rate and the weight decay are multiplied by for its weights, for its biases, and for the units' own numbers
# of parametric activations.
BETA1, BETA2, EPS, WEIGHT_DECAY, NESTEROV, L2, CLIP = range(7)
HYPER_SIZE = 7
OF_WEIGHTS, OF_BIASES, OF_UNIT_ALPHAS = range(3)
OF_TABLES = OF_UNIT_ALPHAS  # an input stage has the one, layers with weights the other
FACTORS = 6

# Columns of the table (float64) with a row for each step: rate, L2 penalty, eps, what loss and gradient are multiplied by, decay.
RATE, STEP_L2, STEP_EPS, SCALE, STEP_DECAY = range(5)
STEP_COLUMNS = 5

# Fields of `result` (float64): sum of the rows' losses, steps done, the last batch's loss, sum of the L2 penalties of batches
# times their rows.
LOSS_SUM, STEPS_DONE, LAST_LOSS, PENALTY_SUM = range(4)
RESULT_SIZE = 4

# Columns of `ticks` (int64), one row per thread: ticks spent in each kind of job, and in the whole call. A row is as
# long as two cache lines.
FORWARD, BACKWARD, UPDATE, GATHER, TOTAL, EMBED = range(6)
TICK_COLUMNS = 16

# How the first layer of sparse inputs is updated. EAGER: all its weights in each step. LAZY: the rows of weights that the batch
# uses; what the steps before would have done to them is made up for first. IDLE: likewise, where a step does nothing to others.
DENSE, EAGER, LAZY, IDLE = range(4)

# Parts of a step: GRADIENT is all but the update. Of gradients that are added up, PENALTY adds that of L2 and takes the squares.
WHOLE_STEP, GRADIENT, PENALTY, UPDATE_OF_SUM, PENALTY_AND_UPDATE = range(5)

# Rows per job of the gather and of a loss that is a phase of its own; the loss is added up in blocks of TILE_ROWS.
ROWS = 4 * TILE_ROWS
# How many rows ahead the gather prefetches: copying so many short rows takes longer than a line takes to come from memory.
ROWS_AHEAD = 16
# Multiply-adds below which a product is not shared out: 0.2 us of work, what a barrier costs.
WORK_PER_JOB = 8_000
# Into how many jobs an update is cut when the gradient's norm is wanted: sums of squares that do not depend on the threads.
CLIP_PARTS = 8
# Numbers by which a thread's slot of the gradient is rounded up: slots of two threads share no cache line, nor its neighbour.
SLOT_ROUND = 32


class Network(NamedTuple):
    """A network: its plan, the parameters of its activations, and its own parameters of `itemsize` bytes each."""

    n_layers: Any
    plan: Any
    alphas: Any
    parameters: Any
    itemsize: Any


class Loss(NamedTuple):
    """A loss: its code, its own numbers (null: its defaults), and whether its mean is over outputs as well as over rows."""

    code: Any
    parameters: Any
    per_output: Any


class Matrix(NamedTuple):
    """Rows of numbers that lie `stride` apart."""

    data: Any
    stride: Any


class Rows(NamedTuple):
    """Rows and what belongs to them: so many inputs, labels (0 or 1), targets and weights (0 or 1) to a row."""

    inputs: Any
    n_inputs: Any
    labels: Any
    n_labels: Any
    targets: Any
    n_targets: Any
    weights: Any
    n_weights: Any


class Stored(NamedTuple):
    """Sparse rows (CSR): the numbers values[starts[r]:starts[r + 1]] of row r are those in these columns, which ascend."""

    starts: Any
    columns: Any
    values: Any


class ByColumn(NamedTuple):
    """A batch of sparse rows, turned (CSC): column[k] has values[first[k]:first[k + 1]] in these rows, for k < count[0].

    Columns without a number in the batch are left out; both columns and rows ascend.
    """

    count: Any
    column: Any
    first: Any
    rows: Any
    values: Any


class Sparse(NamedTuple):
    """Sparse inputs, which the first layer reads where they are stored, and what else it needs then.

    mode : DENSE (there is nothing of all this), EAGER, LAZY or IDLE: how rows of the first layer's weights are updated
    by_column : each batch, turned, in a place of its own; places are `room` numbers apart
    scratch, counts : memory in which a batch is turned
    done [rows of the weights] : how many of the epoch's steps a row has been through
    rates [batches, 7] : those of each step, and the factor of its L2 penalty
    zeros : a gradient
    """

    mode: Any
    stored: Stored
    by_column: ByColumn
    room: Any
    scratch: ByColumn
    counts: Any
    done: Any
    rates: Any
    zeros: Any


class Source(NamedTuple):
    """Dense rows that are converted, and scaled, as they are read: see `source`. No parts: there is nothing of this.

    parts [n_parts, PART_COLUMNS] : where they lie. shift, scale [columns] : x becomes x' = (x - shift) / scale; null: x stays x.
    inverse [columns] : 1 / scale, by which a division is faster, where it may be used; or null
    clip [columns] : x' becomes x' / sqrt(1 + (x' / clip)^2); null: it stays
    """

    parts: Any
    n_parts: Any
    shift: Any
    scale: Any
    inverse: Any
    clip: Any


class Batches(NamedTuple):
    """The batches of an epoch: `size` rows of the `data` each, in the order that `order` [n_rows] says.

    Steps read them in one of `n_places` places, by turns. A batch that is all of the data is read where it is: then
    there is one place, which is the data, and nothing to gather. Inputs that are `sparse` are never gathered. Those of a
    `source` are no part of the data, and are gathered from there.
    """

    size: Any
    order: Any
    n_rows: Any
    data: Rows
    places: Rows
    n_places: Any
    sparse: Sparse
    source: Source


class Update(NamedTuple):
    """What turns a gradient into new parameters: the optimizer's code, numbers and states, and the gradient's memory.

    gradient is all of it, flat, or a slot for each thread, slot_size numbers apart; squares [update jobs] is what its norm is
    made of. The gradient may come in `n_partial` partial gradients, one for each block of rows, that lie partial_size
    numbers apart from `partial` on. row_squares [rows of all weights] takes Σ w² of each row, before the step, if `penalised`.
    Of a gradient that processes have added up, this one uses the numbers first .. stop.
    """

    code: Any
    hyper: Any
    state1: Any
    state2: Any
    gradient: Any
    slot_size: Any
    squares: Any
    partial: Any
    n_partial: Any
    partial_size: Any
    row_squares: Any
    penalised: Any
    first: Any
    stop: Any


class Memory(NamedTuple):
    """Workspaces of a step: a[l] and d_z[l] of all layers, and the losses of blocks of TILE_ROWS rows."""

    outputs: Any
    d_outputs: Any
    losses: Any


class Team(NamedTuple):
    """The threads that share a step out: the state in which they meet, how many are wanted, and `row_blocks`.

    row_blocks is into how many blocks of rows a batch is cut that go through all layers; 0: one layer after the other.
    """

    state: Any
    wanted: Any
    row_blocks: Any


class Run(NamedTuple):
    """Which steps a call takes.

    `n_batches` of the epoch's batches from `batch` on. table [batches of the epoch, STEP_COLUMNS] says what differs from step to
    step. `step` numbers the first one for dropout, with masks of `seed`; `update` for states. All processes have epochs of
    `all_rows` rows in batches of `all_size`. `part` of a step is done (see WHOLE_STEP), the gradient from `top` to `bottom`.
    """

    batch: Any
    n_batches: Any
    table: Any
    step: Any
    update: Any
    seed: Any
    all_size: Any
    all_rows: Any
    part: Any
    top: Any
    bottom: Any


class Report(NamedTuple):
    """What a call tells: `result` (LOSS_SUM and so on), and ticks [threads, TICK_COLUMNS] if it is `clocked`."""

    result: Any
    ticks: Any
    clocked: Any


I64, F64, BOOL, KEY = types.int64, types.float64, types.boolean, types.uint64
INTS, NUMBERS = types.CPointer(types.int64), types.CPointer(types.float64)
PLACES = types.CPointer(types.int32)  # columns and rows of sparse numbers
RATES = types.UniTuple(types.float64, 6)
BLOCK = types.UniTuple(types.int64, 4)  # first row and one behind the last, the same for columns
TEAM = types.BaseTuple.from_types((INTS, I64, I64), Team)
RUN = types.BaseTuple.from_types((I64, I64, NUMBERS, *[I64] * 8), Run)
REPORT = types.BaseTuple.from_types((NUMBERS, INTS, BOOL), Report)
SOURCE = types.BaseTuple.from_types((INTS, I64, NUMBERS, NUMBERS, NUMBERS, NUMBERS), Source)


def _named(kind: type, *members: types.Type) -> types.Type:
    return types.BaseTuple.from_types(members, kind)


def floats(element: types.Type) -> types.Type:
    """A pointer to floats as Numba sees it, for an element type; so for the functions below."""
    return types.CPointer(element)


def network_type(element: types.Type) -> types.Type:
    """`Network`."""
    return _named(Network, I64, INTS, floats(element), floats(element), I64)


def matrix_type(element: types.Type) -> types.Type:
    """`Matrix`."""
    return _named(Matrix, floats(element), I64)


def rows_type(element: types.Type) -> types.Type:
    """`Rows`."""
    return _named(Rows, floats(element), I64, INTS, I64, floats(element), I64, floats(element), I64)


def batches_type(element: types.Type) -> types.Type:
    """`Batches`."""
    rows = rows_type(element)
    return _named(Batches, I64, INTS, I64, rows, rows, I64, sparse_type(element), SOURCE)


def stored_type(element: types.Type) -> types.Type:
    """`Stored`."""
    return _named(Stored, INTS, PLACES, floats(element))


def by_column_type(element: types.Type) -> types.Type:
    """`ByColumn`."""
    return _named(ByColumn, INTS, PLACES, INTS, PLACES, floats(element))


def sparse_type(element: types.Type) -> types.Type:
    """`Sparse`."""
    turned = by_column_type(element)
    return _named(Sparse, I64, stored_type(element), turned, I64, turned, INTS, INTS, NUMBERS, floats(element))


def update_type(element: types.Type) -> types.Type:
    """`Update`."""
    x = floats(element)
    return _named(Update, I64, NUMBERS, x, x, x, I64, NUMBERS, x, I64, I64, NUMBERS, BOOL, I64, I64)


def loss_type(element: types.Type) -> types.Type:
    """`Loss`."""
    return _named(Loss, I64, floats(element), I64)


def memory_type(element: types.Type) -> types.Type:
    """`Memory`."""
    return _named(Memory, floats(element), floats(element), NUMBERS)


@jit
def network_of(plan, alphas, parameters):
    """The network that these arrays describe."""
    return Network(
        plan.shape[0] - plan[0, LISTED], pointer(plan, 0), pointer(alphas, 0), pointer(parameters, 0), parameters.itemsize
    )  # fmt: skip


@jit
def rows_of(inputs, labels, targets, weights):
    """Arrays inputs [N, I], labels [N], targets [N, T] and weights [N] as rows; what a loss has no use for has size 0."""
    return Rows(
        pointer(inputs, 0), inputs.shape[1], pointer(labels, 0), min(1, labels.size),
        pointer(targets, 0), targets.shape[1], pointer(weights, 0), min(1, weights.size),
    )  # fmt: skip


@jit
def stored_of(starts, columns, values):
    """Arrays as sparse rows."""
    return Stored(pointer(starts, 0), pointer(columns, 0), pointer(values, 0))


@jit
def by_column_of(count, column, first, rows, values):
    """Arrays as a turned batch."""
    return ByColumn(pointer(count, 0), pointer(column, 0), pointer(first, 0), pointer(rows, 0), pointer(values, 0))


@jit
def source_of(arrays):
    """`Source` of its arrays (parts, shift, scale, inverse, clip); those that are not wanted are empty."""
    parts, shift, scale, inverse, clip = arrays
    nothing = null(1.0)
    return Source(
        pointer(parts, 0), parts.shape[0], pointer(shift, 0) if shift.size else nothing,
        pointer(scale, 0) if scale.size else nothing, pointer(inverse, 0) if inverse.size else nothing,
        pointer(clip, 0) if clip.size else nothing,
    )  # fmt: skip


@jit
def skip(rows, n):
    """The rows from number n on."""
    return Rows(
        pointer(rows.inputs, n * rows.n_inputs), rows.n_inputs, pointer(rows.labels, n * rows.n_labels), rows.n_labels,
        pointer(rows.targets, n * rows.n_targets), rows.n_targets, pointer(rows.weights, n * rows.n_weights), rows.n_weights,
    )  # fmt: skip


@jit
def plan_of(network, layer):
    """A layer's row of the plan: its columns are `N_IN` and those after it."""
    return pointer(network.plan, layer * PLAN_COLUMNS)


@jit
def input_of(network, layer, batch, outputs):
    """What a layer reads, as a `Matrix`: the batch, or the outputs of the layer underneath."""
    if layer == 0:
        return Matrix(batch.inputs, batch.n_inputs)
    under = plan_of(network, layer - 1)
    return Matrix(pointer(outputs, under[OUTPUT]), under[STRIDE])
