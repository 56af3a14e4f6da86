"""The picture of the training workloads: how many times as long as fastdl the others take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Okabe and Ito's colours, told apart by everyone; fastdl's is the strong one.
COLOURS = {
    "fastdl": "#D55E00",
    "jax": "#0072B2",
    "torch": "#56B4E9",
    "torch-compiled": "#009E73",
    "fastdl-bf16": "#E69F00",
    "torch-bf16": "#CC79A7",
    "sklearn": "#999999",
}


def draw(run: dict[str, Any], path: Path) -> None:
    """Bars per workload on a logarithmic axis; needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter

    items = run["training"]
    names = list(dict.fromkeys(name for item in items for name in item["results"]))
    labels = {name: result["label"] for item in items for name, result in item["results"].items()}
    width = 0.8 / len(names)
    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(figsize=(10, 4.2), layout="constrained")
        highest = max(r["against_fastdl"]["median"] for item in items for r in item["results"].values())
        lowest = min(r["against_fastdl"]["median"] for item in items for r in item["results"].values())
        bottom = min(0.7, lowest * 0.8)
        for k, name in enumerate(names):
            places = [i for i, item in enumerate(items) if name in item["results"]]
            heights = [items[i]["results"][name]["against_fastdl"]["median"] for i in places]
            shifted = [i + (k - (len(names) - 1) / 2) * width for i in places]
            axes.bar(
                shifted, [h - bottom for h in heights], width * 0.92, bottom=bottom, color=COLOURS.get(name),
                label=labels[name],
            )  # fmt: skip
            for place, height in zip(shifted, heights):
                if name != "fastdl":
                    text = f"{height:.0f}" if height >= 10 else f"{height:.1f}"
                    axes.text(place, height * 1.04, text, ha="center", va="bottom", fontsize=8)
        axes.axhline(1, color=COLOURS["fastdl"], linewidth=0.8, zorder=0)
        axes.set_yscale("log")
        axes.set_ylim(bottom, highest * 1.8)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        axes.yaxis.set_minor_formatter(lambda *_: "")
        axes.set_xticks(
            range(len(items)),
            [f"{i['workload']['name']}\n{'-'.join(map(str, i['workload']['layers']))}" for i in items],
        )
        axes.tick_params(axis="x", length=0, labelsize=8)
        axes.set_title("Time per training step, relative to fastdl (lower is faster)", loc="left", fontsize=11)
        axes.legend(frameon=False, ncols=len(names), loc="upper right", fontsize=9)
        machine = run["machine"]
        axes.set_xlabel(f"{machine['cpu']}, {run['threads']} threads, {run['date'][:10]}", loc="right", fontsize=7)
        figure.savefig(path, dpi=160)
        plt.close(figure)
