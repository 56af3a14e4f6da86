"""The engine: forward, backward and update over flat buffers, on workspaces that are made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fastdl_kernels as fk
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fastdl.model import MLP
    from fastdl.optimizers import Optimizer


def aligned_zeros(n: int, dtype: np.dtype) -> NDArray:
    """n zeros that start on a cache line (64 bytes): NumPy promises only 16."""
    raw = np.zeros(n * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n * dtype.itemsize].view(dtype)


class Engine:
    """Runs a model: thin first version, one public kernel after the other."""

    def __init__(self, model: MLP, optimizer: Optimizer | None = None, l2: float = 0.0) -> None:
        self.model = model
        self.optimizer = optimizer
        self.l2 = l2
        self.step = 0
        self.states = [aligned_zeros(model.n_parameters, model.dtype) for _ in range(optimizer.n_states if optimizer else 0)]

    def _layers(self, x):
        outs = [x]
        acts = [(a.code, a.alpha) for a in self.model.activations] + [(fk.IDENTITY, 0.0)]
        for w, b, (code, alpha) in zip(self.model.weights, self.model.biases, acts):
            out = np.empty((len(x), w.shape[1]), self.model.dtype)
            fk.linear_forward(outs[-1], w, b, code, alpha, out)
            outs.append(out)
        return outs, acts

    def forward(self, x: NDArray) -> NDArray:
        return self._layers(x)[0][-1]

    def probabilities(self, raw: NDArray) -> NDArray:
        if self.model.output == "softmax":
            out = np.empty_like(raw)
            fk.softmax(raw, out)
            return out
        e = np.exp(-np.abs(raw))
        return np.where(raw >= 0, 1, e) / (1 + e)

    def row_loss(self, raw, y):
        """Loss of each row."""
        if self.model.output == "softmax":
            out = np.empty_like(raw)
            fk.log_softmax(raw, out)
            return -out[np.arange(len(y)), y]
        if self.model.output == "sigmoid":
            return (np.maximum(raw, 0) - raw * y + np.log1p(np.exp(-np.abs(raw)))).sum(axis=1)
        return ((raw - y) ** 2).mean(axis=1)

    def loss_and_gradient(self, x, y, weight=None) -> tuple[float, NDArray]:
        outs, acts = self._layers(x)
        raw = outs[-1]
        d = np.empty_like(raw)
        kernel = {"softmax": fk.softmax_cross_entropy, "sigmoid": fk.sigmoid_cross_entropy, "linear": fk.squared_error}
        loss = kernel[self.model.output](raw, y, d)
        if weight is not None:
            w = weight / weight.mean()
            d *= w[:, None].astype(d.dtype)
            loss = float((self.row_loss(raw, y) * w).mean())
        grad = aligned_zeros(self.model.n_parameters, self.model.dtype)
        d_weights, d_biases = self.model.views(grad)
        for l in reversed(range(len(d_weights))):
            d_x = np.empty_like(outs[l])
            w = self.model.weights[l]
            fk.linear_backward(outs[l], w, outs[l + 1], d, *acts[l], d_x, d_weights[l], d_biases[l])
            if self.l2:
                d_weights[l] += self.l2 * w
                loss += self.l2 / 2 * float((w.astype(np.float64) ** 2).sum())
            d = d_x
        return float(loss), grad

    def train(self, x, y, weight, order, batch_size):
        """One pass over the rows in `order`; returns the mean loss and -1, or the first batch whose loss is not finite."""
        total = 0.0
        o = self.optimizer
        for i, start in enumerate(range(0, len(order), batch_size)):
            rows = order[start : start + batch_size]
            loss, g = self.loss_and_gradient(x[rows], y[rows], None if weight is None else weight[rows])
            if not np.isfinite(loss):
                return loss, i
            total += loss * len(rows)
            p = self.model.parameters
            self.step += 1
            if o.name == "sgd":
                fk.sgd_step(p, g, o.lr)
            elif o.name == "momentum":
                fk.momentum_step(p, g, *self.states, o.lr, o.beta)
            elif o.name == "rmsprop":
                fk.rmsprop_step(p, g, *self.states, o.lr, o.beta, o.eps)
            else:
                fk.adam_step(p, g, *self.states, self.step, o.lr, o.beta1, o.beta2, o.eps)
        return total / len(order), -1
