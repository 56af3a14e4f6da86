"""The engine: runs a model over flat buffers, on workspaces that are made once.

`Engine` predicts and differentiates; `Training` adds an optimizer's state and workspaces for one batch size, and runs
mini-batches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import fastdl_kernels as fk
from fastdl import checks
from fastdl.engine import layout, prediction, prepare, steps
from fastdl.engine.dropout import UNITS
from fastdl.engine.pace import Pace, most_threads, threads_for
from fastdl.engine.training import Training
from fastdl.engine.workspace import aligned_zeros, row_stride
from fastdl.outputs import OUTPUTS
from fastdl_kernels.serial import LOSSES, TILE_ROWS

if TYPE_CHECKING:
    from fastdl.model import MLP

__all__ = ["Engine", "Training", "aligned_zeros", "most_threads"]

# Rows of a chunk of prediction: enough for a tile to use its panel of weights many times.
CHUNK_ROWS = 192

# Numbers of a block of raw outputs whose loss is taken in one call: 10 to 50 ms.
LOSS_BLOCK = 2**22


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
            threads = min(threads_for(rows * self.work_per_row, n_threads), -(-rows // CHUNK_ROWS))
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
