"""Programs of tests/programs in processes of their own, and the threading layers that this machine can load."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "tests" / "programs"
KERNELS = ROOT / "kernels"
LIBRARY = (ROOT, KERNELS)
"""Folders to import `fastdl` and `fastdl_kernels` from."""


def program(name: str) -> str:
    """The path of a program, to be given to an interpreter."""
    return str(PROGRAMS / f"{name}.py")


def environment_of(paths: Sequence[Path] = LIBRARY, **changes: str) -> dict[str, str]:
    """This process's environment, with these folders to import from, and changes."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), **changes}


def start(
    *arguments: str,
    paths: Sequence[Path] = LIBRARY,
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
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-4000:]}"
    return done.stdout


def run_program(name, *arguments, paths=(*LIBRARY, ROOT / "tests"), cwd=None, **environment):
    """Run a program with these folders on its path; it must say that it is fine, and nothing else."""
    assert run("-W", "error", str(PROGRAMS / name), *arguments, paths=paths, cwd=cwd, **environment) == "fine\n"


def layers():
    """The threading layers of Numba's that can be loaded here."""
    modules = {"omp": "omppool", "tbb": "tbbpool"}
    return [
        "workqueue",
        *(
            layer
            for layer, module in modules.items()
            if start("-c", f"from numba.np.ufunc import {module}").returncode == 0
        ),
    ]
