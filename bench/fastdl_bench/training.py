"""Whole epochs of training against other libraries: seconds per step, rounds interleaved, loss curves compared first."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from fastdl_bench.cases import Workload
from fastdl_bench.protocol import Peer, PeerError, by_turns, closing_all
from fastdl_bench.statistics import ratio, summary
from fastdl_kernels.precision import HAS_BF16

Say = Callable[[str], None]


@dataclass(frozen=True)
class Library:
    """A library that can be measured.

    package : what is imported, and what the versions are listed by
    label : as the tables show it
    install : what to give to pip
    tolerance : greatest relative difference of the loss curves from fastdl's. The same arithmetic in the same order
        differs in rounding only (below 1e-4 over these few steps); scikit-learn shuffles in
        its own way, so only its last loss is compared
    seconds : limit of one request (compilers take their time)
    bf16 : products of bfloat16 numbers: where the processor has instructions for them
    """

    package: str
    label: str
    install: str
    module: str
    arguments: tuple[str, ...] = ()
    tolerance: float = 2e-3
    last_loss_only: bool = False
    seconds: float = 120.0
    bf16: bool = False

    @property
    def available(self) -> bool:
        """Whether the package can be imported, and the processor has what it is to be measured with."""
        return importlib.util.find_spec(self.package) is not None and (not self.bf16 or HAS_BF16)


LIBRARIES: dict[str, Library] = {
    "fastdl": Library("fastdl", "fastdl", "fastdl", "fastdl_bench.peers.fastdl"),
    "fastdl-bf16": Library(
        "fastdl", "fastdl, bf16", "fastdl", "fastdl_bench.peers.fastdl", ("--precision", "bf16-strict"), 0.05, bf16=True
    ),
    "jax": Library("jax", "JAX, one scan per epoch", "jax", "fastdl_bench.peers.jax"),
    "torch": Library(
        "torch",
        "PyTorch, fused Adam",
        "torch --index-url https://download.pytorch.org/whl/cpu",
        "fastdl_bench.peers.torch",
    ),
    "torch-compiled": Library(
        "torch",
        "PyTorch, compiled",
        "torch --index-url https://download.pytorch.org/whl/cpu",
        "fastdl_bench.peers.torch",
        ("--compile",),
        seconds=180.0,
    ),
    "torch-bf16": Library(
        "torch",
        "PyTorch, bf16",
        "torch --index-url https://download.pytorch.org/whl/cpu",
        "fastdl_bench.peers.torch",
        ("--bf16",),
        0.05,
        bf16=True,
    ),
    "numpy": Library("numpy", "NumPy", "numpy", "fastdl_bench.peers.numpy"),
    "sklearn": Library(
        "sklearn", "scikit-learn", "scikit-learn", "fastdl_bench.peers.sklearn", tolerance=0.1, last_loss_only=True
    ),
}


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds of `seconds` each for every peer.

    check_steps : steps over which loss curves are compared, in whole epochs: few enough that rounding has not been
        amplified
    epoch_flop : operations that an epoch is shortened to; None leaves the workloads as they are
    """

    rounds: int
    seconds: float
    check_steps: int = 12
    epoch_flop: float | None = None


def version_of(package: str) -> str:
    """The installed version of an imported package, "" if it does not say; a local part such as +cpu is left out."""
    distribution = {"sklearn": "scikit-learn", "fastdl_kernels": "fastdl"}.get(package, package)
    try:
        return metadata.version(distribution).split("+")[0]
    except metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(distribution), "__version__", ""))


def disagreement(library: Library, loss: Sequence[float], reference: Sequence[float]) -> float:
    """The greatest relative difference of two loss curves, or of their last points."""
    if len(loss) != len(reference) or not all(map(math.isfinite, [*loss, *reference])):
        return math.inf
    pairs = list(zip(loss, reference))[-1 if library.last_loss_only else 0 :]
    return max(abs(a - b) / abs(b) for a, b in pairs)


def _epochs_for(peer: Peer, library: Library, effort: Effort) -> int:
    """How many epochs make a round, from one that has nothing to compile."""
    answer = peer.request("run", library.seconds, epochs=1)
    return max(1, math.ceil(effort.seconds / answer["seconds"]))


def measure(
    workload: Workload, names: Sequence[str], peers: dict[str, Peer], threads: int, effort: Effort, say: Say
) -> dict[str, Any]:
    """One workload: check every peer's loss curve against fastdl's, then time them round by round.

    `peers` keeps the processes for the next workload. A peer that fails or disagrees is left out and named with the
    reason under "left_out".
    """
    if effort.epoch_flop is not None:
        workload = workload.shortened(effort.epoch_flop)
    check_epochs = max(2, math.ceil(effort.check_steps / workload.steps))
    notes: dict[str, dict[str, Any]] = {}
    epochs: dict[str, int] = {}
    errors: dict[str, float] = {}
    left_out: dict[str, str] = {}
    reference: list[float] = []
    for name in names:
        library = LIBRARIES[name]
        try:
            if name not in peers:
                peers[name] = Peer(library.module, threads, library.arguments)
            notes[name] = peers[name].request("setup", library.seconds, workload=workload.as_dict())
            loss = peers[name].request("run", library.seconds, epochs=check_epochs)["loss"]
            reference = reference or loss
            errors[name] = disagreement(library, loss, reference)
            if errors[name] > library.tolerance:
                raise PeerError(f"its losses {loss} are not those of {names[0]}, {reference}")
            epochs[name] = _epochs_for(peers[name], library, effort)
            if name == "jax" and workload.full_batch:  # it is compiled for the number of epochs: not in a timed round
                peers[name].request("run", library.seconds, epochs=epochs[name])
        except PeerError as error:
            if name == names[0]:
                raise
            say(f"{workload.name}: {LIBRARIES[name].label} is left out: {error}")
            left_out[name] = str(error)
            if name in peers:
                peers.pop(name).close()
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for order in by_turns(epochs, effort.rounds):
        for name in order:
            answer = peers[name].request("run", LIBRARIES[name].seconds, epochs=epochs[name])
            seconds[name].append(answer["seconds"] / (epochs[name] * workload.steps))
    first = seconds[names[0]]
    return {
        "workload": workload.as_dict(),
        "title": workload.title,
        "steps_per_epoch": workload.steps,
        "flop_per_step": workload.flop,
        "threads": threads,
        "left_out": left_out,
        "results": {
            name: {
                "label": LIBRARIES[name].label,
                "version": version_of(LIBRARIES[name].package),
                "threads": threads,
                "notes": notes[name],
                "epochs_per_round": epochs[name],
                "seconds_per_step": summary(samples),
                "gflops": workload.flop / summary(samples)["median"] / 1e9,
                "against_fastdl": ratio(samples, first),
                "loss_difference": errors[name],
            }
            for name, samples in seconds.items()
        },
    }


def run(workloads: Sequence[Workload], names: Sequence[str], threads: int, effort: Effort, say: Say) -> list[dict]:
    """All the workloads, one after the other, each library in one process for all of them."""
    results = []
    with closing_all({}) as peers:
        for workload in workloads:
            say(f"training {workload.title}: {', '.join(names)}")
            results.append(measure(workload, names, peers, threads, effort, say))
    return results
