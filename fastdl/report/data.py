"""Everything that a page shows, computed once at the end of a training, as plain JSON values.

They are kept in the run's folder (`report.json`), so that the page can be made again and runs be put side by side without
the data. A run of before has its configuration and history only: `of_folder` makes of them what can be made.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import InputError
from fastdl.model import MLP
from fastdl.report import classes, fields, health, importance, numbers
from fastdl.report.answers import head_of
from fastdl.report.values import plain, short, thin
from fastdl.tables.data import TrainingData
from fastdl.tables.encoded import EncodedRows
from fastdl.tables.ensemble import Ensemble
from fastdl.training.ensembles import OutOfFold
from fastdl.training.health import HealthWatch
from fastdl.training.history import History
from fastdl.training.trainer import Trainer

VERSION = 1
MOST_ROWS, FEWEST_ROWS, SECONDS = 100_000, 2_000, 2.0
"""Rows that predictions are looked at on; of more, so many evenly, and of slow networks as many as take about so long.

With 500 embedded columns and three layers of 256 two busy cores predict 5,000 to 10,000 rows a second.
"""
MOST_CELLS = 6
"""Columns that are shown of a row with a mistake."""
MOST_TARGETS = 4
MOST_STEPS, MOST_EPOCHS = 200, 500
CONFIG, HISTORY, DATA = "config.json", "history.csv", "report.json"


@dataclass(frozen=True)
class Folds:
    """A cross-validation: what its models say of rows that they have not learnt from, and the data and models of one fold."""

    found: OutOfFold
    loaded: TrainingData
    model: Ensemble


@dataclass(frozen=True)
class Finished:
    """A training that has ended.

    loaded, model : the data, and what has learnt from them
    trainer, history : that of the model or of the first of several, and the curves, which are means of several
    config, command : what config.json says, and what repeats the run
    watch, folds : who looked after the layers, and a cross-validation, where there are such
    one_schedule : whether the learning rates of all epochs follow from the settings as they are now
    told : what a measurement of the training's speed has said
    """

    loaded: TrainingData
    model: MLP | Ensemble
    trainer: Trainer
    history: History
    config: Mapping[str, Any]
    command: str
    watch: HealthWatch | None = None
    folds: Folds | None = None
    one_schedule: bool = True
    told: str = ""


def collect(run: Finished, seconds: float = 1.0) -> dict[str, Any]:
    """What the page of a run shows; importance and profiles take `seconds` at most."""
    loaded, folds = run.loaded, run.folds
    found: dict[str, Any] = {
        "version": VERSION,
        "name": short(loaded.name),
        "config": plain(shortened(run.config)),
        "command": run.command,
        "history": of_history(run.history),
        "rate": _rates(run.trainer, len((loaded if folds is None else folds.loaded).train)) if run.one_schedule else {},
        "targets": fields.targets_described(loaded),
        "machine": [line.split(maxsplit=1) for line in run.told.splitlines()],
    }
    if run.watch is not None and run.watch.seen:
        found["health"] = health.described(run.watch.seen)
    # Importance asks a model: of a cross-validation one fold's, on the rows that it has not seen.
    asked, model = (loaded, run.model) if folds is None else (folds.loaded, folds.model)
    X, y, places, rows_of = _rows(asked, model)
    columns = fields.fields_of(asked)
    found["importance"] = {**importance.described(model, X, y, columns, seconds), "of_a_fold": folds is not None}
    if folds is None:
        raw, count = model.forward(X), _n_rows(loaded)
    else:
        raw, X, y, places = _out_of_fold(loaded, folds)
        columns, rows_of, count = fields.fields_of(loaded), "held-out", len(folds.found.rows)
    found["rows"] = {"of": rows_of, "count": len(places), "all": count}
    names = [entry["name"] for entry in found["importance"]["columns"]]
    found["columns"] = fields.described(loaded, names)
    order = {name: i for i, name in enumerate(names)}
    important = sorted(columns, key=lambda field: order.get(field.name, len(order)))[:MOST_CELLS]
    found |= _predictions(model, raw, y)
    for section in [found.get("classes", {}), *found.get("numbers", [])]:
        for entry in [*section.get("mistakes", []), *section.get("largest", [])]:
            place = entry.pop("place")
            features = fields.raw_features(X, np.array([place]))[0]
            row = int(places[place])
            entry["row"] = row + 1
            entry["cells"] = [[field.name, _cell(loaded, field, row) or field.shown(features)] for field in important]
    found["mistaken_columns"] = [field.name for field in important]
    return found


def _out_of_fold(loaded: TrainingData, folds: Folds) -> tuple[NDArray[Any], Any, NDArray[Any], NDArray[np.int64]]:
    """Raw outputs for rows that were held out, their features and targets, and their places in the file."""
    some = thin(len(folds.found.rows), MOST_ROWS)
    rows = folds.found.rows[some]
    raw = folds.model.as_raw(folds.found.averaged[some])
    return raw, loaded.copied(rows), loaded.targets.y[rows], loaded.rows[rows]


_TEXTS = ("large category", "embedded category", "text")


def _cell(loaded: TrainingData, field: fields.Field, row: int) -> str:
    """The text of a cell whose features do not say what it was, if the table is still there."""
    if loaded.table is None or loaded.held_out is not None or field.kind not in _TEXTS:
        return ""
    assert field.column is not None
    value = loaded.table.frame[field.column.name][row]
    return "missing" if value is None else short(value) or "empty"


def _n_rows(loaded: TrainingData) -> int:
    return loaded.n_validation or len(loaded.train)


def _rows(loaded: TrainingData, model: MLP | Ensemble) -> tuple[Any, NDArray[Any], NDArray[np.int64], str]:
    """Features and targets of rows to look at, the rows' places in their file, and what rows they are."""
    if loaded.held_out is not None:
        X, y = loaded.held_out
        places = X.index if isinstance(X, EncodedRows) else np.arange(len(y))
        some, which = thin(len(y), _most_rows(model, X, len(y))), "validation"
        return fields.take(X, some), y[some], places[some], which
    which = "validation" if len(loaded.validation) else "training"
    rows = loaded.validation if len(loaded.validation) else loaded.train
    most = _most_rows(model, loaded.copied(rows[: FEWEST_ROWS // 4]), len(rows))
    rows = rows[thin(len(rows), loaded.most_rows(most, fields.MOST_NUMBERS))]
    return loaded.copied(rows), loaded.targets.y[rows], loaded.rows[rows], which


def _most_rows(model: MLP | Ensemble, X: Any, count: int) -> int:
    """How many of `count` rows there is time to predict, as the first ones of X show."""
    if count <= FEWEST_ROWS:
        return count
    some = fields.take(X, np.arange(FEWEST_ROWS // 4))
    model.forward(some)  # the first call of all may have something to load
    start = time.perf_counter()
    model.forward(some)
    per_row = (time.perf_counter() - start) / len(some)
    return max(FEWEST_ROWS, min(MOST_ROWS, int(SECONDS / per_row)))


def _predictions(model: MLP | Ensemble, raw: NDArray[Any], y: NDArray[Any]) -> dict[str, Any]:
    head = head_of(model)
    if model.output == "linear":
        predicted = head.decode(raw).reshape(len(raw), -1).astype(np.float64)
        actual = np.broadcast_to(y.reshape(len(y), -1), predicted.shape).astype(np.float64)
        names = model.target_names or []
        names = names if len(names) == predicted.shape[1] else [f"output {k}" for k in range(predicted.shape[1])]
        few = range(min(MOST_TARGETS, predicted.shape[1]))
        return {"numbers": [numbers.described(predicted[:, k], actual[:, k], short(names[k])) for k in few]}
    chances = head.engine.probabilities(raw)
    n_outputs = chances.shape[1]
    if model.output == "sigmoid" and n_outputs > 1:
        names = model.target_names or [f"label {k}" for k in range(n_outputs)]
        return {"labels": classes.labels_described(chances, y.reshape(len(y), -1) > 0.5, names)}
    if model.output == "sigmoid":
        chances = np.concatenate([1 - chances, chances], axis=1)
    names = model.classes or list(range(chances.shape[1]))
    return {"classes": classes.described(chances, y.reshape(-1).astype(np.int64), names)}


def of_history(history: History) -> dict[str, Any]:
    """The curves of a history; of very many epochs some hundred, evenly."""
    columns: dict[str, Sequence[float]] = {"loss": history.loss, "val_loss": history.val_loss, **history.metrics}
    count = min((len(values) for values in columns.values() if values), default=0)
    kept = thin(count, MOST_EPOCHS)
    best = history.best_epoch
    if best is None and history.val_loss and np.isfinite(history.val_loss).any():
        best = int(np.nanargmin(history.val_loss)) + 1
    curves = {name: [values[i] for i in kept] for name, values in columns.items() if values}
    found: dict[str, Any] = plain(
        {"epoch": kept + 1, "curves": curves, "best": best, "kept_best": history.best_epoch is not None}
    )
    return found


def _rates(trainer: Trainer, n_rows: int) -> dict[str, Any]:
    """The learning rate of the steps of all epochs so far."""
    steps, per_epoch = trainer.steps_done, -(-n_rows // trainer.batch_size)
    if not steps:
        return {}
    span = 0, per_epoch * trainer.epochs
    some = thin(steps, MOST_STEPS)
    rates = [float(trainer.schedule.rates(trainer.optimizer.lr, int(step), 1, span)[0]) for step in some]
    found: dict[str, Any] = plain({"step": some + 1, "rate": rates})
    return found


def shortened(config: Any, most: int = 300) -> Any:
    """A configuration without long texts and long lists: what a table of settings can show."""
    if isinstance(config, Mapping):
        return {short(key): shortened(value, most) for key, value in list(config.items())[:100]}
    if isinstance(config, (list, tuple)):
        few = [shortened(value, most) for value in config[:50]]
        return few if len(config) <= 50 else [*few, f"… {len(config) - 50:,} more"]
    return short(config, most) if isinstance(config, str) else config


def of_folder(folder: Path) -> dict[str, Any]:
    """What the page of a run's folder shows: `report.json`, or what configuration and history say.

    Raises
    ------
    InputError : the folder holds no run
    """
    kept = folder / DATA
    if kept.is_file():
        found = _read_json(kept)
        if not isinstance(found, dict) or found.get("version") != VERSION:
            raise InputError(f"{kept}: expected version {VERSION}, written by another version of fastdl; train again")
        return found
    if not (folder / CONFIG).is_file() or not (folder / HISTORY).is_file():
        what = "which is no folder" if not folder.is_dir() else f"which holds no {CONFIG} and {HISTORY}"
        raise InputError(f"expected the folder of a run, such as runs/digits-1, got {folder}, {what}")
    config = _read_json(folder / CONFIG)
    text = (folder / HISTORY).read_text(encoding="utf-8")
    if not isinstance(config, dict):
        raise InputError(f"{folder / CONFIG}: expected the configuration of a run, got something else; train again")
    columns = (config.get("data") or {}).get("columns") or []
    shown = [{"name": short(c.get("name")), "kind": c.get("kind"), "read_as": short(c.get("read_as"))} for c in columns]
    return {
        "version": VERSION,
        "name": short(folder.name),
        "config": plain(shortened(config)),
        "command": "",
        "history": of_history(_history_of(text, folder / HISTORY)),
        "columns": {"shown": shown[: fields.MOST], "count": len(shown), "kinds": {}} if shown else None,
    }


def _history_of(text: str, path: Path) -> History:
    history = History()
    try:
        for row in csv.DictReader(io.StringIO(text)):
            values = {name: float(value) for name, value in row.items() if name not in ("epoch", "seconds")}
            loss, val_loss = values.pop("loss"), values.pop("val_loss", None)
            history.add(loss, val_loss, values, float(row["seconds"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected a history with loss and seconds of each epoch ({error!r})") from error
    return history


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); train again") from error
