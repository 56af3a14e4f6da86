"""Fresh interpreters for tests: the programs that they run are in tests/programs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "tests" / "programs"
KERNELS = ROOT / "kernels"
"""The folder to import `fastdl_kernels` from."""


def program(name: str) -> str:
    """The path of a program, to be given to an interpreter."""
    return str(PROGRAMS / f"{name}.py")


def environment_of(paths: Sequence[Path] = (ROOT, KERNELS), **changes: str) -> dict[str, str]:
    """This process's environment, with these folders to import from, and changes."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), **changes}


def start(
    *arguments: str,
    paths: Sequence[Path] = (ROOT, KERNELS),
    cwd: Path | None = None,
    timeout: float | None = None,
    **changes: str,
) -> subprocess.CompletedProcess[str]:
    """An interpreter with these arguments, run to its end, however that is."""
    return subprocess.run(
        [sys.executable, *arguments], env=environment_of(paths, **changes), cwd=cwd, timeout=timeout,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def run(*arguments: str, **options) -> str:
    """The standard output of an interpreter that ends well; options are those of `start`."""
    done = start(*arguments, **options)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr}"
    return done.stdout
