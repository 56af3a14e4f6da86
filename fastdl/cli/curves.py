"""The learning curves of a run as a picture."""

from __future__ import annotations

import logging
import math
from typing import IO, TYPE_CHECKING, Any

from fastdl.cli import wording
from fastdl.errors import MissingExtraError

if TYPE_CHECKING:
    from fastdl.training.history import History

_INK, _MUTED, _GRID = "#1f2933", "#7b8794", "#e4e7eb"
_TRAIN, _VALIDATION = "#9aa5b1", "#0b69a3"


def draw(history: History, title: str, file: IO[bytes], dpi: int = 150) -> None:
    """Write a PNG: loss on the training and validation rows, and the first metric beside it.

    Raises
    ------
    MissingExtraError : matplotlib is not installed
    """
    # Matplotlib logs to stderr when it builds its font cache, once per machine.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            'the learning curves are not drawn, as matplotlib is not installed: pip install "fastdl[plot]"'
        ) from error

    metric = next(iter(history.metrics), None)
    panels = 1 if metric is None else 2
    figure = Figure(figsize=(5.2 * panels, 4.0), facecolor="white")
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1, wspace=0.04)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold", color=_INK)

    epochs = range(1, len(history.loss) + 1)
    curves = [("training", history.loss, _TRAIN)]
    if history.val_loss:
        curves.append(("validation", history.val_loss, _VALIDATION))
    _panel(axes[0], "loss", epochs, curves, "loss")
    values = [v for _, ys, _ in curves for v in ys]
    if 0 < 20 * min(values) < max(values) < math.inf:
        _log_scale(axes[0])
    if metric is not None:
        name = wording.LABELS.get(metric, metric)
        _panel(axes[1], metric, epochs, [("validation", history.metrics[metric], _VALIDATION)], f"validation {name}")
        if metric == "accuracy":
            axes[1].yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
        elif max(history.metrics[metric]) >= 1000:
            axes[1].yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})


def _log_scale(axes: Any) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _panel(axes: Any, metric: str, epochs: range, curves: list[tuple[str, list[float], str]], title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    # A few epochs are shown as points too: a single one would be invisible as a line.
    marker = "o" if len(epochs) <= 12 else None
    last = [values[-1] for _, values, _ in curves]
    for name, values, colour in curves:
        # The numbers at the curves' ends must not cover each other.
        near = len(last) > 1 and abs(last[0] - last[1]) < 0.1 * max(map(abs, last))
        shift = 0 if not near else 6 if values[-1] == max(last) else -6
        axes.plot(epochs, values, color=colour, linewidth=1.8, marker=marker, markersize=4, label=name, clip_on=False)
        axes.annotate(
            wording.metric(metric, values[-1]),
            (epochs[-1], values[-1]),
            xytext=(7, shift),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour if colour != _TRAIN else _MUTED,
            annotation_clip=False,
        )
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=_INK)
    axes.set_title(title, loc="left", fontsize=10, color=_INK)
    axes.set_xlabel("epoch", fontsize=9, color=_MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.set_xlim(0 if len(epochs) > 12 else 0.5, max(epochs[-1], 1.5))
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_GRID)
