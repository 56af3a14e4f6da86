"""The columns that a network learnt from, as a page speaks of them: where their features are, their values and histograms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.report.values import plain, short
from fastdl.stored import is_mapped
from fastdl.tables.data import TrainingData
from fastdl.tables.encoded import Encoded, EncodedRows, OneHot, Part
from fastdl.tables.kinds import CategoryColumn, Column, LargeCategoryColumn
from fastdl.tables.kinds.boolean import BooleanColumn
from fastdl.tables.kinds.date import DateColumn
from fastdl.tables.kinds.words import TextColumn
from fastdl.wording import number

MOST = 100
"""So many columns are shown; of the others there are counts."""
BINS, MOST_BARS, MOST_ROWS = 16, 10, 50_000
MOST_NUMBERS = 1 << 22
"""Numbers of rows that are looked at of a file that is mapped: it is read here and there, and once."""


@dataclass(frozen=True)
class Field:
    """A column of the data: features first .. last - 1 of the network come from it, and parts likewise of the encoded rows."""

    name: str
    kind: str
    first: int
    last: int
    parts: tuple[int, int] = (0, 0)
    column: Column | None = None

    def shown(self, features: NDArray[np.float64]) -> str:
        """The column's value in words, from a row [I] of features that are not standardised."""
        own = features[self.first : self.last]
        column = self.column
        if getattr(column, "missing", False) and not isinstance(column, LargeCategoryColumn) and own[-1] == 1:
            return "missing"
        if isinstance(column, CategoryColumn):
            names = [*column.categories, *(["another"] if column.grouped else [])]
            return short(names[int(own.argmax())]) if own.any() else "another"
        if isinstance(column, BooleanColumn):
            return short(column.words[0] if own[0] == 1 else column.words[1] if own[0] == 0 else "missing")
        if isinstance(column, DateColumn):
            parts = dict(zip(column.medians, own))
            if "days" in parts:
                return str(np.datetime64(round(parts["days"] * 86400), "s")).replace("T00:00:00", "").replace("T", " ")
            return ", ".join(f"{part} {value:g}" for part, value in parts.items())
        if isinstance(column, TextColumn):
            return short(", ".join(word for word, has in zip(column.words, own) if has) or "none of the frequent words")
        if isinstance(column, LargeCategoryColumn):
            return f"{np.expm1(own[0]):,.0f} rows of it"
        return number(float(own[0]))


def fields_of(loaded: TrainingData) -> list[Field]:
    """The columns that features are made of; of arrays each feature is one."""
    if loaded.preprocessor is None:
        return [Field(f"feature {i}", "number", i, i + 1) for i in range(loaded.n_features)]
    found, at, part = [], 0, 0
    for column in loaded.preprocessor.features:
        width, n_parts = len(column.feature_names), column.n_parts
        found.append(Field(short(column.name), column.kind, at, at + width, (part, part + n_parts), column))
        at, part = at + width, part + n_parts
    return found


def described(loaded: TrainingData, first: Sequence[str] = ()) -> dict[str, Any]:
    """All columns with kind, share of missing values and a histogram of the training rows; those named `first` in front.

    Histograms are of `MOST_ROWS` rows at most, evenly; shares of missing values are of all.
    """
    fields = fields_of(loaded)
    order = {name: i for i, name in enumerate(first)}
    fields.sort(key=lambda field: order.get(field.name, len(order)))
    left_out = [] if loaded.preprocessor is None else [c for c in loaded.preprocessor.columns if not c.feature_names]
    rows = loaded.rows[loaded.train]
    some = rows[:: -(-len(rows) // loaded.most_rows(MOST_ROWS, MOST_NUMBERS))]
    if isinstance(loaded.features, np.ndarray) and is_mapped(loaded.features):
        loaded, some = replace(loaded, features=loaded.features[some]), np.arange(len(some))
    shown = [_described(field, loaded, rows, some) for field in fields[:MOST]]
    shown += [
        {"name": short(c.name), "kind": c.kind, "read_as": f"left out: {short(c.describe(), 200)}"}
        for c in left_out[: max(0, MOST - len(shown))]
    ]
    kinds = Counter([field.kind for field in fields] + [column.kind for column in left_out])
    result: dict[str, Any] = plain({"shown": shown, "count": len(fields) + len(left_out), "kinds": kinds})
    return result


def _described(
    field: Field, loaded: TrainingData, rows: NDArray[np.int64], some: NDArray[np.int64]
) -> dict[str, Any]:  # fmt: skip
    found: dict[str, Any] = {"name": field.name, "kind": field.kind}
    if not isinstance(loaded.features, Encoded) or field.column is None:
        assert isinstance(loaded.features, np.ndarray)
        return {**found, "read_as": "", "missing": 0.0, "histogram": histogram(loaded.features[some, field.first])}
    column, parts = field.column, loaded.features.parts[slice(*field.parts)]
    found["read_as"] = short(column.describe(), 200)
    missing = bool(getattr(column, "missing", False))
    if isinstance(column, LargeCategoryColumn):
        counts = np.array(column.counts, dtype=np.int64)
        names = [*column.categories, *(["missing"] if missing else [])]
        share = counts[-1] / max(1, counts.sum()) if missing else 0.0
        return {**found, "missing": float(share), "histogram": bars(names, counts)}
    only = parts[0]
    if isinstance(only, OneHot):
        counts = np.bincount(only.codes[some], minlength=only.width)[: only.width]
        gone = (only.codes[rows] == only.width - 1).mean() if missing else 0.0
        names = [name.removeprefix(f"{column.name}=") for name in column.feature_names]
        return {**found, "missing": float(gone), "histogram": bars(names, counts)}
    present = np.ones(len(some), bool)
    if missing:
        flags = _numbers(parts[-1])
        found["missing"], present = float(flags[rows].mean()), flags[some] == 0
    elif not isinstance(column, TextColumn):
        found["missing"] = 0.0
    if isinstance(column, TextColumn):
        return {**found, "histogram": bars(column.words, np.array([int(_numbers(p)[some].sum()) for p in parts]))}
    values = _numbers(only)[some][present]
    if isinstance(column, BooleanColumn):
        return {**found, "histogram": bars(column.words, np.array([(values == 1).sum(), (values == 0).sum()]))}
    drawn = histogram(values)
    if isinstance(column, DateColumn) and "days" in column.medians and drawn:
        drawn["ends"] = [str(np.datetime64(int(day), "D")) for day in (values.min(), values.max())]
    return {**found, "histogram": drawn}


def _numbers(part: Part) -> NDArray[Any]:
    assert not isinstance(part, OneHot)
    return part


def histogram(values: NDArray[Any]) -> dict[str, Any] | None:
    """Bars of numbers between the least and the greatest, or None where there are none."""
    values = values[np.isfinite(values)].astype(np.float64)
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(high - low) or high - low <= 1e-12 * max(abs(low), abs(high)):
            return {"bars": [len(values)], "ends": [number(low), number(high)]}
        counts, _ = np.histogram(values, min(BINS, len(np.unique(values[:1000])) + 1), (low, high))
    return {"bars": counts, "ends": [number(low), number(high)]}


def bars(names: Sequence[Any], counts: NDArray[np.int64]) -> dict[str, Any]:
    """One bar for each of the most frequent values, and one for the others together."""
    order = np.argsort(-counts, kind="stable")
    kept, rest = order[:MOST_BARS], order[MOST_BARS:]
    found = {"bars": counts[kept].tolist(), "names": [short(names[i], 24) for i in kept]}
    if len(rest):
        found["bars"].append(int(counts[rest].sum()))
        found["names"].append(f"{len(rest)} others")
    return found


def targets_described(loaded: TrainingData) -> list[dict[str, Any]]:
    """Histograms of the targets of the training rows: classes, labels or numbers."""
    targets, y = loaded.targets, loaded.targets.y[loaded.train]
    if targets.labels is not None:
        counts = np.bincount(y.reshape(-1).astype(np.int64), minlength=len(targets.classes or ()) or targets.n_outputs)
        names = targets.classes or list(range(len(counts)))
        return [{"name": short(", ".join(targets.names) or "target"), "histogram": plain(bars(names, counts))}]
    columns = y.reshape(len(y), -1)[:: -(-len(y) // MOST_ROWS)]
    return [
        {"name": short(name), "histogram": plain(histogram(columns[:, k]))} for k, name in enumerate(targets.names[:4])
    ]


def raw_features(X: Any, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Features of some rows [N, I] before they are standardised, of what `TrainingData.inputs` gives."""
    part = take(X, rows)
    return part.matrix() if isinstance(part, EncodedRows) else np.asarray(part, dtype=np.float64)


def take(X: Any, rows: NDArray[np.int64]) -> Any:
    """Some rows of what `TrainingData.inputs` gives, of the same kind."""
    return EncodedRows(X.encoded, X.index[rows]) if isinstance(X, EncodedRows) else X[rows]
