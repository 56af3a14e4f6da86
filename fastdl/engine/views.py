"""What the compiled engine works on, as pointers and numbers.

Numba counts references to every array that a function gets. The counters of a training's arrays lie on cache lines that
all of its threads would write to, for each job: with jobs of a microsecond that took longer than the work itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba.core import types

from fastdl.engine.layout import PLAN_COLUMNS
from fastdl_kernels.serial import jit
from fastdl_kernels.simd import pointer


class Net(NamedTuple):
    """A network: its plan, the slopes of its activations, and its parameters of `itemsize` bytes each."""

    n_layers: Any
    plan: Any
    alphas: Any
    params: Any
    itemsize: Any


class Rule(NamedTuple):
    """What an update does: the optimizer's code, numbers and states.

    grads is the flat gradient, or a slot for each thread; squares [update jobs] is what the gradient's norm is made of. The
    gradient may come in `n_shares` shares, one for each block of rows, that lie share_size numbers apart from `shares` on.
    row_squares [rows of all weights] takes Σ w² of each row, before the step, if `penalised`.
    """

    code: Any
    hyper: Any
    state1: Any
    state2: Any
    grads: Any
    squares: Any
    shares: Any
    n_shares: Any
    share_size: Any
    row_squares: Any
    penalised: Any


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


I64, BOOL, KEY = types.int64, types.boolean, types.uint64
INTS, NUMBERS = types.CPointer(types.int64), types.CPointer(types.float64)
RATES = types.UniTuple(types.float64, 5)
BLOCK = types.UniTuple(types.int64, 4)  # first row and one behind the last, the same for columns


def _named(kind: type, *members: types.Type) -> types.Type:
    return types.BaseTuple.from_types(members, kind)


def net_type(element: types.Type) -> types.Type:
    """`Net` as Numba sees it, for an element type."""
    floats = types.CPointer(element)
    return _named(Net, I64, INTS, floats, floats, I64)


def rule_type(element: types.Type) -> types.Type:
    """`Rule` as Numba sees it."""
    floats = types.CPointer(element)
    return _named(Rule, I64, NUMBERS, floats, floats, floats, NUMBERS, floats, I64, I64, NUMBERS, BOOL)


def rows_type(element: types.Type) -> types.Type:
    """`Rows` as Numba sees it."""
    floats = types.CPointer(element)
    return _named(Rows, floats, I64, INTS, I64, floats, I64, floats, I64)


@jit
def net_of(plan, alphas, params):
    """The network that these arrays describe."""
    return Net(plan.shape[0], pointer(plan, 0), pointer(alphas, 0), pointer(params, 0), params.itemsize)


@jit
def rows_of(inputs, labels, targets, weights):
    """Arrays inputs [N, I], labels [N], targets [N, T] and weights [N] as rows; what a loss has no use for has size 0."""
    return Rows(
        pointer(inputs, 0), inputs.shape[1], pointer(labels, 0), min(1, labels.size),
        pointer(targets, 0), targets.shape[1], pointer(weights, 0), min(1, weights.size),
    )  # fmt: skip


@jit
def skip(rows, n):
    """The rows from number n on."""
    return Rows(
        pointer(rows.inputs, n * rows.n_inputs), rows.n_inputs, pointer(rows.labels, n * rows.n_labels), rows.n_labels,
        pointer(rows.targets, n * rows.n_targets), rows.n_targets, pointer(rows.weights, n * rows.n_weights), rows.n_weights,
    )  # fmt: skip


@jit
def plan_of(net, layer):
    """A layer's row of the plan: its columns are `layout.N_IN` and those after it."""
    return pointer(net.plan, layer * PLAN_COLUMNS)
