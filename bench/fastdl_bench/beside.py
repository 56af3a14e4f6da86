"""A benchmark in this process, measured by turns with NumPy's in a process of its own: times as long, with an interval.

`bench/test_speed.py` reports it beside the times that pytest-benchmark takes of the same call.
"""

from __future__ import annotations

import math
from typing import Any

import numba

from fastdl_bench.kernels import ROOFLINE, SECONDS, calls_for
from fastdl_bench.protocol import Peer, Program, Run, by_turns, closing_all
from fastdl_bench.statistics import ratio
from fastdl_bench.training import Effort

THOROUGH = Effort(rounds=7, seconds=0.05)
SHORT = Effort(rounds=2, seconds=0.001)
# The greatest of many short samples: a neighbour that is there half of the time does not lower it.
LIMIT_SECONDS, LIMIT_SAMPLES = 0.02, 9
STREAM_BYTES = 16  # of four streams of float32, for each number in them
LARGEST_STREAMS = 256 * 1024 * 1024  # bytes: no cache holds as much


class Here:
    """A program of this process with the interface of a `Peer`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def request(self, do: str, timeout: float = SECONDS, **values: Any) -> dict[str, Any]:
        """The answer to a "run"."""
        return self._run(values)


class Session:
    """The processes that measure beside this one: the processor's limits and NumPy. They are started when first asked for.

    effort : of the rounds with NumPy
    threads : of this process; the others get as many
    """

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self.threads = int(numba.get_num_threads())
        self._peers: dict[str, Peer] = {}
        self._closing = closing_all(self._peers)
        self._limits: dict[int, dict[str, float]] = {}

    def __enter__(self) -> Session:
        self._closing.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._closing.__exit__(*error)

    def _peer(self, module: str, *arguments: str) -> Peer:
        name = " ".join([module, *arguments])
        if name not in self._peers:
            self._peers[name] = Peer(module, self.threads, arguments)
        return self._peers[name]

    def _limit(self, numbers: int) -> dict[str, float]:
        """The limits with so many numbers in each of four streams, measured once."""
        if numbers not in self._limits:
            peer = self._peer(f"fastdl_bench.{ROOFLINE}")
            peer.request("setup", SECONDS, size=numbers)
            answers = [peer.request("run", SECONDS, seconds=LIMIT_SECONDS) for _ in range(LIMIT_SAMPLES)]
            self._limits[numbers] = {key: max(answer[key] for answer in answers) for key in answers[0]}
        return self._limits[numbers]

    @property
    def peak(self) -> float:
        """Fused multiply-adds in registers, in flop per second, on all threads: measured once for the session."""
        return self._limit(256)["flop_per_second"]

    def bandwidth(self, size: int) -> float:
        """Bytes per second of four streams of that many bytes together: of memory, or of the cache that holds them."""
        return self._limit(max(256, min(size, LARGEST_STREAMS) // STREAM_BYTES))["bytes_per_second"]

    def against_numpy(
        self, run: Run, setup: dict[str, Any], module: str, *arguments: str, unit: str = "calls", seconds: float = 300.0
    ) -> dict[str, float]:
        """How many times as long NumPy takes: median of the rounds, and its 95 % interval.

        run : the program of this process; it takes a number of `unit` ("calls" or "epochs")
        setup, module, arguments : NumPy's program, and what it is asked to set up

        A round is so many calls here and as many as take about that long there, in one order and the other by turns. The
        process of NumPy is stopped while it is not measured.
        """
        sides: dict[str, Program] = {"fastdl": Here(run), "numpy": self._peer(module, *arguments)}
        sides["numpy"].request("setup", seconds, **setup)
        counts = {name: _count(side, unit, self.effort.seconds, seconds) for name, side in sides.items()}
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for order in by_turns(sides, self.effort.rounds):
            for name in order:
                answer = sides[name].request("run", seconds, **{unit: counts[name]})
                taken[name].append(answer["seconds"] / counts[name])
        return ratio(taken["numpy"], taken["fastdl"])


def _count(side: Program, unit: str, seconds: float, limit: float) -> int:
    """How many calls or epochs take about so many seconds."""
    if unit == "calls":
        return calls_for(side, seconds)
    side.request("run", limit, epochs=1)
    return max(1, math.ceil(seconds / side.request("run", limit, epochs=1)["seconds"]))


def numbers(flop: int, seconds: float, session: Session, bytes_: int = 0) -> dict[str, float]:
    """What stands beside a time: rates, and shares of the limits; bytes only where memory may be the limit."""
    rate = flop / seconds
    result = {
        "threads": session.threads,
        "flop": flop,
        "gflops": rate / 1e9,
        "peak_gflops": session.peak / 1e9,
        "share_of_peak": rate / session.peak,
    }
    if bytes_:
        roof = min(session.peak, flop / bytes_ * session.bandwidth(bytes_))
        result |= {
            "bytes": bytes_,
            "gbytes_per_second": bytes_ / seconds / 1e9,
            "share_of_roofline": rate / roof,
        }
    return result
