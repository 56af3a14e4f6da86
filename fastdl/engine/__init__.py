"""The engine: runs a model over flat buffers, on workspaces that are made once.

`Engine` predicts and differentiates; `Training` adds an optimizer's state and workspaces for one batch size, and runs
mini-batches in native calls of about 50 ms, without the GIL. Between two calls Python gets its turn: for progress,
callbacks and Ctrl-C.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

import fastdl_kernels as fk
from fastdl import checks
from fastdl.engine import layout, prediction, prepare, steps
from fastdl.engine.dropout import UNITS
from fastdl.engine.interrupt import run_interruptibly
from fastdl.engine.phases import cut_updates
from fastdl.outputs import OUTPUTS
from fastdl_kernels.serial import LOSSES, STATE_SIZE, STOP, TILE_ROWS, job_rows, regions, usable_cores

if TYPE_CHECKING:
    from fastdl.model import MLP
    from fastdl.optimizers import Optimizer

SECONDS_PER_CALL = 0.05
# Multiply-adds per thread and phase that make up for a barrier: about 2 us of work against 0.3 to 1 us of waiting. Chosen
# by 60 trainings with one and with two threads, from 4-8-2 to 200-200-200-20, in batches of 8 to 256.
WORK_PER_PHASE = 80_000
# As many multiply-adds as what a row of a batch takes besides the products: gathering, the loss, short passes (50 ns).
WORK_PER_ROW = 2_000
# Bytes of the parameters and of a batch's numbers in all layers, together, up to which a block of rows goes through all
# layers in one job: a second cache of 512 KB holds them beside the optimizer's states. With 1,400 parameters a step on two
# threads took 0.75 to 0.95 of its time; with 30,000 or more, products shared out one by one were as fast or faster.
CHAIN_BYTES = 128 * 1024
# Rows of a chunk of prediction: enough for a tile to use its panel of weights many times.
CHUNK_ROWS = 192

# Multiply-adds of a step that may take more than 20 ms.
SLOW_STEP = 1_000_000_000
# Numbers of a block of raw outputs whose loss is taken in one call: 10 to 50 ms.
LOSS_BLOCK = 2**22

_HYPER = {
    "beta": layout.BETA1,
    "beta1": layout.BETA1,
    "beta2": layout.BETA2,
    "eps": layout.EPS,
    "weight_decay": layout.WEIGHT_DECAY,
    "nesterov": layout.NESTEROV,
}


def aligned_zeros(n: int, dtype: np.dtype) -> NDArray:
    """n zeros that start on a cache line (64 bytes): NumPy promises only 16."""
    raw = np.zeros(n * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n * dtype.itemsize].view(dtype)


def row_stride(n: int, dtype: np.dtype) -> int:
    """How far rows of n numbers are apart in a workspace: a cache line further where rows would fall into few cache sets.

    A register tile on rows of 512 numbers runs at 60 % of the peak, and on rows of 528 at 89 %.
    """
    size = n * dtype.itemsize
    return n + 64 // dtype.itemsize if size >= 1024 and size % 512 == 0 else n


class Pace:
    """How much goes into one native call, so that it takes about SECONDS_PER_CALL: found by doubling from 1."""

    def __init__(self) -> None:
        self.count = 1

    def took(self, count: int, seconds: float) -> None:
        """A call of `count` took that long; one that was cut short by the end of the data says little."""
        if seconds < SECONDS_PER_CALL / 2:
            self.count *= 2 if count == self.count else 1
        elif seconds > SECONDS_PER_CALL * 2:
            self.count = max(1, math.ceil(count * SECONDS_PER_CALL / seconds))


class Engine:
    """A model as the compiled code sees it: its parameters, and its shape as numbers in arrays."""

    def __init__(self, model: MLP) -> None:
        self.model = model
        self.loss_name = OUTPUTS[model.output].loss
        self.loss = LOSSES[self.loss_name]
        activations = [(a.code, a.alpha) for a in model.activations] + [(fk.IDENTITY, 0.0)]
        self.alphas = np.array([alpha for _, alpha in activations], model.dtype)
        self._prepared = False
        self._pace = Pace()  # of predictions, in rounds of a chunk for each thread
        self.strides = [*(row_stride(n, model.dtype) for n in model.layers[:-1]), model.layers[-1]]
        self._widest = max(self.strides[1:])
        self.work_per_row = sum(i * o for i, o in zip(model.layers[:-1], model.layers[1:], strict=True))
        self._plan = self.plan(1)

    def plan(self, rows: int, dropout: Sequence[float] = ()) -> NDArray[np.int64]:
        """One row per layer, for workspaces of `rows` rows: see `layout.N_IN` and the columns after it."""
        plan = np.zeros((len(self.model.layers) - 1, layout.PLAN_COLUMNS), np.int64)
        parameter = output = 0
        codes = [a.code for a in self.model.activations] + [fk.IDENTITY]
        plan[:, layout.STRIDE] = self.strides[1:]
        plan[: len(dropout), layout.DROP] = [round(share * UNITS) for share in dropout]
        for row, n_in, n_out, code, stride in zip(
            plan, self.model.layers[:-1], self.model.layers[1:], codes, self.strides[1:], strict=True
        ):
            row[: layout.STRIDE] = n_in, n_out, parameter, parameter + n_in * n_out, code, output
            parameter += (n_in + 1) * n_out
            output += rows * stride
        return plan

    def threads_for(self, work: int, n_threads: int | str = "auto", phases: int = 1) -> int:
        """`n_threads`, or as many as so many multiply-adds in all the phases keep busy in each of them."""
        if regions.forked:
            return 1
        if isinstance(n_threads, int):
            return n_threads
        busy = work // (phases * WORK_PER_PHASE)
        return 1 if busy < 2 else min(usable_cores(), numba.config.NUMBA_NUM_THREADS, busy)

    def forward(self, x: NDArray, n_threads: int | str = "auto", name: str = "X") -> NDArray:
        """Raw outputs [N, O] of inputs [N, I]; InputError about `name` if the inputs are not finite."""
        raw = np.empty((len(x), self.model.layers[-1]), self.model.dtype)
        self._predict(x, raw, np.empty(0, np.int64), n_threads, name)
        return raw

    def classes(self, x: NDArray, name: str = "X") -> NDArray[np.int64]:
        """Which raw output is the greatest [N], for inputs [N, I]; as `forward` otherwise."""
        classes = np.empty(len(x), np.int64)
        self._predict(x, np.empty((0, 0), self.model.dtype), classes, "auto", name)
        return classes

    def _predict(self, x: NDArray, raw: NDArray, classes: NDArray[np.int64], n_threads: int | str, name: str) -> None:
        """Fill `raw`, or `classes` where it is not empty."""
        self._prepare()
        rows, dtype = len(x), self.model.dtype
        arguments = self._plan, self.alphas, self.model.parameters
        if rows <= CHUNK_ROWS:  # a short way: a single row takes a few microseconds in all
            work = np.empty((1, 2, max(1, rows) * self._widest), dtype)
            finite = prediction.predict_chunks(1, max(1, rows), *arguments, x, work, raw, classes)
        else:
            threads = min(self.threads_for(rows * self.work_per_row, n_threads), -(-rows // CHUNK_ROWS))
            # Equal chunks, as many for each thread.
            rounds = -(-rows // (threads * CHUNK_ROWS))
            chunk = -(-rows // (rounds * threads * TILE_ROWS)) * TILE_ROWS
            work = np.empty((threads, 2, chunk * self._widest), dtype)
            done, finite = 0, True
            while done < rows and finite:
                count = self._pace.count
                part = slice(done, done + count * threads * chunk)
                start = time.perf_counter()
                finite = prediction.predict_chunks(threads, chunk, *arguments, x[part], work, raw[part], classes[part])
                self._pace.took(count, time.perf_counter() - start)
                done = part.stop
        if not finite:
            checks.finite(x, name)

    def _prepare(self) -> None:
        if not self._prepared:
            prepare.for_prediction(self.model.dtype)
            self._prepared = True

    def probabilities(self, raw: NDArray) -> NDArray:
        """The output unit's probabilities of raw outputs."""
        if self.model.output == "softmax":
            result = np.empty_like(raw)
            fk.softmax(raw, result)
            return result
        # An identity layer of one input in front of a sigmoid: the kernel's sigmoid on every number.
        column = raw.reshape(-1, 1)
        result = np.empty_like(column)
        one, zero = np.ones((1, 1), raw.dtype), np.zeros(1, raw.dtype)
        fk.linear_forward(column, one, zero, fk.SIGMOID, 0.0, result)
        return result.reshape(raw.shape)

    def mean_loss(self, raw: NDArray, y: NDArray) -> float:
        """Mean loss of raw outputs against prepared targets."""
        self._prepare()
        labels, targets = self.split_targets(y)
        rows = max(1, min(len(raw), LOSS_BLOCK // raw.shape[1]))
        scratch, no_weights = np.empty((rows, raw.shape[1]), raw.dtype), np.zeros(0, raw.dtype)
        total = 0.0
        for start in range(0, len(raw), rows):
            part = slice(start, start + rows)
            total += steps.total_loss(self.loss, raw[part], labels[part], targets[part], no_weights, scratch)
        return total / (raw.size if self.loss_name == "squared_error" else len(raw))

    def split_targets(self, y: NDArray) -> tuple[NDArray[np.int64], NDArray]:
        """(labels, targets) as the compiled code takes them: the kind that the loss does not use is empty."""
        if self.model.output == "softmax":
            return y, np.zeros((0, 0), self.model.dtype)
        return np.zeros(0, np.int64), y

    def loss_and_gradient(
        self, x: NDArray, y: NDArray, weight: NDArray | None, l2: float, n_threads: int | str = "auto"
    ) -> tuple[float, NDArray]:
        """Mean loss over all rows, with the L2 penalty, and the flat gradient."""
        normalised = None if weight is None else (weight / weight.mean()).astype(self.model.dtype)
        training = Training(self, None, 0.0, len(x), n_threads)
        loss, _ = training.epoch(x, y, normalised, np.arange(len(x)), np.zeros(1))
        gradient = training.gradient
        if l2:
            for d_weight, w in zip(self.model.views(gradient)[0], self.model.weights, strict=True):
                d_weight += self.model.dtype.type(l2) * w
                loss += l2 / 2 * float(np.square(w, dtype=np.float64).sum())
        return loss, gradient


class Training:
    """An engine with an optimizer's state and workspaces for batches of up to `batch_size` rows.

    optimizer None leaves the parameters alone and the last batch's gradient in `gradient`. `clip_norm` 0 is no limit.
    `dropout` holds one share per hidden layer, or nothing; `seed` is that of its masks. With `clocked`, `clock`
    [threads, kinds] counts the ticks of each kind of job: see `layout.FORWARD` and what follows it.
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
    ) -> None:
        model = engine.model
        self.engine = engine
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.steps_done = 0
        self._plan = engine.plan(batch_size, dropout)
        self._seed = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
        numbers = model.n_parameters + 2 * batch_size * sum(engine.strides[1:])
        chained = numbers * model.dtype.itemsize <= CHAIN_BYTES
        self.phases = 2 if chained else 2 * len(self._plan)
        self.work = batch_size * (3 * engine.work_per_row + WORK_PER_ROW)
        self.n_threads = engine.threads_for(self.work, n_threads, self.phases)
        self._chains = 0
        if chained:
            # Two tiles of rows to a block are little enough; the boundaries between blocks are rounded to tiles.
            most = job_rows.py_func(model.dtype.itemsize) - TILE_ROWS
            self._chains = max(1, min(self.n_threads, batch_size // (2 * TILE_ROWS)), -(-batch_size // most))
        n_states = optimizer.n_states if optimizer else 0
        self._code = optimizer.code if optimizer else layout.NO_UPDATE
        self._hyper = np.zeros(layout.HYPER_SIZE)
        self._hyper[[layout.L2, layout.CLIP]] = l2, clip_norm
        for name, value in (optimizer.hyperparameters() if optimizer else {}).items():
            if name != "lr":
                self._hyper[_HYPER[name]] = value
        self.states = [aligned_zeros(model.n_parameters if i < n_states else 0, model.dtype) for i in range(2)]
        jobs, slot = cut_updates(self.n_threads, batch_size, clip_norm > 0, self._plan, engine.alphas, model.parameters)
        whole = optimizer is None or clip_norm > 0
        self.gradient = aligned_zeros(model.n_parameters if whole else slot * self.n_threads, model.dtype)
        self._squares = np.zeros(jobs if clip_norm > 0 else 0)
        self.clock = np.zeros((self.n_threads if clocked else 0, layout.CLOCK_COLUMNS), np.int64)
        self._outputs = aligned_zeros(batch_size * sum(engine.strides[1:]), model.dtype)
        self._d_outputs = aligned_zeros(batch_size * sum(engine.strides[1:]), model.dtype)
        self._gathered: tuple[NDArray, ...] = ()
        self._parts = np.zeros(-(-batch_size // TILE_ROWS))
        self._state = np.zeros(STATE_SIZE, np.int64)
        self._result = np.zeros(layout.RESULT_SIZE)
        self._prepared = False
        self._pace = Pace()
        # Whether a single step may take longer than Ctrl-C should wait: what is expected here, later what the last call took.
        self._slow = 3 * batch_size * model.n_parameters > SLOW_STEP

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

        `weight` [N] has mean 1; `rates` holds the learning rate of each batch. `on_progress` is called with the rows
        done, between native calls.
        """
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
            count = min(self._pace.count, n_batches - batch)
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
            self._pace.took(count, seconds)
            self._slow = seconds > 2 * SECONDS_PER_CALL * count
            if on_progress is not None:
                on_progress(min(batch * self.batch_size, len(order)))
        return float(self._result[layout.LOSS_SUM]) / len(order), -1

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
        return (
            self.n_threads, self._chains, self._state, self._plan, self.engine.alphas, self.engine.loss,
            self.engine.model.parameters, self.gradient, *self.states, self._code, self._hyper, rates,
            self.steps_done + 1, self._seed, self.batch_size, batch, count, order, x, labels, targets, weights,
            *batches, self._outputs, self._d_outputs, self._parts, self._squares, self.clock, self._result,
        )  # fmt: skip

    def _stop(self) -> None:
        """End the native call under way as soon as the jobs that have begun are done, in the middle of a step."""
        self._state[STOP] = 1
