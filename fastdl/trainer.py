"""The trainer: shuffled mini-batches, epochs, validation and history."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl import checks, metrics
from fastdl.callbacks import Callback, EpochResult
from fastdl.engine import Engine, Session, Settings
from fastdl.errors import DivergedError, InputError
from fastdl.model import MLP
from fastdl.network import aligned_zeros
from fastdl.optimizers import Adam, Optimizer
from fastdl.schedules import Constant, Schedule
from fastdl.shuffling import Orders
from fastdl.stopping import EarlyStopping, Watch

if TYPE_CHECKING:
    from fastdl.engine.explain import Explanation


@dataclass
class History:
    """One value per finished epoch.

    loss : mean training loss, measured batch by batch while the parameters moved, without the L2 penalty (with dropout,
        where there is any)
    val_loss : mean loss on the validation data after the epoch; empty without validation data
    metrics : name -> values on the validation data ("accuracy", or "rmse" and "r2"); empty without validation data
    epoch_seconds : time of the epoch's training, without validation
    best_epoch : with early stopping, which epoch (from 1) was the best; its parameters are restored
    """

    loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    epoch_seconds: list[float] = field(default_factory=list)
    best_epoch: int | None = None

    def __len__(self) -> int:
        return len(self.loss)


class Trainer:
    """Trains an `MLP` with mini-batches.

    Parameters
    ----------
    model : the model; its parameters are updated in place
    optimizer : SGD, Momentum, RMSProp, Adam or AdamW
    batch_size : rows per step; the last, shorter batch of an epoch is used too
    epochs : passes over the data per call of `fit`
    l2 : adds (l2/2) Σ w² over weights, not biases, to the loss
    seed : of the shuffling and of dropout; the rows are put in a new order for each epoch
    n_threads : how many threads work on a step, or "auto": the fastest number, found by trying while the training runs. The
        results do not depend on it
    callbacks : objects with the methods of `fastdl.Callback`
    schedule : one of `fastdl.schedules`, such as `schedules.Warmup(100, schedules.Cosine())`, for the rate of each step
    clip_norm : the largest norm of the gradient of all parameters together, as the optimizer gets it, L2 penalty
        included: a longer one is scaled to it (Pascanu et al., 2013). It takes one more pass over the parameters
    dropout : share of hidden outputs set to 0 in training while the others are divided by 1 - share (Srivastava et al.,
        2014): one for all hidden layers or one each
    early_stopping : an `EarlyStopping`, or its patience in epochs; it needs `validation_data`

    A second call of `fit` goes on where the first ended: optimizer state, schedule and epoch count are kept.
    """

    def __init__(
        self,
        model: MLP,
        optimizer: Optimizer | None = None,
        batch_size: int = 64,
        epochs: int = 20,
        l2: float = 0.0,
        seed: int = 0,
        n_threads: int | str = "auto",
        callbacks: Sequence[Callback] = (),
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
        dropout: float | Sequence[float] = 0.0,
        early_stopping: EarlyStopping | int | None = None,
    ) -> None:
        if not isinstance(model, MLP):
            raise InputError(f"model: expected a fastdl.MLP, got {type(model).__name__}")
        optimizer = Adam() if optimizer is None else optimizer
        if not isinstance(optimizer, Optimizer):
            raise InputError(f"optimizer: expected an instance such as fastdl.Adam(lr=1e-3), got {optimizer!r}")
        if n_threads != "auto":
            checks.count(n_threads, "n_threads", 1, "'auto' or the number of threads")
        self.model = model
        self.optimizer = optimizer
        self.batch_size = checks.count(batch_size, "batch_size", 1, "the rows of a mini-batch")
        self.epochs = checks.count(epochs, "epochs", 1, "the passes over the data")
        self.l2 = checks.number(l2, "l2", 0, "the weight of the L2 penalty")
        self.seed = checks.count(seed, "seed", 0, "the seed of the shuffling")
        self.n_threads = n_threads
        if not isinstance(callbacks, (list, tuple)):
            raise InputError(f"callbacks: expected a list of objects, got {type(callbacks).__name__}; use [callback]")
        self.callbacks = list(callbacks)
        schedule = Constant() if schedule is None else schedule
        if not isinstance(schedule, Schedule):
            raise InputError(f"schedule: expected an instance such as fastdl.schedules.Cosine(), got {schedule!r}")
        self.schedule = schedule
        self.clip_norm = None if clip_norm is None else _positive(clip_norm, "clip_norm", "the gradient's largest norm")
        self.dropout = _shares(dropout, len(model.activations))
        if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
            early_stopping = EarlyStopping(
                checks.count(early_stopping, "early_stopping", 1, "an EarlyStopping or the epochs to wait")
            )
        if early_stopping is not None:
            early_stopping.check_monitor(metrics.METRICS[model.output])
        self.early_stopping = early_stopping
        self.epochs_done = 0
        self.history = History()
        self._engine = Engine(model.architecture, model.parameters, checks.finite)
        self._training: Session | None = None
        self._orders = Orders(self.seed)

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> History:
        """Train for `epochs` passes over the rows of X [N, I] and y, and return the history of these epochs.

        y holds class labels 0 .. O-1 as [N] for softmax; labels [N] or [N, O] for sigmoid; targets [N] or [N, O] for
        linear output. `sample_weight` [N] weights the rows' losses relative to their mean weight.

        Raises
        ------
        InputError : data that does not fit the model, or a batch size over the rows
        DivergedError : the loss became NaN or infinite; the parameters are those of the last good epoch

        Ctrl-C (KeyboardInterrupt) ends the training between two batches: the model is usable and `trainer.history`
        holds the finished epochs.
        """
        inputs = self.model.prepare_inputs(X)
        n_rows = len(inputs)
        if n_rows == 0:
            raise InputError("X: expected at least one row to learn from, got an empty array")
        targets = self.model.prepare_targets(y, n_rows)
        weight = None
        if sample_weight is not None:
            weight = checks.weights(sample_weight, n_rows)
            weight = (weight / weight.mean()).astype(self.model.dtype)
        if self.batch_size > n_rows:
            raise InputError(
                f"batch_size: expected at most the {n_rows} rows of X, got {self.batch_size}; "
                f"pass batch_size={n_rows} for full-batch training"
            )
        validation = self._prepare_validation(validation_data)
        stopping = self.early_stopping
        if stopping is not None and stopping.monitor != "loss" and validation is None:
            raise InputError(
                f"early_stopping: expected validation_data to watch {stopping.monitor} on, got none; "
                f"pass validation_data=(X, y) to fit, or monitor='loss'"
            )

        # Before the training is said to have begun: choosing threads may import psutil, and Python ends with the status of
        # an interrupted process if Ctrl-C ever met it there, whatever the program did about it.
        if self._training is None:
            self._training = self._new_session(self.model.parameters)
        training = self._training
        training.prepare()
        if validation is not None:
            self._engine.prepare()
        self.history = History()
        for callback in self.callbacks:
            callback.on_train_begin(self.epochs, n_rows)
        n_batches = -(-n_rows // self.batch_size)
        span = training.steps_done, training.steps_done + self.epochs * n_batches
        watch = None if stopping is None else Watch(stopping, self.model.parameters)
        good = self.model.parameters.copy()
        for epoch in range(1, self.epochs + 1):
            start = time.perf_counter()
            rates = self.schedule.rates(self.optimizer.lr, training.steps_done, n_batches, span)
            progress = functools.partial(self._progress, epoch)
            order = self._order(n_rows, epoch < self.epochs)
            loss, bad_batch = training.epoch(inputs, targets, weight, order, rates, progress)
            seconds = time.perf_counter() - start
            if bad_batch >= 0:
                self.model.parameters[:] = good
                raise DivergedError(
                    f"the loss became {loss} in epoch {epoch}, batch {bad_batch + 1}; the model keeps the parameters of "
                    f"{f'epoch {epoch - 1}' if epoch > 1 else 'before the training'}: "
                    f"lower the learning rate (now {self.optimizer.lr:g}), or standardise the features"
                )
            good[:] = self.model.parameters
            self.epochs_done += 1
            self._record(epoch, loss, seconds, n_rows, validation)
            if watch is not None and watch.is_over(self.history):
                break
        if watch is not None:
            watch.restore(self.history)
        return self.history

    def explain(self, seconds: float = 0.3) -> Explanation:
        """How this training runs on this machine: threads and tiles, speed and share of the peak, where the time goes.

        It is measured for about `seconds`, on random rows and on copies of the parameters and of everything else that a
        step changes: the training goes on as if nothing had been asked. `print` what it returns.
        """
        from fastdl.engine.explain import explain

        seconds = _positive(seconds, "seconds", "how long to measure")
        parameters = aligned_zeros(self.model.n_parameters, self.model.dtype)
        parameters[:] = self.model.parameters
        return explain(self._new_session(parameters, clocked=True), self.n_threads, seconds)

    def _new_session(self, parameters: NDArray, clocked: bool = False) -> Session:
        settings = Settings(
            self.batch_size,
            self.optimizer,
            self.l2,
            self.clip_norm or 0.0,
            tuple(self.dropout),
            self.seed,
            self.n_threads,
            clocked,
        )
        return Session(self.model.architecture, parameters, settings)

    def _order(self, n_rows: int, more: bool) -> NDArray[np.int64]:
        """The order of the rows in the coming epoch; with `more` to come, a core that is left draws the next one meanwhile.

        A batch of all rows is read as it stands.
        """
        if self.batch_size >= n_rows:
            return np.arange(n_rows)
        order = self._orders.take(self.epochs_done, n_rows)
        if more and self._training is not None and self._training.leaves_a_core:
            self._orders.draw_next(self.epochs_done + 1, n_rows)
        return order

    def _prepare_validation(self, data: tuple[ArrayLike, ArrayLike] | None) -> tuple[NDArray, NDArray] | None:
        if data is None:
            return None
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise InputError(f"validation_data: expected a pair (X, y), got {type(data).__name__}")
        inputs = self.model.prepare_inputs(data[0], "validation X")
        if len(inputs) == 0:
            raise InputError("validation X: expected at least one row, got an empty array")
        return inputs, self.model.prepare_targets(data[1], len(inputs), "validation y")

    def _progress(self, epoch: int, rows: int) -> None:
        for callback in self.callbacks:
            callback.on_progress(epoch, rows)

    def _record(
        self, epoch: int, loss: float, seconds: float, n_rows: int, validation: tuple[NDArray, NDArray] | None
    ) -> None:
        val_loss, values = None, {}
        if validation is not None:
            raw = self._engine.forward(validation[0], self.n_threads)
            val_loss = self._engine.mean_loss(raw, validation[1])
            values = metrics.evaluate(self.model, raw, validation[1])
            self.history.val_loss.append(val_loss)
        self.history.loss.append(float(loss))
        self.history.epoch_seconds.append(seconds)
        for name, value in values.items():
            self.history.metrics.setdefault(name, []).append(value)
        for callback in self.callbacks:
            callback.on_epoch_end(EpochResult(epoch, self.epochs, loss, val_loss, values, seconds, n_rows))


def _positive(value: object, name: str, what: str) -> float:
    number = checks.number(value, name, 0, what)
    if number == 0:
        raise InputError(f"{name}: expected {what}, a finite number above 0, got {value!r}")
    return number


def _shares(dropout: object, n_hidden: int) -> list[float]:
    """One share per hidden layer, or none at all where nothing is dropped."""
    several = isinstance(dropout, (list, tuple))
    given = list(dropout) if isinstance(dropout, (list, tuple)) else [dropout] * max(1, n_hidden)
    shares = [checks.number(share, "dropout", 0, "the share of outputs set to 0") for share in given]
    if any(share >= 1 for share in shares):
        raise InputError(f"dropout: expected shares in [0, 1), such as 0.2, got {dropout!r}")
    if several and len(shares) != n_hidden:
        raise InputError(f"dropout: expected one share, or {n_hidden} (one per hidden layer), got {len(shares)}")
    if not any(shares):
        return []
    if n_hidden == 0:
        raise InputError("dropout: expected a model with hidden layers, got a linear one; leave dropout out")
    return shares
