"""What the peers of the kernels have in common: build a case, check one call, then time as many as asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastdl_bench.cases import KernelCase
from fastdl_bench.problems import Arrays, error, expected, inputs, tolerance
from fastdl_bench.protocol import PeerError, Run, serve

# Seconds of calls that nobody times, at the beginning of each round: two threads of a process that was stopped may share a
# processor until the scheduler's next tick or two, 4 to 8 ms, and the caches are those of the peer before.
WARMING = 0.01

Timed = tuple[Callable[[], Any], Callable[[], Arrays]]
"""What is timed, and what gives its results by name."""

Operation = Callable[[Arrays], Timed]
"""Takes the inputs of a case."""


def checked(operations: dict[str, Operation], case: KernelCase) -> tuple[Callable[[], Any], float]:
    """(what is timed, its error) of a case that was run once and compared with NumPy in float64.

    Raises PeerError where the result is wrong: what is wrong has no time.
    """
    arrays = inputs(case)
    wanted = expected(case, arrays)
    call, results = operations[case.op](arrays)
    call()
    found = error(results(), wanted)
    if not found <= tolerance(case):
        raise PeerError(f"{case.name}: expected an error of at most {tolerance(case):.1e}, got {found:.1e}")
    return call, found


def timed(call: Callable[[], Any], difference: float) -> Run:
    """Answers how many seconds so many calls take."""

    def run(request: dict[str, Any]) -> dict[str, Any]:
        calls = request["calls"]
        start = time.perf_counter()
        while time.perf_counter() < start + WARMING:
            call()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return {"seconds": time.perf_counter() - start}

    run.notes = {"difference": difference}  # type: ignore[attr-defined]
    return run


def setup_for(operations: dict[str, Operation]) -> Callable[[dict[str, Any]], Run]:
    """Sets an operation up by its name; a wrong result is an error."""

    def setup(request: dict[str, Any]) -> Run:
        return timed(*checked(operations, KernelCase(request["op"], tuple(request["shape"]))))

    return setup


def serve_operations(operations: dict[str, Operation]) -> None:
    """Answer requests for the operations by name."""
    serve(setup_for(operations))
