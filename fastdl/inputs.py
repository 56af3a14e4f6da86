"""Inputs as a model is given them, and as the engine takes them: in its own form, sparse, or read where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdl import checks, frames, sparse, stored
from fastdl.errors import InputError
from fastdl.scaling import Scaling
from fastdl.sparse import SparseRows
from fastdl.stored import Inputs, StoredRows

# Read-only and misaligned arrays are other types to Numba: each would compile the engine once more.
PLAIN: list[Literal["C", "A", "W"]] = ["C", "A", "W"]  # C-contiguous, aligned, writable


class Form(NamedTuple):
    """What a model makes of its inputs.

    n_features, dtype : of the matrix that it reads
    scaling : the standardisation, or None
    names : of the columns, by which those of a frame are found, or None
    staged : whether an input stage reads them, which takes no sparse rows
    """

    n_features: int
    dtype: np.dtype
    scaling: Scaling | None
    names: Sequence[str] | None
    staged: bool


def taken(X: Any, form: Form, name: str = "X") -> tuple[Inputs, str]:
    """X as the engine takes it, but for a last look for numbers that are not finite, and what to call it then.

    Raises
    ------
    InputError : X does not fit
    """
    parts = None
    if type(X) is not np.ndarray:
        if sparse.is_sparse(X):
            return _sparse(X, form, name), name
        parts = stored.parts_of(X, form.n_features, name)
        X = X if parts else frames.in_order(X, form.names, name)
    if parts is None:
        rows = checks.table(X, form.n_features, name, keep_half=True)
        if form.scaling is None and rows.dtype == form.dtype and rows.flags.carray:  # contiguous, aligned, writable
            return rows, name
        parts = [rows]
    where_they_are = _stored(parts, form)
    if where_they_are is not None:
        return where_they_are, name
    rows = parts[0] if len(parts) == 1 else np.concatenate([part.astype(np.float64) for part in parts])
    checks.finite(rows, name)
    if form.scaling is not None:
        rows = form.scaling.inputs(rows, form.dtype)
    with np.errstate(over="ignore"):
        return np.require(rows, form.dtype, PLAIN), f"{name} as {form.dtype}"


def array_of(inputs: Inputs) -> NDArray[Any]:
    """Dense inputs in memory of their own, or as they are, if they are an array already: for few rows."""
    assert not isinstance(inputs, SparseRows)
    return inputs.array() if isinstance(inputs, StoredRows) else inputs


def _sparse(X: Any, form: Form, name: str) -> Inputs:
    if form.staged:
        raise InputError(
            f"{name}: expected a dense array, since this model embeds or scales its inputs, got a sparse "
            f"{type(X).__name__}; use {name}.toarray()"
        )
    if form.scaling is not None:
        raise InputError(
            f"{name}: expected a dense array, since this model standardises its inputs, which would make a sparse "
            f"{type(X).__name__} dense; use {name}.toarray(), or a model without standardize"
        )
    return sparse.rows_of(X, form.n_features, form.dtype, name)


def _stored(parts: list[NDArray], form: Form) -> StoredRows | None:
    """Inputs that are converted and scaled when they are read; None if they are so small that a copy does no harm."""
    size = sum(map(len, parts)) * form.n_features * form.dtype.itemsize
    if size <= stored.CONVERTED_BYTES or not all(map(stored.is_readable, parts)):
        return None
    scaling = form.scaling
    if scaling is None:
        return StoredRows(parts, form.dtype)
    return StoredRows(parts, form.dtype, scaling.mean, scaling.scale, scaling.clip)
