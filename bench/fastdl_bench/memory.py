"""Peak memory of a training: the resident set of a process that imports a library, makes the data and trains.

What the library itself needs once it is imported is shown apart from what the training adds to it: data, parameters,
optimizer state, workspaces, and for libraries that compile, their compiler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastdl_bench.cases import WORKLOADS, Workload
from fastdl_bench.protocol import Peer, PeerError
from fastdl_bench.training import LIBRARIES, Say, version_of

CASES = ("mnist",)


def data_bytes(workload: Workload) -> int:
    """Of the data set: float32 inputs; int64 labels or float32 targets."""
    width = 8 if workload.output == "softmax" else 4 * workload.layers[-1]
    return workload.rows * (4 * workload.layers[0] + width)


def run(workloads: Sequence[Workload], names: Sequence[str], threads: int, say: Say) -> list[dict[str, Any]]:
    """Two epochs of each workload in a process of its own for each library."""
    results = []
    for workload in workloads:
        say(f"peak memory of {workload.title}: {', '.join(names)}")
        found: dict[str, dict[str, Any]] = {}
        left_out: dict[str, str] = {}
        for name in names:
            library = LIBRARIES[name]
            peer = Peer(library.module, threads, library.arguments)
            try:
                peer.request("setup", library.seconds, workload=workload.as_dict())
                peer.request("run", library.seconds, epochs=2)
                answer = peer.request("memory")
                found[name] = {"label": library.label, "version": version_of(library.package), **answer}
            except PeerError as error:
                if name == names[0]:
                    raise
                left_out[name] = str(error)
            finally:
                peer.close()
        results.append(
            {
                "name": workload.name,
                "title": workload.title,
                "threads": threads,
                "data_bytes": data_bytes(workload),
                "parameter_bytes": 4 * workload.parameters,
                "left_out": left_out,
                "results": found,
            }
        )
    return results


def workloads_of(names: Sequence[str]) -> list[Workload]:
    """The workloads by name."""
    return [WORKLOADS[name] for name in names]
