"""Checks at the public boundary: each returns the array that the engine needs or raises one clear sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl.errors import InputError

# Numbers of a block of a large array.
_BLOCK = 1 << 20


def features(X: ArrayLike, n_features: int, name: str = "X", keep_half: bool = False) -> NDArray[np.floating]:
    """X as a finite numeric array [N, n_features] (its dtype is kept when it is a float)."""
    return finite(table(X, n_features, name, keep_half), name)


def table(X: ArrayLike, n_features: int, name: str = "X", keep_half: bool = False) -> NDArray[np.floating]:
    """The same, without a look at the numbers; with `keep_half` float16 stays what it is."""
    array = _numeric(X, name, keep_half)
    if array.ndim != 2 or array.shape[1] != n_features:
        hint = "; a single row is X[None, :]" if array.ndim == 1 and array.size == n_features else ""
        raise InputError(f"{name}: expected shape (rows, {n_features}), got {array.shape}{hint}")
    return array


def labels(y: ArrayLike, n_rows: int, n_classes: int, name: str = "y") -> NDArray[np.int64]:
    """y as int64 class indices [N] in 0 .. n_classes - 1."""
    array = _numeric(y, name)
    if array.ndim == 2 and array.shape == (n_rows, n_classes) and n_classes > 1:
        if not (((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all()):
            raise InputError(
                f"{name}: expected class labels 0 to {n_classes - 1} of shape (rows,), or one-hot rows with a single 1, "
                f"got shape {array.shape} with other numbers; use y.argmax(axis=1) if they are scores"
            )
        return array.argmax(axis=1).astype(np.int64)
    array = _one_per_row(array, n_rows, name)
    # Compared as they came: a number beyond int64 does not survive the conversion.
    inside = np.clip(finite(array, name).astype(np.float64), -1, n_classes)
    as_int = inside.astype(np.int64)
    if not np.array_equal(as_int, inside):
        raise InputError(
            f"{name}: expected whole-number class labels 0 to {n_classes - 1}, got {_first(inside != as_int, array)}"
        )
    bad = (as_int < 0) | (as_int >= n_classes)
    if bad.any():
        raise InputError(
            f"{name}: expected class labels 0 to {n_classes - 1} for {n_classes} softmax outputs, got {_first(bad, array)}; "
            f"number the classes from 0, or give the model one output per class"
        )
    return as_int


def targets(y: ArrayLike, n_rows: int, n_outputs: int, binary: bool, name: str = "y") -> NDArray[np.floating]:
    """y as finite numbers [N, n_outputs]; [N] is taken where there is one output. Binary targets lie in [0, 1]."""
    array = _numeric(y, name)
    if array.ndim == 1 and n_outputs == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] != n_outputs:
        wanted = f"(rows,) or (rows, {n_outputs})" if n_outputs == 1 else f"(rows, {n_outputs})"
        raise InputError(f"{name}: expected shape {wanted} for {n_outputs} output(s), got {np.shape(y)}")
    _same_rows(array, n_rows, name)
    finite(array, name)
    if binary:
        bad = (array < 0) | (array > 1)
        if bad.any():
            raise InputError(f"{name}: expected labels in 0 .. 1 for sigmoid outputs, got {_first(bad, array)}")
    return array


def weights(sample_weight: ArrayLike, n_rows: int, name: str = "sample_weight") -> NDArray[np.float64]:
    """Per-row weights [N], none negative, not all zero, as float64."""
    array = finite(_one_per_row(_numeric(sample_weight, name), n_rows, name), name).astype(np.float64)
    if (array < 0).any():
        raise InputError(f"{name}: expected weights of 0 or more, got {_first(array < 0, array)}")
    if not array.any():
        raise InputError(f"{name}: expected at least one weight above 0, got only zeros")
    # Scaled to at most 1, so that their sum cannot overflow; only their ratios matter.
    return array / array.max()


def count(value: object, name: str, low: int, what: str) -> int:
    """A whole number of at least `low`; `what` says what it counts."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < low:
        raise InputError(f"{name}: expected {what}, a whole number of at least {low}, got {value!r}")
    return int(value)


def number(value: object, name: str, low: float, what: str) -> float:
    """A finite number of at least `low`; `what` says what it is."""
    if not is_real(value) or not math.isfinite(value) or value < low:
        raise InputError(f"{name}: expected {what}, a finite number of {low:g} or more, got {value!r}")
    return float(value)


def positive(value: object, name: str, what: str) -> float:
    """A finite number above 0; `what` says what it is."""
    given = number(value, name, 0, what)
    if given == 0:
        raise InputError(f"{name}: expected {what}, a finite number above 0, got {value!r}")
    return given


def is_real(value: object) -> TypeGuard[int | float]:
    """True for Python's and NumPy's real numbers, but not for booleans."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def finite(array: NDArray, name: str, first_row: int = 0) -> NDArray:
    """The array itself, when no element is NaN or infinite; its rows are counted from `first_row` on."""
    if array.dtype.kind == "f" and not all_finite(array):
        for start, block in _blocks(array):
            bad = ~np.isfinite(block)
            if bad.any():
                told = _first(bad, block, first_row + start)
                raise InputError(f"{name}: expected finite numbers, got {told}; fill or drop such rows first")
    return array


def all_finite(array: NDArray) -> bool:
    """Whether no element of an array of floats is NaN or infinite."""
    # The sum of squares is finite only if every element is (or it overflowed): one pass without a temporary in the usual
    # case, and without the microsecond that np.errstate takes, since BLAS raises no warnings.
    if array.size == 0:
        return True
    if array.flags.c_contiguous and array.dtype.itemsize > 2 and math.isfinite(np.vdot(array, array)):
        return True
    return all(bool(np.isfinite(block).all()) for _, block in _blocks(array))


def _blocks(array: NDArray) -> Iterator[tuple[int, NDArray]]:
    """(number of its first row, some rows): what is made of a block takes little memory."""
    rows = max(1, _BLOCK // max(1, array.size // len(array))) if array.ndim else 1
    if not array.ndim or len(array) <= rows:
        yield 0, array
        return
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def _numeric(values: ArrayLike, name: str, keep_half: bool = False) -> NDArray:
    if type(values) is not np.ndarray:
        _refuse_special(values, name)
    try:
        array = np.asarray(values)
    except ValueError as error:  # ragged nested lists
        raise InputError(f"{name}: expected a rectangular array of numbers, got rows of different lengths") from error
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{name}: expected numbers, got objects ({error}); convert them to float first") from error
    if array.dtype.kind not in "fiub":
        mend = "convert them to float first"
        if array.dtype.kind in "US":
            mend = f"such as {str(array.flat[0])!r}; encode texts as numbers first" if array.size else mend
        raise InputError(
            f"{name}: expected real numbers, got dtype {array.dtype}{', ' if 'such' in mend else '; '}{mend}"
        )
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8) and not (keep_half and array.dtype.itemsize == 2):
        array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    return array


def _refuse_special(values: object, name: str) -> None:
    """One sentence for containers that NumPy would take for something else."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise InputError(
            f"{name}: expected numbers, got masked cells; fill them first, such as with {name}.filled(...)"
        )
    if hasattr(values, "tocsr") and hasattr(values, "toarray"):
        raise InputError(f"{name}: expected a dense array, got a sparse {type(values).__name__}; use {name}.toarray()")
    if values is None:
        raise InputError(f"{name}: expected an array of numbers, got None")


def _one_per_row(array: NDArray, n_rows: int, name: str) -> NDArray:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InputError(f"{name}: expected shape (rows,), got {array.shape}")
    return _same_rows(array, n_rows, name)


def _same_rows(array: NDArray, n_rows: int, name: str) -> NDArray:
    if len(array) != n_rows:
        raise InputError(f"{name}: expected one entry for each of the {n_rows} rows of X, got {len(array)}")
    return array


def _first(bad: NDArray, array: NDArray, first_row: int = 0) -> str:
    where = np.unravel_index(int(np.argmax(bad)), array.shape)
    place = f"row {first_row + where[0]}" + (f", column {where[1]}" if len(where) > 1 else "")
    return f"{array[where]} in {place} (counted from 0)"
