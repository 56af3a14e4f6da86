"""What `--save NAME` keeps: a copy of the library as it is now, and the benchmarks that ran with it.

`--compare NAME` runs the copy and the present version by turns, as `--base` does with a commit; a copy also holds what is
not committed, and needs no repository. `results/saved/NAME` has the packages in `fastdl` and `kernels/fastdl_kernels`, and
`guard.json` (bench/SCHEMA.md).
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastdl_bench import compare, schema
from fastdl_bench.compare import SECONDS, UNITS, Sides, Target, count_of
from fastdl_bench.protocol import Peer, PeerError, closing_all
from fastdl_bench.training import Say
from fastdl_bench.versions import UsageError

RECORD = "guard.json"
PLACES = {"fastdl": "fastdl", "fastdl_kernels": "kernels/fastdl_kernels"}  # package -> its folder in a tree


def folder_of(folder: Path, name: str, option: str) -> Path:
    """Where the saved version of that name is, or will be."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"{option}: expected a name of letters, digits, dots, dashes and underscores, got {name!r}")
    return folder / name


def copy_library(tree: Path) -> None:
    """The packages that this process would import, as a tree like a checkout's; without what was compiled."""
    for package, place in PLACES.items():
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        shutil.copytree(
            Path(spec.origin).parent, tree / place, ignore=shutil.ignore_patterns("__pycache__", "*.nb[ic]")
        )


def save(chosen: Sequence[Target], threads: int, head: dict[str, Any], folder: Path, say: Say) -> dict[str, str]:
    """Keep this version in the folder, in place of what was there; returns what it could not run, and why.

    Each benchmark runs, so that the copy is known to work and its kernels are compiled. The times are for the record: what
    is compared is measured by `--compare`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as path:
        tree, old = Path(path) / "new", Path(path) / "old"
        copy_library(tree)
        seconds, failures = _times(chosen, compare.fastdl_sides(tree), threads, say)
        benchmarks = {name: {"seconds": value} for name, value in seconds.items()}
        record = {**head, "kind": "guard", "benchmarks": benchmarks}
        (tree / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        if folder.exists():
            folder.rename(old)
        tree.rename(folder)
    return failures


def _times(chosen: Sequence[Target], sides: Sides, threads: int, say: Say) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of a call or an epoch of each; and why the others do not run."""
    found: dict[str, float] = {}
    failures: dict[str, str] = {}
    with closing_all({}) as peers:
        for target in chosen:
            say(target.name)
            try:
                if target.kind not in peers:
                    side = sides[target.kind]
                    peers[target.kind] = Peer(side.module, threads, side.arguments, side.library)
                peer = peers[target.kind]
                peer.request("setup", SECONDS, **target.problem)
                count = count_of(peer, target)
                found[target.name] = peer.request("run", SECONDS, **{UNITS[target.kind]: count})["seconds"] / count
            except PeerError as error:
                failures[target.name] = str(error)
                if target.kind in peers:
                    peers.pop(target.kind).close()
    return found, failures


def read(folder: Path) -> dict[str, Any]:
    """The record of a saved version."""
    record = folder / RECORD
    if not record.is_file():
        known = ", ".join(sorted(p.parent.name for p in folder.parent.glob(f"*/{RECORD}"))) or "nothing"
        raise UsageError(
            f"--compare: expected the name of a saved version, got {folder.name!r}; saved are: {known}. "
            f"scripts/bench --save {folder.name} makes it"
        )
    try:
        saved = schema.read(record, "guard")
    except ValueError as error:
        raise UsageError(f"--compare: {error}") from error
    if not all((folder / place / "__init__.py").is_file() for place in PLACES.values()):
        raise UsageError(
            f"--compare: expected a copy of the library in {folder}, there is none; scripts/bench --save {folder.name} "
            f"makes it anew"
        )
    return saved
