"""The guard's proof on this machine: the same code against itself stays green, a planted slowdown is found, both ways.

    scripts/bench --prove-guard 20

runs, for two versions side by side (`--base`) and for a saved result (`--save`, `--compare`): so many comparisons of the
code with itself, each of which must pass all benchmarks, and one with a slowdown of 15 % in every benchmark, each of which
must be found. It says for how many it was so. Any miss makes the exit code 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastdl_bench import guard
from fastdl_bench.compare import Run, Sides, Target, fastdl_sides, numpy_sides, planted_sides
from fastdl_bench.guard import Judgement, Plan
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
    yardstick: Sides | None = None,
) -> Proof:
    """Run all the comparisons; the sides can be other programs, for tests."""
    same, planted = same or fastdl_sides(), planted or planted_sides(PLANTED)
    yardstick = yardstick or numpy_sides()
    proof = Proof()
    seed = 0

    def compare(title: str, new: Sides, reference: Sides, saved: dict[str, guard.Sessions] | None, find: bool) -> None:
        nonlocal seed
        seed += 1000
        judgements = Run(new, reference, threads, saved is None, say, seed).judge(chosen, limit, plan, saved)
        wrong = [j for j in judgements if j.failed is not find]
        proof.add(title, wrong, len(judgements), "found" if find else "green")
        say(proof.lines[-1])

    for number in range(times):
        compare(f"two versions, the same code, {number + 1}", same, same, None, find=False)
    compare(f"two versions, {PLANTED:.2f} times as long", planted, same, None, find=True)
    saved: dict[str, guard.Sessions] = {target.name: [] for target in chosen}
    for session in range(plan.saved_sessions):
        found, failures = Run(same, yardstick, threads, False, say, 10**6 + session * 1000).first(
            chosen, plan.more_rounds
        )
        if failures:
            raise next(iter(failures.values()))
        for name, rounds in found.items():
            saved[name] = [*saved[name], rounds]
    for number in range(times):
        compare(f"saved result, the same code, {number + 1}", same, yardstick, saved, find=False)
    compare(f"saved result, {PLANTED:.2f} times as long", planted, yardstick, saved, find=True)
    return proof
