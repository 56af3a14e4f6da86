"""How long a prediction takes from Python: a single row, where calls count, and many rows, where only arithmetic should."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastdl_bench.cases import WORKLOADS, Workload
from fastdl_bench.kernels import calls_for, rounds
from fastdl_bench.protocol import Peer, PeerError, closing_all
from fastdl_bench.statistics import rates, ratio, share, summary
from fastdl_bench.training import LIBRARIES, Effort, Say, version_of

SMALL_ROWS = 40  # of a call that is only there to be tested


@dataclass(frozen=True)
class Prediction:
    """So many rows of a workload's data, again from the first when they are at an end, through its network."""

    workload: Workload
    rows: int

    @property
    def title(self) -> str:
        """As tables show it: "predict 1 row, 64-128-10"."""
        return f"predict {self.rows:,} row{'s' if self.rows > 1 else ''}, {'-'.join(map(str, self.workload.layers))}"

    @property
    def flop(self) -> int:
        """Floating-point operations of the products."""
        return 2 * self.rows * sum(i * o for i, o in itertools.pairwise(self.workload.layers))

    def small(self) -> Prediction:
        """The same kind, for tests."""
        return Prediction(self.workload.small(), min(self.rows, SMALL_ROWS))


CASES: dict[str, Prediction] = {
    "row": Prediction(WORKLOADS["digits"], 1),
    "rows": Prediction(WORKLOADS["digits"], 1000),
    "many": Prediction(WORKLOADS["digits"], 50_000),
    "wide": Prediction(WORKLOADS["medium"], 10_000),
}
PREDICTORS = ("fastdl", "fastdl-bf16", "sklearn", "torch", "torch-bf16", "jax")
SECONDS = 120.0  # limit of one request
SAME, SAME_BF16 = 1000, 50  # libraries round differently: of so many rows, one may have another class


def run(cases: Sequence[str], names: Sequence[str], threads: int, effort: Effort, say: Say) -> list[dict[str, Any]]:
    """The cases by name, rounds interleaved; the classes that libraries predict are compared first."""
    names = [name for name in names if name in PREDICTORS]
    results = []
    with closing_all({}) as peers:
        for case in cases:
            say(f"{CASES[case].title}: {', '.join(names)}")
            results.append(_measure(case, names, peers, threads, effort))
    return results


def _measure(case: str, names: Sequence[str], peers: dict[str, Peer], threads: int, effort: Effort) -> dict[str, Any]:
    prediction = CASES[case]
    setup = {"workload": prediction.workload.as_dict(), "rows": prediction.rows}
    left_out: dict[str, str] = {}
    calls: dict[str, int] = {}
    expected: list[int] = []
    for name in names:
        try:
            if name not in peers:
                peers[name] = Peer("fastdl_bench.peers.predict", threads, (name,))
            classes = peers[name].request("setup", SECONDS, **setup)["classes"]
            expected = expected or classes
            others = sum(a != b for a, b in zip(classes, expected, strict=True))
            if others > prediction.rows // (SAME_BF16 if LIBRARIES[name].bf16 else SAME):
                raise PeerError(f"it predicts another class than {names[0]} for {others:,} of {prediction.rows:,} rows")
            calls[name] = calls_for(peers[name], effort.seconds)
        except PeerError as error:
            if name == names[0]:
                raise
            left_out[name] = str(error)
    seconds, limits = rounds(calls, peers, threads, effort)
    peaks = [limit["flop_per_second"] for limit in limits]
    return {
        "name": case,
        "title": prediction.title,
        "rows": prediction.rows,
        "threads": threads,
        "flop": prediction.flop,
        "flop_per_second": rates(peaks),
        "left_out": left_out,
        "results": {
            name: {
                "label": LIBRARIES[name].label.partition(",")[0],
                "version": version_of(LIBRARIES[name].package),
                "seconds": summary(samples),
                "gflops": prediction.flop / summary(samples)["median"] / 1e9,
                "share_of_peak": share([prediction.flop / s for s in samples], peaks),
                "against_fastdl": ratio(samples, seconds[names[0]]),
            }
            for name, samples in seconds.items()
        },
    }
