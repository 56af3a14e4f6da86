"""What a model looks at: permutation importance of the original columns, and partial dependence of the most important ones.

Both are fast forward passes on rows that are encoded once; a column is shuffled with all features that come from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl import calibration, metrics
from fastdl.inputs import array_of
from fastdl.model import MLP
from fastdl.report.answers import first_of, head_of, input_sizes, raw_of
from fastdl.report.fields import Field, raw_features, take
from fastdl.report.values import plain, short
from fastdl.tables.ensemble import Ensemble
from fastdl.tables.kinds import CategoryColumn, NumberColumn
from fastdl.tables.kinds.boolean import BooleanColumn

FEWEST_ROWS, MOST_ROWS, REPEATS = 200, 2_000, 5
MOST_PROFILES, GRID, PROFILE_ROWS, MOST_LINES = 6, 20, 300, 5
MOST_SHOWN = 30


def permutation_importance(
    model: MLP | Ensemble,
    inputs: NDArray[Any],
    targets: NDArray[Any],
    fields: Sequence[Field],
    repeats: int = REPEATS,
    seed: int = 0,
    until: float = float("inf"),
) -> list[dict[str, Any]]:
    """How much worse the model gets where the values of a column are shuffled: mean and deviation over `repeats` shuffles.

    inputs, targets : rows as `MLP.prepare_inputs` and `prepare_targets` give them
    until : when to end, as `time.perf_counter` tells the time; columns that were not come to are left out

    Of numbers the root mean squared error is taken, of classes and labels the log loss. Source: Breiman, 2001; Fisher,
    Rudin and Dominici, 2019.
    """
    rng = np.random.default_rng(seed)
    whole = _badness(model, raw_of(model, inputs), targets)
    found = []
    n_rows = len(inputs)
    shuffled = np.tile(inputs, (repeats, 1))  # all shuffles of a column in one forward pass
    blocks = [slice(k * n_rows, (k + 1) * n_rows) for k in range(repeats)]
    for field in fields:
        if time.perf_counter() > until:
            break
        columns = slice(field.first, field.last)
        for block in blocks:
            shuffled[block, columns] = inputs[rng.permutation(n_rows), columns]
        raw = raw_of(model, shuffled)
        growth = np.array([_badness(model, raw[block], targets) for block in blocks]) - whole
        for block in blocks:
            shuffled[block, columns] = inputs[:, columns]
        found.append({"name": field.name, "mean": float(growth.mean()), "deviation": float(growth.std())})
    return found


def _badness(model: MLP | Ensemble, raw: NDArray[Any], targets: NDArray[Any]) -> float:
    if model.output == "linear":
        return metrics.evaluate(head_of(model), raw, targets)["rmse"]
    return calibration.log_loss(raw.astype(np.float64), targets)


def described(
    model: MLP | Ensemble, X: Any, y: NDArray[Any], fields: Sequence[Field], seconds: float
) -> dict[str, Any]:
    """Importance of all columns that there is time for, and profiles of the most important ones, as plain values.

    The rows are as many as let each column have its shuffles in time; the columns with the largest first weights come first.
    """
    begin = time.perf_counter()
    until = begin + 0.6 * seconds
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(y))[:MOST_ROWS]
    some = rows[:FEWEST_ROWS]
    inputs, targets = _prepared(model, X, y, some)
    many = np.tile(inputs, (REPEATS, 1))
    per_row = min(_seconds(lambda: raw_of(model, many)) for _ in range(4)) / len(many)
    wanted = int(0.5 * seconds / max(per_row * REPEATS * len(fields), 1e-12))
    rows = rows[: max(FEWEST_ROWS, wanted)]
    inputs, targets = _prepared(model, X, y, rows)
    sizes = input_sizes(model)
    order = sorted(fields, key=lambda field: -float(sizes[field.first : field.last].max(initial=0.0)))
    found = permutation_importance(model, inputs, targets, order, until=until)
    ranked = sorted(zip(order, found), key=lambda pair: -pair[1]["mean"])
    top = [field for field, entry in ranked if entry["mean"] > 0]
    result: dict[str, Any] = plain(
        {
            "of": "RMSE" if model.output == "linear" else "log loss",
            "columns": [entry for _, entry in ranked[:MOST_SHOWN]],
            "measured": len(found),
            "count": len(fields),
            "rows": len(rows),
            "profiles": _profiles(
                model, raw_features(X, rows[:PROFILE_ROWS]), top, time.perf_counter() + 0.4 * seconds
            ),
        }
    )
    return result


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _prepared(
    model: MLP | Ensemble, X: Any, y: NDArray[Any], rows: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[Any]]:
    inputs = array_of(first_of(model).prepare_inputs(take(X, rows)))
    return inputs, model.prepare_targets(y[rows], len(rows))


def _profiles(
    model: MLP | Ensemble, features: NDArray[np.float64], fields: Sequence[Field], until: float
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for field in fields:
        if len(found) == MOST_PROFILES or time.perf_counter() > until:
            break
        profile = partial_dependence(model, features, field)
        if profile is not None:
            found.append({"name": field.name, **profile})
    return found


def partial_dependence(model: MLP | Ensemble, features: NDArray[np.float64], field: Field) -> dict[str, Any] | None:
    """The mean answer over rows in which a column has one value, for values all over its range.

    features : rows [N, I] that are not standardised; a column of numbers goes through `GRID` of its quantiles, others through
        their values; None for kinds that one value does not describe

    Answers are predictions of numbers, or probabilities: of the second of two classes, of the most frequent of several. Source:
    Friedman, 2001.
    """
    column, own = field.column, features[:, field.first : field.last]
    settings: list[tuple[Any, NDArray[np.float64]]] = []
    is_number = column is None or isinstance(column, NumberColumn)
    if is_number:
        present = own[own[:, 1] == 0, 0] if own.shape[1] > 1 else own[:, 0]
        for value in np.unique(np.quantile(present, np.linspace(0, 1, GRID))) if len(present) else ():
            settings.append((float(value), np.r_[value, np.zeros(own.shape[1] - 1)]))
    elif isinstance(column, BooleanColumn):
        settings = [(word, np.r_[value, np.zeros(own.shape[1] - 1)]) for word, value in zip(column.words, (1.0, 0.0))]
    elif isinstance(column, CategoryColumn):
        names = [name.removeprefix(f"{column.name}=") for name in column.feature_names]
        frequent = np.sort(np.argsort(-own.sum(axis=0), kind="stable")[:12])
        settings = [(short(names[k], 24), np.eye(len(names))[k]) for k in frequent]
    if len(settings) < 2:
        return None
    rows = np.tile(features, (len(settings), 1)).reshape(len(settings), *features.shape)
    for k, (_, values) in enumerate(settings):
        rows[k, :, field.first : field.last] = values
    table = _answers(model, rows)
    names = _answer_names(model, table.shape[1])
    kept = np.sort(np.argsort(-(table.max(axis=0) - table.min(axis=0)), kind="stable")[:MOST_LINES])
    return {
        "kind": "number" if is_number else "category",
        "x": [value for value, _ in settings],
        "lines": [{"name": names[k], "y": table[:, k]} for k in kept],
    }


def _answers(model: MLP | Ensemble, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean predictions or probabilities [K, O] of K groups of rows [K, N, I]."""
    raw = model.forward(rows.reshape(-1, rows.shape[-1]))
    head = head_of(model)
    found = head.decode(raw) if model.output == "linear" else head.engine.probabilities(raw)
    means: NDArray[np.float64] = found.reshape(*rows.shape[:2], -1).mean(axis=1, dtype=np.float64)
    return means


def _answer_names(model: MLP | Ensemble, count: int) -> list[str]:
    if model.output == "linear" or (model.output == "sigmoid" and count > 1):
        names = model.target_names or []
        return [short(name) for name in names] if len(names) == count else [f"output {k}" for k in range(count)]
    classes = model.classes or list(range(max(2, count)))
    return [short(name, 24) for name in (classes[1:] if count == 1 else classes)]
