"""The loss of a block of rows and its gradient, and the mean loss of raw outputs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastdl.engine.boundary import fault
from fastdl.engine.structs import F64, I64, NUMBERS, Loss, floats, loss_type, rows_of, rows_type
from fastdl.network import LossTerm
from fastdl_kernels.serial import (
    TILE_ROWS,
    entry,
    jit,
    linked,
    sum_of,
)
from fastdl_kernels.serial import loss_rows as sum_of_rows
from fastdl_kernels.simd import flush_subnormals, null, number_like, pointer, restore_mode

NO_LABELS = np.zeros(0, np.int64)


def empty_targets(dtype: np.dtype) -> tuple[NDArray[np.int64], NDArray, NDArray]:
    """(labels, targets, weights) of no rows."""
    return NO_LABELS, np.zeros((0, 0), dtype), np.zeros(0, dtype)


def split_targets(
    term: LossTerm, y: NDArray, weight: NDArray | None, dtype: np.dtype
) -> tuple[NDArray[np.int64], NDArray, NDArray]:
    """(labels, targets, weights) as compiled code takes them: what a loss does not use is empty."""
    labels, targets, weights = empty_targets(dtype)
    if weight is not None:
        weights = weight
    return (y, targets, weights) if term.takes_labels else (labels, y, weights)


def check_labels(labels: NDArray[np.int64], n_classes: int) -> None:
    """Raise EngineError about the first label that is no class of 0 .. n_classes - 1."""
    bad = (labels < 0) | (labels >= n_classes)
    if bad.any():
        row = int(np.argmax(bad))
        raise fault(f"label {labels[row]} in row {row}, where there are {n_classes} classes")


@jit
def loss_of(code, per_output, parameters):
    """The loss with this code and these numbers of its own; none are its defaults."""
    numbers = pointer(parameters, 0)
    return Loss(code, numbers if parameters.size else null(parameters.dtype.type(0)), per_output)


@jit
def _are_classes(labels, first, last, n):
    """Whether labels first .. last are all in 0 .. n - 1: with others, the loss would reach for memory that is not its own."""
    for row in range(first, last):  # noqa: SIM110 (no generators in compiled code)
        if labels[row] < 0 or labels[row] >= n:
            return False
    return True


@linked(lambda x: (I64, I64, I64, floats(x), rows_type(x), loss_type(x), F64, floats(x), NUMBERS))
def loss_rows(first, last, n, outputs, batch, loss, divisor, d_outputs, losses):
    """losses[i] = sum of the weighted losses of the rows from i * TILE_ROWS on, for first .. last; first is a multiple.

    d_outputs = their gradient / divisor, where the batch's mean is taken. A label that is no class makes the loss NaN.
    """
    scale = number_like(outputs[0], 1.0 / divisor)
    weights = batch.weights if batch.n_weights else null(scale)
    for start in range(first, last, TILE_ROWS):
        stop = min(last, start + TILE_ROWS)
        if batch.n_labels and not _are_classes(batch.labels, start, stop, n):
            part = math.nan
        else:
            part = sum_of_rows(
                loss.code, outputs, batch.labels, batch.targets, weights, loss.parameters, start, stop, n, scale, d_outputs
            )  # fmt: skip
        losses[start // TILE_ROWS] = part


@entry
def total_loss(loss, outputs, data, scratch, losses):
    """Sum of the rows' weighted losses, on one thread: a few per cent of the forward pass before it.

    loss is (code, per_output, parameters), data (labels, targets, weights). `scratch`, as large as outputs, and `losses`, a
    number for each TILE_ROWS rows, are overwritten.
    """
    code, per_output, parameters = loss
    labels, targets, weights = data
    n_rows, n = outputs.shape
    blocks = (n_rows + TILE_ROWS - 1) // TILE_ROWS
    rows = rows_of(outputs, labels, targets, weights)
    mode = flush_subnormals()
    loss_rows(
        0, n_rows, n, rows.inputs, rows, loss_of(code, per_output, parameters), 1.0, pointer(scratch, 0),
        pointer(losses, 0),
    )  # fmt: skip
    restore_mode(mode)
    return sum_of(losses, blocks)
