"""`Engine`: predictions, losses and gradients of one network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

import fastdl_kernels as fk
from fastdl.engine.boundary import INT64, check, fault
from fastdl.engine.finite import all_finite
from fastdl.engine.loss import check_labels, empty_targets, split_targets, total_loss
from fastdl.engine.plan import Layout
from fastdl.engine.predictor import Predictor
from fastdl.engine.session import Session
from fastdl.engine.settings import Settings
from fastdl.network import Architecture, views
from fastdl.stored import Inputs, StoredRows
from fastdl_kernels.serial import TILE_ROWS

# Numbers of a block of raw outputs whose loss is taken in one call: 10 to 50 ms.
LOSS_BLOCK = 2**22


class Engine:
    """A network as the compiled code sees it.

    Parameters
    ----------
    architecture : its shape
    parameters : its flat buffer, read and, by a training, written; it is never replaced
    refuse : called with (inputs, their name) that are not finite; raises what the user shall see
    """

    def __init__(
        self,
        architecture: Architecture,
        parameters: NDArray,
        refuse: Callable[[Any, str], object] | None = None,
    ) -> None:
        self.architecture = architecture
        self.parameters = parameters
        self._refuse = refuse
        self._layout = Layout(architecture)
        self._predictor = Predictor(self._layout, parameters)

    @property
    def arithmetic(self) -> int:
        """Of the products of large layers in predictions: see `predictor.Predictor.arithmetic`."""
        return self._predictor.arithmetic

    @arithmetic.setter
    def arithmetic(self, arithmetic: int) -> None:
        self._predictor.arithmetic = arithmetic

    def prepare(self) -> None:
        """Have the compiled code ready that predictions and losses would wait for at first."""
        self._predictor.prepare()
        dtype = self.architecture.dtype
        raw = np.zeros((0, 1), dtype)
        arguments = self._layout.loss, raw, empty_targets(dtype), raw, np.zeros(0)
        total_loss.compile(tuple(map(numba.typeof, arguments)))

    def forward(self, x: Inputs, n_threads: int | str = "auto", name: str = "X") -> NDArray:
        """Raw outputs [N, O] of inputs [N, I]; about inputs that are not finite `refuse` raises, with their `name`."""
        raw, finite = self._predictor.outputs(x, n_threads)
        if not finite:
            self._not_finite(x, name)
        return raw

    def classes(self, x: Inputs, name: str = "X") -> NDArray[np.int64]:
        """Which raw output is the greatest [N], for inputs [N, I]; as `forward` otherwise."""
        classes, finite = self._predictor.classes(x)
        if not finite:
            self._not_finite(x, name)
        return classes

    def check_finite(self, x: StoredRows, name: str = "X") -> None:
        """One pass over rows, if any number could be NaN or infinite; about the first of those `refuse` raises."""
        if x.may_be_infinite and not all_finite(x):
            self._not_finite(x, name)

    def _not_finite(self, x: Inputs, name: str) -> None:
        if self._refuse is not None:
            self._refuse(x, name)
        raise fault(f"{name} holds numbers that are not finite, and was not refused")

    def probabilities(self, raw: NDArray) -> NDArray:
        """The probabilities that raw outputs stand for: softmax where the loss takes labels, else sigmoid of each."""
        if self.architecture.loss.takes_labels:
            result = np.empty_like(raw)
            fk.softmax(raw, result)
            return result
        # An identity layer of one input in front of a sigmoid: the kernel's sigmoid on every number.
        column = raw.reshape(-1, 1)
        result = np.empty_like(column)
        one, zero = np.ones((1, 1), raw.dtype), np.zeros(1, raw.dtype)
        fk.linear_forward(column, one, zero, fk.SIGMOID, 0.0, result)
        return result.reshape(raw.shape)

    def mean_loss(self, raw: NDArray, y: NDArray, weight: NDArray | None = None) -> float:
        """Mean loss of raw outputs [N, O] against prepared targets: labels [N] or numbers [N, O]; `weight` [N] has mean 1."""
        self._predictor.prepare()
        a, dtype = self.architecture, self.architecture.dtype
        labels, targets, weights = split_targets(a.loss, y, weight, dtype)
        check("raw outputs", raw, dtype, (len(raw), a.layers[-1]))
        if a.loss.takes_labels:
            check("labels", labels, INT64, (len(raw),))
        else:
            check("targets", targets, dtype, raw.shape)
        if weight is not None:
            check("weights", weight, dtype, (len(raw),))
        rows = max(1, min(len(raw), LOSS_BLOCK // raw.shape[1]))
        scratch, losses = np.empty((rows, raw.shape[1]), dtype), np.empty(-(-rows // TILE_ROWS))
        total = 0.0
        for start in range(0, len(raw), rows):
            part = slice(start, start + rows)
            data = labels[part], targets[part], weights[part]
            total += total_loss(self._layout.loss, raw[part], data, scratch, losses)
        if total != total:
            check_labels(labels, a.layers[-1])
        return total / (raw.size if a.loss.per_output else len(raw))

    def loss_and_gradient(
        self, x: Inputs, y: NDArray, weight: NDArray | None, l2: float, n_threads: int | str = "auto"
    ) -> tuple[float, NDArray]:
        """Mean loss over all rows, with the L2 penalty, and the flat gradient; `weight` [N] is scaled to mean 1."""
        layers, dtype = self.architecture.dense, self.architecture.dtype
        normalised = None if weight is None else (weight / weight.mean()).astype(dtype)
        session = Session(self.architecture, self.parameters, Settings(len(x), n_threads=n_threads))
        loss, _ = session.epoch(x, y, normalised, np.arange(len(x)), np.zeros(1))
        gradient = session.gradient
        if l2:
            pairs = zip(views(layers, gradient)[0], views(layers, self.parameters)[0], strict=True)
            for d_weight, w in pairs:
                d_weight += dtype.type(l2) * w
                loss += l2 / 2 * float(np.square(w, dtype=np.float64).sum())
        return loss, gradient
