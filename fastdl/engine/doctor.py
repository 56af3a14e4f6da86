"""What this installation sees of the machine, what is wrong with it, and how to mend that: for `fastdl doctor`."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import llvmlite
import numba
import numpy as np

from fastdl._version import __version__
from fastdl.engine.peak import peak_rate
from fastdl.wording import plural
from fastdl_kernels import host as machine
from fastdl_kernels import prebuilt
from fastdl_kernels.serial import clock_hertz, host, linked_product, usable_cores

# Multiply-adds of whole vectors that a core starts in each cycle: one at least on all processors with AVX2 or AVX-512.
FEWEST_PER_CYCLE = 0.85
# Of n cores' rate, what n threads reach at least where each has a core of its own.
FEWEST_OF_ALL = 0.7
# Loops shorter than the time slices of a busy machine, so that some of them have the core to themselves.
_TRIES, _SECONDS = 30, 0.002


class Problem(NamedTuple):
    """Something that is wrong, and how to mend it."""

    what: str
    mend: str


class Peak(NamedTuple):
    """Multiply-adds in registers: operations per second on one thread and on `threads`, and the clock in Hz."""

    one: float
    all: float
    threads: int
    hertz: float

    @property
    def per_cycle(self) -> float:
        """Vectors of multiply-adds in a cycle of one core."""
        return self.one / (2 * host().lanes(4)) / self.hertz


def measure() -> Peak:
    """The best of a few short loops: half a second in all."""

    def best(threads: int) -> float:
        return peak_rate(threads, np.dtype(np.float32), n=100_000, seconds=_SECONDS, tries=_TRIES)

    threads = min(usable_cores(), numba.config.NUMBA_NUM_THREADS)
    return Peak(best(1), best(threads) if threads > 1 else 0.0, threads, clock_hertz())


def facts(peak: Peak) -> dict[str, str]:
    """What there is, a line for each."""
    here, quota, cache = host(), machine.cgroup_quota(), prebuilt.cache()
    packaged = prebuilt.packaged()
    fitting = [name for name in prebuilt.fitting() if name in packaged]
    result = {
        "processor": f"{here.cpu}: {here.isa}, vectors of {8 * here.vector_bytes} bits, {here.n_registers} registers"
        + ", bf16" * here.has_bf16,
        "caches": ", ".join(f"{size // 1024} KB" for size in (here.l1_bytes, here.l2_bytes, here.l3_bytes)),
        "cores": f"{usable_cores()} used: {machine.physical_cores()} physical, {os.cpu_count()} logical, "
        f"{machine.allowed_cpus()} allowed, quota {'none' if quota is None else f'{quota:g}'}",
        "threads": f"{numba.config.NUMBA_NUM_THREADS} of Numba, threading layer {_layer() or 'none'}",
        "prebuilt code": f"{fitting[0]} is used (of {', '.join(packaged)})" if fitting
        else f"none for this processor (of {', '.join(packaged)})" if packaged else "none in this installation",
        "cache": f"{cache['folder']}: {cache['bytes'] / 1e6:.1f} MB, {plural(cache['files'], 'function')}, "
        f"{plural(cache['versions'], 'version')}{'' if cache['writable'] else ', read-only'}",
        "versions": f"fastdl {__version__}, Python {platform.python_version()}, numba {numba.__version__}, "
        f"llvmlite {llvmlite.__version__}, numpy {np.__version__}",
        "peak": f"{peak.one / 1e9:.0f} GFLOP/s on one thread: {peak.per_cycle:.2f} vectors of multiply-adds a cycle at "
        f"{peak.hertz / 1e9:.2f} GHz" + (f"; {peak.all / 1e9:.0f} on {peak.threads}" if peak.threads > 1 else ""),
    }  # fmt: skip
    variables = [name for name in sorted(os.environ) if name.startswith(("NUMBA_", "OMP_", "GOMP_", "KMP_", "FASTDL_"))]
    if variables:
        result["variables"] = ", ".join(f"{name}={os.environ[name]}" for name in variables)
    if any(name in os.environ for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")):
        result["BLAS"] = "its variables change nothing: fastdl calls no BLAS"
    return result


def problems(peak: Peak) -> list[Problem]:
    """What is wrong."""
    return [problem for look in LOOKS for problem in look(peak)]


def _layer() -> str | None:
    try:
        numba.get_num_threads()
        return str(numba.threading_layer())
    except ValueError:
        return None


def _threads(peak: Peak) -> list[Problem]:
    found = []
    layer, on_linux = _layer(), sys.platform == "linux"
    if layer is None:
        found.append(
            Problem("no threading layer of Numba's can be loaded: everything runs on one thread", _library(on_linux))
        )
    elif layer == "workqueue" and on_linux:
        found.append(
            Problem("there is no libgomp: threads start by Numba's work queue, 20 times slower", _library(on_linux))
        )
    if usable_cores() > numba.config.NUMBA_NUM_THREADS:
        mend = "unset NUMBA_NUM_THREADS" if "NUMBA_NUM_THREADS" in os.environ else "let Numba count the cores itself"
        found.append(Problem(f"Numba has {numba.config.NUMBA_NUM_THREADS} of {usable_cores()} cores' threads", mend))
    if os.environ.get("OMP_THREAD_LIMIT", "").isdigit() and int(os.environ["OMP_THREAD_LIMIT"]) < usable_cores():
        found.append(
            Problem(f"OMP_THREAD_LIMIT={os.environ['OMP_THREAD_LIMIT']} keeps threads away", "unset OMP_THREAD_LIMIT")
        )
    places = os.environ.get("GOMP_CPU_AFFINITY") or os.environ.get("OMP_PLACES")
    if places or os.environ.get("OMP_PROC_BIND", "false").lower() not in ("", "false"):
        found.append(
            Problem("threads are bound to places by the environment, where others may be at work",
                    "unset OMP_PROC_BIND, OMP_PLACES and GOMP_CPU_AFFINITY, unless the cores are yours alone")
        )  # fmt: skip
    return found


def _library(on_linux: bool) -> str:
    return (
        "install the OpenMP library: apt-get install libgomp1, or dnf install libgomp"
        if on_linux
        else "pip install tbb"
    )


def _cores(peak: Peak) -> list[Problem]:
    """Two hyper-threads of one core, where two cores are meant."""
    own = distinct_cores()
    if own is None or own >= usable_cores():
        return []
    what = (
        f"this process may run on {plural(machine.allowed_cpus(), 'logical processor')} of only {plural(own, 'core')}"
    )
    return [
        Problem(f"{what}: hyper-threads share what fastdl needs", f"allow other cores (taskset), or n_threads={own}")
    ]


def distinct_cores(root: Path = Path("/sys/devices/system/cpu")) -> int | None:
    """How many cores the allowed processors belong to, None where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    try:
        lists = {(root / f"cpu{n}/topology/thread_siblings_list").read_text().strip() for n in os.sched_getaffinity(0)}
    except OSError:
        return None
    return len(lists)


def _cache(peak: Peak) -> list[Problem]:
    cache = prebuilt.cache()
    if cache["distrust"] is not None:
        what = f"no code is kept in {cache['folder']}, which {cache['distrust']}"
        return [Problem(what, f"chmod 700 {cache['folder']}, or set FASTDL_CACHE_DIR to a folder of yours")]
    if cache["writable"]:
        return []
    from numba.core import types

    if linked_product.is_cached(types.float32):
        return []
    what = f"{cache['folder']} is read-only and holds no code for this processor: each process compiles anew"
    return [Problem(what, "set FASTDL_CACHE_DIR to a folder that can be written to, or fill it by `fastdl prepare`")]


def _settings(peak: Peak) -> list[Problem]:
    found = []
    config = numba.config
    if int(config.OPT) != 3:
        found.append(Problem(f"NUMBA_OPT={config.OPT}: slow code, of which none is prebuilt", "unset NUMBA_OPT"))
    if config.CPU_NAME or config.CPU_FEATURES:
        found.append(
            Problem(f"code is made for {host().cpu}, and not for what this processor is",
                    "unset NUMBA_CPU_NAME and NUMBA_CPU_FEATURES")
        )  # fmt: skip
    if not config.ENABLE_AVX:
        found.append(Problem("NUMBA_ENABLE_AVX=0 keeps vectors narrow", "unset NUMBA_ENABLE_AVX"))
    return found


def _processor(peak: Peak) -> list[Problem]:
    if host().isa in ("avx512", "avx2", "neon") or numba.config.CPU_NAME or not numba.config.ENABLE_AVX:
        return []
    what = f"LLVM sees no AVX2 in this processor ({host().cpu})"
    return [Problem(what, "in a virtual machine, let it have the features of its host (-cpu host)")]


def _peak(peak: Peak) -> list[Problem]:
    found = []
    if peak.per_cycle < FEWEST_PER_CYCLE:
        what = f"a core does {peak.per_cycle:.2f} vectors of multiply-adds a cycle, where 1 to 2 are usual"
        if host().isa == "avx512":
            mend = "if AVX-512 is emulated or slowed down here, NUMBA_CPU_FEATURES without avx512f takes AVX2"
        else:
            mend = "see what else runs on this core (top), and whether the machine is shared"
        found.append(Problem(what, mend))
    if peak.threads > 1 and peak.all < FEWEST_OF_ALL * peak.threads * peak.one:
        share = peak.all / (peak.threads * peak.one)
        what = f"{peak.threads} threads reach {share:.0%} of {peak.threads} times one: they do not have a core each"
        found.append(
            Problem(what, "see what else runs (top), quotas, and whether cores are hyper-threads of one another")
        )
    return found


LOOKS: tuple[Callable[[Peak], list[Problem]], ...] = (_threads, _cores, _cache, _settings, _processor, _peak)
