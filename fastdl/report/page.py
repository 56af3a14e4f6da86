"""The page of a run, or of several side by side: one HTML text that needs nothing else and asks for nothing.

Everything that came from outside (names, values, commands) is escaped by Jinja2 or stands in a block of JSON in which no
tag can begin; its scripts make text of it, never markup; and its content security policy forbids every request.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from fastdl.errors import MissingExtraError
from fastdl.report import charts, health
from fastdl.report.values import short
from fastdl.wording import LABELS, duration, metric, naive_answer, number, plural


def of_run(data: Mapping[str, Any]) -> str:
    """The page of a run, of what `data.collect` or `data.of_folder` gave.

    Raises
    ------
    MissingExtraError : Jinja2 is not installed
    """
    config = data.get("config") or {}
    result = config.get("result") or {}
    rows = data.get("rows") or {}
    classes, importance = data.get("classes"), data.get("importance")
    values = {
        "title": title(data),
        "subtitle": _subtitle(config),
        "cards": _cards(result),
        "naive": naive_answer((config.get("model") or {}).get("output", "")),
        "measured_on": _measured_on(config, result),
        "warnings": _warnings(data, config),
        "command": data.get("command"),
        "health": data.get("health"),
        "health_note": health.note(data["health"]) if data.get("health") else "",
        "curves_note": _curves_note(config),
        "classes": classes,
        "many_classes": classes is not None and len(classes["confusion"]["names"]) > 2,
        "confusion_note": _confusion_note(classes),
        "labels": data.get("labels"),
        "numbers": data.get("numbers") or [],
        "mistaken_columns": data.get("mistaken_columns") or [],
        "rows_note": _rows_note(rows),
        "importance": importance,
        "importance_note": _importance_note(importance),
        "columns": data.get("columns"),
        "data_note": _data_note(config, data.get("columns") or {}),
        "targets": data.get("targets") or [],
        "machine": data.get("machine") or [],
        "settings": _settings(config),
    }
    return render(values, charts.of_run(data))


def of_runs(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """A page with several runs side by side: (name, data of its page)."""
    names = [short(name) for name, _ in runs]
    drawn = charts.curves([(name, data["history"]) for name, (_, data) in zip(names, runs)])
    table = [_flat(data) for _, data in runs]
    keys = list(dict.fromkeys(key for row in table for key in row))
    comparison = []
    for key in keys:
        cells = [row.get(key, "") for row in table]
        comparison.append({"name": key, "cells": cells, "differs": len(set(cells)) > 1})
    values = {
        "title": short(", ".join(names), 120),
        "subtitle": f"{plural(len(runs), 'run')} side by side; what differs is bold",
        "runs": [{"title": name} for name in names],
        "comparison": comparison,
    }
    return render(values, drawn)


def render(values: Mapping[str, Any], drawn: Mapping[str, Any], script: str = "", connect: str = "") -> str:
    """The template with values and charts.

    script : more JavaScript behind that of the charts; connect : what the page may ask, a part of its security policy
    """
    template, css, js, markup = _template()
    text = {"text": str, "number": _number, "percent": _percent}
    return str(
        template.render(
            **text,
            **values,
            charts=drawn,
            json=markup(_inert(drawn)),
            css=markup(css),
            js=markup(js + script),
            connect=markup(connect),
        )
    )


@functools.cache
def _template() -> tuple[Any, str, str, Any]:
    try:
        from jinja2 import DictLoader, Environment, FileSystemBytecodeCache
        from markupsafe import Markup
    except ImportError as error:
        raise MissingExtraError('a page needs Jinja2, which is not installed: pip install "fastdl[cli]"') from error
    folder = resources.files("fastdl.report")
    name, *others = "template.html", "page.css", "page.js"
    text, css, js = ((folder / file).read_text(encoding="utf-8") for file in (name, *others))
    options: dict[str, Any] = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=DictLoader({name: text}), **options)
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    # Compiling the template takes 0.1 s. What comes of it is kept where Python keeps that of this module, if it does.
    kept = Path(__file__).parent / "__pycache__"
    if kept.is_dir() and os.access(kept, os.W_OK) and not sys.dont_write_bytecode:
        pattern = f"page-{zlib.crc32(repr(options).encode()):08x}-%s.jinja"
        environment.bytecode_cache = FileSystemBytecodeCache(str(kept), pattern)
        try:
            return environment.get_template(name), css, js, Markup
        except (OSError, EOFError, ValueError, TypeError):  # a full disk, or a file that something has damaged
            environment.bytecode_cache = None
    return environment.get_template(name), css, js, Markup


def _inert(values: Any) -> str:
    """JSON in which no tag, comment or entity can begin, and of ASCII alone."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def title(data: Mapping[str, Any]) -> str:
    """What a run is called."""
    return str(data.get("name") or "run")


def _number(value: Any) -> str:
    return "–" if value is None else number(float(value))


def _percent(value: Any) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _subtitle(config: Mapping[str, Any]) -> str:
    data, model = config.get("data") or {}, config.get("model") or {}
    if not data or not model:
        return ""
    targets = ", ".join(map(str, data.get("target") or []))
    what = f"{config.get('task')}{f' of {targets}' if targets else ''}"
    layers = " → ".join(map(str, model["layers"]))
    count = (config.get("training") or {}).get("models")
    several = f"{plural(count, 'model')}: " if count else ""
    files = ", ".join(str(file).replace("\\", "/").rsplit("/", 1)[-1] for file in data["files"])
    return (
        f"{what}, from {plural(data['rows'], 'row')} of {plural(data['features'], 'feature')} in {short(files, 120)}; "
        f"{several}network {layers}, {plural(model['parameters'], 'parameter')}{' each' if several else ''}"
    )


def _cards(result: Mapping[str, Any]) -> list[dict[str, str]]:
    baseline, measured = result.get("baseline") or {}, result.get("validation") or {}
    cards = [
        {
            "name": LABELS.get(name, name),
            "value": metric(name, value),
            "baseline": "" if baseline.get(name) is None else metric(name, baseline[name]),
        }
        for name, value in measured.items()
        if value is not None and not (name == "loss" and "log_loss" in measured)  # of smoothed labels: it says less
    ]
    if "seconds" in result:
        cards.append({"name": "time", "value": duration(result["seconds"]), "baseline": ""})
    return cards


def _measured_on(config: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    training = config.get("training") or {}
    if not result.get("validation"):
        return "There are no validation rows: nothing says how good the model is on rows that it has not seen."
    if training.get("models") and result.get("cross_validation"):
        return (
            f"Measured by {result['cross_validation']}-fold cross-validation: each row by the models that have not learnt from "
            f"it{_spread(training.get('spread') or {})}."
        )
    if result.get("cross_validation"):
        return f"Measured by {result['cross_validation']}-fold cross-validation; the model has learnt from all rows."
    chosen = "; the best epoch was chosen by them, which flatters a little" if training.get("best_epoch") else ""
    rows = plural(training.get("validation_rows", 0), "validation row")
    return f"Measured on {rows} that the model has not learnt from{chosen}."


def _spread(spread: Mapping[str, float]) -> str:
    """How much metrics differ from fold to fold."""
    shown = ", ".join(f"{LABELS.get(k, k)} {metric(k, v)}" for k, v in spread.items() if v is not None)
    return f"; over the folds their standard deviations are {shown}" if shown else ""


def _curves_note(config: Mapping[str, Any]) -> str:
    """What the curves are of, where there are several models."""
    count = (config.get("training") or {}).get("models")
    if not count:
        return ""
    means = f"Curves are means over the {plural(count, 'model')}, as far as all of them trained"
    return f"{means}; the learning rate is that of the first one."


def _warnings(data: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    found = []
    if (config.get("training") or {}).get("interrupted"):
        found.append("The training was interrupted: this is what was learnt so far.")
    if (data.get("rows") or {}).get("of") == "training":
        found.append(
            "There are no validation rows: predictions, mistakes and importance below are of the training rows, which the "
            "model has seen."
        )
    return found


def _rows_note(rows: Mapping[str, Any]) -> str:
    if not rows:
        return ""
    some = "" if rows["count"] == rows["all"] else f" of the {rows['all']:,}, taken evenly"
    return f"On {plural(rows['count'], rows['of'] + ' row')}{some}. Rows are counted from 1, without the line of names."


def _confusion_note(classes: Mapping[str, Any] | None) -> str:
    grouped = (classes or {}).get("confusion", {}).get("grouped")
    return f"the classes with the most mistakes; {grouped} others are one row and one column" if grouped else ""


def _importance_note(importance: Mapping[str, Any] | None) -> str:
    if not importance:
        return ""
    text = (
        f"How much the {importance['of']} grows when the values of a column are shuffled, mean and deviation of five shuffles of "
        f"{plural(importance['rows'], 'row')}. Columns that say the same share their importance."
    )
    if importance.get("of_a_fold"):
        text += " They are those of one fold, with its models: of columns as they have learnt them."
    if importance["measured"] < importance["count"]:
        text += f" There was time for {importance['measured']} of {importance['count']} columns."
    if len(importance["columns"]) < importance["measured"]:
        text += f" The first {len(importance['columns'])} are shown."
    return text


def _data_note(config: Mapping[str, Any], columns: Mapping[str, Any]) -> str:
    rows = (config.get("training") or {}).get("train_rows")
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in (columns.get("kinds") or {}).items())
    text = f"{plural(columns.get('count', 0), 'column')}{f' ({kinds})' if kinds else ''}"
    text += f"; {plural(rows, 'row')} to train on." if rows else "."
    hidden = columns.get("count", 0) - len(columns.get("shown") or [])
    return text + (f" {plural(hidden, 'more column')} are not shown." if hidden > 0 else "")


_HIDDEN = (
    "optimizer",
    "schedule",
    "early_stopping",
    "interrupted",
    "train_rows",
    "validation_rows",
    "baseline",
    "cross_validation",
    "spread",
)


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run was made of, for people."""
    model, training = config.get("model") or {}, config.get("training") or {}
    rows: list[tuple[str, str]] = []
    if model:
        names = dict.fromkeys(a["name"] for a in model["activations"])
        rows.append(("layers", " → ".join(map(str, model["layers"]))))
        rows.append(("activation", ", ".join(names) or "none: a linear model"))
        rows += [("output", model["output"]), ("dtype", model["dtype"])]
    for name in ("optimizer", "schedule", "early_stopping"):
        if training.get(name):
            rows.append((name.replace("_", " "), _words(training[name])))
    rows += [(key.replace("_", " "), _words(value)) for key, value in training.items() if key not in _HIDDEN]
    rows += [("threads", str(config["threads"]))] if "threads" in config else []
    versions = config.get("versions") or {}
    return rows + (
        [("versions", ", ".join(f"{name} {version}" for name, version in versions.items()))] if versions else []
    )


def _words(value: Any) -> str:
    if value is None or value is False or value in ([], {}):
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{'' if k == 'name' else f'{k} '}{_words(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flat(data: Mapping[str, Any]) -> dict[str, str]:
    """Metrics, times and settings of a run for a table of several."""
    config = data.get("config") or {}
    result = config.get("result") or {}
    found: dict[str, str] = {}
    for of, prefix in (("validation", ""), ("baseline", "baseline ")):
        values = result.get(of) or {}
        found |= {prefix + LABELS.get(k, k): metric(k, v) for k, v in values.items() if v is not None}
    if "seconds" in result:
        found["time"] = duration(result["seconds"])
    ranked = (data.get("importance") or {}).get("columns") or []
    if ranked:
        found["most important columns"] = ", ".join(entry["name"] for entry in ranked[:5])
    details = config.get("data") or {}
    if details:
        found["data"] = short(", ".join(map(str, details["files"])), 200)
        found["rows"], found["features"] = f"{details['rows']:,}", f"{details['features']:,}"
    return found | dict(_settings(config))
