"""Every public kernel over its shapes against NumPy and PyTorch, as shares of what the processor can do."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

from bench.cases import KernelCase
from bench.protocol import Peer, PeerError, closing_all
from bench.statistics import ratio, summary
from bench.training import Effort, Say

# name -> (package, label, module)
LIBRARIES: dict[str, tuple[str, str, str]] = {
    "fastdl": ("numba", "fastdl", "bench.peers.kernels_fastdl"),
    "numpy": ("numpy", "NumPy", "bench.peers.kernels_numpy"),
    "torch": ("torch", "PyTorch", "bench.peers.kernels_torch"),
}
ROOFLINE = "roofline"
SECONDS = 60.0  # limit of one request


def available(names: Sequence[str]) -> list[str]:
    """Those of the libraries that can be imported here."""
    return [name for name in names if name in LIBRARIES and importlib.util.find_spec(LIBRARIES[name][0])]


def _limit(case: KernelCase) -> dict[str, Any]:
    """What bounds the case: arithmetic, or memory traffic over arrays of the same size."""
    if case.op == "adam_step":
        return {"what": "streams", "size": case.shape[0]}
    return {"what": "fma"}


def _calls_for(peer: Peer, seconds: float) -> int:
    """How many calls take about that long."""
    calls = 1
    while True:
        taken = peer.request("run", SECONDS, calls=calls)["seconds"]
        if taken >= seconds / 4 or calls >= 10_000_000:
            return max(1, math.ceil(calls * seconds / taken))
        calls = max(calls * 2, math.ceil(calls * seconds / 2 / max(taken, 1e-9)))


def measure(case: KernelCase, names: Sequence[str], peers: dict[str, Peer], threads: int, effort: Effort) -> dict:
    """One case: results checked in the peers, then rounds of all of them and of the processor's limit, interleaved."""
    left_out: dict[str, str] = {}
    calls: dict[str, int] = {}
    for name in [*names, ROOFLINE]:
        if name not in peers:
            peers[name] = Peer("bench.roofline" if name == ROOFLINE else LIBRARIES[name][2], threads)
        try:
            what = _limit(case) if name == ROOFLINE else {"op": case.op, "shape": case.shape}
            peers[name].request("setup", SECONDS, **what)
            calls[name] = _calls_for(peers[name], effort.seconds)
        except PeerError as error:
            if name in (names[0], ROOFLINE):
                raise
            left_out[name] = str(error)
            peers.pop(name).close()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    peaks: list[float] = []
    for _ in range(effort.rounds):
        for name, count in calls.items():
            answer = peers[name].request("run", SECONDS, calls=count)
            seconds[name].append(answer["seconds"] / count)
            if name == ROOFLINE:
                peaks.append((answer.get("flop") or answer["bytes"]) / answer["seconds"])
    del seconds[ROOFLINE]
    amount = case.flop or (case.bytes if case.op == "adam_step" else 0)
    # Medians of shares of the round's own peak; adam_step's are of bandwidth, the losses have neither.
    return {
        "name": case.name,
        "op": case.op,
        "shape": list(case.shape),
        "threads": threads,
        "flop": case.flop,
        "bytes": case.bytes,
        "limit": _limit(case)["what"],
        "peak": summary(peaks),
        "left_out": left_out,
        "results": {
            name: {
                "label": LIBRARIES[name][1],
                "seconds": summary(samples),
                "rate": amount / summary(samples)["median"] if amount else None,
                "share_of_peak": (
                    ratio([amount / s for s in samples], peaks)["median"] if amount else None
                ),
                "against_fastdl": ratio(samples, seconds[names[0]]),
            }
            for name, samples in seconds.items()
        },
    }  # fmt: skip


def run(cases: Sequence[KernelCase], names: Sequence[str], threads: Sequence[int], effort: Effort, say: Say) -> list:
    """All cases at each number of threads; the processes are new for each number."""
    results = []
    for n in threads:
        with closing_all({}) as peers:
            for case in cases:
                say(f"kernel {case.name}, {n} thread{'s' if n > 1 else ''}: {', '.join(names)}")
                results.append(measure(case, names, peers, n, effort))
    return results
