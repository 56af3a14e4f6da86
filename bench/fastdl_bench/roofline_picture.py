"""The roofline: every kernel by its operations per byte and its rate, under what the processor can do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Okabe and Ito's colours by kind of kernel; the marker tells the kernels of a kind apart.
STYLES: dict[str, tuple[str, str]] = {
    "linear_forward": ("#D55E00", "o"),
    "linear_backward": ("#0072B2", "o"),
    "linear_forward_keep": ("#E69F00", "o"),
    "softmax": ("#009E73", "v"),
    "log_softmax": ("#009E73", "^"),
    "softmax_cross_entropy": ("#009E73", "s"),
    "sigmoid_cross_entropy": ("#009E73", "D"),
    "squared_error": ("#009E73", "P"),
    "absolute_error": ("#009E73", "X"),
    "huber_loss": ("#009E73", "<"),
    "quantile_loss": ("#009E73", ">"),
    "poisson_loss": ("#009E73", "*"),
    "sgd_step": ("#CC79A7", "v"),
    "momentum_step": ("#CC79A7", "^"),
    "nesterov_step": ("#CC79A7", "<"),
    "rmsprop_step": ("#CC79A7", "D"),
    "adam_step": ("#CC79A7", "s"),
    "adamw_step": ("#CC79A7", "P"),
}
LABELLED = ("linear_forward",)  # by shape; linear_backward stands beside it at nearly the same place
ROOF = "#444444"
PLACES = [(7, 0, "left"), (-7, 0, "right"), (0, -11, "center"), (0, 11, "center")]
PLACES += [(0, dy, align) for dy in (-22, -33, 22, 33, 44, -44, -55, -66) for align in ("center", "left", "right")]
"""Where a label may stand, in points from its point, the best first."""
LEADER = {"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}


def draw(run: dict[str, Any], paths: Sequence[Path]) -> None:
    """Write the picture to each of the paths, in the format of its suffix; needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    items, limits = run["kernels"], run["roofline"]
    counts = sorted({limit["threads"] for limit in limits})
    most = counts[-1]
    xs = [item["flop"] / item["bytes"] for item in items]
    rates = [item["results"]["fastdl"]["gflops"] for item in items]
    left, right = min(xs) / 1.8, max(xs) * 2.2
    peak = max(limit["flop_per_second"]["max"] for limit in limits) / 1e9
    with plt.rc_context(
        {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}
    ):
        figure, axes = plt.subplots(figsize=(10, 6.4), layout="constrained")
        axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(min(rates) / 1.6, peak * 2.1))
        outer = next(limit for limit in limits if limit["threads"] == most)
        roofs = [_roofs(axes, limit, left, right, outer) for limit in limits]
        for item, x, y in zip(items, xs, rates):
            colour, marker = STYLES[item["op"]]
            full = item["threads"] == most
            axes.plot(
                x, y, marker, color=colour, markersize=7 if full else 5, zorder=4 if full else 3, alpha=0.95 if full else 0.55,
                markerfacecolor=colour if full else "white", markeredgecolor="white" if full else colour,
                markeredgewidth=0.6 if full else 1.0,
            )  # fmt: skip
        present = [op for op in STYLES if any(item["op"] == op for item in items)]
        handles = [
            Line2D([], [], linestyle="", marker=STYLES[op][1], color=STYLES[op][0], markersize=7, label=op)
            for op in present
        ]
        if len(counts) > 1:
            for full, label in ((True, _threads(most)), (False, _threads(counts[0]))):
                handles.append(
                    Line2D(
                        [], [], linestyle="", marker="o", color=ROOF, markersize=7 if full else 5, label=label,
                        markerfacecolor=ROOF if full else "white",
                    )
                )  # fmt: skip
        axes.legend(handles=handles, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        axes.set_xlabel("operations per byte that has to be moved")
        axes.set_ylabel("GFLOP/s")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_title("The kernels under the processor's roofline", loc="left", fontsize=12)
        machine = run["machine"]
        axes.text(
            1, 1.015, f"{machine['cpu']}, {machine['isa']}, {run['date'][:10]}", transform=axes.transAxes, ha="right",
            fontsize=8, color="#666666",
        )  # fmt: skip
        axes.grid(which="major", color="#e8e8e8", linewidth=0.6)
        axes.set_axisbelow(True)
        figure.canvas.draw()
        _label_slopes(axes, outer, left)
        _label_points(axes, list(zip(items, xs, rates)), most, roofs)
        figure.set_layout_engine("none")  # what is placed now stays where it is
        for path in paths:
            figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _slopes(limit: dict[str, Any]) -> dict[str, float]:
    """What memory and L2 deliver, in GB/s."""
    return {name: limit[f"{name}_bytes_per_second"]["max"] / 1e9 for name in ("memory", "cache")}


def _roofs(axes: Any, limit: dict[str, Any], left: float, right: float, outer: dict[str, Any]) -> Any:
    """The flat roof of arithmetic, and the slopes of memory and of L2, for one number of threads.

    Returns the roof's name on the picture: between the slopes of most threads, the `outer` limit, where there are no points.
    """
    peak = limit["flop_per_second"]["max"] / 1e9
    full = limit is outer
    style = {"color": ROOF, "linewidth": 1.6 if full else 0.9, "alpha": 1.0 if full else 0.7, "zorder": 2}
    slopes, others = _slopes(limit), _slopes(outer)
    axes.plot([peak / slopes["cache"], right], [peak, peak], **style)
    name_of_roof = axes.annotate(
        f"{_threads(limit['threads'])}: {peak:.0f}", (peak / math.sqrt(others["memory"] * others["cache"]), peak), (0, 4),
        textcoords="offset points", ha="center", va="bottom", fontsize=8, color=ROOF,
    )  # fmt: skip
    for name, slope in slopes.items():
        ridge = peak / slope
        axes.plot([left, ridge], [left * slope, peak], linestyle="-" if name == "memory" else (0, (4, 2)), **style)
    return name_of_roof


def _label_slopes(axes: Any, limit: dict[str, Any], left: float) -> None:
    """The names of the slopes along them, once the axes have their final size."""
    for name, slope in _slopes(limit).items():
        place = max(left, axes.get_ylim()[0] / slope) * 1.3
        (x0, y0), (x1, y1) = axes.transData.transform([(place, place * slope), (2 * place, 2 * place * slope)])
        angle = math.degrees(math.atan2(y1 - y0, x1 - x0))
        above = (-5 * math.sin(math.radians(angle)), 5 * math.cos(math.radians(angle)))
        axes.annotate(
            f"{name} {slope:.0f} GB/s", (place, place * slope), above, textcoords="offset points", rotation=angle,
            rotation_mode="anchor", fontsize=8, color=ROOF,
        )  # fmt: skip


def _label_points(
    axes: Any, points: Sequence[tuple[dict[str, Any], float, float]], most: int, roofs: Sequence[Any]
) -> None:
    """The shapes of the linear layers on `most` threads, each where it is free of labels, points, roofs and their names.

    Those without room are left out.
    """
    from matplotlib.text import Text

    pixels = axes.transData.transform
    size = 4.0 * axes.figure.dpi / 72  # half of a marker
    taken = [(px - size, py - size, px + size, py + size) for px, py in (pixels((x, y)) for _, x, y in points)]
    renderer = axes.figure.canvas.get_renderer()
    frame = axes.get_window_extent()
    for roof in roofs:
        name, height = Text.get_window_extent(roof, renderer).extents, pixels(roof.xy)[1]
        taken += [name, (frame.x0, height - 1, frame.x1, height + 1)]
    wanted = [(item, x, y) for item, x, y in points if item["op"] in LABELLED and item["threads"] == most]
    for item, x, y in sorted(wanted, key=lambda point: -point[2]):
        for dx, dy, align in PLACES:
            text = axes.annotate(
                "×".join(map(str, item["shape"])), (x, y), (dx, dy), textcoords="offset points", ha=align, va="center",
                fontsize=7, color="#555555", zorder=5, arrowprops=LEADER if abs(dy) > 14 else None,
            )  # fmt: skip
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer).extents  # of the text alone, without the line to its point
            inside = frame.x0 <= box[0] and box[2] <= frame.x1 and frame.y0 <= box[1]
            if inside and all(box[2] < t[0] or t[2] < box[0] or box[3] < t[1] or t[3] < box[1] for t in taken):
                taken.append(box)
                break
            text.remove()
