"""The command line: `scripts/bench`, or `python -m bench` from the checkout with its packages on the path."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from bench import kernels, machine, startup, tables, training
from bench.cases import KERNEL_CASES, WORKLOADS
from bench.protocol import ROOT, PeerError
from bench.training import Effort

SCHEMA = 1
PARTS = ("training", "kernels", "startup")
DEFAULT_PEERS = "jax,torch,sklearn"
# (training, kernels, rounds of start-ups): quick takes about 2 minutes, full about 15.
EFFORTS = {
    "quick": (Effort(3, 0.1), Effort(5, 0.01), 2),
    "normal": (Effort(7, 0.3), Effort(9, 0.03), 5),
    "full": (Effort(15, 0.6), Effort(15, 0.1), 9),
}


def parser() -> argparse.ArgumentParser:
    """All options."""
    result = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.partition(":")[0])
    effort = result.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_const", const="quick", dest="effort", help="few short rounds")
    effort.add_argument("--full", action="store_const", const="full", dest="effort", help="many long rounds")
    result.set_defaults(effort="normal")
    result.add_argument(
        "--peers",
        default=DEFAULT_PEERS,
        metavar="LIST",
        help=f"libraries to compare with: {', '.join(p for p in training.LIBRARIES if p != 'fastdl')}, or none "
        f"(default {DEFAULT_PEERS}; NumPy is always there for kernels)",
    )
    result.add_argument(
        "--only",
        metavar="PATTERN",
        help="what to run, such as training, 'kernels/adam*', digits: a part of a name, or one with * and ?",
    )
    result.add_argument("--threads", type=int, default=None, metavar="N", help="default: the usable cores")
    result.add_argument("--update-readme", action="store_true", help="write the tables into README.md, and the picture")
    result.add_argument("--from-results", action="store_true", help="run nothing; show the newest results")
    return result


def chosen(pattern: str | None) -> dict[str, list[str]]:
    """part -> names of what the pattern picks."""
    everything = {"training": list(WORKLOADS), "kernels": list(KERNEL_CASES), "startup": list(startup.CASES)}
    if pattern is None:
        return everything
    return {
        part: [
            name
            for name in names
            if pattern in f"{part}/{name}" or fnmatch(f"{part}/{name}", pattern) or fnmatch(name, pattern)
        ]
        for part, names in everything.items()
    }


def say(text: str) -> None:
    """Progress goes to stderr, so that tables can be piped."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def peers_from(text: str) -> list[str]:
    """The libraries that were asked for and can be imported; the others are named, with how to install them."""
    names = ["fastdl"]
    for name in (part.strip() for part in text.split(",")):
        if name in ("", "none", "fastdl", "numpy"):
            continue
        if name not in training.LIBRARIES:
            raise SystemExit(f"--peers: expected some of {', '.join(training.LIBRARIES)}, got {name!r}")
        library = training.LIBRARIES[name]
        if library.available:
            names.append(name)
        else:
            say(f"without {library.label}: to compare with it, {sys.executable} -m pip install {library.install}")
    return names


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run what the arguments choose and return the result, as it is written to JSON."""
    picked = chosen(arguments.only)
    if not any(picked.values()):
        raise SystemExit(f"--only: nothing is called like {arguments.only!r}; names are such as training/digits")
    names = peers_from(arguments.peers)
    description = machine.describe()
    threads = arguments.threads or description["usable_cores"]
    for_training, for_kernels, starts = EFFORTS[arguments.effort]
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "effort": arguments.effort,
        "threads": threads,
        "machine": description,
        "versions": machine.versions(),
    }
    load = description["load_before"]
    if load is not None and load > 0.5:
        say(f"the machine is busy (load {load}): the times below are worth little")
    if picked["training"]:
        workloads = [WORKLOADS[name] for name in picked["training"]]
        result["training"] = training.run(workloads, names, threads, for_training, say)
    if picked["kernels"]:
        libraries = kernels.available(["fastdl", "numpy", *(name for name in names if name == "torch")])
        cases = [KERNEL_CASES[name] for name in picked["kernels"]]
        counts = [threads] if arguments.threads else sorted({1, threads})
        result["kernels"] = kernels.run(cases, libraries, counts, for_kernels, say)
    if picked["startup"]:
        result["startup"] = startup.run(picked["startup"], threads, starts, arguments.effort == "full", say)
    return result


def save(result: dict[str, Any]) -> Path:
    """Write the result into bench/results, named by its date."""
    tables.RESULTS.mkdir(exist_ok=True)
    path = tables.RESULTS / f"{result['date'].replace(':', '').replace('+0000', 'Z')}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def show(result: dict[str, Any]) -> None:
    """The tables on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables.tables(result):
        shown = Table(title=table.title, title_justify="left")
        for k, name in enumerate(table.header):
            shown.add_column(name, justify="left" if k == 0 else "right")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    console.print(tables.footer(result), highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, show and save."""
    arguments = parser().parse_args(argv)
    try:
        if arguments.from_results:
            result = tables.newest()
            for part in PARTS:
                result.setdefault(part, [])
        else:
            result = measure(arguments)
            say(f"written to {save(result).relative_to(ROOT)}")
    except (PeerError, FileNotFoundError) as error:
        say(str(error))
        return 1
    show(result)
    if arguments.update_readme:
        for name in ("README.md", "kernels/README.md"):
            replaced = tables.update(ROOT / name, result)
            say(f"{name}: {', '.join(replaced) or 'nothing'} replaced")
        if result.get("training"):
            from bench.picture import draw

            draw(result, ROOT / "bench" / "training.png")
            say("bench/training.png drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
