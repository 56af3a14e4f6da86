"""Tables of a result: for the terminal, and as Markdown between markers of a file such as README.md."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.protocol import ROOT

RESULTS = ROOT / "bench" / "results"
PACKAGES = {"jax": "jax", "torch": "torch", "torch-compiled": "torch", "sklearn": "scikit-learn", "numpy": "numpy"}


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
            return f"{_digits(seconds * factor)} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _times(against: dict[str, float]) -> str:
    """How many times as long as fastdl, with the 95 % interval where the rounds leave it wide."""
    text = f"{_digits(against['median'])}×"
    if against["high"] - against["low"] > 0.1 * against["median"]:
        text += f" ({_digits(against['low'])} to {_digits(against['high'])})"
    return text


def _columns(items: Sequence[dict[str, Any]]) -> dict[str, str]:
    """name -> label of all libraries that have a result anywhere, fastdl first, in the order of the runs."""
    return {name: result["label"] for item in items for name, result in item["results"].items()}


def training_table(run: dict[str, Any]) -> Table:
    """Time per step of fastdl, and how many times that the others take."""
    items = run["training"]
    columns = _columns(items)
    rows = []
    for item in items:
        results = item["results"]
        row = [item["title"], duration(results["fastdl"]["seconds_per_step"]["median"])]
        row.append(f"{results['fastdl']['gflops']:.0f}")
        row += [_times(results[n]["against_fastdl"]) if n in results else "not run" for n in columns if n != "fastdl"]
        rows.append(row)
    others = [f"{label} {_version(run, name)}".strip() for name, label in columns.items() if name != "fastdl"]
    return Table("Training: time per step", ["layers, batch", "fastdl", "GFLOP/s", *others], rows)


def kernels_table(run: dict[str, Any]) -> Table:
    """Time per call of fastdl's kernels, share of the limit, and how many times that the others take."""
    items = run["kernels"]
    columns = _columns(items)
    rows = []
    for item in items:
        ours = item["results"]["fastdl"]
        rate = f"{ours['rate'] / 1e9:.1f} {'GB/s' if item['limit'] == 'streams' else 'GFLOP/s'}" if ours["rate"] else ""
        share = f"{ours['share_of_peak']:.0%}" if ours["share_of_peak"] else ""
        row = [item["name"].replace("/", " "), str(item["threads"]), duration(ours["seconds"]["median"]), rate, share]
        row += [
            _times(item["results"][name]["against_fastdl"]) if name in item["results"] else "not run"
            for name in columns
            if name != "fastdl"
        ]
        rows.append(row)
    others = [f"{label} {_version(run, name)}".strip() for name, label in columns.items() if name != "fastdl"]
    return Table("Kernels: time per call", ["kernel", "threads", "fastdl", "rate", "of peak", *others], rows)


def startup_table(run: dict[str, Any]) -> Table:
    """Time of whole processes."""
    rows = []
    for item in run["startup"]:
        ours = item["results"]["fastdl"]["seconds"]["median"]
        first = duration(item["first_time_seconds"]) if item["first_time_seconds"] else ""
        others = [
            f"{name} {duration(result['seconds']['median'])}, {_times(result['against_fastdl'])}"
            for name, result in item["results"].items()
            if name != "fastdl"
        ]
        rows.append([item["title"], duration(ours), first, ", ".join(others)])
    return Table("Start-up: whole processes", ["process", "fastdl", "first time ever", "against"], rows)


def tables(run: dict[str, Any]) -> list[Table]:
    """Those that the run has results for."""
    makers = {"training": training_table, "kernels": kernels_table, "startup": startup_table}
    return [make(run) for part, make in makers.items() if run.get(part)]


def _version(run: dict[str, Any], name: str) -> str:
    return run["versions"].get(PACKAGES.get(name, ""), "").split("+")[0]


def footer(run: dict[str, Any]) -> str:
    """Where and when, and how to read it."""
    machine, versions = run["machine"], run["versions"]
    return (
        f"{machine['cpu']}, {machine['usable_cores']} cores ({machine['isa']}), {run['threads']} threads, float32; "
        f"{run['date'][:10]}; fastdl {versions['fastdl']}, Python {versions['python']}, numba {versions['numba']}. "
        "Medians of interleaved rounds; 2× means that it takes twice as long as fastdl."
    )


def newest(part: str | None = None, folder: Path = RESULTS) -> dict[str, Any]:
    """The newest run in the folder that has results for a part of it."""
    for path in sorted(folder.glob("*.json"), reverse=True):
        run = json.loads(path.read_text())
        if part is None or run.get(part):
            return run
    raise FileNotFoundError(f"expected a run with {part or 'anything'} in {folder}; scripts/bench makes one")


def update(path: Path, run: dict[str, Any]) -> list[str]:
    """Replace what stands between `<!-- bench:PART -->` and `<!-- /bench:PART -->`; returns the parts replaced."""
    text = path.read_text()
    makers = {"training": training_table, "kernels": kernels_table, "startup": startup_table}
    replaced = []
    for part, make in makers.items():
        pattern = re.compile(rf"(<!-- bench:{part} -->).*?(<!-- /bench:{part} -->)", re.DOTALL)
        if run.get(part) and pattern.search(text):
            block = f"\n{make(run).markdown()}\n\n{footer(run)}\n"
            text = pattern.sub(lambda match, block=block: match[1] + block + match[2], text)
            replaced.append(part)
    path.write_text(text)
    return replaced
