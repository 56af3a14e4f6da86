"""The guard at work: measures two sides round by round, and hands logarithms of ratios to `fastdl_bench.guard`."""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastdl_bench import guard
from fastdl_bench.cases import KERNEL_CASES, WORKLOADS
from fastdl_bench.guard import Case, Judgement, Plan
from fastdl_bench.kernels import calls_for
from fastdl_bench.protocol import Peer, PeerError
from fastdl_bench.training import Say
from fastdl_bench.versions import UsageError

SECONDS = 900.0  # limit of one request: the first one compiles
# Seconds of a sample, longer than a switch between processes disturbs, and samples of a side in a round: with 8 of 3 ms the
# rounds scattered half as much as with 2 of 12 ms (adam_step, 10,000: 0.91 to 1.15 instead of 0.72 to 1.26).
SAMPLE, SAMPLES = 0.003, 8
FIRST = 2  # sessions that pick what is measured again
ROUND = SAMPLE * SAMPLES  # seconds of a side in a round, if its samples are not longer
EPOCH_FLOP = 1.5e9  # of an epoch: the guard needs short samples rather than long epochs
SLOW = 0.06  # seconds of a sample from which on one in each round is enough; two otherwise, or more


@dataclass(frozen=True)
class Side:
    """A program that answers requests, and the library that it runs with."""

    module: str
    arguments: tuple[str, ...] = ()
    library: Path | None = None


@dataclass(frozen=True)
class Target:
    """A benchmark of the guard.

    name : such as "training/digits" or "kernels/adam_step/10000"
    kind : "training" or "kernels": which program answers for it
    problem : what that program is asked to set up
    """

    name: str
    kind: str
    problem: dict[str, Any]


Sides = dict[str, Side]
"""kind -> the program."""


def fastdl_sides(library: Path | None = None) -> Sides:
    """The public classes and the public kernels of one version of fastdl."""
    return {
        "training": Side("fastdl_bench.peers.fastdl", library=library),
        "kernels": Side("fastdl_bench.peers.kernels_fastdl", library=library),
    }


def planted_sides(factor: float) -> Sides:
    """fastdl, made slower by a factor: for the proof that the guard sees it."""
    return {kind: Side("fastdl_bench.peers.planted", (str(factor), kind)) for kind in ("training", "kernels")}


def targets() -> dict[str, Target]:
    """All of them by name."""
    trainings = [
        Target(f"training/{w.name}", "training", {"workload": w.shortened(EPOCH_FLOP).as_dict()})
        for w in WORKLOADS.values()
    ]
    kernels = [
        Target(f"kernels/{c.name}", "kernels", {"op": c.op, "shape": list(c.shape)}) for c in KERNEL_CASES.values()
    ]
    return {target.name: target for target in trainings + kernels}


UNITS = {"kernels": "calls", "training": "epochs"}
"""kind -> what a program repeats."""


def count_of(peer: Peer, target: Target) -> int:
    """How many calls or epochs make a sample."""
    if target.kind == "kernels":
        return calls_for(peer, SAMPLE)
    peer.request("run", SECONDS, epochs=1)
    return max(1, math.ceil(SAMPLE / peer.request("run", SECONDS, epochs=1)["seconds"]))


class Failure(Exception):
    """One of the two sides cannot run a benchmark: `side` is "new" or "reference"."""

    def __init__(self, side: str, error: PeerError) -> None:
        super().__init__(str(error))
        self.side = side


class Pair:
    """Two processes, new and reference, that run the same benchmark by turns."""

    def __init__(self, new: Side, reference: Side, threads: int) -> None:
        self.peers: dict[str, Peer] = {}
        try:
            for name, side in (("new", new), ("reference", reference)):
                self.peers[name] = Peer(side.module, threads, side.arguments, side.library)
        except BaseException:
            self.close()
            raise

    def _ask(self, name: str, do: str, **values: Any) -> dict[str, Any]:
        try:
            return self.peers[name].request(do, SECONDS, **values)
        except PeerError as error:
            raise Failure(name, error) from error

    def session(self, target: Target, rounds: int, seed: int) -> list[float]:
        """log(new / reference) of each round.

        A round is A B B A A B B A ... or the same with A and B exchanged, drawn at random, and takes the shortest sample
        of each side: what disturbs a sample only ever makes it longer, and what drifts meets both.
        """
        for name in self.peers:
            self._ask(name, "setup", **target.problem)
        try:
            count = count_of(self.peers["reference"], target)
        except PeerError as error:
            raise Failure("reference", error) from error
        unit = UNITS[target.kind]

        def sample(name: str) -> float:
            return self._ask(name, "run", **{unit: count})["seconds"] / count

        for name in self.peers:
            sample(name)
        taken = max(sample(name) * count for name in self.peers)
        repeats = 1 if taken > SLOW else max(2, min(SAMPLES, round(ROUND / taken)))
        rng = np.random.default_rng(seed)
        logs = []
        for _ in range(rounds):
            order = ("new", "reference") if rng.random() < 0.5 else ("reference", "new")
            best = dict.fromkeys(order, math.inf)
            for _ in range(repeats):
                for name in order:
                    best[name] = min(best[name], sample(name))
                order = order[::-1]
            logs.append(math.log(best["new"] / best["reference"]))
        return logs

    def close(self) -> None:
        """End both processes."""
        for peer in self.peers.values():
            with contextlib.suppress(Exception):
                peer.close()


@dataclass
class Run:
    """How the two sides are measured.

    new, reference : the programs by kind
    """

    new: Sides
    reference: Sides
    threads: int
    say: Say
    seed: int = 0

    def _pair(self, kind: str) -> Pair:
        return Pair(self.new[kind], self.reference[kind], self.threads)

    def _seed(self) -> int:
        self.seed += 1
        return self.seed

    def alone(self, target: Target) -> Callable[[int], list[float]]:
        """Measures one benchmark in processes of its own."""

        def measure(rounds: int) -> list[float]:
            self.say(f"{target.name}: again, {rounds} rounds in new processes")
            pair = self._pair(target.kind)
            try:
                return pair.session(target, rounds, self._seed())
            finally:
                pair.close()

        return measure

    def first(self, chosen: Iterable[Target], rounds: int) -> tuple[dict[str, list[float]], dict[str, Failure]]:
        """A session of each, one pair of processes for all of a kind; and what could not be measured."""
        found: dict[str, list[float]] = {}
        failures: dict[str, Failure] = {}
        pairs: dict[str, Pair] = {}
        try:
            for target in chosen:
                self.say(target.name)
                if target.kind not in pairs:
                    pairs[target.kind] = self._pair(target.kind)
                try:
                    found[target.name] = pairs[target.kind].session(target, rounds, self._seed())
                except Failure as failure:
                    failures[target.name] = failure
                    pairs.pop(target.kind).close()
        finally:
            for pair in pairs.values():
                pair.close()
        return found, failures

    def judge(self, chosen: Sequence[Target], limit: float, plan: Plan) -> list[Judgement]:
        """A verdict on each."""
        first: dict[str, list[list[float]]] = {target.name: [] for target in chosen}
        failures: dict[str, Failure] = {}
        for _ in range(FIRST):
            found, failed = self.first([t for t in chosen if t.name not in failures], plan.rounds)
            failures |= failed
            for name, rounds in found.items():
                first[name].append(rounds)
        result = []
        for target in chosen:
            if target.name in failures:
                result.append(_failed(target.name, failures[target.name]))
            else:
                case = Case(target.name, self.alone(target), first[target.name])
                try:
                    result.append(guard.judge(case, limit, plan))
                except Failure as failure:
                    result.append(_failed(target.name, failure))
        return result


def _failed(name: str, failure: Failure) -> Judgement:
    if failure.side == "new":
        return Judgement(name, "missing", note=f"it does not run any more: {failure}")
    return Judgement(name, "new", note=f"the reference cannot run it: {failure}")


def missing(expected: Iterable[str], present: Iterable[str]) -> list[Judgement]:
    """Benchmarks that the other side has and this one has not, with the nearest name, which it may have been given."""
    present = list(present)
    result = []
    for name in expected:
        if name not in present:
            near = difflib.get_close_matches(name, present, 1, 0.7)
            note = (
                f"there is no such benchmark any more; renamed to {near[0]}?"
                if near
                else "there is no such benchmark any more"
            )
            result.append(Judgement(name, "missing", note=note))
    return result


def parse_limit(text: str) -> float:
    """A limit such as "10%" as a number."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*%", text.strip())
    if match is None or not 0 < float(match[1]) <= 1000:
        raise UsageError(f"--fail-over: expected a percentage such as 10%, got {text!r}")
    return float(match[1]) / 100
