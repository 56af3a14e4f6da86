"""A network of one's own: how fast would it train here, and against what is installed?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastdl_bench import machine, training
from fastdl_bench.cases import Workload
from fastdl_bench.tables import digits, duration
from fastdl_bench.training import LIBRARIES, Effort, Say
from fastdl_bench.versions import UsageError

DEFAULT_BATCH = 128
# Under 2 minutes for a whole run of scripts/bench: short epochs, few rounds.
QUICK = Effort(3, 0.05, check_steps=4, epoch_flop=2e9)
NORMAL = Effort(7, 0.3)
PEERS = ("jax", "torch", "sklearn")
ACTIVATIONS = ("relu", "tanh")
LARGEST_DATA = 256 * 1024 * 1024  # bytes of float32 inputs: each library's process has a copy
EPOCH_FLOP = 5e9  # of an epoch: a tenth of a second at 50 GFLOP/s


def workload_of(model: str, batch: int = DEFAULT_BATCH, activation: str = "relu") -> Workload:
    """The workload of layers such as "784-256-10": classes at the end, or one number and squared error for a last 1.

    Raises UsageError, one sentence, for what is no network.
    """
    text = model.strip()
    sizes = text.split("-")
    if not all(re.fullmatch(r"[0-9]{1,7}", size) and int(size) > 0 for size in sizes) or len(sizes) < 2:
        raise UsageError(f"--model: expected sizes of layers from inputs to outputs such as 784-256-10, got {model!r}")
    if not 0 < batch <= 1_000_000:
        raise UsageError(f"--batch: expected the rows of a step, from 1 to 1,000,000, got {batch}")
    if activation not in ACTIVATIONS:
        raise UsageError(f"--activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    layers = tuple(map(int, sizes))
    output = "linear" if layers[-1] == 1 else "softmax"
    one = Workload("model", layers, batch, batch, activation, output)
    if one.parameters > 250_000_000:
        raise UsageError(f"--model: expected at most 250 million parameters, which is 1 GB, got {one.parameters:,}")
    by_memory = LARGEST_DATA // (4 * batch * layers[0])
    steps = max(1, min(512, max(4, int(EPOCH_FLOP / one.flop)), by_memory))
    if output == "softmax":  # every class occurs at least once
        steps = max(steps, -(-layers[-1] // batch))
    return Workload("model", layers, batch, batch * max(2, steps), activation, output)


def libraries(asked: str | None, say: Say, default: Sequence[str] = PEERS) -> list[str]:
    """fastdl, and of the libraries asked for (or the usual ones) those that are installed here."""
    names = ["fastdl"]
    for name in default if asked is None else (part.strip() for part in asked.split(",")):
        if name in ("", "none", "fastdl") or name in names:
            continue
        if name not in LIBRARIES:
            choices = ", ".join(key for key in LIBRARIES if key != "fastdl")
            raise UsageError(f"--peers: expected some of {choices}, or none, got {name!r}")
        library = LIBRARIES[name]
        if library.available:
            names.append(name)
        elif asked is not None:
            lacks = (
                "this processor has no bf16 instructions"
                if library.bf16
                else f"it is not installed; pip install {library.install}"
            )
            say(f"without {library.label}: {lacks}")
    return names


def check_threads(threads: int | None) -> int:
    """The number of threads: what was asked for, or the usable cores."""
    usable = machine.describe()["usable_cores"]
    if threads is None:
        return usable
    if not 1 <= threads <= 1024:
        raise UsageError(f"--threads: expected a number from 1 to 1024, got {threads}")
    if threads > usable:
        raise UsageError(f"--threads: expected at most the {usable} cores that can be used here, got {threads}")
    return threads


def run(workload: Workload, names: Sequence[str], threads: int, effort: Effort, say: Say) -> dict[str, Any]:
    """Measure it, as a result of kind benchmark with the part training."""
    head = machine.head(threads, "model")
    return {**head, "training": training.run([workload], names, threads, effort, say)}


def summary(result: dict[str, Any]) -> str:
    """The answer in one or two sentences."""
    item = result["training"][0]
    results = item["results"]
    ours = results["fastdl"]
    step, batch = ours["seconds_per_step"]["median"], item["workload"]["batch"]
    text = (
        f"fastdl takes {duration(step)} for a step of {batch:,} rows: {batch / step:,.0f} rows/s, "
        f"{duration(1e6 / batch * step)} for a million rows, {ours['gflops']:.0f} GFLOP/s."
    )
    others = [
        f"{r['label']} takes {digits(r['against_fastdl']['median'])} times as long"
        for n, r in results.items()
        if n != "fastdl"
    ]
    return text + (f" {'; '.join(others)}." if others else " No other library was measured.")
