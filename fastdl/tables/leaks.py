"""Columns that alone predict the target: often the target in other words, known only afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastdl.metrics import auc
from fastdl.tables.encoded import OneHot, Part
from fastdl.tables.kinds import Column

SHARE = 0.999
"""A column whose every value goes with one class in this share of the rows, or explains this share of the variance, tells
the target."""
MOST_ROWS = 50_000
FEWEST_ROWS = 20


def telling(
    columns: Sequence[Column],
    parts: Sequence[Part],
    rows: NDArray[np.int64],
    y: NDArray[np.int64] | NDArray[np.float64],
    classes: bool,
) -> list[str]:
    """The names of the columns that alone predict y [N], class indices where `classes` says so, numbers otherwise.

    parts : the features of `columns`, encoded; rows : which of their rows y belongs to
    """
    if len(rows) < FEWEST_ROWS:
        return []
    step = -(-len(rows) // MOST_ROWS)
    rows, y = rows[::step], y[::step]
    if np.unique(y).size < 2:
        return []
    found, at = [], 0
    for column in columns:
        width = len(column.feature_names)
        tells = False
        while width > 0:
            part = parts[at]
            at += 1
            width -= part.width if isinstance(part, OneHot) else 1
            values = (part.codes if isinstance(part, OneHot) else part)[rows]
            grouped = isinstance(part, OneHot)
            tells = tells or (_tells_class(values, y, grouped) if classes else _tells_number(values, y, grouped))
        if tells:
            found.append(column.name)
    return found


def _groups(values: NDArray, grouped: bool) -> NDArray[np.int64] | None:
    """One number for each distinct value, where there are ten rows for each on average."""
    distinct, inverse = np.unique(values, return_inverse=True)
    few = len(distinct) * 10 <= len(values) and (grouped or len(distinct) <= 50)
    return inverse.reshape(-1) if few else None


def _tells_class(values: NDArray, y: NDArray, grouped: bool) -> bool:
    n_classes = int(y.max()) + 1
    groups = _groups(values, grouped)
    if groups is not None:
        table = np.zeros((int(groups.max()) + 1, n_classes), dtype=np.int64)
        np.add.at(table, (groups, y), 1)
        return bool(table.max(axis=1).sum() >= SHARE * len(y) > table.sum(axis=0).max())
    if n_classes != 2:
        return False
    area = auc(values, y == 1)
    return bool(max(area, 1 - area) >= 0.9999)


def _tells_number(values: NDArray, y: NDArray, grouped: bool) -> bool:
    variance = float(y.var())
    if not grouped:
        x = values.astype(np.float64)
        spread = float(x.var())
        if spread > 0:
            product = float(((x - x.mean()) * (y - y.mean())).mean())
            if product**2 >= 0.9999 * spread * variance:
                return True
    groups = _groups(values, grouped)
    if groups is None:
        return False
    counts = np.bincount(groups)
    means = np.bincount(groups, weights=y) / np.maximum(counts, 1)
    return bool(np.mean((y - means[groups]) ** 2) <= (1 - SHARE) * variance)
