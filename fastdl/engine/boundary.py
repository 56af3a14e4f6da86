"""The one check of what Python hands to compiled code, which follows pointers and believes every length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import EngineError

Wanted = tuple[str, NDArray, np.dtype, tuple[int, ...]]
"""What an array is called, the array, and the dtype and shape that it must have."""

INT64, FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)


def check(wanted: tuple[Wanted, ...]) -> None:
    """Raise EngineError unless each array has its dtype and shape, and is C-contiguous, aligned and writable.

    0.2 us an array. The values of an order are the caller's duty; a label that is no class makes the loss NaN.
    """
    for name, array, dtype, shape in wanted:
        if array.dtype != dtype or array.shape != shape or not array.flags.carray:
            raise _error(name, array, dtype, shape)


def check_rows(name: str, array: NDArray, dtype: np.dtype, columns: int) -> None:
    """The same for any number of rows."""
    if array.ndim != 2 or array.shape[1] != columns or array.dtype != dtype or not array.flags.carray:
        raise _error(name, array, dtype, (len(array) if array.ndim else 0, columns))


def check_length(name: str, array: NDArray, length: int) -> None:
    """Raise EngineError unless the array has at least so many entries."""
    if len(array) < length:
        raise EngineError(f"this is a fault of fastdl, please report it: {name} has {len(array)} entries of {length}")


def _error(name: str, array: NDArray, dtype: np.dtype, shape: tuple[int, ...]) -> EngineError:
    lacks = [word for word, good in (
        ("not C-contiguous", array.flags.c_contiguous),
        ("not aligned", array.flags.aligned),
        ("read-only", array.flags.writeable),
    ) if not good]  # fmt: skip
    got = ", ".join([f"{array.dtype} of shape {array.shape}", *lacks])
    return EngineError(
        f"this is a fault of fastdl, please report it: {name} should be {dtype} of shape {shape}, C-contiguous, aligned "
        f"and writable, and is {got}"
    )
