"""The one check of what Python hands to compiled code, which follows pointers and believes every length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastdl.engine.structs import STEP_COLUMNS
from fastdl.errors import EngineError
from fastdl.network import Architecture
from fastdl.sparse import SparseRows
from fastdl.stored import Inputs, StoredRows

INT32, INT64, FLOAT64 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.float64)


def check(name: str, array: NDArray, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Raise EngineError unless the array has this dtype and shape, and is C-contiguous, aligned and writable.

    It takes 0.2 us. The values of an order are the caller's duty; a label that is no class makes the loss NaN.
    """
    if array.shape != shape or (array.dtype is not dtype and array.dtype != dtype) or not array.flags.carray:
        raise _error(name, array, dtype, shape)


def check_inputs(name: str, x: Inputs, dtype: np.dtype, shape: tuple[int, int]) -> None:
    """The same for inputs, which may be sparse, or stored in other forms: whoever made `SparseRows` has seen to it that their
    places exist, and `StoredRows` holds the arrays that it points to.
    """
    if isinstance(x, StoredRows):
        if x.shape != shape or x.dtype != dtype:
            raise fault(
                f"{name} should be read as {dtype} of shape {shape}, and is read as {x.dtype} of shape {x.shape}"
            )
        scaling = [a for a in (x.shift, x.scale) if a is not None]  # the clip is made anew for each call
        for array in scaling:
            check(f"{name}: scaling", array, FLOAT64, (shape[1],))
        return
    if not isinstance(x, SparseRows):
        check(name, x, dtype, shape)
        return
    if x.shape != shape:
        raise fault(f"{name} should be sparse rows of shape {shape}, and is of shape {x.shape}")
    check(f"{name}: starts", x.starts, INT64, (shape[0] + 1,))
    check(f"{name}: columns", x.columns, INT32, x.columns.shape)
    check(f"{name}: values", x.values, dtype, x.columns.shape)


def check_epoch(
    architecture: Architecture, rows: tuple[Inputs, NDArray, NDArray | None], order: NDArray, table: NDArray,
    n_batches: int,
) -> None:  # fmt: skip
    """Whether all that the caller of an epoch brings fits the workspaces; the values of `order` are his duty.

    rows are inputs, labels or targets, and weights.
    """
    x, y, weight = rows
    n_rows, layers, dtype = len(x), architecture.layers, architecture.dtype
    check_inputs("x", x, dtype, (n_rows, layers[0]))
    if architecture.loss.takes_labels:
        check("labels", y, INT64, (n_rows,))
    else:
        check("targets", y, dtype, (n_rows, layers[-1]))
    if weight is not None:
        check("weights", weight, dtype, (n_rows,))
    check("order", order, INT64, (len(order),))
    check("rates", table, FLOAT64, (len(table), STEP_COLUMNS))
    if len(table) < n_batches:
        raise fault(f"{len(table)} rates are too few for {n_batches} batches")


def fault(what: str) -> EngineError:
    """The exception for something that no caller of fastdl can have done wrong."""
    return EngineError(f"this is a fault of fastdl, please report it: {what}")


def _error(name: str, array: NDArray, dtype: np.dtype, shape: tuple[int, ...]) -> EngineError:
    lacks = [word for word, good in (
        ("not C-contiguous", array.flags.c_contiguous),
        ("not aligned", array.flags.aligned),
        ("read-only", array.flags.writeable),
    ) if not good]  # fmt: skip
    got = ", ".join([f"{array.dtype} of shape {array.shape}", *lacks])
    return fault(f"{name} should be {dtype} of shape {shape}, C-contiguous, aligned and writable, and is {got}")
