"""What a training step is made of: a short measurement beside the training, and what it says."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl import html
from fastdl.engine import structs
from fastdl.engine.peak import peak_rate
from fastdl.engine.session import Session
from fastdl.engine.thread_tuner import WORK_PER_PHASE
from fastdl_kernels.serial import TILE_ROWS, host, panel_width, usable_cores

# Different batches that are measured on, again and again, and the most rows that one measurement goes through.
BATCHES, MOST_ROWS = 4, 2_000_000


@dataclass(frozen=True)
class Explanation:
    """How a training runs on this machine; `print` it, or take the numbers.

    threads, reason : how many threads work on a step, and why
    isa, tile_rows, tile_columns : instruction set, and the register tile of the matrix products
    batch_size, step_seconds, gflops : time and arithmetic rate of one step, everything included
    peak_gflops : what as many threads reach with multiply-adds alone, measured at the same time
    forward, backward, update, gather, waiting : shares of the threads' time. `forward` includes the loss, `update` the
        gradients of the weights and the optimizer; `waiting` is for other threads and for the next job
    embedding : the share of the input stage, if the model has one: forward, gradient and optimizer
    ranks : how many processes share the batches, and how they spend their time; the rest is about one of them
    """

    threads: int
    reason: str
    isa: str
    tile_rows: int
    tile_columns: int
    dtype: str
    batch_size: int
    step_seconds: float
    gflops: float
    peak_gflops: float
    forward: float
    backward: float
    update: float
    gather: float
    waiting: float
    embedding: float = 0.0
    ranks: str = ""

    @property
    def share_of_peak(self) -> float:
        """gflops / peak_gflops."""
        return self.gflops / self.peak_gflops

    def _repr_html_(self) -> str:
        """What a notebook shows: the lines that `print` writes as a table."""
        return html.table((), [line.split(maxsplit=1) for line in str(self).splitlines()])

    def __str__(self) -> str:
        shares = ", ".join(
            f"{name} {100 * getattr(self, name):.0f} %"
            for name in (
                *(["embedding"] if self.embedding else []),
                "forward",
                "backward",
                "update",
                "gather",
                "waiting",
            )
        )
        return "\n".join(
            (
                f"threads  {self.threads}: {self.reason}",
                f"tiles    {self.tile_rows} rows × {self.tile_columns} columns of {self.dtype} ({self.isa})",
                f"step     {_duration(self.step_seconds)} for {self.batch_size} rows: {self.gflops:.3g} GFLOP/s, "
                f"{100 * self.share_of_peak:.0f} % of the {self.peak_gflops:.3g} measured for multiply-adds alone",
                f"time     {shares}",
                *([f"ranks    {self.ranks}"] if self.ranks else []),
            )
        )


def explain(session: Session, asked: int | str, seconds: float) -> Explanation:
    """Measure steps of a clocked `session` (one of its own, which nobody goes on with) on random rows.

    The learning rate is 0, so that its parameters stay; `asked` is the number of threads that was asked for.
    """
    network = session.architecture
    x, y = _random_batches(session)
    rows = np.random.default_rng(1).permutation(len(x))
    # The first loss that is not finite would end the measurement; zeros are as much work, and their loss is finite.
    if not np.isfinite(_run(session, x, y, rows, BATCHES)):
        session.parameters[:] = 0
    while not session.tuner.standing:  # numbers of threads are being tried
        _run(session, x, y, rows, 64 * BATCHES)
    tried = dict(session.tuner.seconds_per_step)
    session.tuner.settle()
    threads = session.n_threads
    # How many steps it takes until a measurement is long enough.
    steps = BATCHES
    while True:
        taken = _time(session, x, y, rows, steps)
        if taken > seconds / 6 or steps * session.settings.batch_size * 4 > MOST_ROWS:
            break
        steps *= 4
    times, clocks, peaks = [], [], []
    for _ in range(3):
        session.workspace.ticks[:] = 0
        times.append(_time(session, x, y, rows, steps) / steps)
        clocks.append(session.workspace.ticks.copy())
        peaks.append(peak_rate(threads, network.dtype, n=1000, seconds=0.005, tries=3))
    middle = int(np.argsort(times)[1])
    clock = clocks[middle].sum(axis=0)
    total = max(1, int(clock[structs.TOTAL]))
    parts: dict[str, Any] = {
        name: float(clock[kind]) / total
        for name, kind in (
            ("forward", structs.FORWARD),
            ("backward", structs.BACKWARD),
            ("update", structs.UPDATE),
            ("gather", structs.GATHER),
            ("embedding", structs.EMBED),
        )
    }
    # Nobody needs the gradient of the inputs.
    unneeded = network.layers[0] * network.layers[1] if network.stage is None else 0
    flop = 2 * session.settings.batch_size * (3 * network.work_per_row - unneeded)
    return Explanation(
        threads=threads,
        reason=_reason(session, asked, tried),
        isa=host().isa,
        tile_rows=TILE_ROWS,
        tile_columns=panel_width(network.dtype),
        dtype=network.dtype.name,
        batch_size=session.settings.batch_size,
        step_seconds=times[middle],
        gflops=flop / times[middle] / 1e9,
        peak_gflops=float(np.median(peaks)) / 1e9,
        **parts,
        waiting=max(0.0, 1.0 - sum(parts.values())),
    )


def _random_batches(session: Session) -> tuple[NDArray, NDArray[Any]]:
    network, rng = session.architecture, np.random.default_rng(0)
    n = BATCHES * session.settings.batch_size
    x = rng.standard_normal((n, network.layers[0]), np.float32).astype(network.dtype)
    for column, rows in () if network.stage is None else network.stage.categories:
        x[:, column] = rng.integers(0, rows, n)
    if network.loss.takes_labels:
        return x, rng.integers(0, network.layers[-1], n)
    return x, rng.integers(0, 2, (n, network.layers[-1])).astype(network.dtype)


def _time(session: Session, x: NDArray, y: NDArray, rows: NDArray[np.int64], steps: int) -> float:
    start = time.perf_counter()
    _run(session, x, y, rows, steps)
    return time.perf_counter() - start


def _run(session: Session, x: NDArray, y: NDArray, rows: NDArray[np.int64], steps: int) -> float:
    """That many steps; the loss."""
    return session.epoch(x, y, None, np.resize(rows, steps * session.settings.batch_size), np.zeros(steps))[0]


def _reason(session: Session, asked: int | str, tried: dict[int, float]) -> str:
    if asked != "auto":
        return "as asked"
    cores = usable_cores()
    text = f"auto, of {cores} usable core{'' if cores == 1 else 's'}; "
    if tried:
        times = ", ".join(f"{_duration(seconds)} with {n}" for n, seconds in sorted(tried.items()))
        return f"{text}a step took {times}"
    work = session.workspace.work // session.workspace.phases
    text += f"between two barriers a step has work like {work:,} multiply-adds, "
    return text + f"and a thread is worth its waiting from {WORK_PER_PHASE:,} on"


def _duration(seconds: float) -> str:
    return f"{1e6 * seconds:.3g} us" if seconds < 1e-3 else f"{1e3 * seconds:.3g} ms"
