"""Tables of a result: for the terminal, and as Markdown between markers of a file such as README.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastdl_bench.protocol import CHECKOUT
from fastdl_bench.schema import read


def results_folder() -> Path:
    """Where runs are written: bench/results of the checkout, or bench-results of the working directory without one."""
    return CHECKOUT / "bench" / "results" if CHECKOUT is not None else Path("bench-results")


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """A Markdown table; all columns but the first are right-aligned."""
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{digits(seconds * factor)} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def digits(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _times(against: dict[str, float]) -> str:
    """How many times as long as fastdl, with the 95 % interval where the rounds leave it wide."""
    text = f"{digits(against['median'])}×"
    if against["high"] - against["low"] > 0.1 * against["median"]:
        text += f" ({digits(against['low'])} to {digits(against['high'])})"
    return text


def _columns(items: Sequence[dict[str, Any]]) -> dict[str, str]:
    """name -> label of all libraries that have a result anywhere, fastdl first, in the order of the runs."""
    return {name: result["label"] for item in items for name, result in item["results"].items()}


def _others(items: Sequence[dict[str, Any]], columns: dict[str, str]) -> list[str]:
    """The headers of all libraries but fastdl, with their versions."""
    return [f"{label} {_version(items, name)}".strip() for name, label in columns.items() if name != "fastdl"]


def _ours(items: Sequence[dict[str, Any]]) -> str:
    return f"fastdl {_version(items, 'fastdl')}".strip()


def _version(items: Sequence[dict[str, Any]], name: str) -> str:
    return next((i["results"][name].get("version", "") for i in items if name in i["results"]), "")


def _ratios(item: dict[str, Any], columns: dict[str, str]) -> list[str]:
    results = item["results"]
    return [_times(results[n]["against_fastdl"]) if n in results else "not run" for n in columns if n != "fastdl"]


def training_table(run: dict[str, Any]) -> Table:
    """Time per step of fastdl, and how many times that the others take."""
    items = run["training"]
    columns = _columns(items)
    rows = []
    for item in items:
        ours = item["results"]["fastdl"]
        row = [item["title"], str(item["threads"]), duration(ours["seconds_per_step"]["median"])]
        rows.append([*row, f"{ours['gflops']:.0f}", *_ratios(item, columns)])
    header = ["layers, batch", "threads", _ours(items), "GFLOP/s", *_others(items, columns)]
    return Table("Training: time per step", header, rows)


def kernels_table(run: dict[str, Any]) -> Table:
    """Time per call of fastdl's kernels, rates, share of the roofline, and how many times that the others take."""
    items = run["kernels"]
    columns = _columns(items)
    rows = []
    for item in items:
        ours = item["results"]["fastdl"]
        row = [item["title"], str(item["threads"]), duration(ours["seconds"]["median"])]
        row += [digits(ours["gflops"]), digits(ours["gbytes_per_second"]), f"{ours['share_of_roofline']:.0%}"]
        rows.append([*row, *_ratios(item, columns)])
    header = ["kernel", "threads", _ours(items), "GFLOP/s", "GB/s", "of roofline", *_others(items, columns)]
    return Table("Kernels: time per call", header, rows)


def roofline_table(run: dict[str, Any]) -> Table:
    """What the processor can do."""
    rows = [
        [
            str(item["threads"]),
            f"{item['flop_per_second']['max'] / 1e9:.0f}",
            f"{item['cache_bytes_per_second']['max'] / 1e9:.0f}",
            f"{item['memory_bytes_per_second']['max'] / 1e9:.0f}",
        ]
        for item in run["roofline"]
    ]
    return Table("Limits of the processor", ["threads", "GFLOP/s", "cache GB/s", "memory GB/s"], rows)


def accuracy_table(run: dict[str, Any]) -> Table:
    """Seconds to a validation accuracy, and epochs."""
    items = run["accuracy"]
    columns = _columns(items)
    rows = []
    for item in items:
        row = [item["title"]]
        for name in columns:
            found = item["results"].get(name)
            if found is None:
                row.append("not run")
            else:
                time = duration(found["seconds"]["median"])
                times = "" if name == "fastdl" else f"{_times(found['against_fastdl'])}, "
                row.append(f"{time} ({times}{found['epochs']} epochs)")
        rows.append(row)
    return Table("Time to accuracy", ["time to accuracy", _ours(items), *_others(items, columns)], rows)


def latency_table(run: dict[str, Any]) -> Table:
    """Time of a prediction, its arithmetic as a share of the peak, and how many times that the others take."""
    items = run["latency"]
    columns = _columns(items)
    rows = []
    for item in items:
        ours = item["results"]["fastdl"]
        row = [item["title"], duration(ours["seconds"]["median"]), f"{ours['share_of_peak']:.0%}"]
        rows.append([*row, *_ratios(item, columns)])
    header = ["prediction", _ours(items), "of peak", *_others(items, columns)]
    return Table("Prediction: time per call", header, rows)


def estimators_table(run: dict[str, Any]) -> Table:
    """Time of a call of fastdl's estimators, and how many times that `Trainer` and scikit-learn take."""
    items = run["estimators"]
    columns = _columns(items)
    rows = [
        [item["title"], duration(item["results"]["fastdl"]["seconds"]["median"]), *_ratios(item, columns)]
        for item in items
    ]
    header = ["estimator", _ours(items), *_others(items, columns)]
    return Table("Estimators: time per call", header, rows)


def megabytes(size: int) -> str:
    """In 1e6 bytes."""
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e6:.1f} MB"


def memory_table(run: dict[str, Any]) -> Table:
    """Peak memory of a process that trains, and how much of it came after the import."""
    items = run["memory"]
    columns = _columns(items)
    rows = []
    for item in items:
        row = [
            f"{item['title']} ({megabytes(item['data_bytes'])} data, {megabytes(item['parameter_bytes'])} parameters)"
        ]
        for name in columns:
            found = item["results"].get(name)
            if found is None:
                row.append("not run")
            else:
                added = megabytes(found["peak_bytes"] - found["imported_bytes"])
                row.append(f"{megabytes(found['peak_bytes'])}, {added} of it after the import")
        rows.append(row)
    return Table("Peak memory of a training", ["peak memory", _ours(items), *_others(items, columns)], rows)


def startup_table(run: dict[str, Any]) -> Table:
    """Time of whole processes."""
    rows = []
    for item in run["startup"]:
        ours = item["results"]["fastdl"]["seconds"]["median"]
        first = duration(item["first_time_seconds"]) if item["first_time_seconds"] else "not run"
        others = [
            f"{name} {duration(result['seconds']['median'])}, {_times(result['against_fastdl'])}"
            for name, result in item["results"].items()
            if name != "fastdl"
        ]
        rows.append([item["title"], duration(ours), first, ", ".join(others)])
    return Table("Start-up: whole processes", ["process", "fastdl, warm", "first time ever", "against"], rows)


MAKERS: dict[str, Callable[[dict[str, Any]], Table]] = {
    "training": training_table,
    "kernels": kernels_table,
    "roofline": roofline_table,
    "accuracy": accuracy_table,
    "latency": latency_table,
    "memory": memory_table,
    "startup": startup_table,
    "estimators": estimators_table,
}
"""part of a result -> its table."""

BLOCKS: dict[str, tuple[str, ...]] = {
    "training": ("training",),
    "kernels": ("kernels", "roofline"),
    "more": ("accuracy", "latency", "memory", "startup"),
    "estimators": ("estimators",),
}
"""marker in a Markdown file -> the parts whose tables stand there."""


def tables(run: dict[str, Any]) -> list[Table]:
    """Those that the run has results for."""
    return [make(run) for part, make in MAKERS.items() if run.get(part)]


def notes(run: dict[str, Any]) -> list[str]:
    """What libraries' programs say about themselves, and what was left out: lines under the tables."""
    lines = []
    for part in MAKERS:
        for item in run.get(part) or []:
            where = f"{part}/{item.get('name') or item.get('workload', {}).get('name', '')}"
            for result in item.get("results", {}).values():
                way = result.get("notes", {}).get("way")
                lines += [f"{where}: {result['label']}: {way}"] if way else []
            lines += [f"{where}: without {name}: {why}" for name, why in item.get("left_out", {}).items()]
    return lines


def footer(run: dict[str, Any]) -> str:
    """Where and when, and how to read it."""
    machine, versions = run["machine"], run["versions"]
    return (
        f"{machine['cpu']}, {machine['usable_cores']} cores ({machine['isa']}), {run['threads']} threads, float32; "
        f"{run['date'][:10]}; fastdl {versions['fastdl']}, Python {versions['python']}, numba {versions['numba']}. "
        "Medians of interleaved rounds; 2× means that it takes twice as long as fastdl."
    )


def newest(part: str | None = None, folder: Path | None = None) -> dict[str, Any]:
    """The newest run in the folder that has results for a part of it."""
    folder = folder or results_folder()
    for path in sorted(folder.glob("*.json"), reverse=True):
        run = read(path)
        if part is None or run.get(part):
            return run
    raise FileNotFoundError(f"expected a run with {part or 'anything'} in {folder}; scripts/bench makes one")


def update(path: Path, run: dict[str, Any]) -> list[str]:
    """Replace what stands between `<!-- bench:BLOCK -->` and `<!-- /bench:BLOCK -->`; returns the blocks replaced."""
    text = path.read_text()
    replaced = []
    for block, parts in BLOCKS.items():
        pattern = re.compile(rf"(<!-- bench:{block} -->).*?(<!-- /bench:{block} -->)", re.DOTALL)
        shown = [MAKERS[part](run).markdown() for part in parts if run.get(part)]
        if shown and pattern.search(text):
            body = "\n" + "\n\n".join([*shown, footer(run)]) + "\n"
            text = pattern.sub(lambda match, body=body: match[1] + body + match[2], text)  # type: ignore[misc]
            replaced.append(block)
    path.write_text(text)
    return replaced
