"""The roofline: every kernel by its operations per byte and its rate, under what the processor can do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Okabe and Ito's colours by kind of kernel; the marker tells the kernels of a kind apart.
STYLES: dict[str, tuple[str, str]] = {
    "linear_forward": ("#D55E00", "o"),
    "linear_backward": ("#0072B2", "o"),
    "softmax": ("#009E73", "v"),
    "log_softmax": ("#009E73", "^"),
    "softmax_cross_entropy": ("#009E73", "s"),
    "sigmoid_cross_entropy": ("#009E73", "D"),
    "squared_error": ("#009E73", "P"),
    "sgd_step": ("#CC79A7", "v"),
    "momentum_step": ("#CC79A7", "^"),
    "rmsprop_step": ("#CC79A7", "D"),
    "adam_step": ("#CC79A7", "s"),
}
LABELLED = ("linear_forward",)  # by shape; linear_backward stands beside it at nearly the same place
ROOF = "#444444"


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
        for limit in limits:
            _roofs(axes, limit, left, right, limit["threads"] == most)
        for item, x, y in zip(items, xs, rates):
            colour, marker = STYLES[item["op"]]
            full = item["threads"] == most
            axes.plot(
                x, y, marker, color=colour, markersize=7 if full else 5, zorder=4 if full else 3, alpha=0.95 if full else 0.55,
                markerfacecolor=colour if full else "white", markeredgecolor="white" if full else colour,
                markeredgewidth=0.6 if full else 1.0,
            )  # fmt: skip
        figure.canvas.draw()
        _label_points(axes, [(i, x, y) for i, x, y in zip(items, xs, rates) if i["threads"] == most])
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
        for path in paths:
            figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _roofs(axes: Any, limit: dict[str, Any], left: float, right: float, full: bool) -> None:
    """The flat roof of arithmetic, and the slopes of memory and of the second cache, for one number of threads."""
    peak = limit["flop_per_second"]["max"] / 1e9
    style = {"color": ROOF, "linewidth": 1.6 if full else 0.9, "alpha": 1.0 if full else 0.7, "zorder": 2}
    slopes = {
        "memory": limit["memory_bytes_per_second"]["max"] / 1e9,
        "cache": limit["cache_bytes_per_second"]["max"] / 1e9,
    }
    axes.plot([peak / slopes["cache"], right], [peak, peak], **style)
    axes.annotate(
        f"{_threads(limit['threads'])}: {peak:.0f} GFLOP/s", (right, peak), (-4, 4), textcoords="offset points",
        ha="right", va="bottom", fontsize=8, color=ROOF,
    )  # fmt: skip
    for name, slope in slopes.items():
        ridge = peak / slope
        axes.plot([left, ridge], [left * slope, peak], linestyle="-" if name == "memory" else (0, (4, 2)), **style)
        if full:
            start, end = axes.transData.transform([(left, left * slope), (ridge, peak)])
            angle = _angle(end - start)
            place = left * 1.25
            axes.annotate(
                f"{name} {slope:.0f} GB/s", (place, place * slope), (0, 3), textcoords="offset points",
                rotation=angle, rotation_mode="anchor", fontsize=8, color=ROOF,
            )  # fmt: skip


def _angle(direction: Any) -> float:
    import math

    return math.degrees(math.atan2(direction[1], direction[0]))


def _label_points(axes: Any, points: Sequence[tuple[dict[str, Any], float, float]]) -> None:
    """The shapes of the linear layers, each where it is free of other labels and points; those without room are left out."""
    pixels = axes.transData.transform
    scale = axes.figure.dpi / 72
    size = 3.6 * scale  # half of a marker
    taken = [(px - size, py - size, px + size, py + size) for px, py in (pixels((x, y)) for _, x, y in points)]
    frame = axes.get_window_extent()
    wanted = [(i, x, y) for i, x, y in points if i["op"] in LABELLED]
    for item, x, y in sorted(wanted, key=lambda point: -point[2]):
        text = "×".join(map(str, item["shape"]))
        width, height = 4.0 * scale * len(text), 8.5 * scale
        px, py = pixels((x, y))
        places = [
            (7, -3, "left"),
            (-7, -3, "right"),
            (0, -14, "center"),
            (0, 7, "center"),
            (7, -14, "left"),
            (-7, -14, "right"),
        ]
        places += [(0, -26, "center"), (0, -38, "center"), (0, -50, "center"), (14, -38, "left"), (-14, -26, "right")]
        for dx, dy, align in places:
            x0 = px + dx * scale - {"left": 0.0, "right": width, "center": width / 2}[align]
            y0 = py + dy * scale
            box = (x0, y0, x0 + width, y0 + height)
            inside = frame.x0 <= box[0] and box[2] <= frame.x1 and frame.y0 <= box[1]
            free = all(box[2] < t[0] or t[2] < box[0] or box[3] < t[1] or t[3] < box[1] for t in taken)
            if inside and free:
                leader = {"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
                axes.annotate(
                    text, (x, y), (dx, dy), textcoords="offset points", ha=align, va="bottom", fontsize=7, color="#555555",
                    arrowprops=leader if dy < -20 else None, zorder=5,
                )  # fmt: skip
                taken.append(box)
                break
