"""`python -m fastdl_kernels`: what the kernels see of this machine, and what they chose for it; `--timings`: see `_timings`."""

from __future__ import annotations

import contextlib
import sys

import numba
import numpy as np

from fastdl_kernels import _timings, prebuilt
from fastdl_kernels.host import allowed_cpus, cgroup_quota, host, physical_cores, usable_cores
from fastdl_kernels.packing import BLOCK_BYTES, DEPTH, IN_PLACE
from fastdl_kernels.simd import lanes
from fastdl_kernels.tile import MR, NV, panel_width


def report() -> str:
    """The description, one fact per line."""
    machine = host()
    quota, kept = cgroup_quota(), prebuilt.cache()
    layer = "none loaded"
    with contextlib.suppress(ValueError):
        numba.get_num_threads()
        layer = numba.threading_layer() if numba.np.ufunc.parallel._is_initialized else layer
    facts = {
        "processor": machine.cpu,
        "instructions": machine.isa
        + (", fused multiply-add" if machine.has_fma else "")
        + (", bf16" * machine.has_bf16),
        "vector": f"{machine.vector_bytes} bytes: {lanes(np.float32)} float32 or {lanes(np.float64)} float64 lanes, "
        f"{machine.n_registers} registers",
        "caches": f"{machine.l1_bytes // 1024} KB, {machine.l2_bytes // 1024} KB, {machine.l3_bytes // 1024} KB",
        "cores": f"{usable_cores()} used: {physical_cores()} physical, {allowed_cpus()} allowed, "
        f"quota {'none' if quota is None else f'{quota:g}'}",
        "threads": f"{numba.get_num_threads()} of Numba, threading layer {layer}",
        "register tile": f"{MR} rows x {NV} vectors: {panel_width(np.float32)} columns of float32, "
        f"{panel_width(np.float64)} of float64",
        "blocks": f"{DEPTH} steps deep, {BLOCK_BYTES // 1024} KB of the left operand"
        + (", read where it is unless rows are 4 KB apart" if IN_PLACE else ", packed where many panels meet it"),
        "prebuilt code": ", ".join(set(prebuilt.fitting()) & set(prebuilt.packaged())) or "none for this processor",
        "compiled code": f"{kept['folder']}: {kept['bytes'] / 1e6:.1f} MB"
        + ("" if kept["writable"] and kept["distrust"] is None else ", to which nothing can be written"),
    }
    return "\n".join(f"{name:<16}{fact}" for name, fact in facts.items())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--timings"]:
        sys.exit(_timings.report(sys.argv[2] if len(sys.argv) > 2 else None))
    print(report())
