"""Whole processes: import, train the digits for one epoch, exit; import, one kernel, exit. Against PyTorch and numba."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import util
from typing import Any

from fastdl_bench.protocol import CHECKOUT, PACKAGE, environment_for, on_cores
from fastdl_bench.statistics import ratio, summary
from fastdl_bench.training import Say

_DIGITS_TORCH = """
import torch
from fastdl_bench.data import epoch_order, training_data
from fastdl_bench.cases import WORKLOADS
x, y = map(torch.from_numpy, training_data(WORKLOADS["digits"]))
network = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
for rows in torch.from_numpy(epoch_order(0, len(x))).split(64):
    optimizer.zero_grad(set_to_none=True)
    torch.nn.functional.cross_entropy(network(x.index_select(0, rows)), y.index_select(0, rows)).backward()
    optimizer.step()
"""
_DIGITS_FASTDL = """
import fastdl
from fastdl_bench.data import training_data
from fastdl_bench.cases import WORKLOADS
x, y = training_data(WORKLOADS["digits"])
fastdl.Trainer(fastdl.MLP([64, 128, 10]), fastdl.Adam(lr=1e-3), batch_size=64, epochs=1).fit(x, y)
"""
_FORWARD = """
import numpy as np, fastdl_kernels as fk
x, w, b, out = np.ones((32, 64), "f4"), np.ones((64, 10), "f4"), np.ones(10, "f4"), np.empty((32, 10), "f4")
fk.linear_forward(x, w, b, fk.RELU, 0.0, out)
assert (out == 65).all()
"""

# name -> (title, {program: source}); the first program is fastdl's, and what is compared is the second.
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "digits": ("import, digits for one epoch, exit", {"fastdl": _DIGITS_FASTDL, "torch": _DIGITS_TORCH}),
    "forward": ("import, one linear_forward, exit", {"fastdl": _FORWARD, "import numba": "import numba"}),
}


def seconds_of(arguments: Sequence[str], threads: int, cache: str | None = None) -> float:
    """Wall time of one process of this interpreter with such arguments; it must end well."""
    environment = environment_for(threads)
    # Python's own cache is part of what is warm: the installed libraries have theirs.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if cache is not None:
        environment["FASTDL_CACHE_DIR"] = cache
    with on_cores(threads):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments],
            check=True,
            cwd=CHECKOUT or PACKAGE.parent,
            env=environment,
            capture_output=True,
        )
        return time.perf_counter() - start


def _seconds(source: str, threads: int, cache: str | None = None) -> float:
    return seconds_of(["-c", source], threads, cache)


def run(names: Sequence[str], threads: int, rounds: int, cold: bool, say: Say) -> list[dict[str, Any]]:
    """The cases by name, rounds interleaved after one that fills the caches; `cold`: also once with an empty cache."""
    results = []
    for name in names:
        title, programs = CASES[name]
        programs = {key: source for key, source in programs.items() if key != "torch" or util.find_spec("torch")}
        say(f"start-up {title}: {', '.join(programs)}")
        first_time = None
        if cold:
            with tempfile.TemporaryDirectory() as folder:
                first_time = _seconds(programs["fastdl"], threads, folder)
        for source in programs.values():
            _seconds(source, threads)
        seconds: dict[str, list[float]] = {key: [] for key in programs}
        for _ in range(rounds):
            for key, source in programs.items():
                seconds[key].append(_seconds(source, threads))
        results.append(
            {
                "name": name,
                "title": title,
                "threads": threads,
                "first_time_seconds": first_time,
                "results": {
                    key: {"seconds": summary(samples), "against_fastdl": ratio(samples, seconds["fastdl"])}
                    for key, samples in seconds.items()
                },
            }
        )
    return results
