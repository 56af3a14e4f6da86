"""What identifies the data of a training: a checksum of every array that it reads, and what names a difference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.sparse import SparseRows
from fastdl.stored import Inputs, StoredRows
from fastdl.tables.text import listed

MOST_SUMS = 10_000
"""Columns up to which each has a sum of its own, by which a difference is named."""


def fingerprint(data: Mapping[str, Inputs | None]) -> dict[str, Any]:
    """Shape and SHA-256 of each array, and the sums of its columns, as plain values; None for what there is not.

    Inputs that are read where they lie have the fingerprint of a copy as the engine reads them, which is not made.

    Cost: a pass over the data, about 1 s per GB.
    """
    return {name: None if values is None else _of(values) for name, values in data.items()}


def _of(values: Inputs) -> dict[str, Any]:
    checksum = hashlib.sha256()

    def take(array: NDArray) -> None:
        checksum.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    if isinstance(values, SparseRows):
        for array in (np.diff(values.starts), values.columns, values.values):
            take(array)
        sums: NDArray = np.bincount(values.columns, values.values, values.shape[1])
    else:
        sums = np.zeros(math.prod(values.shape[1:]))
        for array in values.blocks() if isinstance(values, StoredRows) else [values]:
            take(array)
            sums += array.reshape(len(array), -1).sum(axis=0, dtype=np.float64)
    return {
        "shape": list(values.shape),
        "dtype": values.dtype.name,
        "sha256": checksum.hexdigest(),
        "sums": sums.tolist() if len(sums) <= MOST_SUMS else None,
    }


def difference(old: Mapping[str, Any], new: Mapping[str, Any], names: Sequence[str] | None = None) -> str | None:
    """How the `new` data differ from the `old`, in words; None if they do not. `names` are those of the columns of X."""
    for part, before in old.items():
        now = new[part]
        if before == now:
            continue
        if before is None or now is None:
            return f"{part} where there was none" if before is None else f"no {part}"
        if before["shape"][0] != now["shape"][0]:
            return f"{now['shape'][0]:,} rows of {part} instead of {before['shape'][0]:,}"
        if before["shape"] != now["shape"]:
            return f"{part} of shape {tuple(now['shape'])} instead of {tuple(before['shape'])}"
        if before["dtype"] != now["dtype"]:
            return f"{part} in {now['dtype']} instead of {before['dtype']}"
        if before["sha256"] != now["sha256"]:
            return _columns(part, before["sums"], now["sums"], names if part.endswith("X") else None)
    return None


def _columns(part: str, old: Sequence[float] | None, new: Sequence[float] | None, names: Sequence[str] | None) -> str:
    """Which columns have other values, judged by their sums."""
    if old is None or new is None or len(old) == 1:
        return f"other values of {part}"
    # A reordering changes a sum by rounding only.
    changed = np.flatnonzero(~np.isclose(old, new, rtol=1e-9, atol=1e-9)).tolist()
    if not changed:
        return f"{part} with its rows in another order, or other values whose sums are the same"
    shown = [repr(names[i]) if names is not None else str(i) for i in changed]
    return f"other values of {part} in column{'s' if len(shown) > 1 else ''} {listed(shown, 5)}"
