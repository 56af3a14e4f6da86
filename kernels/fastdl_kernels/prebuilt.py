"""Prebuilt code: for which kinds of processors there is any, what fits here, and where code is kept."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastdl_kernels import _store
from fastdl_kernels._targets import FOREIGN, TARGETS, names
from fastdl_kernels.host import host

__all__ = ["FOREIGN", "cache", "clean", "fitting", "gather", "machines", "packaged", "target_names", "targets_for"]


def target_names() -> list[str]:
    """The kinds of processors that code can be built for, the most specific first."""
    return list(TARGETS)


def targets_for(machine: str) -> list[str]:
    """Those of a machine: "x86_64" or "aarch64"."""
    return [target.name for target in TARGETS.values() if target.machine == machine]


def fitting() -> list[str]:
    """The names under which code for this processor may be kept, its own first."""
    return names(host().l1_bytes, host().isa == "avx512")


def packaged() -> list[str]:
    """The kinds of processors that the installed package holds code for."""
    return sorted(path.name for path in _store.PACKAGED.iterdir()) if _store.PACKAGED.is_dir() else []


def cache() -> dict[str, Any]:
    """What the user's folder holds: folder, bytes, files, versions, writable, and distrust, why it is not used, or None."""
    return _store.contents()


def clean(everything: bool = False) -> int:
    """Remove versions from the user's folder that were not used for long, or all of them; how many there were."""
    return _store.clean(everything=everything)


def machines() -> list[str]:
    """What code can be built for: "x86_64" and "aarch64"."""
    return list(dict.fromkeys(target.machine for target in TARGETS.values()))


def gather(folder: Path, target: str, functions: Iterable[tuple[str, str]]) -> None:
    """Copy the code of functions, given by their keys and the hashes of their sources, from the user's folder to one for a
    package; what another target there has with the same content refers to that."""
    place = folder / target
    place.mkdir(parents=True, exist_ok=True)
    for name, sources in functions:
        file = name + _store.SUFFIX
        data = (_store.folder() / _store.version(sources) / target / file).read_bytes()
        same = [path.parent.name for path in sorted(folder.glob(f"*/{glob.escape(file)}")) if path.read_bytes() == data]
        (place / file).write_bytes(_store.reference(same[0]) if same else data)
