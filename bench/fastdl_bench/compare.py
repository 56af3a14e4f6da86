"""The guard at work: measures two sides round by round, and hands logarithms of ratios to `fastdl_bench.guard`."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastdl_bench import guard, schema
from fastdl_bench.cases import KERNEL_CASES, WORKLOADS
from fastdl_bench.guard import Case, Judgement, Plan
from fastdl_bench.kernels import calls_for
from fastdl_bench.protocol import Peer, PeerError
from fastdl_bench.training import Say
from fastdl_bench.versions import UsageError

SECONDS = 900.0  # limit of one request: the first one compiles
SAMPLE = 0.012  # seconds of a sample: longer than a switch between processes disturbs, shorter than clocks stay
EPOCH_FLOP = 1.5e9  # of an epoch: the guard needs short samples rather than long epochs
SLOW = 0.06  # seconds of a sample from which on one in each round is enough


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


def numpy_sides() -> Sides:
    """The yardstick: the same work in NumPy."""
    return {
        "training": Side("fastdl_bench.peers.numpy"),
        "kernels": Side("fastdl_bench.peers.kernels_numpy"),
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


class Failure(Exception):
    """One of the two sides cannot run a benchmark: `side` is "new" or "reference"."""

    def __init__(self, side: str, error: PeerError) -> None:
        super().__init__(str(error))
        self.side = side


class Pair:
    """Two processes, new and reference, that run the same benchmark by turns.

    same : whether both do the same work, so that they get the same number of repetitions
    """

    def __init__(self, new: Side, reference: Side, threads: int, same: bool) -> None:
        self.same = same
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

    def _count(self, name: str, target: Target) -> int:
        """How many calls or epochs make a sample."""
        if target.kind == "kernels":
            try:
                return calls_for(self.peers[name], SAMPLE)
            except PeerError as error:
                raise Failure(name, error) from error
        self._ask(name, "run", epochs=1)
        return max(1, math.ceil(SAMPLE / self._ask(name, "run", epochs=1)["seconds"]))

    def session(self, target: Target, rounds: int, seed: int) -> list[float]:
        """log(new / reference) of each round.

        A round is A B B A or B A A B, drawn at random, and takes the shorter of the two samples of each side: what
        disturbs a sample only ever makes it longer, and what drifts meets both. Long samples are taken once, in an order
        drawn at random.
        """
        for name in self.peers:
            self._ask(name, "setup", **target.problem)
        counts = {"reference": self._count("reference", target)}
        counts["new"] = counts["reference"] if self.same else self._count("new", target)
        unit = "calls" if target.kind == "kernels" else "epochs"

        def sample(name: str) -> float:
            return self._ask(name, "run", **{unit: counts[name]})["seconds"] / counts[name]

        for name in counts:
            sample(name)
        long = max(sample(name) * counts[name] for name in counts) > SLOW
        rng = np.random.default_rng(seed)
        logs = []
        for _ in range(rounds):
            a, b = ("new", "reference") if rng.random() < 0.5 else ("reference", "new")
            taken: dict[str, list[float]] = {"new": [], "reference": []}
            for name in (a, b) if long else (a, b, b, a):
                taken[name].append(sample(name))
            logs.append(math.log(min(taken["new"]) / min(taken["reference"])))
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
    same : whether both do the same work (two versions), or the reference is a yardstick
    """

    new: Sides
    reference: Sides
    threads: int
    same: bool
    say: Say
    seed: int = 0

    def _pair(self, kind: str) -> Pair:
        return Pair(self.new[kind], self.reference[kind], self.threads, self.same)

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

    def judge(
        self, chosen: Sequence[Target], limit: float, plan: Plan, saved: dict[str, guard.Sessions] | None = None
    ) -> list[Judgement]:
        """A verdict on each; `saved` are the sessions of an earlier result that has them all, where the reference is a
        yardstick."""
        first, failures = self.first(chosen, plan.rounds)
        result = []
        for target in chosen:
            if target.name in failures:
                result.append(_failed(target.name, failures[target.name]))
            else:
                old = None if saved is None else saved[target.name]
                case = Case(target.name, self.alone(target), first[target.name], old)
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


def saved_path(folder: Path, name: str, option: str) -> Path:
    """The file of a saved result."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"{option}: expected a name of letters, digits, dots, dashes and underscores, got {name!r}")
    return folder / f"{name}.json"


SAME = ("cpu", "isa", "usable_cores", "system")  # what two results of one machine have in common


def read_saved(path: Path, description: dict[str, Any], versions: dict[str, str], threads: int) -> dict[str, Any]:
    """A saved result, if it can be compared with what is measured here and now."""
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.json"))) or "nothing"
        raise UsageError(
            f"--compare: expected the name of a saved result, got {path.stem!r}; saved are: {known}. "
            f"scripts/bench --save {path.stem} makes it"
        )
    try:
        saved = schema.read(path, "guard")
    except ValueError as error:
        raise UsageError(f"--compare: {error}") from error
    pairs = [(key, saved["machine"].get(key), description.get(key)) for key in SAME]
    pairs += [("threads", saved["threads"], threads), ("numpy", saved["versions"].get("numpy"), versions.get("numpy"))]
    for what, then, now in pairs:
        if then != now:
            raise UsageError(
                f"--compare: expected {what} to be {then}, as {path.stem!r} was measured with, got {now}; ratios to NumPy "
                f"hold for one machine and one NumPy: save a result here, or use --base with its commit"
            )
    return saved


def save(run: Run, chosen: Sequence[Target], plan: Plan, head: dict[str, Any], path: Path) -> dict[str, str]:
    """Measure against the yardstick, in several sessions, and write the result; returns what could not be measured."""
    sessions: dict[str, list[list[float]]] = {target.name: [] for target in chosen}
    failures: dict[str, str] = {}
    for number in range(plan.saved_sessions):
        run.say(f"session {number + 1} of {plan.saved_sessions}")
        found, failed = run.first([t for t in chosen if t.name not in failures], plan.more_rounds)
        failures |= {name: str(failure) for name, failure in failed.items()}
        for name, rounds in found.items():
            sessions[name].append(rounds)
    result = {
        **head,
        "kind": "guard",
        "reference": "NumPy",
        "benchmarks": {name: {"sessions": s} for name, s in sessions.items() if name not in failures},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return failures
