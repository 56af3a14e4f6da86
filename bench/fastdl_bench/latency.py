"""How long one prediction takes from Python: a single row, and a batch, through the network of the digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastdl_bench.kernels import calls_for
from fastdl_bench.protocol import Peer, PeerError, closing_all
from fastdl_bench.statistics import ratio, summary
from fastdl_bench.training import LIBRARIES, Effort, Say, version_of

ROWS: dict[str, int] = {"row": 1, "rows": 1000}
"""name -> rows of one call."""
PREDICTORS = ("fastdl", "sklearn", "torch", "jax")
SECONDS = 120.0  # limit of one request


def run(cases: Sequence[str], names: Sequence[str], threads: int, effort: Effort, say: Say) -> list[dict[str, Any]]:
    """The cases by name, rounds interleaved; the classes that libraries predict are compared first."""
    names = [name for name in names if name in PREDICTORS]
    results = []
    with closing_all({}) as peers:
        for case in cases:
            say(f"prediction of {ROWS[case]:,} row{'s' if ROWS[case] > 1 else ''}: {', '.join(names)}")
            results.append(_measure(case, names, peers, threads, effort))
    return results


def _measure(case: str, names: Sequence[str], peers: dict[str, Peer], threads: int, effort: Effort) -> dict[str, Any]:
    left_out: dict[str, str] = {}
    calls: dict[str, int] = {}
    expected: list[int] = []
    for name in names:
        try:
            if name not in peers:
                peers[name] = Peer("fastdl_bench.peers.predict", threads, (name,))
            classes = peers[name].request("setup", SECONDS, rows=ROWS[case])["classes"]
            expected = expected or classes
            if classes != expected:
                raise PeerError(f"it predicts {classes[:10]} where {names[0]} predicts {expected[:10]}")
            calls[name] = calls_for(peers[name], effort.seconds)
        except PeerError as error:
            if name == names[0]:
                raise
            left_out[name] = str(error)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for k in range(effort.rounds):
        for name, count in list(calls.items())[:: 1 if k % 2 == 0 else -1]:
            seconds[name].append(peers[name].request("run", SECONDS, calls=count)["seconds"] / count)
    return {
        "name": case,
        "title": f"predict {ROWS[case]:,} row{'s' if ROWS[case] > 1 else ''}, 64-128-10",
        "rows": ROWS[case],
        "threads": threads,
        "left_out": left_out,
        "results": {
            name: {
                "label": LIBRARIES[name].label.partition(",")[0],
                "version": version_of(LIBRARIES[name].package),
                "seconds": summary(samples),
                "against_fastdl": ratio(samples, seconds[names[0]]),
            }
            for name, samples in seconds.items()
        },
    }
