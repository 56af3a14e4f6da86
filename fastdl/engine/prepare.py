"""All compiled code at once, for this processor or for another kind: what `fastdl prepare` and the builds of wheels do."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numba.core.types import Type

import fastdl.engine
from fastdl_kernels import prebuilt
from fastdl_kernels.prebuilt import FOREIGN, cache, clean, machines, target_names, targets_for
from fastdl_kernels.serial import ELEMENTS, UNITS, Linked, Unit, usable_cores

__all__ = [
    "DTYPES",
    "kept",
    "machines",
    "pack",
    "prepare",
    "remove_all",
    "share",
    "target_names",
    "targets_for",
    "units",
]
DTYPES = [str(element) for element in ELEMENTS]


def kept() -> dict[str, Any]:
    """What the user's folder holds: see `prebuilt.cache`."""
    return cache()


def remove_all() -> int:
    """Empty the user's folder; how many versions there were."""
    return clean(everything=True)


def units(dtypes: Sequence[str] = ("float32", "float64"), only: Sequence[str] = ()) -> list[tuple[Unit, Type]]:
    """All functions that there is machine code of, for these dtypes; `only` those whose keys start with one of these."""
    for module in pkgutil.iter_modules(fastdl.engine.__path__):
        importlib.import_module(f"fastdl.engine.{module.name}")
    names = tuple(only) or ("",)
    found = [(unit, x) for x in ELEMENTS for unit in UNITS if str(x) in dtypes and x in unit.elements]
    return [(unit, x) for unit, x in found if unit.key(x).startswith(names)]


def prepare(
    dtypes: Sequence[str] = ("float32", "float64"), cpu: str | None = None, only: Sequence[str] = (), processes: int = 0
) -> None:
    """Have all code in the user's folder, compiled by several processes at once (0: one for each core).

    cpu : a name of `prebuilt.target_names()`, for another kind of processor than this one

    Raises ValueError for a name that there is not and OSError where a process failed, with what it said.
    """
    if cpu is not None and cpu not in target_names():
        raise ValueError(f"expected a processor of {', '.join(target_names())}, got {cpu}")
    environment = {**os.environ, **({FOREIGN: cpu} if cpu else {})}
    n = processes or usable_cores()
    running = []
    for number in range(n):
        arguments = (list(dtypes), list(only), number, n)
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from fastdl.engine import prepare; prepare.share(*{arguments!r})"
        )
        running.append(
            subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
        )
    said = [process.communicate()[1] for process in running]
    for process, text in zip(running, said, strict=True):
        if process.returncode:
            last = text.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
            raise OSError(f"a process that compiles failed: {last[0]}")


def pack(folder: Path, targets: Sequence[str], only: Sequence[str] = ()) -> None:
    """Fill a folder with one for each target, of all code or of that whose names start with one of `only`."""
    for target in targets:
        prepare(DTYPES, target, only)
        prebuilt.gather(folder, target, [(unit.key(element), unit.sources) for unit, element in units(DTYPES, only)])


def share(dtypes: Sequence[str], only: Sequence[str], number: int, n: int) -> None:
    """What process `number` of n does: the longest first, by turns."""
    todo = units(dtypes, only)
    for unit in UNITS:
        if isinstance(unit, Linked):
            unit.awaited = True  # what a function calls is compiled by its own turn
    for i, (unit, element) in enumerate(todo):
        if i % n == number:
            unit.code(element)
