"""The charts of a page as plain values, which `page.js` draws: lines, points, bars, ranks and matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastdl.report import health
from fastdl.wording import LABELS, PERCENT


def of_run(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """All charts of a run's page, by the names under which its template places them."""
    charts = curves([("", data["history"])])
    rate = data.get("rate") or {}
    if rate:
        charts["rate"] = _lines(
            "step", "learning rate", [_series("learning rate", rate["step"], rate["rate"])], log=True
        )
    if data.get("health"):
        charts |= health.charts(data["health"])
    charts |= _classes(data.get("classes") or data.get("labels") or {})
    for k, target in enumerate(data.get("numbers") or []):
        charts |= {f"{name}-{k}": chart for name, chart in _numbers(target).items()}
    importance = data.get("importance") or {}
    if importance.get("columns"):
        charts["importance"] = {
            "kind": "ranks",
            "x": f"how much the {importance['of']} grows when the column is shuffled",
            "names": [entry["name"] for entry in importance["columns"]],
            "values": [entry["mean"] for entry in importance["columns"]],
            "errors": [entry["deviation"] for entry in importance["columns"]],
        }
    for k, profile in enumerate(importance.get("profiles", [])):
        charts[f"profile-{k}"] = _profile(profile, "linear" if data.get("numbers") else "classes")
    return charts


def curves(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Loss and metrics by epoch of one run, or of several with their names: (name, history)."""
    charts: dict[str, dict[str, Any]] = {}
    alone = len(runs) == 1
    losses = []
    for colour, (name, history) in enumerate(runs):
        for dashed, (key, words) in enumerate((("val_loss", "validation"), ("loss", "training"))):
            if key in history["curves"]:
                said = words if alone else f"{name}: {words}"
                colours = dashed if alone else colour
                losses.append(
                    _series(said, history["epoch"], history["curves"][key], colours, not alone and bool(dashed))
                )
    charts["loss"] = _lines("epoch", "loss", losses, log=True)
    metrics = dict.fromkeys(k for _, h in runs for k in h["curves"] if k not in ("loss", "val_loss"))
    for key in metrics:
        series = [
            _series("validation" if alone else name, history["epoch"], history["curves"][key], colour)
            for colour, (name, history) in enumerate(runs)
            if key in history["curves"]
        ]
        charts[f"metric-{key}"] = _lines(
            "epoch", f"validation {LABELS.get(key, key)}", series, log=key in ("rmse", "mae"), percent=key in PERCENT
        )
    best = runs[0][1].get("best") if alone else None
    if best is not None:
        for chart in charts.values():
            chart["mark"] = {"x": best, "label": f"best epoch: {best}"}
    return charts


def _lines(x: str, y: str, series: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"kind": "lines", "x": x, "y": y, "series": series, **more}


def _series(name: str, x: Any, y: Any, colour: int = 0, dashed: bool = False, points: bool = False) -> dict[str, Any]:
    return {"name": name, "x": x, "y": y, "colour": colour, "dashed": dashed, "points": points}


def _classes(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    charts: dict[str, dict[str, Any]] = {}
    if "confusion" in found:
        charts["confusion"] = {"kind": "matrix", **found["confusion"]}
    if found.get("curves"):
        square = {"low": 0, "high": 1, "square": True}
        of_all = found["curves"]
        charts["roc"] = _lines(
            "false positive rate",
            "true positive rate",
            [_series(f"{c['name']}: AUC {c['auc']:.4f}", c["roc"][0], c["roc"][1], i) for i, c in enumerate(of_all)],
            diagonal=True,
            **square,
        )
        charts["precision-recall"] = _lines(
            "recall",
            "precision",
            [
                _series(
                    f"{c['name']}: average {c['average_precision']:.4f}",
                    c["precision_recall"][0],
                    c["precision_recall"][1],
                    i,
                )
                for i, c in enumerate(of_all)
            ],
            **square,
        )
    if "calibration" in found:
        c = found["calibration"]
        charts["calibration"] = _lines(
            c["of"],
            "share of rows where it came true",
            [_series("observed", c["mean"], c["share"]) | {"notes": [f"{n:,} rows" for n in c["rows"]], "dots": True}],
            diagonal=True,
            low=0,
            high=1,
            square=True,
        )
    return charts


def _numbers(target: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    predicted, actual = target["points"]
    return {
        "predicted": _lines(
            "predicted", "actual", [_series("rows", predicted, actual, points=True)], diagonal=True, square=True
        ),
        "residuals": _lines(
            "predicted",
            "predicted − actual",
            [
                _series("rows", predicted, _differences(predicted, actual), points=True),
                _series("mean", target["middles"][0], target["middles"][1], 1),
            ],
            zero=True,
        ),
        "errors": {"kind": "bars", "x": "predicted − actual", "y": "rows", **target["errors"]},
    }


def _differences(a: Sequence[float | None], b: Sequence[float | None]) -> list[float | None]:
    return [None if p is None or q is None else p - q for p, q in zip(a, b)]


def _profile(profile: Mapping[str, Any], output: str) -> dict[str, Any]:
    categories = profile["kind"] == "category"
    x = list(range(len(profile["x"]))) if categories else profile["x"]
    lines = [_series(line["name"], x, line["y"], i) | {"dots": categories} for i, line in enumerate(profile["lines"])]
    what = "mean prediction" if output == "linear" else "mean probability"
    more = {"categories": profile["x"]} if categories else {}
    return _lines(profile["name"], what, lines, **more)
