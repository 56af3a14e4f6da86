"""Numbers in words: as the command line and the pages write them."""

from __future__ import annotations

import math
from collections.abc import Mapping

LABELS = {
    "loss": "loss",
    "val_loss": "val loss",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC",
    "log_loss": "log loss",
    "f1": "F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}
"""How metrics are written for people."""
PERCENT = ("accuracy", "balanced_accuracy")
"""Those that are written in percent."""


def number(value: float) -> str:
    """Four significant digits, with thousands separated: 0.04217, 4.217, 4,217."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size > 8:
        return f"{value:.3e}"
    return f"{value:,.{max(0, 3 - size)}f}"


def metric(name: str, value: float) -> str:
    """The value of a metric or loss: accuracy in percent, R² and usual losses with four decimals."""
    if name in PERCENT:
        return f"{100 * value:.2f} %"
    # Losses stand below each other in tables: in each line as wide, and as many decimals while that shows enough.
    if "loss" in name and 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.4f}" if name in ("r2", "auc", "f1") or ("loss" in name and abs(value) < 1000) else number(value)


def shown(values: Mapping[str, float]) -> dict[str, float]:
    """The metrics that people see: a loss of smoothed labels says less beside the log loss."""
    return {name: value for name, value in values.items() if name != "loss" or "log_loss" not in values}


def metrics(values: Mapping[str, float]) -> str:
    """Several metrics in one line: `accuracy 97.77 %   log loss 0.08312`."""
    return "   ".join(f"{LABELS.get(name, name)} {metric(name, value)}" for name, value in shown(values).items())


def naive(output: str, values: Mapping[str, float]) -> str:
    """The metrics of the naive answer, and what it is."""
    return f"{metrics(values)}   ({naive_answer(output)})"


def naive_answer(output: str) -> str:
    """What the naive answer is."""
    return f"always {'the mean' if output == 'linear' else 'the most frequent class'}"


def rate(rows_per_second: float) -> str:
    """Rows per second: `812`, `81.2 k`, `1.23 M`."""
    for limit, unit in ((1e6, " M"), (1e3, " k")):
        if rows_per_second >= limit:
            scaled = rows_per_second / limit
            return f"{scaled:.{max(0, 2 - math.floor(math.log10(scaled)))}f}{unit}"
    return f"{rows_per_second:.0f}"


def duration(seconds: float) -> str:
    """A time: `0.42 s`, `42 s`, `4 min 02 s`, `1 h 04 min`."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plural(count: int, noun: str) -> str:
    """`1 row`, `1,797 rows`, `2 classes`."""
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"
