"""What this processor offers: vector lanes and registers, caches, cores, and the limits set on this process."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from llvmlite import binding

from fastdl_kernels import _targets as targets
from fastdl_kernels._targets import foreign


@dataclass(frozen=True)
class Host:
    """The processor as the kernels see it; `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` override what it reports.

    cpu : LLVM's name of the processor
    isa : "avx512", "avx2", "sse", "neon" or "generic": which register tiles are used
    vector_bytes, n_registers : width and number of the vector registers
    has_fma, has_bf16 : fused multiply-add; bf16 dot products
    l1_bytes, l2_bytes, l3_bytes : data cache sizes (0: unknown)
    """

    cpu: str
    isa: str
    vector_bytes: int
    n_registers: int
    has_fma: bool
    has_bf16: bool
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int

    def lanes(self, itemsize: int) -> int:
        """How many numbers of `itemsize` bytes one vector register holds."""
        return self.vector_bytes // itemsize


@functools.cache
def host() -> Host:
    """The description of this machine; caches are read from the operating system, features from LLVM."""
    other = foreign()
    features = targets.features()
    # Numba compiles for config.CPU_NAME; an explicit "generic" means "no features but the listed ones".
    cpu = targets.cpu_name()
    if "avx512f" in features and "avx512vl" in features and "avx512dq" in features:
        isa, vector_bytes, n_registers = "avx512", 64, 32
    elif "avx2" in features and "fma" in features:
        isa, vector_bytes, n_registers = "avx2", 32, 16
    elif "sse2" in features or "x86_64" in binding.get_process_triple():
        isa, vector_bytes, n_registers = "sse", 16, 16
    elif "neon" in features or "aarch64" in binding.get_process_triple() or "arm64" in binding.get_process_triple():
        isa, vector_bytes, n_registers = "neon", 16, 32
    else:
        isa, vector_bytes, n_registers = "generic", 16, 16
    l1, l2, l3 = _caches() if other is None else (other.l1_bytes, 0, 0)
    return Host(
        cpu=cpu,
        isa=isa,
        vector_bytes=vector_bytes,
        n_registers=n_registers,
        has_fma="fma" in features or isa == "neon",
        has_bf16="avx512bf16" in features or "bf16" in features,
        l1_bytes=l1 or 32 * 1024,
        l2_bytes=l2,
        l3_bytes=l3,
    )


def _caches() -> tuple[int, int, int]:
    """Sizes in bytes of L1, L2 and L3, 0 where unknown (Linux only)."""
    sizes = {"1": 0, "2": 0, "3": 0}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            if (index / "type").read_text().strip() == "Instruction":
                continue
            text = (index / "size").read_text().strip()
            level = (index / "level").read_text().strip()
        except OSError:
            continue
        unit = {"K": 1024, "M": 1024**2, "G": 1024**3}.get(text[-1:], 1)
        if level in sizes and text.rstrip("KMG").isdigit():
            sizes[level] = int(text.rstrip("KMG")) * unit
    return sizes["1"], sizes["2"], sizes["3"]


@functools.cache
def physical_cores() -> int:
    """Physical cores of the machine (hyper-threads not counted)."""
    import psutil  # takes 40 ms, and most callers never ask

    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


def allowed_cpus() -> int:
    """Logical processors that this process may run on (its affinity mask)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def cgroup_quota() -> float | None:
    """Processors that the control group grants (`cpu.max` of version 2, `cpu.cfs_quota_us` of version 1), or None.

    Read once: it takes 0.2 ms, and a prediction asks.
    """
    try:
        quota, period = (Path("/sys/fs/cgroup") / _cgroup_path("") / "cpu.max").read_text().split()
        if quota != "max":
            return int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        folder = Path("/sys/fs/cgroup/cpu") / _cgroup_path("cpu")
        micros = int((folder / "cpu.cfs_quota_us").read_text())
        if micros > 0:
            return micros / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        pass
    return None


def memory_limit() -> int | None:
    """Bytes that the control group leaves free (`memory.max` of version 2, `memory.limit_in_bytes` of version 1), or None.

    Of what the group has in use, copies of files (`inactive_file`) make room when it is wanted.
    """
    for root, controller, most, used, name in (
        ("/sys/fs/cgroup", "", "memory.max", "memory.current", "inactive_file"),
        ("/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            folder = Path(root) / _cgroup_path(controller)
            limit, in_use = int((folder / most).read_text()), int((folder / used).read_text())
            facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return max(0, limit - in_use + int(facts.get(name, 0)))
        except (OSError, ValueError):  # "max" is no number
            continue
    return None


def _cgroup_path(controller: str) -> str:
    """The process's own group below the mount; empty where it cannot be seen (inside a container it is the root)."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == controller or controller in controllers.split(","):
            return path.lstrip("/")
    return ""


def usable_cores() -> int:
    """How many threads can do arithmetic at full speed: the least of physical cores, affinity mask and quota."""
    cores = min(physical_cores(), allowed_cpus())
    quota = cgroup_quota()
    return max(1, cores if quota is None else min(cores, int(np.ceil(quota))))
