"""fastdl with a slowdown planted: what the guard must find. The first argument is the factor, such as 1.15.

    python -m fastdl_bench.peers.planted 1.15 kernels

It waits after what it was asked for. Doing more of it instead would plant nothing where 15 % more of one to three calls,
or of an epoch, is rounded to no more.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from fastdl_bench.protocol import Run, serve


def slower(run: Run, factor: float) -> Run:
    """The same, `factor` times as long."""

    def planted(request: dict[str, Any]) -> dict[str, Any]:
        answer = run(request)
        end = time.perf_counter() + answer["seconds"] * (factor - 1)
        while time.perf_counter() < end:
            pass
        return {**answer, "seconds": answer["seconds"] * factor}

    return planted


def main() -> None:
    """Serve what the second argument names: kernels or training."""
    factor, kind = float(sys.argv[1]), sys.argv[2]
    if kind == "kernels":
        from fastdl_bench.peers import kernels_fastdl
        from fastdl_bench.peers.operations import setup_for

        kernels_fastdl.prepare()
        setup = setup_for(kernels_fastdl.OPERATIONS)
    else:
        from fastdl_bench.peers.fastdl import setup
    serve(lambda request: slower(setup(request), factor))


if __name__ == "__main__":
    main()
