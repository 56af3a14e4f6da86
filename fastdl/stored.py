"""Dense inputs as they are: arrays of any number type, with any strides, or several after each other; never copied whole.

The engine converts and scales a row when it needs it (`fastdl.engine.source`); this is where the rows lie.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from mmap import mmap
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from fastdl import checks
from fastdl.errors import InputError
from fastdl.sparse import SparseRows

NUMBER_TYPES = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
)  # fmt: skip
"""The dtypes that compiled code reads as they are. A kind is twice a place in this list, and 1 more for numbers side by side."""

CONVERTED_BYTES = 1 << 20
"""Inputs that take up to so much in the dtype of the model are converted at once: such a copy stays in a cache, and a step of
a small network has no time to convert its rows anew in each epoch."""

# Columns of the table of parts (int64): the number of a part's first row, its address, how many bytes rows and columns are
# apart, and what its numbers are.
FIRST_ROW, ADDRESS, ROW_STEP, COLUMN_STEP, KIND = range(5)
PART_COLUMNS = 5

# Numbers of a block that NumPy works on: 8 MB as float64.
_BLOCK = 1 << 20
# Beyond this a scaled number might leave the range of float32.
_SAFE = 1e38


class StoredRows:
    """Rows [N, I] that the engine reads as (x - shift) / scale, smoothly clipped, in float64, rounded to `dtype`.

    Parameters
    ----------
    parts : arrays [n, I] of dtypes in NUMBER_TYPES, one after the other
    dtype : of the network
    shift, scale : [I], or None: x stays x
    clip : what x' = (x - shift) / scale is brought nearer than: x' / sqrt(1 + (x' / clip)^2), or None
    """

    def __init__(
        self,
        parts: Sequence[NDArray],
        dtype: np.dtype,
        shift: NDArray[np.float64] | None = None,
        scale: NDArray[np.float64] | None = None,
        clip: float | None = None,
    ) -> None:
        self.parts = [part for part in parts if len(part)] or list(parts[:1])
        self.dtype = np.dtype(dtype)
        self.shift = None if shift is None else np.require(shift, np.float64, ["C", "A", "W"])
        self.scale = None if scale is None else np.require(scale, np.float64, ["C", "A", "W"])
        self.clip = clip
        starts = np.cumsum([0, *(len(part) for part in self.parts)])
        self.shape = int(starts[-1]), int(self.parts[0].shape[1])
        self.parts_table = np.array(
            [
                (start, part.__array_interface__["data"][0], *part.strides, _kind_of(part))
                for start, part in zip(starts, self.parts)
            ],
            np.int64,
        )

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def kinds(self) -> set[int]:
        """What the numbers of its parts are."""
        return set(self.parts_table[:, KIND].tolist())

    @property
    def mapped_bytes(self) -> int:
        """How many bytes of the rows lie in memory-mapped files."""
        return sum(part.nbytes for part in self.parts if is_mapped(part))

    def part(self, rows: slice) -> StoredRows:
        """Neighbouring rows; the numbers are not copied."""
        start, stop, _ = rows.indices(len(self))
        inside = [
            part[max(0, start - first) : max(0, stop - first)]
            for first, part in zip(self.parts_table[:, 0], self.parts)
        ]
        return StoredRows(inside, self.dtype, self.shift, self.scale, self.clip)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.floating]:
        """Some rows, in this order, in memory of their own, as the engine would read them."""
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        numbers = np.searchsorted(self.parts_table[:, FIRST_ROW], rows, side="right") - 1
        count = max(1, _BLOCK // max(1, self.shape[1]))
        with np.errstate(over="ignore", invalid="ignore"):
            for number in np.unique(numbers).tolist():
                places, first = np.flatnonzero(numbers == number), self.parts_table[number, FIRST_ROW]
                for start in range(0, len(places), count):
                    some = places[start : start + count]
                    out[some] = self._scaled(self.parts[number][rows[some] - first])
        return out

    def array(self) -> NDArray[np.floating]:
        """All rows in memory of their own, as the engine would read them."""
        out, first = np.empty(self.shape, self.dtype), 0
        for block in self.blocks():
            out[first : first + len(block)] = block
            first += len(block)
        return out

    def blocks(self) -> Iterator[NDArray[np.floating]]:
        """The same, some rows at a time."""
        for _, block in blocks(self.parts):
            with np.errstate(over="ignore", invalid="ignore"):
                rows = self._scaled(block).astype(self.dtype)
            yield rows

    @functools.cached_property
    def whole(self) -> NDArray[np.floating]:
        """`array`, made once: for batches of all rows, which have a place for them anyway."""
        return self.array()

    def _scaled(self, block: NDArray) -> NDArray[np.float64]:
        numbers = block.astype(np.float64, copy=False)
        if self.shift is None or self.scale is None:
            return numbers
        return clipped((numbers - self.shift) / self.scale, self.clip)

    @property
    def may_be_infinite(self) -> bool:
        """Whether a number could be NaN or infinite, or become so: whole numbers cannot, unless a scale is tiny."""
        if any(part.dtype.kind == "f" for part in self.parts):
            return True
        if self.shift is None or self.scale is None:
            return False
        with np.errstate(all="ignore"):
            return not bool(((2.0**64 + np.abs(self.shift)) / np.abs(self.scale) < _SAFE).all())

    def refuse(self, name: str) -> None:
        """Raise InputError about the first number that is not finite, as it is or else as the engine reads it."""
        check_finite(self.parts, name)
        first = 0
        for block in self.blocks():
            checks.finite(block, f"{name} as {self.dtype}", first)
            first += len(block)


def clipped(x: NDArray[Any], clip: float | None) -> NDArray[Any]:
    """x / sqrt(1 + (x / clip)^2), which is never further from 0 than `clip`; None: x itself."""
    return x if clip is None else x / np.hypot(1.0, x / clip)


def _kind_of(part: NDArray) -> int:
    return 2 * NUMBER_TYPES.index(part.dtype.name) + (part.strides[1] == part.itemsize)


Inputs: TypeAlias = Union["NDArray[Any]", SparseRows, StoredRows]
"""Inputs as the engine takes them: in its own form, sparse, or read where they are."""


def is_mapped(array: Any) -> bool:
    """Whether an array is a view of a memory-mapped file."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap)


def picked(array: NDArray, rows: NDArray[np.int64]) -> NDArray | list[NDArray]:
    """Some rows, copied; of a memory-mapped file, as a list of views: one for each run of rows that follow each other."""
    if not is_mapped(array) or not len(rows):
        return array[rows]
    starts = np.flatnonzero(np.r_[True, np.diff(rows) != 1])
    ends = np.r_[starts[1:], len(rows)]
    return [array[rows[a] : rows[b - 1] + 1] for a, b in zip(starts, ends)]


def blocks(parts: Sequence[NDArray]) -> Iterator[tuple[int, NDArray]]:
    """(number of its first row, some rows) of arrays that follow each other; a block is a view."""
    start = 0
    for part in parts:
        rows = max(1, _BLOCK // max(1, part.shape[1]))
        for first in range(0, len(part), rows):
            yield start + first, part[first : first + rows]
        start += len(part)


def refuse(x: Any, name: str) -> None:
    """Raise InputError about inputs of which a number is not finite."""
    if isinstance(x, StoredRows):
        x.refuse(name)
    else:
        checks.finite(x, name)


def check_finite(parts: Sequence[NDArray], name: str = "X") -> None:
    """Raise InputError about the first number that is not finite of arrays that follow each other."""
    start = 0
    for part in parts:
        checks.finite(part, name, start)
        start += len(part)


def is_readable(array: NDArray) -> bool:
    """Whether compiled code can read the numbers of an array as they are."""
    return array.dtype.isnative and array.dtype.name in NUMBER_TYPES


def is_list_of_arrays(X: Any) -> bool:
    """Whether X is a list of matrices, such as those of several files, whose rows follow each other."""
    return (
        isinstance(X, (list, tuple))
        and len(X) > 0
        and all(isinstance(part, np.ndarray) and part.ndim == 2 for part in X)
    )


def parts_of(X: Any, n_features: int, name: str = "X") -> list[NDArray] | None:
    """The arrays of a list of arrays [n, n_features], checked; None where X is something else.

    Raises
    ------
    InputError : an array has another width, or holds no numbers
    """
    if not is_list_of_arrays(X):
        return None
    return [checks.table(part, n_features, f"{name}[{i}]", keep_half=True) for i, part in enumerate(X)]


def targets_of(X: Any, y: Any, name: str = "y") -> Any:
    """Targets that came as a list of arrays, as X did, in one array; others as they are."""
    if not is_list_of_arrays(X) or not isinstance(y, (list, tuple)):
        return y
    lengths = [np.shape(part)[:1] for part in y]
    if lengths != [(len(part),) for part in X]:
        raise InputError(
            f"{name}: expected an array for each of the {len(X)} arrays of X, with as many rows, or one for all of them, "
            f"got {len(y)} things of other lengths"
        )
    try:
        return np.concatenate([np.asarray(part) for part in y])
    except ValueError as error:
        raise InputError(f"{name}: expected arrays that are alike but for their rows, got others ({error})") from error
