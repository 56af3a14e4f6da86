"""Sparse matrices of SciPy as inputs: checked, in canonical form, in the dtype of a model.

SciPy is not imported: what is sparse is known by its attributes.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import InputError

_MOST_COLUMNS = 2**31 - 1
_PLAIN: list[Literal["C", "A", "W"]] = ["C", "A", "W"]  # C-contiguous, aligned, writable


class SparseRows:
    """Rows of which only some numbers are stored (CSR), as the engine reads them.

    starts [N + 1] : int64; the numbers of row r are those from starts[r] to starts[r + 1]
    columns : int32; they ascend within a row
    values : in the dtype of the model, finite
    """

    def __init__(
        self, starts: NDArray[np.int64], columns: NDArray[np.int32], values: NDArray[np.floating], n_columns: int
    ) -> None:
        self.starts, self.columns, self.values = starts, columns, values
        self.shape = len(starts) - 1, n_columns
        self.turned: Any = None
        """The same by columns, where the engine has wanted that of all rows."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self.values.dtype

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many numbers each row has."""
        return np.diff(self.starts)

    @property
    def numbers_per_row(self) -> int:
        """Of the mean row, rounded up to a power of two."""
        return 1 << (max(1, len(self.values) // max(1, len(self))) - 1).bit_length()

    def part(self, rows: slice) -> SparseRows:
        """Neighbouring rows; the numbers are not copied."""
        start, stop, _ = rows.indices(len(self))
        return SparseRows(self.starts[start : stop + 1], self.columns, self.values, self.shape[1])

    def __getitem__(self, rows: NDArray[np.integer]) -> SparseRows:
        """The rows with these numbers, copied."""
        lengths = self.lengths[rows]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        places = np.arange(starts[-1]) + np.repeat(self.starts[:-1][rows] - starts[:-1], lengths)
        return SparseRows(starts, self.columns[places], self.values[places], self.shape[1])


def is_sparse(X: Any) -> bool:
    """Whether X is a sparse matrix or array of SciPy, or another that can become one."""
    return hasattr(X, "tocsr") and hasattr(X, "toarray")


def rows_of(X: Any, n_features: int, dtype: np.dtype, name: str = "X") -> SparseRows:
    """A sparse X [N, n_features] of any format as `SparseRows`; duplicates are summed, in a copy.

    Raises
    ------
    InputError : another shape, numbers that are not real or not finite, a damaged matrix
    """
    shape = tuple(X.shape)
    if len(shape) != 2 or shape[1] != n_features:
        raise InputError(
            f"{name}: expected shape (rows, {n_features}), got a sparse {type(X).__name__} of shape {shape}"
        )
    if n_features > _MOST_COLUMNS:
        raise InputError(f"{name}: expected at most {_MOST_COLUMNS} columns of sparse numbers, got {n_features}")
    kind = np.dtype(X.dtype).kind
    if kind not in "fiub":
        raise InputError(f"{name}: expected real numbers, got dtype {X.dtype}; convert them to float first")
    if kind in "iu" or X.dtype.itemsize > 8:
        X = X.astype(np.float64)  # sums of duplicates must not run over
    csr = X.tocsr()
    _check_structure(csr, shape, name)
    if not _ascend(csr.indptr, csr.indices):
        csr = csr.copy()
        csr.has_sorted_indices = csr.has_canonical_format = False  # its flags may be those of other numbers
        csr.sum_duplicates()
    used = int(csr.indptr[-1])
    values = csr.data[:used]
    _check_finite(values, csr, name)
    with np.errstate(over="ignore"):
        converted = np.require(values, dtype, _PLAIN)
    if converted.dtype != values.dtype:
        _check_finite(converted, csr, f"{name} as {dtype}")
    return SparseRows(
        np.require(csr.indptr, np.int64, _PLAIN), np.require(csr.indices[:used], np.int32, _PLAIN), converted, n_features
    )  # fmt: skip


def _check_structure(csr: Any, shape: tuple[int, int], name: str) -> None:
    """InputError unless every place of the matrix exists: compiled code follows them without a look."""
    starts, columns, values = csr.indptr, csr.indices, csr.data
    good = (
        len(starts) == shape[0] + 1
        and starts[0] == 0
        and (np.diff(starts) >= 0).all()
        and starts[-1] <= min(len(columns), len(values))
    )
    if good:
        used = columns[: starts[-1]]
        good = not len(used) or (used.min() >= 0 and used.max() < shape[1])
    if not good:
        raise InputError(f"{name}: expected a sound sparse matrix, got one whose indptr or indices point outside of it")


def _ascend(starts: NDArray, columns: NDArray) -> bool:
    """Whether columns ascend within each row."""
    used = columns[: starts[-1]]
    rises = used[1:] > used[:-1]
    firsts = starts[1:-1]
    rises[firsts[(firsts > 0) & (firsts < len(used))] - 1] = True  # the first of a row may be anywhere
    return bool(rises.all())


def _check_finite(values: NDArray, csr: Any, name: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        at = int(np.argmin(np.isfinite(values)))
        row = int(np.searchsorted(csr.indptr, at, side="right")) - 1
        raise InputError(
            f"{name}: expected finite numbers, got {values[at]} in row {row}, column {csr.indices[at]} (counted from 0); "
            f"fill or drop such rows first"
        )
