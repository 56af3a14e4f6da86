"""The guard's proof on this machine: the same code against a copy of itself stays green, a planted slowdown is found.

    scripts/bench --prove-guard 20

runs so many comparisons with a copy made as `--save` makes it, each of which must pass all benchmarks, and one with a
slowdown of 15 % in every benchmark, each of which must be found. `--base` compares in the same way, with a commit for the
copy. It says for how many it was so. Any miss makes the exit code 1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastdl_bench.compare import Run, Sides, Target, fastdl_sides, planted_sides
from fastdl_bench.guard import Judgement, Plan
from fastdl_bench.saved import copy_library
from fastdl_bench.training import Say

BENCHMARKS = (
    "training/tiny", "training/digits", "training/tabular", "training/mnist",
    "kernels/linear_forward/32x64x64", "kernels/linear_forward/256x512x512", "kernels/linear_backward/128x784x256",
    "kernels/softmax_cross_entropy/512x1000", "kernels/adam_step/10000", "kernels/adam_step/10000000",
)  # fmt: skip
"""From microseconds on one thread to large products and streams on all of them."""

PLANTED = 1.15


@dataclass
class Proof:
    """What came out of it: one line for each comparison, and whether all were as they should be."""

    lines: list[str] = field(default_factory=list)
    good: bool = True

    def add(self, title: str, wrong: Sequence[Judgement], total: int, what: str) -> None:
        """A comparison, and what of it is not as it should be."""
        text = f"{title}: {total - len(wrong)} of {total} {what}"
        details = [
            f"{j.name} {j.verdict}"
            + (f" {j.change.factor:.2f} ({j.change.low:.2f} to {j.change.high:.2f})" if j.change else "")
            for j in wrong
        ]
        self.lines.append(text + (f"; not: {', '.join(details)}" if details else ""))
        self.good = self.good and not wrong


def prove(
    chosen: Sequence[Target],
    times: int,
    threads: int,
    limit: float,
    plan: Plan,
    say: Say,
    same: Sides | None = None,
    planted: Sides | None = None,
) -> Proof:
    """Run all the comparisons; the sides can be other programs, for tests."""
    same, planted = same or fastdl_sides(), planted or planted_sides(PLANTED)
    proof = Proof()

    def compare(title: str, new: Sides, reference: Sides, number: int, find: bool) -> None:
        judgements = Run(new, reference, threads, say, 1000 * number).judge(chosen, limit, plan)
        wrong = [j for j in judgements if j.failed is not find]
        proof.add(title, wrong, len(judgements), "found" if find else "green")
        say(proof.lines[-1])

    with tempfile.TemporaryDirectory(prefix="fastdl-copy-") as path:
        tree = Path(path)
        copy_library(tree)
        reference = {kind: replace(side, library=tree) for kind, side in same.items()}
        for number in range(1, times + 1):
            compare(f"the same code, {number}", same, reference, number, find=False)
        compare(f"{PLANTED:.2f} times as long", planted, reference, times + 1, find=True)
    return proof
