"""A peer with a clock of its own, for tests of the guard: what it answers is drawn from a seeded model of a busy machine.

    python -m fake_peer FACTOR SEED

Times drift by half and back, as clocks do on shared machines; they scatter by 4 %, and one in twelve is disturbed and takes
up to three times as long. With FACTOR "broken" every setup fails.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from fastdl_bench.protocol import Run, serve


class Clock:
    """Seconds of one process's samples; `step` counts them, and with it goes the drift."""

    def __init__(self, factor: float, seed: int) -> None:
        self.factor, self.rng, self.step = factor, np.random.default_rng(seed), 0

    def seconds(self, work: float) -> float:
        self.step += 1
        drift = 1 + 0.25 * (1 + math.sin(self.step / 15))
        noise = math.exp(0.04 * self.rng.standard_normal())
        disturbed = 1 + 2 * self.rng.random() if self.rng.random() < 1 / 12 else 1.0
        return 1e-5 * work * self.factor * drift * noise * disturbed


def setup(request: dict[str, Any]) -> Run:
    if sys.argv[1] == "broken":
        raise ValueError("no such kernel")
    clock = Clock(float(sys.argv[1]), int(sys.argv[2]) + sum(map(ord, str(request))))
    return lambda request: {"seconds": clock.seconds(request.get("calls") or 1000 * request["epochs"])}


if __name__ == "__main__":
    serve(setup)
