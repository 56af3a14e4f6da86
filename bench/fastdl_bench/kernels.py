"""Every public kernel over its shapes against NumPy and PyTorch, as shares of what the processor can do."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastdl_bench.cases import KernelCase
from fastdl_bench.protocol import Peer, PeerError, Program, by_turns, closing_all
from fastdl_bench.statistics import rates, ratio, share, summary
from fastdl_bench.training import Effort, Say, version_of

# name -> (package, label, module)
LIBRARIES: dict[str, tuple[str, str, str]] = {
    "fastdl": ("fastdl_kernels", "fastdl", "fastdl_bench.peers.kernels_fastdl"),
    "numpy": ("numpy", "NumPy", "fastdl_bench.peers.kernels_numpy"),
    "torch": ("torch", "PyTorch", "fastdl_bench.peers.kernels_torch"),
}
ROOFLINE = "roofline"
SECONDS = 60.0  # limit of one request
STREAMS, CACHED = 10_000_000, 10_000  # numbers in each of the 4 streams: 160 MB, and 160 KB, which L2 holds


def available(names: Sequence[str]) -> list[str]:
    """Those of the libraries that can be imported here."""
    return [name for name in names if name in LIBRARIES and importlib.util.find_spec(LIBRARIES[name][0])]


def calls_for(peer: Program, seconds: float) -> int:
    """How many calls take about that long."""
    calls = 1
    while True:
        taken = peer.request("run", SECONDS, calls=calls)["seconds"]
        if taken >= seconds / 4 or calls >= 10_000_000:
            return max(1, math.ceil(calls * seconds / taken))
        calls = max(calls * 2, math.ceil(calls * seconds / 2 / max(taken, 1e-9)))


def roof(case: KernelCase, flop_per_second: float, bytes_per_second: float) -> float:
    """The greatest rate of operations that arithmetic and memory allow the case, in flop per second."""
    return min(flop_per_second, case.flop / case.bytes * bytes_per_second)


def rounds(
    calls: dict[str, int], peers: dict[str, Peer], threads: int, effort: Effort, streamed: int = 0
) -> tuple[dict[str, list[float]], list[dict[str, Any]]]:
    """Seconds of a call in each round, by name; and the processor's limits in each, with so many numbers in a stream.

    A round is so many calls of each of the peers, in one order and the other by turns, and then the roofline's process.
    """
    if ROOFLINE not in peers:
        peers[ROOFLINE] = Peer("fastdl_bench.roofline", threads)
    peers[ROOFLINE].request("setup", SECONDS, size=max(256, streamed))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    limits: list[dict[str, Any]] = []
    for order in by_turns(calls, effort.rounds):
        for name in order:
            seconds[name].append(peers[name].request("run", SECONDS, calls=calls[name])["seconds"] / calls[name])
        limits.append(peers[ROOFLINE].request("run", SECONDS, seconds=effort.seconds))
    return seconds, limits


def measure(case: KernelCase, names: Sequence[str], peers: dict[str, Peer], threads: int, effort: Effort) -> dict:
    """One case: results checked in the peers, then rounds of all of them and of the processor's limits, interleaved.

    The bandwidth is that of streams as large as the case's arrays together: where they fit in a cache, the cache's.
    Three of these four streams are written; a kernel that mostly reads can be above 100 % of it.
    """
    left_out: dict[str, str] = {}
    calls: dict[str, int] = {}
    for name in names:
        if name not in peers:
            peers[name] = Peer(LIBRARIES[name][2], threads)
        try:
            peers[name].request("setup", SECONDS, op=case.op, shape=case.shape)
            calls[name] = calls_for(peers[name], effort.seconds)
        except PeerError as error:
            if name == names[0]:
                raise
            left_out[name] = str(error)
            peers.pop(name).close()
    seconds, limits = rounds(calls, peers, threads, effort, case.bytes // 16)
    flop_rates = [limit["flop_per_second"] for limit in limits]
    byte_rates = [limit["bytes_per_second"] for limit in limits]
    roofs = [roof(case, *both) for both in zip(flop_rates, byte_rates)]
    return {
        "name": case.name,
        "title": case.name.replace("/", " "),
        "op": case.op,
        "shape": list(case.shape),
        "threads": threads,
        "flop": case.flop,
        "bytes": case.bytes,
        "limit": "arithmetic" if np.median(roofs) >= np.median(flop_rates) else "memory",
        "flop_per_second": rates(flop_rates),
        "bytes_per_second": rates(byte_rates),
        "left_out": left_out,
        "results": {
            name: {
                "label": LIBRARIES[name][1],
                "version": version_of(LIBRARIES[name][0]),
                "seconds": summary(samples),
                "gflops": case.flop / summary(samples)["median"] / 1e9,
                "gbytes_per_second": case.bytes / summary(samples)["median"] / 1e9,
                "share_of_roofline": share([case.flop / s for s in samples], roofs),
                "against_fastdl": ratio(samples, seconds[names[0]]),
            }
            for name, samples in seconds.items()
        },
    }


def measure_roofline(peer: Peer, threads: int, effort: Effort) -> dict[str, Any]:
    """The processor's limits for so many threads: multiply-adds, memory (far larger than caches) and L2."""
    result: dict[str, Any] = {"threads": threads}
    for key, size in (("memory_bytes_per_second", STREAMS), ("cache_bytes_per_second", CACHED)):
        peer.request("setup", SECONDS, size=size)
        answers = [peer.request("run", SECONDS, seconds=4 * effort.seconds) for _ in range(effort.rounds)]
        result[key] = rates([answer["bytes_per_second"] for answer in answers])
        result["flop_per_second"] = rates([answer["flop_per_second"] for answer in answers])
    return result


def run(
    cases: Sequence[KernelCase], names: Sequence[str], threads: Sequence[int], effort: Effort, say: Say
) -> tuple[list[dict], list[dict]]:
    """All cases at each number of threads, and the limits at each; the processes are new for each number."""
    results, limits = [], []
    for n in threads:
        with closing_all({}) as peers:
            say(f"limits of the processor, {n} thread{'s' if n > 1 else ''}")
            peers[ROOFLINE] = Peer("fastdl_bench.roofline", n)
            limits.append(measure_roofline(peers[ROOFLINE], n, effort))
            for case in cases:
                say(f"kernel {case.name}, {n} thread{'s' if n > 1 else ''}: {', '.join(names)}")
                results.append(measure(case, names, peers, n, effort))
    for limit in limits:  # the peak was measured in the rounds of each kernel as well
        found = [item["flop_per_second"]["samples"] for item in results if item["threads"] == limit["threads"]]
        limit["flop_per_second"] = rates(sum(found, limit["flop_per_second"]["samples"]))
    return results, limits
