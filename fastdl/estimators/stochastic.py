"""Epochs of mini-batches, on the engine: what `fit` and `partial_fit` do with the solvers "sgd" and "adam" and with optimizers.

The order of the rows, the penalty of each batch and the loss of an epoch are scikit-learn's, number for number:

    loss of a batch      Σ w_r loss_r / Σ w_r + alpha/2 Σ W² / Σ w_r, over the batch's rows r (without weights w_r = 1)
    loss of an epoch     the mean of the batches' losses, by rows, each before its own step
"""

from __future__ import annotations

import functools
import math
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from fastdl.engine import Session, Settings, State
from fastdl.errors import InputError
from fastdl.estimators.network import Network
from fastdl.estimators.solvers import Solver
from fastdl.estimators.stopping import Validation, Watch
from fastdl.estimators.threads import allowed_threads
from fastdl.precision import arithmetic_of, check
from fastdl.sparse import SparseRows
from fastdl.training.callbacks import EpochResult, Hooks, check_callbacks
from fastdl.training.history import History


@dataclass
class Data:
    """Rows to learn from, as the engine takes them."""

    x: NDArray | SparseRows
    y: NDArray
    weight: NDArray | None = None


class Steps:
    """A solver with its optimizer's states: it outlives a call of `partial_fit`, and goes into a pickle."""

    def __init__(self, solver: Solver) -> None:
        self.solver = solver
        self._session: Session | None = None
        self._kept: State | None = None  # while there is no session

    def on(self, network: Network, estimator: Any, batch_size: int, dropout: list[float], seed: int) -> Session:
        """The engine's session for this network and these settings; the optimizer's states go on."""
        settings = Settings(
            batch_size,
            self.solver.optimizer,
            clip_norm=estimator.clip_norm or 0.0,
            dropout=tuple(dropout),
            seed=seed,
            n_threads=allowed_threads(estimator.n_threads),
            penalised=estimator.alpha > 0,
            arithmetic=arithmetic_of(check(estimator.precision, network.model.dtype)),
        )
        if self._session is not None and self._session.parameters is network.model.parameters:
            self._session.apply(settings)
            return self._session
        kept, session = self._state(), network.session(settings)
        if kept is not None:
            session.resume(kept)
        self._session, self._kept = session, None
        return session

    def _state(self) -> State | None:
        return self._kept if self._session is None else self._session.state

    def __getstate__(self) -> dict[str, Any]:
        return {"solver": self.solver, "_session": None, "_kept": self._state()}


class Fit:
    """What callbacks see as their `trainer`: model and history of the fit under way, the rate's factor, and how to stop it."""

    def __init__(self, network: Network) -> None:
        self.model, self.history = network.model, History()
        self.rate_factor = 1.0
        self.stopped = False

    def stop(self) -> None:
        """End the training after the epoch under way."""
        self.stopped = True


def run(
    estimator: Any, network: Network, steps: Steps, data: Data, validation: Validation | None, incremental: bool
) -> None:
    """Train for `max_iter` epochs or until they get no better; one epoch if `incremental`."""
    n_rows = len(data.x)
    batch_size = _batch_size(estimator, n_rows)
    dropout = _dropout(estimator.dropout, len(network.shape.activations))
    random = estimator._random_state
    # Drawn only where it is used, so that everything else draws the same numbers as scikit-learn.
    seed = int(random.randint(np.iinfo(np.int32).max)) if dropout else 0
    session = steps.on(network, estimator, batch_size, dropout, seed)
    epochs = 1 if incremental else estimator.max_iter
    loop = _Loop(estimator, steps.solver, session, data, epochs)
    fit = Fit(network)
    hooks = Hooks(fit, check_callbacks(list(estimator.callbacks or ())))
    watch = Watch(estimator)
    threads = allowed_threads(estimator.n_threads)
    order = np.arange(n_rows)
    estimator.n_iter_ = 0
    try:
        hooks.call("on_train_begin", epochs, n_rows)
        for epoch in range(1, epochs + 1):
            start = time.perf_counter()
            if estimator.shuffle:
                places = np.arange(n_rows)
                random.shuffle(places)
                order = order[places]
            loss = loop.epoch(order, epoch, fit.rate_factor, hooks)
            seconds = time.perf_counter() - start
            estimator.n_iter_ += 1
            estimator.loss_ = loss
            estimator.t_ += n_rows
            estimator.loss_curve_.append(loss)
            if estimator.verbose:
                print(f"Iteration {estimator.n_iter_}, loss = {loss:.8f}")
            score = None if validation is None else validation.score(network, threads, loss)
            watch.look(network, score)
            metrics = {} if score is None else {estimator._score_name: score}
            fit.history.add(loss, None, metrics, seconds)
            hooks.call("on_epoch_end", EpochResult(epoch, epochs, loss, None, metrics, seconds, n_rows))
            steps.solver.epoch_ends(estimator.t_, session)
            if not math.isfinite(loss):
                _diverged(estimator, watch)
                break
            if watch.message:
                if steps.solver.stops(watch.message, estimator.verbose, session):
                    break
                estimator._no_improvement_count = 0
            if fit.stopped:
                break
            if not incremental and epoch == epochs:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({epochs}) reached and the optimization hasn't converged yet.",
                    ConvergenceWarning,
                    stacklevel=5,
                )
        hooks.call("on_train_end")
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=5)
    finally:
        hooks.close()
    if watch.best is not None:
        network.model.parameters[:] = watch.best


class _Loop:
    """What does not change from epoch to epoch, worked out once."""

    def __init__(self, estimator: Any, solver: Solver, session: Session, data: Data, epochs: int) -> None:
        self._solver, self._session, self._data = solver, session, data
        n_rows, size = len(data.x), session.settings.batch_size
        self._starts = np.arange(0, n_rows, size)
        self._rows = np.minimum(size, n_rows - self._starts).astype(np.float64)
        self._alpha = float(estimator.alpha)
        self._scale, self._divisor = loss_scales(estimator.loss, session.architecture.layers[-1])
        self._weight = None if data.weight is None else data.weight.astype(session.architecture.dtype)
        # A batch of all rows is read as it stands.
        self._whole = np.arange(n_rows) if n_rows <= size else None
        self._span = session.steps_done, session.steps_done + epochs * len(self._starts)

    def epoch(self, order: NDArray[np.int64], epoch: int, rate_factor: float, hooks: Hooks) -> float:
        """One epoch; returns its loss, penalty included."""
        session, data = self._session, self._data
        if self._whole is not None:
            order = self._whole
        first, count = session.steps_done, len(self._starts)
        sums, scale = self._rows, np.full(count, self._scale)
        if data.weight is not None:
            sums = np.add.reduceat(data.weight[order], self._starts)
            # A batch whose weights are all 0 teaches nothing.
            scale = np.divide(self._scale * self._rows, sums, out=np.zeros(count), where=sums != 0)
        l2 = np.divide(self._alpha, sums, out=np.zeros(count), where=sums != 0)
        rates = rate_factor * self._solver.rates(first, count, self._span)
        table = session.step_table(rates, l2, self._solver.eps(first, count), scale)

        progress = functools.partial(hooks.call, "on_progress", epoch)
        loss, bad = session.epoch(data.x, data.y, self._weight, order, table, progress)
        if bad >= 0:
            return loss
        return loss / self._divisor + session.penalty


def loss_scales(loss: str, n_outputs: int) -> tuple[float, float]:
    """(what the engine's mean loss is multiplied by, so that its gradient is scikit-learn's; what that is divided by, to be the
    loss that scikit-learn reports).

    The engine's squared error is the mean of (p - y)² over rows and outputs. scikit-learn's gradient is that of the sum of
    (p - y)² / 2 over outputs, and the loss it reports their mean. Its Poisson loss is a sum over outputs, and the engine's a
    mean; cross-entropies are the same.
    """
    return {"squared_error": (n_outputs / 2.0, float(n_outputs)), "poisson": (float(n_outputs), 1.0)}.get(
        loss, (1.0, 1.0)
    )


def _batch_size(estimator: Any, n_rows: int) -> int:
    if isinstance(estimator.batch_size, str):
        return min(200, n_rows)
    if estimator.batch_size > n_rows:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=6
        )
    return int(np.clip(estimator.batch_size, 1, n_rows))


def _dropout(given: Any, n_hidden: int) -> list[float]:
    """One rate per hidden layer, or nothing where nothing is dropped."""
    rates = [float(given)] * n_hidden if np.ndim(given) == 0 else [float(rate) for rate in given]
    if np.ndim(given) == 0 and given and not n_hidden:
        raise InputError("dropout: expected hidden layers to drop outputs of, got hidden_layer_sizes=(); leave it out")
    if len(rates) != n_hidden:
        raise InputError(
            f"dropout: expected one rate, or {n_hidden} (one per hidden layer), got {len(rates)}: {given!r}"
        )
    if any(not 0 <= rate < 1 for rate in rates):
        raise InputError(f"dropout: expected rates in [0, 1), such as 0.2, got {given!r}")
    return rates if any(rates) else []


def _diverged(estimator: Any, watch: Watch) -> None:
    """Training cannot go on. Where the best parameters have been kept, a warning says so; if not, `fit` raises an error."""
    if watch.best is None:
        estimator._diverged = True
        return
    warnings.warn(
        f"Stochastic Optimizer: the loss became {estimator.loss_} in iteration {estimator.n_iter_}, and the optimization "
        f"hasn't converged; the parameters are those of the best validation score. Lower learning_rate_init (now "
        f"{estimator.learning_rate_init:g}) or scale the features.",
        ConvergenceWarning,
        stacklevel=6,
    )
