"""How training scales over MPI ranks: `python -m fastdl_bench.mpi_scaling [--plot FILE] [--json FILE]`.

Measured here, with real ranks of one thread each: steps of one rank and of several, what they spend in computing, waiting and
reducing, and the reduction of a gradient alone, by its size. From these comes a model of a step on P nodes,

    T(P) = C(B / P) + A(P),   A(P) = 2 (P - 1) α + 2 (P - 1) / P · n β,

where C is the time of a step of B / P rows, and A the alpha-beta model of a ring all-reduce of n bytes (Thakur, Rabenseifner and
Gropp, 2005): α seconds for each message, β for each byte. It is checked against what 2 and 4 ranks take here: C is that of as
many ranks at once that tell each other nothing, since they share the memory and, if there are more of them, the cores; α and β
are fitted to reductions whose arrays are in no cache. Then it is drawn to 64 nodes for links between machines, with the time of
one rank alone for C. One rank and several are measured in turns; medians over the rounds are told.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastdl_bench.cases import WORKLOADS, Workload
from fastdl_bench.data import training_data
from fastdl_bench.machine import cpu_model
from fastdl_bench.protocol import CHECKOUT, PACKAGE, environment_for

NAMES = ("medium", "large")
SIZES = (1 << 10, 1 << 14, 1 << 18, 1 << 20, 1 << 23)
"""Numbers of the arrays that α and β are fitted to."""
RANKS = (2, 4)
NODES = (1, 2, 4, 8, 16, 32, 64)
WITHIN = 0.2
"""How near the model has to come to what was measured."""


@dataclass(frozen=True)
class Link:
    """What messages take: alpha seconds each, and beta seconds for each byte."""

    name: str
    alpha: float
    beta: float

    def all_reduce(self, n_bytes: float, nodes: int) -> float:
        """Seconds of a ring."""
        return 2 * (nodes - 1) * self.alpha + 2 * (nodes - 1) / nodes * n_bytes * self.beta


LINKS = (
    Link("10 GbE (30 µs, 1.1 GB/s)", 30e-6, 1 / 1.1e9),
    Link("100 Gb/s InfiniBand (2 µs, 11 GB/s)", 2e-6, 1 / 11e9),
)
"""Between machines: what such links usually give to MPI."""


@dataclass(frozen=True)
class Measured:
    """Steps of a workload on some ranks: seconds of one, and of these in compiled code, waiting, and reducing, on rank 0."""

    workload: str
    ranks: int
    threads: int
    batch: int
    seconds: float
    computing: float
    waiting: float
    reducing: float
    cpu_seconds: float


def measure_steps(workload: Workload, batch: int, threads: int, seconds: float, ranks: Any = None) -> Measured:
    """The best epoch of some, on this rank."""
    import fastdl

    x, y = training_data(workload)
    model = fastdl.MLP(list(workload.layers), seed=0)
    trainer = fastdl.Trainer(model, fastdl.Adam(1e-4), batch, 1, n_threads=threads, communicator=ranks)
    trainer.fit(x, y)
    steps, best, spent = -(-len(x) // batch), np.inf, (0.0, 0.0, 0.0)
    cpu, count, begin = time.process_time(), 0, time.perf_counter()
    go_on = True
    while go_on:
        before = _spent(trainer)
        taken = trainer.fit(x, y).epoch_seconds[0] / steps
        count += steps
        if taken < best:
            best = taken
            spent = tuple((b - a) / steps for a, b in zip(before, _spent(trainer)))  # type: ignore[assignment]
        go_on = bool(trainer.agreed(time.perf_counter() - begin < seconds))
    cpu = (time.process_time() - cpu) / count
    size = 1 if ranks is None else ranks.size
    total = cpu if ranks is None else sum(ranks.all_of(cpu))
    return Measured(workload.name, size, threads, batch, best, *(spent if ranks else (best, 0.0, 0.0)), total)


def _spent(trainer: Any) -> tuple[float, float, float]:
    spread = trainer._session.spread
    return (0.0, 0.0, 0.0) if spread is None else tuple(spread.seconds)


def measure_reductions(ranks: Any, repeats: int) -> list[tuple[int, float]]:
    """(bytes, seconds) of adding up a gradient, in the fastest of some tries."""
    found, other = [], np.zeros(1 << 23, np.float32)
    for size in SIZES:
        reduction, best = ranks.reduction([(0, size)], np.dtype(np.float32)), np.inf
        flat = np.ones(size, np.float32) if reduction.array is None else reduction.array
        for _ in range(repeats):
            flat[:] = 1.0
            other += 1.0  # a training's steps fill the caches with other things, too
            ranks.all_of(0)
            start = time.perf_counter()
            reduction.start(0, flat)
            reduction.add(0, flat)
            reduction.spread(0, flat)
            reduction.finish(0)
            best = min(best, max(ranks.all_of(time.perf_counter() - start)))
        assert (flat == ranks.size).all()
        found.append((4 * size, best))
    return found


def fitted(measured: Sequence[tuple[int, float]], ranks: int) -> Link:
    """α and β of a ring, by least squares of relative errors."""
    n = np.array([n_bytes for n_bytes, _ in measured], float)
    t = np.array([seconds for _, seconds in measured])
    columns = np.stack([np.full(len(n), 2.0 * (ranks - 1)), 2 * (ranks - 1) / ranks * n], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(columns / t[:, None], np.ones(len(n)), rcond=None)
    return Link(f"{ranks} ranks here", float(max(alpha, 0.0)), float(max(beta, 0.0)))


def worker(names: Sequence[str], seconds: float, threads: int) -> None:
    """On all ranks: measure; rank 0 prints JSON."""
    import fastdl

    ranks = fastdl.Ranks()
    several = ranks if ranks.size > 1 else None
    reductions = measure_reductions(ranks, 20) if several else []
    alone, steps = [], []
    for name in names:
        workload = WORKLOADS[name]
        if several:
            apart = ranks.all_of(measure_steps(workload, workload.batch // ranks.size, 1, seconds).seconds)
            alone.append(statistics.mean(apart))
        steps.append(asdict(measure_steps(workload, workload.batch, threads, seconds, several)))
    if ranks.is_first:
        print(json.dumps({"reductions": reductions, "alone": alone, "steps": steps}))


def launched(ranks: int, names: Sequence[str], seconds: float, threads: int = 1) -> dict[str, Any]:
    """What the workers have measured."""
    here = str(Path(sys.executable).parent)
    mpiexec = shutil.which("mpiexec", path=os.pathsep.join([here, os.environ.get("PATH", "")]))
    if mpiexec is None:
        raise SystemExit("mpi_scaling: expected an mpiexec, found none: install MPI, or pip install mpich")
    command = [sys.executable, "-m", "fastdl_bench.mpi_scaling", "--worker", ",".join(names)]
    command += ["--seconds", str(seconds), "--threads", str(threads)]
    done = subprocess.run(
        [mpiexec, "-n", str(ranks), *command],
        env=environment_for(threads), cwd=CHECKOUT or PACKAGE.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"mpi_scaling: {ranks} ranks failed: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _middle(found: Sequence[Any]) -> Any:
    """The median of each number over the rounds; what is no number is the first's."""
    first = found[0]
    if isinstance(first, dict):
        return {key: _middle([one[key] for one in found]) for key in first}
    if isinstance(first, list):
        return [_middle([one[i] for one in found]) for i in range(len(first))]
    return statistics.median(found) if isinstance(first, float) else first


def run(names: Sequence[str], seconds: float, rounds: int, say: Any) -> dict[str, Any]:
    """All of it: measured, modelled, and how near the model is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    result: dict[str, Any] = {"cpu": cpu_model(), "cores": cores, "workloads": {}}
    both = min(2, cores)
    found: dict[int, list[dict[str, Any]]] = {ranks: [] for ranks in (1, *RANKS)}
    for n in range(rounds):
        for ranks, turns in found.items():
            say(
                f"round {n + 1} of {rounds}: "
                + (f"{ranks} ranks of one thread" if ranks > 1 else f"one rank of {both} threads")
            )
            turns.append(launched(ranks, names, seconds, both if ranks == 1 else 1))
    links = {ranks: fitted(_middle([turn["reductions"] for turn in found[ranks]]), ranks) for ranks in RANKS}
    result["links"] = {str(ranks): asdict(link) for ranks, link in links.items()}
    for place, name in enumerate(names):
        workload = WORKLOADS[name]
        say(f"{name}: steps of smaller batches")
        apart = [
            {p: measure_steps(workload, workload.batch // p, 1, seconds / 4).seconds for p in NODES} for _ in range(3)
        ]
        parts = {p: min(turn[p] for turn in apart) for p in NODES}
        several = {ranks: [turn["steps"][place] for turn in turns] for ranks, turns in found.items()}
        entry: dict[str, Any] = {"computing": {str(k): v for k, v in parts.items()}, "checks": []}
        entry["one"] = _middle(several[1])
        for ranks in RANKS:
            measured = _middle(several[ranks])
            reducing = links[ranks].all_reduce(4 * workload.parameters, ranks)
            alone = [turn["alone"][place] for turn in found[ranks]]
            modelled = statistics.median(alone) + reducing
            ratio = statistics.median((a + reducing) / turn["seconds"] for a, turn in zip(alone, several[ranks]))
            entry["checks"].append({"ranks": ranks, "measured": measured, "modelled": modelled, "ratio": ratio})
        two = several[RANKS[0]]
        entry["efficiency"] = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(several[1], two))
        entry["efficiency_cpu"] = statistics.median(
            a["cpu_seconds"] / b["cpu_seconds"] for a, b in zip(several[1], two)
        )
        entry["modelled"] = {
            link.name: {str(p): modelled_efficiency(workload, parts, link, p) for p in NODES} for link in LINKS
        }
        result["workloads"][name] = entry
    return result


def modelled_efficiency(workload: Workload, parts: dict[int, float], link: Link, nodes: int) -> dict[str, float]:
    """Of `nodes` machines: at the same batch in all (strong scaling), and at that batch on each (weak scaling)."""
    reducing = link.all_reduce(4 * workload.parameters, nodes)
    return {
        "strong": parts[1] / (nodes * (parts[nodes] + reducing)),
        "weak": parts[1] / (parts[1] + reducing),
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Speed-up over nodes, of each workload and link; needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, panels = plt.subplots(1, len(result["workloads"]), figsize=(10, 4), layout="constrained", squeeze=False)
        for axes, (name, entry) in zip(panels[0], result["workloads"].items()):
            workload = WORKLOADS[name]
            for link, colour in zip(entry["modelled"], ("#0072B2", "#D55E00")):
                for kind, style in (("weak", "-"), ("strong", "--")):
                    values = [int(p) * v[kind] for p, v in entry["modelled"][link].items()]
                    label = f"{link}: {'a batch for each' if kind == 'weak' else 'one batch for all'}"
                    axes.plot(NODES, values, style, color=colour, marker="o", markersize=3, label=label)
            axes.plot(NODES, NODES, color="#999999", linewidth=0.8, zorder=0)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
            axes.set_xticks(NODES, [str(p) for p in NODES])
            axes.set_yticks(NODES, [f"{p}×" for p in NODES])
            axes.set_ylim(0.5, 80)
            axes.set_xlabel("nodes of one thread each")
            axes.set_title(
                f"{name} {'-'.join(map(str, workload.layers))}, {workload.batch} rows", loc="left", fontsize=10
            )
        panels[0][0].set_ylabel("rows learned per second, against one node")
        panels[0][0].legend(frameon=False, fontsize=7, loc="upper left", handlelength=4)
        figure.savefig(path, dpi=160)
        plt.close(figure)


def told(result: dict[str, Any]) -> str:
    """The result in words."""
    lines = [f"{result['cpu']}, {result['cores']} cores"]
    for ranks, link in result["links"].items():
        lines.append(f"{ranks} ranks here: α {1e6 * link['alpha']:.1f} µs, 1/β {1e-9 / link['beta']:.2f} GB/s")
    for name, entry in result["workloads"].items():
        lines.append(
            f"{name}: one rank of {entry['one']['threads']} threads {1e3 * entry['one']['seconds']:.3g} ms a step"
        )
        for check in entry["checks"]:
            m = check["measured"]
            near = "within" if abs(check["ratio"] - 1) <= WITHIN else "NOT within"
            lines.append(
                f"  {m['ranks']} ranks of 1 thread {1e3 * m['seconds']:.3g} ms (computing {1e3 * m['computing']:.3g}, waiting "
                f"{1e3 * m['waiting']:.3g}, reducing {1e3 * m['reducing']:.3g}); model {1e3 * check['modelled']:.3g} ms, "
                f"{check['ratio']:.2f} of it: {near} {100 * WITHIN:.0f} %"
            )
        lines.append(
            f"  efficiency of 2 ranks against one of {entry['one']['threads']} threads: {entry['efficiency']:.2f} (by processor "
            f"time {entry['efficiency_cpu']:.2f})"
        )
        for link, values in entry["modelled"].items():
            said = ", ".join(f"{p}: {v['weak']:.2f} / {v['strong']:.2f}" for p, v in values.items() if int(p) > 1)
            lines.append(f"  modelled efficiency, {link}, a batch for each / one for all: {said}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fastdl_bench.mpi_scaling", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", default=",".join(NAMES), help="workloads, by their names")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each is measured in a round")
    parser.add_argument("--rounds", type=int, default=5, help="how often")
    parser.add_argument("--plot", type=Path, help="file for the picture")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        worker(options.worker.split(","), options.seconds, options.threads)
        return
    names = options.only.split(",")
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        parser.error(f"--only: expected names of {', '.join(WORKLOADS)}, got {unknown[0]}")
    result = run(names, options.seconds, options.rounds, lambda text: print(text, file=sys.stderr))
    print(told(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        draw(result, options.plot)


if __name__ == "__main__":
    main()
