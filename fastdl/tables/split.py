"""Which rows are trained on and which are held out: drawn by a seed, by groups, or the last ones in time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import InputError, OptionError
from fastdl.stored import is_mapped
from fastdl.tables.text import as_text

BLOCK_BYTES = 1 << 20
"""Bytes of neighbouring rows that are held out together, of a file that is not read into memory."""

Rows = NDArray[np.int64]


def check_share(share: float) -> None:
    """Refuse a share of validation rows that is none."""
    if not 0 <= share < 1:
        raise OptionError(f"--validation: expected a share of the rows in [0, 1), such as 0.2, got {share:g}")


def split(n_rows: int, share: float, seed: int, labels: NDArray[np.int64] | None = None) -> tuple[Rows, Rows]:
    """Rows for training and for validation, both ascending: round(share * n_rows) are drawn by `seed` for validation.

    With `labels` each class has its share in both (to within one row), and no class is missing from training.
    """
    check_share(share)
    rows = np.random.default_rng(seed).permutation(n_rows)
    n_held_out = round(share * n_rows) if share == 0 else max(1, round(share * n_rows))
    if n_held_out >= n_rows:
        raise InputError(
            f"expected at least 2 rows to train on some and validate on others, got {n_rows}; use --validation 0"
        )
    if labels is not None:
        rows = rows[np.argsort(labels[rows], kind="stable")]
    # Every (n_rows / n_held_out)-th row: evenly over the classes, as their rows are neighbours now.
    place = np.arange(n_rows)
    chosen = (place + 1) * n_held_out // n_rows > place * n_held_out // n_rows
    if labels is not None:
        ordered = labels[rows]
        first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        lost = np.logical_and.reduceat(chosen, first)
        chosen[first[lost]] = False
    return np.sort(rows[~chosen]), np.sort(rows[chosen])


def split_arrays(X: NDArray, share: float, seed: int, labels: NDArray[np.int64] | None) -> tuple[Rows, Rows, list[str]]:
    """As `split`, and notes; of a file that is mapped, blocks of neighbouring rows are on one side each, so that what is
    learned from, and what is not, lies in few pieces.
    """
    block = max(1, BLOCK_BYTES * len(X) // X.nbytes)
    if not is_mapped(X) or share == 0 or len(X) <= block:
        return *split(len(X), share, seed, labels), []
    groups = np.arange(len(X)) // block
    note = f"a file of {X.nbytes / 2**30:.3g} GB, read as it is needed: blocks of {block:,} rows are held out together"
    return *split_by_group(groups, share, seed), [note]


def groups_of(cells: Any, rows: Rows) -> NDArray[np.int64]:
    """The group [N] of these rows of a column (a series of polars), counted from 0: rows with the same cell are of one."""
    texts = as_text(cells).fill_null("").gather(rows)
    _, groups = np.unique(np.asarray(texts.to_list(), dtype=str), return_inverse=True)
    return groups.reshape(-1)


def split_by_group(groups: NDArray[np.int64], share: float, seed: int) -> tuple[Rows, Rows]:
    """Rows for training and for validation such that all rows of a group [N] are on one side.

    Groups are drawn by `seed` until they hold the share of the rows.
    """
    check_share(share)
    n_groups = int(groups.max()) + 1
    if n_groups < 2:
        raise OptionError("--group: expected at least two groups of rows, got one; name another column")
    sizes = np.bincount(groups, minlength=n_groups)
    order = np.random.default_rng(seed).permutation(n_groups)
    before = np.cumsum(sizes[order]) - sizes[order]
    held_out = order[(before < share * len(groups))][: n_groups - 1]
    chosen = np.isin(groups, held_out)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def split_by_time(times: NDArray[np.float64], share: float) -> tuple[Rows, Rows]:
    """Rows for training and the last share in time [N] for validation; rows of the same moment stay together."""
    check_share(share)
    n_held_out = round(share * len(times))
    if n_held_out == 0:
        return np.arange(len(times)), np.arange(0)
    first = np.sort(times, kind="stable")[len(times) - n_held_out]
    chosen = times >= first
    if chosen.all():
        chosen = times > first
    if chosen.all() or not chosen.any():
        raise OptionError("--time: expected rows of different times, got one time for nearly all; name another column")
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def folds(n_rows: int, count: int, seed: int, labels: NDArray[np.int64] | None = None) -> list[tuple[Rows, Rows]]:
    """`count` pairs of rows for training and for validation; each row is held out in one of them.

    With `labels` each class is spread over the folds.
    """
    rows = np.random.default_rng(seed).permutation(n_rows)
    if labels is not None:
        rows = rows[np.argsort(labels[rows], kind="stable")]
    fold = np.empty(n_rows, dtype=np.int64)
    fold[rows] = np.arange(n_rows) % count
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(count)]


def folds_by_group(groups: NDArray[np.int64], count: int, seed: int) -> list[tuple[Rows, Rows]]:
    """The same such that all rows of a group [N] are held out together: large groups first, each into the smallest fold.

    Groups of one size are taken in an order drawn by `seed`.
    """
    sizes = np.bincount(groups)
    if len(sizes) < count:
        raise OptionError(f"--group: expected at least {count} groups of rows for {count} folds, got {len(sizes)}")
    drawn = np.random.default_rng(seed).permutation(len(sizes))
    filled = np.zeros(count, np.int64)
    fold_of = np.empty(len(sizes), np.int64)
    for group in drawn[np.argsort(-sizes[drawn], kind="stable")]:
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    fold = fold_of[groups]
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(count)]
