"""Training: an optimizer's state and workspaces for one batch size, made once, on which native calls run.

Each call takes about 50 ms, without the GIL, on as many threads as `pace` chooses; between two of them Python gets its turn, for
progress, callbacks and Ctrl-C.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastdl.engine import layout, prepare, steps
from fastdl.engine.interrupt import run_interruptibly
from fastdl.engine.pace import SECONDS_PER_CALL, chooser_for
from fastdl.engine.phases import cut_updates
from fastdl.engine.workspace import aligned_zeros
from fastdl_kernels.serial import STATE_SIZE, STOP, TILE_ROWS, job_rows, usable_cores

if TYPE_CHECKING:
    from fastdl.engine import Engine
    from fastdl.optimizers import Optimizer

# As many multiply-adds as what a row of a batch takes besides the products: gathering, the loss, short passes (50 ns).
WORK_PER_ROW = 2_000
# Bytes of the parameters and of a block of rows in all layers, together, up to which such a block goes through all layers in
# one job: a second cache of 512 KB holds them beside the optimizer's states. With 1,400 parameters a step on two threads took
# 0.75 to 0.95 of its time; with 30,000 or more, products shared out one by one were as fast or faster.
CHAIN_BYTES = 128 * 1024
# Blocks of rows from which on each also takes its share of the gradient, while its numbers are in the cache: the shares are
# added up instead of going through all rows once more. And the most shares, which then stand for several blocks each.
FEWEST_SHARES, MOST_SHARES = 4, 32
# Multiply-adds of a step that may take more than 20 ms.
SLOW_STEP = 1_000_000_000

_HYPER = {
    "beta": layout.BETA1,
    "beta1": layout.BETA1,
    "beta2": layout.BETA2,
    "eps": layout.EPS,
    "weight_decay": layout.WEIGHT_DECAY,
    "nesterov": layout.NESTEROV,
}


@dataclass(frozen=True)
class Team:
    """A number of threads, and how they share a step out: blocks of rows that go through all layers, and the plan."""

    n_threads: int
    chains: int
    plan: NDArray[np.int64]


class Training:
    """An engine with an optimizer's state and workspaces for batches of up to `batch_size` rows.

    optimizer None leaves the parameters alone and the last batch's gradient in `gradient`. `clip_norm` 0 is no limit.
    `dropout` holds one share per hidden layer, or nothing; `seed` is that of its masks. With `clocked`, `clock`
    [threads, kinds] counts the ticks of each kind of job: see `layout.FORWARD` and what follows it. With `penalised`,
    `penalty` is the mean L2 penalty of the last epoch's batches, as `epoch` is their mean loss.
    """

    def __init__(
        self,
        engine: Engine,
        optimizer: Optimizer | None,
        l2: float,
        batch_size: int,
        n_threads: int | str = "auto",
        clip_norm: float = 0.0,
        dropout: Sequence[float] = (),
        seed: int = 0,
        clocked: bool = False,
        penalised: bool = False,
    ) -> None:
        model = engine.model
        self.engine = engine
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.steps_done = 0
        self._seed = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
        most_rows = job_rows.py_func(model.dtype.itemsize) - TILE_ROWS
        numbers = model.n_parameters + 2 * min(batch_size, most_rows) * sum(engine.strides[1:])
        chained = numbers * model.dtype.itemsize <= CHAIN_BYTES
        blocks = -(-batch_size // most_rows)
        n_shares = min(blocks, MOST_SHARES) if chained and blocks >= FEWEST_SHARES else 0
        self.phases = 2 if chained else 2 * (len(model.layers) - 1)
        self.work = batch_size * (3 * engine.work_per_row + WORK_PER_ROW)
        self.chooser = chooser_for(self.work, n_threads, self.phases)
        n_states = optimizer.n_states if optimizer else 0
        self._code = optimizer.code if optimizer else layout.NO_UPDATE
        self._hyper = np.zeros(layout.HYPER_SIZE)
        self._hyper[[layout.L2, layout.CLIP]] = l2, clip_norm
        for name, value in (optimizer.hyperparameters() if optimizer else {}).items():
            if name != "lr":
                self._hyper[_HYPER[name]] = value
        self.states = [aligned_zeros(model.n_parameters if i < n_states else 0, model.dtype) for i in range(2)]
        self._teams: list[Team] = []
        room = jobs = 0
        for count in self.chooser.counts:
            # Two tiles of rows to a block are little enough; the boundaries between blocks are rounded to tiles.
            chains = n_shares or max(min(count, batch_size // (2 * TILE_ROWS)), blocks) if chained else 0
            team = Team(count, chains, engine.plan(batch_size, dropout))
            jobs, slot = cut_updates(count, batch_size, clip_norm > 0, team.plan, engine.alphas, model.parameters)
            room = max(room, slot * count)
            self._teams.append(team)
        whole = optimizer is None or clip_norm > 0
        self.gradient = aligned_zeros(model.n_parameters if whole else room, model.dtype)
        self._squares = np.zeros(jobs if clip_norm > 0 else 0)
        share = -(-model.n_parameters // layout.SLOT_ROUND) * layout.SLOT_ROUND
        self._shares = aligned_zeros(n_shares * share, model.dtype).reshape(n_shares, share)
        self._row_squares = np.zeros(sum(model.layers[:-1]) if penalised else 0)
        self.penalty = 0.0
        most = self.chooser.counts[-1]
        self.clock = np.zeros((most if clocked else 0, layout.CLOCK_COLUMNS), np.int64)
        self._outputs = aligned_zeros(batch_size * sum(engine.strides[1:]), model.dtype)
        self._d_outputs = aligned_zeros(batch_size * sum(engine.strides[1:]), model.dtype)
        self._gathered: tuple[NDArray, ...] = ()
        self._parts = np.zeros(-(-batch_size // TILE_ROWS))
        self._state = np.zeros(STATE_SIZE, np.int64)
        self._result = np.zeros(layout.RESULT_SIZE)
        self._prepared = False
        # Whether a single step may take longer than Ctrl-C should wait: what is expected here, later what the last call took.
        self._slow = 3 * batch_size * model.n_parameters > SLOW_STEP

    @property
    def n_threads(self) -> int:
        """How many threads the coming call runs on."""
        return self._teams[self.chooser.choice].n_threads

    @property
    def leaves_a_core(self) -> bool:
        """Whether the coming call leaves a core to others."""
        return self.n_threads < usable_cores()

    def epoch(
        self,
        x: NDArray,
        y: NDArray,
        weight: NDArray | None,
        order: NDArray[np.int64],
        rates: NDArray[np.float64],
        on_progress: Callable[[int], None] | None = None,
    ) -> tuple[float, int]:
        """One pass over the rows in `order`: (mean loss, -1), or (the loss, batch) of the first that is not finite.

        `weight` [N] has mean 1; `rates` holds the learning rate of each batch, or all its `settings`. `on_progress` is called
        with the rows done, between native calls.
        """
        if rates.ndim == 1:
            rates = self.settings(rates)
        dtype = self.engine.model.dtype
        empty = np.zeros(0, dtype)
        labels, targets = self.engine.split_targets(y)
        weights = empty if weight is None else weight
        batches = self._batches(x, labels, targets, weights, len(order) <= self.batch_size)
        n_batches = -(-len(order) // self.batch_size)
        arguments = functools.partial(self._arguments, order, rates, x, labels, targets, weights, batches)
        if not self._prepared:
            with prepare.for_training(dtype):
                steps.train_batches.compile(tuple(numba.typeof(argument) for argument in arguments(0, 1)))
            self._prepared = True
        batch = 0
        # The loss is summed batch by batch through all calls: how many batches a call takes depends on the time they need.
        self._result[:] = 0
        while batch < n_batches:
            count = min(self.chooser.steps, n_batches - batch)
            self._state[:] = 0
            self._result[layout.STEPS_DONE] = 0
            start = time.perf_counter()
            call = functools.partial(steps.train_batches, *arguments(batch, count))
            if self._slow:
                run_interruptibly(call, self._stop)
            else:
                call()
            seconds = time.perf_counter() - start
            done = int(self._result[layout.STEPS_DONE])
            self.steps_done += done
            loss = float(self._result[layout.LAST_LOSS])
            if not math.isfinite(loss):
                return loss, batch + done
            batch += done  # fewer than `count` if Ctrl-C came before the threads had begun
            self.chooser.took(done, seconds)
            self._slow = seconds > 2 * SECONDS_PER_CALL * count
            if on_progress is not None:
                on_progress(min(batch * self.batch_size, len(order)))
        self.penalty = float(self._result[layout.PENALTY_SUM]) / len(order)
        return float(self._result[layout.LOSS_SUM]) / len(order), -1

    def settings(
        self,
        rates: NDArray[np.float64],
        l2: NDArray[np.float64] | float | None = None,
        eps: NDArray[np.float64] | float | None = None,
        scale: NDArray[np.float64] | float = 1.0,
    ) -> NDArray[np.float64]:
        """Settings [batches, 4] of steps with these learning rates, as compiled code takes them.

        l2 and eps are those of each step (default: the training's penalty and the optimizer's eps); scale is what a batch's
        mean loss and its gradient are multiplied by.
        """
        table = np.empty((len(rates), layout.STEP_COLUMNS))
        table[:, layout.RATE] = rates
        table[:, layout.STEP_L2] = self._hyper[layout.L2] if l2 is None else l2
        table[:, layout.STEP_EPS] = self._hyper[layout.EPS] if eps is None else eps
        table[:, layout.SCALE] = scale
        return table

    def _batches(
        self, x: NDArray, labels: NDArray, targets: NDArray, weights: NDArray, whole: bool
    ) -> tuple[NDArray, ...]:
        """Where steps read (inputs, labels, targets, weights): two places by turns, or the data themselves if they are
        `whole` one batch."""
        if whole:
            return x[None], labels[None], targets[None], weights[None]
        if not self._gathered or self._gathered[3].shape[1] != min(len(weights), self.batch_size):
            self._gathered = (
                np.zeros((2, self.batch_size, self.engine.strides[0]), x.dtype),
                np.zeros((2, min(len(labels), self.batch_size)), np.int64),
                np.zeros((2, min(len(targets), self.batch_size), targets.shape[1]), x.dtype),
                np.zeros((2, min(len(weights), self.batch_size)), x.dtype),
            )
        return self._gathered

    def _arguments(
        self,
        order: NDArray[np.int64],
        rates: NDArray[np.float64],
        x: NDArray,
        labels: NDArray[np.int64],
        targets: NDArray,
        weights: NDArray,
        batches: tuple[NDArray, ...],
        batch: int,
        count: int,
    ) -> tuple[Any, ...]:
        """Those of a native call for `count` batches from `batch` on."""
        team = self._teams[self.chooser.choice]
        return (
            team.n_threads, team.chains, self._state, team.plan, self.engine.alphas, self.engine.loss,
            self.engine.model.parameters, self.gradient, *self.states, self._code, self._hyper, rates,
            self.steps_done + 1, self._seed, self.batch_size, batch, count, order, x, labels, targets, weights,
            *batches, self._outputs, self._d_outputs, self._parts, self._squares, self._shares, self._row_squares,
            self.clock, self._result,
        )  # fmt: skip

    def _stop(self) -> None:
        """End the native call under way as soon as the jobs that have begun are done, in the middle of a step."""
        self._state[STOP] = 1
