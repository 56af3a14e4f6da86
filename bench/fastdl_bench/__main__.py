"""The command line: `scripts/bench`, or `python -m fastdl_bench` where fastdl is installed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from fastdl_bench import (
    accuracy,
    compare,
    estimators,
    kernels,
    latency,
    machine,
    memory,
    model,
    prove,
    quality,
    saved,
    schema,
    startup,
    tables,
    training,
)
from fastdl_bench.cases import KERNEL_CASES, QUICK_KERNELS, WORKLOADS
from fastdl_bench.guard import Judgement, Plan
from fastdl_bench.protocol import CHECKOUT, PeerError
from fastdl_bench.show import print_table, show
from fastdl_bench.training import Effort
from fastdl_bench.versions import UsageError, benchmarks_of, commit_of, tree_of


@dataclass(frozen=True)
class Level:
    """How thorough a run is.

    peers : the libraries that it compares with
    training, kernels : how long each is measured
    rounds, starts : of times to accuracy, and of start-ups
    guard : how much the guard measures
    """

    peers: tuple[str, ...]
    training: Effort
    kernels: Effort
    rounds: int
    starts: int
    guard: Plan


# Measured where the processor has bf16 instructions.
BF16 = ("fastdl-bf16", "torch-bf16")
LEVELS = {
    # Under 2 minutes on two cores: fewer shapes, short rounds, all threads only, PyTorch uncompiled.
    "quick": Level(
        ("jax", "torch", *BF16),
        model.QUICK,
        Effort(3, 0.006),
        2,
        1,
        Plan(4, 12, 2, 12),
    ),
    "normal": Level(("jax", "torch", "torch-compiled", *BF16, "sklearn"), model.NORMAL, Effort(9, 0.02), 5, 5, Plan()),
    "full": Level(
        ("jax", "torch", "torch-compiled", *BF16, "numpy", "sklearn"),
        Effort(15, 0.6),
        Effort(15, 0.1),
        9,
        9,
        Plan(12, 40, 3, 18),
    ),
}
PARTS: dict[str, list[str]] = {
    "training": list(WORKLOADS),
    "kernels": list(KERNEL_CASES),
    "accuracy": ["digits"],
    "latency": list(latency.CASES),
    "memory": list(memory.CASES),
    "startup": list(startup.CASES),
    "estimators": list(estimators.CASES),
}
"""part of a result -> the names of its benchmarks."""


def parser() -> argparse.ArgumentParser:
    """All options."""
    result = argparse.ArgumentParser(
        prog="scripts/bench", description="How fast is fastdl here, against other libraries and against the processor?"
    )
    effort = result.add_mutually_exclusive_group()
    effort.add_argument(
        "--quick", action="store_const", const="quick", dest="effort", help="few short rounds, under 2 minutes"
    )
    effort.add_argument("--full", action="store_const", const="full", dest="effort", help="many long rounds")
    result.set_defaults(effort="normal")
    result.add_argument(
        "--peers", metavar="LIST",
        help=f"libraries to compare with: {', '.join(p for p in training.LIBRARIES if p != 'fastdl')}, or none "
        f"(default: those installed of {', '.join(LEVELS['normal'].peers)}; kernels are always compared with NumPy)",
    )  # fmt: skip
    result.add_argument(
        "--only", metavar="PATTERN",
        help="what to run, such as training, 'kernels/adam*', digits: a part of a name, or one with * and ?",
    )  # fmt: skip
    result.add_argument("--threads", type=int, metavar="N", help="default: the usable cores")
    result.add_argument("--list", action="store_true", help="print the names of the benchmarks that the guard knows")
    shown = result.add_argument_group("results")
    shown.add_argument(
        "--update-readme", action="store_true", help="write the tables into README.md, the pictures, and baseline.json"
    )
    shown.add_argument("--from-results", action="store_true", help="run nothing; show the newest results")
    own = result.add_argument_group("a network of your own")
    own.add_argument("--model", metavar="SIZES", help="layers from inputs to outputs, such as 784-256-10")
    own.add_argument("--batch", type=int, default=model.DEFAULT_BATCH, metavar="ROWS", help="default: %(default)s")
    own.add_argument("--activation", default="relu", metavar="NAME", help="relu or tanh; default: relu")
    guarding = result.add_argument_group("guard: exit code 1 for a regression or a missing benchmark")
    way = guarding.add_mutually_exclusive_group()
    way.add_argument("--base", metavar="GIT_REF", help="compare with another version, both measured now, by turns")
    way.add_argument("--save", metavar="NAME", help="keep a copy of this version under a name")
    way.add_argument("--compare", metavar="NAME", help="compare with the saved copy, both measured now, by turns")
    way.add_argument(
        "--prove-guard", type=int, nargs="?", const=20, metavar="TIMES",
        help="show that the guard works here: that often the same code, and a planted slowdown (default 20)",
    )  # fmt: skip
    guarding.add_argument("--fail-over", default="10%", metavar="PERCENT", help="default: 10%%")
    return result


def chosen(pattern: str | None) -> dict[str, list[str]]:
    """part -> names of what the pattern picks."""
    if pattern is None:
        return PARTS
    return {
        part: [
            name
            for name in names
            if pattern in f"{part}/{name}" or fnmatch(f"{part}/{name}", pattern) or fnmatch(name, pattern)
        ]
        for part, names in PARTS.items()
    }


def say(text: str) -> None:
    """Progress goes to stderr, so that tables can be piped."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _picked(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """What to run; a quick run leaves kernels' shapes, the largest network and memory out unless they are asked for."""
    picked = dict(chosen(arguments.only))
    if not any(picked.values()):
        raise UsageError(f"--only: nothing is called like {arguments.only!r}; names are such as training/digits")
    if arguments.effort == "quick" and (arguments.only is None or arguments.only == "kernels"):
        picked["kernels"] = [name for name in picked["kernels"] if name in QUICK_KERNELS]
    if arguments.effort == "quick" and arguments.only is None:
        picked["training"] = [name for name in picked["training"] if name != "large"]  # half a second a step and peer
        picked["memory"] = picked["estimators"] = []
    return picked


def _warn_if_busy(head: dict[str, Any]) -> None:
    load = head["machine"]["load_before"]
    if load is not None and load > 0.5:
        say(f"the machine is busy (load {load}): times are worth little")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run what the arguments choose and return the result, as it is written to JSON."""
    picked = _picked(arguments)
    level = LEVELS[arguments.effort]
    names = model.libraries(arguments.peers, say, level.peers)
    eager = [name for name in names if name not in ("torch-compiled", *BF16)]
    threads = model.check_threads(arguments.threads)
    result = machine.head(threads, arguments.effort)
    _warn_if_busy(result)
    if picked["training"]:
        workloads = [WORKLOADS[name] for name in picked["training"]]
        result["training"] = training.run(workloads, names, threads, level.training, say)
    if picked["kernels"]:
        libraries = kernels.available(["fastdl", "numpy", *(name for name in names if name == "torch")])
        cases = [KERNEL_CASES[name] for name in picked["kernels"]]
        one_count = arguments.threads or arguments.effort == "quick"
        counts = [threads] if one_count else sorted({1, threads})
        result["kernels"], result["roofline"] = kernels.run(cases, libraries, counts, level.kernels, say)
    if picked["accuracy"]:
        result["accuracy"] = accuracy.run(eager, threads, level.rounds, say)
    if picked["latency"]:
        result["latency"] = latency.run(picked["latency"], names, threads, level.kernels, say)
    if picked["memory"]:
        result["memory"] = memory.run(memory.workloads_of(picked["memory"]), eager, threads, say)
    if picked["estimators"]:
        result["estimators"] = estimators.run(picked["estimators"], threads, level.rounds, say)
    if picked["startup"]:
        result["startup"] = startup.run(picked["startup"], threads, level.starts, arguments.effort != "quick", say)
    return result


def write(result: dict[str, Any]) -> Path:
    """Write the result among the others, named by its date."""
    folder = tables.results_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['date'].replace(':', '').replace('+0000', 'Z')}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def draw(result: dict[str, Any], folder: Path) -> list[str]:
    """The pictures that the result has something for; returns their names, none without matplotlib."""
    try:
        from fastdl_bench import picture, roofline_picture
    except ImportError:
        say("without pictures: they need matplotlib")
        return []
    drawn = []
    if result.get("training"):
        picture.draw(result, folder / "training.png")
        drawn.append("training.png")
    if result.get("kernels") and result.get("roofline"):
        paths = [folder / f"roofline.{kind}" for kind in ("png", "svg")]
        roofline_picture.draw(result, paths)
        drawn += [path.name for path in paths]
    return drawn


def publish(result: dict[str, Any]) -> None:
    """Write the tables between the markers of the READMEs, the pictures, and the baseline."""
    if CHECKOUT is None:
        raise UsageError("--update-readme: expected to run in a checkout of fastdl; this is installed")
    result = schema.compact(result)  # the tables say what the baseline says
    for name in ("README.md", "kernels/README.md"):
        replaced = tables.update(CHECKOUT / name, result)
        say(f"{name}: {', '.join(replaced) or 'nothing'} replaced")
    bench = CHECKOUT / "bench"
    (bench / "baseline.json").write_text(schema.text(result))
    say(f"written: {', '.join(['baseline.json', *draw(result, bench)])} in bench")


def _show_judgements(judgements: Sequence[Judgement], limit: float, against: str) -> int:
    """The guard's table and its last sentence; returns the exit code."""
    rows = []
    for j in sorted(judgements, key=lambda j: not j.failed):
        factor, interval = (
            ("", "") if j.change is None else (f"{j.change.factor:.3f}×", f"{j.change.low:.3f} to {j.change.high:.3f}")
        )
        rows.append(
            [j.name, factor, interval, str(j.sessions or ""), j.verdict.upper() if j.failed else j.verdict, j.note]
        )
    header = ["benchmark", "time", "95 % interval", "sessions", "verdict", ""]
    print_table(tables.Table(f"Against {against}; more than {limit:.0%} slower fails", header, rows))
    counts = {
        word: [j.name for j in judgements if j.verdict == word] for word in ("slower", "missing", "new", "undecided")
    }
    parts = [f"{len(names)} {word}: {', '.join(names)}" for word, names in counts.items() if names]
    failed = any(j.failed for j in judgements)
    print(f"{'FAILED' if failed else 'passed'}: {len(judgements)} benchmarks{'; ' if parts else ''}{'; '.join(parts)}")
    return 1 if failed else 0


def guarded(arguments: argparse.Namespace) -> int:
    """--base, --save, --compare and --prove-guard; returns the exit code."""
    limit = compare.parse_limit(arguments.fail_over)
    threads = model.check_threads(arguments.threads)
    plan = LEVELS[arguments.effort].guard
    head = machine.head(threads, arguments.effort)
    known = compare.targets()
    picked = [f"{part}/{name}" for part, names in _picked(arguments).items() for name in names]
    names = [name for name in picked if name in known]
    if not names and arguments.compare is None and arguments.base is None:
        raise UsageError(f"--only: no benchmark of the guard is called like {arguments.only!r}; --list prints them")
    saved_folder = tables.results_folder() / "saved"
    if arguments.prove_guard is not None:
        if arguments.prove_guard < 1:
            raise UsageError(f"--prove-guard: expected a number of at least 1, got {arguments.prove_guard}")
        shown = names if arguments.only else [n for n in prove.BENCHMARKS if n in known]
        proof = prove.prove([known[n] for n in shown], arguments.prove_guard, threads, limit, plan, say)
        print("\n".join(proof.lines))
        print("the guard holds here" if proof.good else "FAILED: not all of it was as it should be")
        return 0 if proof.good else 1
    _warn_if_busy(head)
    if arguments.save is not None:
        folder = saved.folder_of(saved_folder, arguments.save, "--save")
        failures = saved.save([known[name] for name in names], threads, head, folder, say)
        for name, why in failures.items():
            say(f"{name} is not in it: {why}")
        say(f"written to {folder}")
        return 1 if failures else 0
    if arguments.compare is not None:
        folder = saved.folder_of(saved_folder, arguments.compare, "--compare")
        record = saved.read(folder)
        wanted = [name for name in record["benchmarks"] if _matches(name, arguments.only)]
        gone = compare.missing(wanted, known)
        new = [name for name in names if name not in wanted] if record["effort"] == arguments.effort else []
        run = compare.Run(compare.fastdl_sides(), compare.fastdl_sides(folder), threads, say)
        judgements = run.judge([known[name] for name in wanted if name in known], limit, plan)
        judgements += [Judgement(name, "new", note="it was not saved") for name in new]
        return _show_judgements([*gone, *judgements], limit, f"{arguments.compare!r} of {record['date'][:10]}")
    commit = commit_of(arguments.base)
    with tree_of(commit) as tree:
        theirs = benchmarks_of(tree)
        if theirs is None:
            say(f"{commit[:10]} does not list its benchmarks; those of this version are compared")
        gone = compare.missing([name for name in theirs or [] if _matches(name, arguments.only)], known)
        run = compare.Run(compare.fastdl_sides(), compare.fastdl_sides(tree), threads, say)
        judgements = run.judge([known[name] for name in names], limit, plan)
        return _show_judgements([*gone, *judgements], limit, f"{arguments.base} ({commit[:10]})")


def _matches(name: str, pattern: str | None) -> bool:
    """Whether --only picks a benchmark that may not exist here."""
    rest = name.partition("/")[2]
    return pattern is None or pattern in name or fnmatch(name, pattern) or fnmatch(rest, pattern)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, show and save; the exit code is 0, 1 for a regression or a failure, 2 for wrong usage."""
    arguments = parser().parse_args(argv)
    try:
        if arguments.list:
            print("\n".join(compare.targets()))
            return 0
        if any(v is not None for v in (arguments.base, arguments.save, arguments.compare, arguments.prove_guard)):
            return guarded(arguments)
        if arguments.model is not None:
            return own_model(arguments)
        if arguments.only == "quality":
            return quality.main(
                [*["--splits", "1"] * (arguments.effort == "quick"), *["--update-readme"] * arguments.update_readme]
            )
        if arguments.from_results:
            result = tables.newest()
        else:
            result = measure(arguments)
            path = write(result)
            say(f"written to {path}")
            if not arguments.update_readme:
                draw(result, path.parent)
        show(result)
        if arguments.update_readme:
            publish(result)
    except UsageError as error:
        say(str(error))
        return 2
    except (PeerError, FileNotFoundError, ValueError) as error:
        say(str(error))
        return 1
    return 0


def own_model(arguments: argparse.Namespace) -> int:
    """--model: the table of one network, and the answer in a sentence."""
    workload = model.workload_of(arguments.model, arguments.batch, arguments.activation)
    threads = model.check_threads(arguments.threads)
    names = model.libraries(arguments.peers, say)
    result = model.run(workload, names, threads, LEVELS[arguments.effort].training, say)
    _warn_if_busy(result)
    show(result)
    print(model.summary(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
