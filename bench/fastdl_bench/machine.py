"""The machine and the versions that a result was measured with."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from fastdl_bench.schema import VERSION

# Distributions whose versions stand in the result where they are installed.
DISTRIBUTIONS = ("numba", "llvmlite", "numpy", "jax", "jaxlib", "torch", "scikit-learn")


def cpu_model() -> str:
    """The processor's name as the operating system has it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe() -> dict[str, Any]:
    """Processor, cores and system; also how busy the machine was, because a busy one gives other numbers."""
    from fastdl_kernels.host import host, usable_cores

    return {
        "cpu": cpu_model(),
        "isa": host().isa,
        "physical_cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "usable_cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def versions(distributions: Sequence[str] = DISTRIBUTIONS) -> dict[str, str]:
    """Of Python, fastdl and what is installed of `distributions`."""
    import fastdl

    found = {"python": platform.python_version(), "fastdl": fastdl.__version__}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def head(threads: int, effort: str) -> dict[str, Any]:
    """The fields that all results begin with."""
    return {
        "schema": VERSION,
        "kind": "benchmark",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "effort": effort,
        "threads": threads,
        "machine": describe(),
        "versions": versions(),
    }
