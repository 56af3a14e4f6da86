"""An oracle that follows a trainer from fit to fit: what it must have learned, computed step by step in float64."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import reference
from problems import oracle_arguments, weights_only

import fastdl
from fastdl.optimizers import Optimizer
from fastdl.schedules import Constant, Schedule


@dataclasses.dataclass
class Settings:
    """What a `Trainer` is told; the names are those of its arguments."""

    optimizer: Optimizer = dataclasses.field(default_factory=lambda: fastdl.Adam(lr=0.01))
    batch_size: int = 8
    epochs: int = 2
    l2: float = 0.0
    seed: int = 0
    schedule: Schedule = dataclasses.field(default_factory=Constant)
    clip_norm: float | None = None
    dropout: float = 0.0
    early_stopping: fastdl.EarlyStopping | int | None = None

    def as_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


class ByHand:
    """Counts and optimizer states of a trainer, kept beside it; a trainer with another model begins with another ByHand.

    epochs, steps : done so far, over all calls of fit
    updates : steps since the optimizer's states were zeros, by which Adam corrects its bias
    states : the optimizer's; None where only the trainer knows them (it has trained in float32, or with dropout)
    """

    def __init__(self) -> None:
        self.epochs = self.steps = self.updates = 0
        self._names: tuple[str, ...] | None = None
        self.states: list[np.ndarray] | None = None

    def _begin(self, optimizer: Optimizer, size: int) -> None:
        """States are kept while their names are the same, as Adam's and AdamW's; others are zeros again."""
        if optimizer.states != self._names or not optimizer.states:
            self.states, self.updates = [np.zeros(size) for _ in optimizer.states], 0
        self._names = optimizer.states

    @np.errstate(over="ignore", invalid="ignore")  # with a huge rate
    def fit(
        self, model: fastdl.MLP, start: np.ndarray, settings: Settings, data: tuple, done: int
    ) -> tuple[list[np.ndarray], list[float]] | None:
        """(parameters after each, loss of each) of the `done` epochs that a call of fit has finished, from `start` on.

        data : (X, y, weights or None) as they were given to fit. None where it cannot be computed here.
        """
        self._begin(settings.optimizer, start.size)
        X, y = model.prepare_inputs(data[0]), model.prepare_targets(data[1], len(data[0]))
        n_batches = -(-len(X) // settings.batch_size)
        first, epoch, updates = self.steps, self.epochs, self.updates
        self.steps += done * n_batches
        self.updates += done * n_batches
        self.epochs += done
        if model.dtype != np.float64 or settings.dropout or self.states is None:
            if done:
                self.states = None
            return None
        w = None if data[2] is None else data[2] / data[2].mean()
        span = first, first + settings.epochs * n_batches
        hyper = settings.optimizer.hyperparameters()
        if "weight_decay" in hyper:
            hyper["weight_decay"] = weights_only(model, hyper["weight_decay"])
        theta, found, losses = start.astype(np.float64), [], []
        for e in range(done):
            order = np.arange(len(X))
            if settings.batch_size < len(X):
                order = np.random.default_rng((settings.seed, epoch + e)).permutation(len(X))
            rates = settings.schedule.rates(settings.optimizer.lr, first + e * n_batches, n_batches, span)
            total = 0.0
            for k in range(n_batches):
                rows = order[k * settings.batch_size : (k + 1) * settings.batch_size]
                part = X[rows], y[rows], None if w is None else w[rows]
                loss, g = reference.network_loss_and_gradient(*oracle_arguments(model), theta, *part, settings.l2)
                weights, _ = reference.split(model.layers, theta)
                total += len(rows) * (loss - settings.l2 / 2 * sum((weight**2).sum() for weight in weights))
                norm = np.sqrt(g @ g)
                if settings.clip_norm is not None and norm > settings.clip_norm:
                    g = g * (settings.clip_norm / norm)
                hyper["lr"] = rates[k]
                count = updates + e * n_batches + k + 1
                theta, self.states = reference.OPTIMIZERS[settings.optimizer.name](
                    theta, g, self.states, count, **hyper
                )
            found.append(theta)
            losses.append(total / len(X))
        return found, losses


def validation_values(model: fastdl.MLP, X: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> dict[str, float]:
    """Loss and metrics of validation data in float64: the loss from `forward`, the metrics from `predict`.

    With weights every mean over rows is the weighted one.
    """
    w = np.ones(len(X)) if w is None else w
    losses, _ = reference.LOSS_ROWS[model.output](model.forward(X), model.prepare_targets(y, len(X)))
    found = {"val_loss": float(np.average(losses, weights=w))}
    predicted = reference.f64(model.predict(X)).reshape(len(X), -1)
    targets = reference.f64(y).reshape(len(X), -1)
    if model.output != "linear":
        right = predicted == (targets if model.output == "softmax" else targets > 0.5)
        return found | {"accuracy": float(np.average(right.mean(axis=1), weights=w))}
    squares = np.average((predicted - targets) ** 2, axis=0, weights=w)
    spread = np.average((targets - np.average(targets, axis=0, weights=w)) ** 2, axis=0, weights=w)
    found["rmse"] = float(np.sqrt(squares.mean()))
    if (spread > 1e-20).all():
        found["r2"] = float((1 - squares / spread).mean())
    return found


def epochs_until_stopped(
    history: fastdl.training.history.History, stopping: fastdl.EarlyStopping, epochs: int
) -> tuple:
    """(epochs that a training with these values of the monitored one takes, its best epoch)."""
    values = getattr(history, stopping.monitor)
    best, best_epoch = np.inf, 0
    for epoch, value in enumerate(values, 1):
        if value < best - stopping.min_delta:
            best, best_epoch = value, epoch
        if epoch - best_epoch >= stopping.patience:
            return epoch, best_epoch
    return epochs, best_epoch
