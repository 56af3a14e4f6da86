"""Whether a table fits into memory: what reading it takes, and what there is."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from fastdl.engine.machine import memory_limit
from fastdl.tables.sources import kind_of
from fastdl.tables.streams import BZ2, GZIP, XZ, ZIP, ZSTD

NEEDED = {"csv": 3.0, "arrow": 2.5, "parquet": 8.0}
"""Bytes of memory that a training on a table takes for each byte of the file, about: its cells, its features, and parts of them
on the way. Other kinds cannot be read in parts."""
COMPRESSED_BY = 5.0
"""How much smaller compressed files are, about."""
LEAST = 100e6
"""Less than this is never too much."""
SHARE = 0.7
"""Of the memory that is free, so much may be taken."""


def needed_bytes(paths: Sequence[Path]) -> float:
    """What reading tables whole takes, about; 0 for what is no table that can be read in parts."""
    total = 0.0
    for path in paths:
        factor = NEEDED.get(kind_of(path), 0.0)
        with path.open("rb") as file:
            packed = file.read(6).startswith((GZIP, ZIP, XZ, BZ2, ZSTD))
        total += factor * (COMPRESSED_BY if packed else 1.0) * path.stat().st_size
    return total


def free_bytes() -> float:
    """The memory that is free: of the machine, of the control group, and of the limits of the process."""
    import psutil

    found = [float(psutil.virtual_memory().available)]
    limit = memory_limit()
    if limit is not None:
        found.append(float(limit))
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        for which, used in ((resource.RLIMIT_AS, "vms"), (resource.RLIMIT_DATA, "data")):
            most, _ = resource.getrlimit(which)
            if most != resource.RLIM_INFINITY:
                found.append(float(most - getattr(psutil.Process().memory_info(), used, 0)))
    return max(0.0, min(found))


def too_large(paths: Sequence[Path], readers: int = 1) -> bool:
    """Whether tables are better read in parts, where `readers` processes read them; small ones are not looked at."""
    if max(NEEDED.values()) * COMPRESSED_BY * sum(path.stat().st_size for path in paths) * readers < LEAST:
        return False
    needed = readers * needed_bytes(paths)
    return needed >= LEAST and needed > SHARE * free_bytes()
