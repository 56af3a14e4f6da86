"""The trainer: shuffled mini-batches, epochs, validation and history."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl import checks
from fastdl.engine import Session, State
from fastdl.engine import Settings as StepSettings
from fastdl.errors import DivergedError, InputError
from fastdl.model import MLP
from fastdl.network import aligned_copy
from fastdl.optimizers import Optimizer
from fastdl.schedules import Schedule
from fastdl.sparse import SparseRows
from fastdl.stored import Inputs
from fastdl.training.callbacks import EpochResult, Hooks
from fastdl.training.chunks import Chunks, check_schedule
from fastdl.training.early_stopping import EarlyStopping
from fastdl.training.history import History
from fastdl.training.read_ahead import blocks_of, reading_ahead
from fastdl.training.rollback import Rollback
from fastdl.training.rows import Rows, rows_of
from fastdl.training.settings import SETTINGS, Settings
from fastdl.training.shuffling import MANY_ROWS, Orders
from fastdl.training.validation import Validation

if TYPE_CHECKING:
    from fastdl.engine.explain import Explanation


class Trainer(Settings):
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
    callbacks : objects with methods of `fastdl.Callback`
    schedule : one of `fastdl.schedules`, such as `schedules.Warmup(100, schedules.Cosine())`, for the rate of each step
    clip_norm : the largest norm of the gradient of all parameters together, as the optimizer gets it, L2 penalty
        included: a longer one is scaled to it (Pascanu et al., 2013). It takes one more pass over the parameters
    dropout : share of hidden outputs set to 0 in training while the others are divided by 1 - share (Srivastava et al.,
        2014): one for all hidden layers or one each
    early_stopping : an `EarlyStopping`, or its patience in epochs; it needs `validation_data`
    class_weight : weights of the rows by their class, {0: 1.0, 1: 5.0} or "balanced" (each class counts the same in
        sum); it multiplies `sample_weight`. For softmax and for one sigmoid output
    metrics : {name: function(y, predictions) -> number} of the validation data, besides fastdl's own: they come into the
        history, and early stopping can watch them. y is what `fit` was given, predictions what `model.predict` says

    All of these are attributes as well, and may be set at any time: a new value holds from the next `fit`. What still fits is
    kept: steps, epochs, and the optimizer's state as long as its kind is the same.

    Attributes
    ----------
    history : the `History` of the last `fit`
    epochs_done, steps_done : over all calls of `fit`; schedules and the order of the rows go on counting
    rate_factor : the schedule's learning rates are multiplied by it (`fastdl.ReduceOnPlateau` lowers it)

    A second call of `fit` goes on where the first ended. A trainer can be pickled and copied: the copy has a model of its
    own and goes on with the same bits.
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
        callbacks: Sequence[Any] = (),
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
        dropout: float | Sequence[float] = 0.0,
        early_stopping: EarlyStopping | int | None = None,
        *,
        class_weight: Mapping[int, float] | str | None = None,
        metrics: Mapping[str, Callable[..., float]] | None = None,
    ) -> None:
        given = locals()
        for name, setting in SETTINGS.items():
            setattr(self, name, given.get(name, setting.default))
        self.epochs_done = 0
        self.history = History()
        self._stopped = False
        self._session: Session | None = None
        self._kept: Kept | None = None
        self._orders = Orders(self.seed)

    def fit(
        self,
        X: Any,
        y: Any = None,
        validation_data: tuple[Any, ...] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> History:
        """Train for `epochs` passes over the rows of X [N, I] and y, and return the history of these epochs.

        X is an array of any number type, read where it lies (a `numpy.memmap` too), a list of such arrays, whose rows follow
        each other, nested lists, a data frame, or a sparse matrix of SciPy, which is never made dense; parameters and the
        optimizer's state are. While an epoch on sparse rows is under way, weights of columns that its last batches did not
        have may be some steps behind: they are up to date when it ends.

        Without y, X is an iterable of chunks (X, y) or (X, y, weights), gone through once for each epoch, or a function that
        gives one: see `Chunks`. Weights are relative to the mean of their chunk.

        y holds class labels 0 .. O-1 as [N], or one-hot rows [N, O], for softmax; labels [N] or [N, O] for sigmoid;
        targets [N] or [N, O] for linear output. `sample_weight` [N] weights the rows' losses relative to their mean
        weight. `validation_data` is (X, y), or (X, y, weights).

        Raises
        ------
        InputError : data that does not fit the model, or a batch size over the rows
        DivergedError : loss, validation loss or parameters became NaN or infinite: parameters, optimizer state and
            counters are those of the last good epoch, so that a lower rate goes on from there

        Ctrl-C (KeyboardInterrupt) ends the training between two batches: the model is usable and `trainer.history`
        holds the finished epochs.
        """
        self.check_again()
        model = self.model
        model.check_writable()
        if y is None:
            data: Rows | Chunks = Chunks(X, self, sample_weight)
        else:
            data = rows_of(model, self.class_weight, X, y, sample_weight)
            if self.batch_size > len(data.inputs):
                raise InputError(
                    f"batch_size: expected at most the {len(data.inputs)} rows of X, got {self.batch_size}; "
                    f"pass batch_size={len(data.inputs)} for full-batch training"
                )
        validation = None if validation_data is None else Validation(model, validation_data, self.metrics)
        stopping = self.early_stopping
        if stopping is not None and stopping.monitor != "loss" and validation is None:
            raise InputError(
                f"early_stopping: expected validation_data to watch {stopping.monitor} on, got none; "
                f"pass validation_data=(X, y) to fit, or monitor='loss'"
            )
        # Before the training is said to have begun: choosing threads may import psutil, and Python ends with the status of
        # an interrupted process if Ctrl-C ever met it there, whatever the program did about it.
        session = self._current_session()
        session.prepare(isinstance(data, Rows) and isinstance(data.inputs, SparseRows))
        if validation is not None:
            model.engine.prepare()
        hooks = Hooks(self, [*self.callbacks, *([] if stopping is None else [stopping])])
        self.history = History()
        self._stopped = False
        try:
            hooks.call("on_train_begin", self.epochs, len(data.inputs) if isinstance(data, Rows) else 0)
            self._run(session, data, validation, hooks)
            hooks.call("on_train_end")
        finally:
            hooks.close()
        return self.history

    def partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Learn from these rows once, in batches in random order, and return their mean loss; go on with the next ones.

        X, y and weights are as in `fit`, but no chunks; there may be fewer rows than a batch has. Schedules go on from call to
        call; callbacks, early stopping and `history` take no part.

        Raises
        ------
        InputError : as `fit`
        DivergedError : parameters, optimizer state and counters are those of before the call
        """
        self.check_again()
        self.model.check_writable()
        check_schedule(self.schedule)
        rows = rows_of(self.model, self.class_weight, X, y, sample_weight)
        session = self._current_session()
        session.snapshot()
        order = np.random.default_rng((self.seed, 0, self.steps_done)).permutation(len(rows.inputs))
        try:
            loss, bad_batch = session.epoch(*rows, order, self._rates(-(-len(order) // self.batch_size)))
            if bad_batch >= 0 or not checks.all_finite(self.model.parameters):
                told = (
                    f"the loss became {loss} in batch {bad_batch + 1}"
                    if bad_batch >= 0
                    else "parameters became infinite"
                )
                raise _diverged(told, 1, self.optimizer.lr)
        except BaseException as error:
            if isinstance(error, DivergedError) or not checks.all_finite(self.model.parameters):
                session.restore()
            raise
        return loss

    @property
    def steps_done(self) -> int:
        """How many steps there were in all calls of `fit` on this model."""
        if self._session is not None:
            return self._session.steps_done
        return 0 if self._kept is None else self._kept.state.steps_done

    def stop(self) -> None:
        """End the `fit` under way after the epoch that is running or has just ended; for callbacks."""
        self._stopped = True

    def explain(self, seconds: float = 0.3) -> Explanation:
        """How this training runs on this machine: threads and tiles, speed and share of the peak, where the time goes.

        It is measured for about `seconds`, on random rows and on copies of the parameters and of everything else that a
        step changes: the training goes on as if nothing had been asked. `print` what it returns.
        """
        from fastdl.engine.explain import explain

        seconds = checks.positive(seconds, "seconds", "how long to measure")
        self.check_again()
        parameters = aligned_copy(self.model.parameters)
        session = Session(self.model.architecture, parameters, self._step_settings(clocked=True))
        return explain(session, self.n_threads, seconds)

    # --- one training ---

    def _run(
        self,
        session: Session,
        data: Rows | Chunks,
        validation: Validation | None,
        hooks: Hooks,
    ) -> None:
        """The epochs of one `fit`. A setting that a callback changes holds from the next one: these are those of its start."""
        model, schedule, lr, epochs = self.model, self.schedule, self.optimizer.lr, self.epochs
        n_rows = len(data.inputs) if isinstance(data, Rows) else 0
        n_batches = -(-n_rows // session.settings.batch_size)
        span = self.steps_done, self.steps_done + epochs * n_batches
        rollback = Rollback(session, hooks.may_change_model)
        for epoch in range(1, epochs + 1):
            start = time.perf_counter()
            progress: Callable[[int], None] = functools.partial(hooks.call, "on_progress", epoch)
            try:
                if isinstance(data, Chunks):
                    loss, bad_batch = data.epoch(session, (self.seed, self.epochs_done), self._rates, progress)
                    n_rows = data.rows
                else:
                    rates = self.rate_factor * schedule.rates(lr, self.steps_done, n_batches, span)
                    order = self._order(session, data.inputs, self.epochs_done, epoch < epochs)
                    progress = reading_ahead(data.inputs, order, progress)
                    loss, bad_batch = session.epoch(*data, order, rates, progress)
                seconds = time.perf_counter() - start
                if bad_batch >= 0:
                    raise _diverged(f"the loss became {loss} in epoch {epoch}, batch {bad_batch + 1}", epoch, lr)
                if not checks.all_finite(model.parameters):
                    raise _diverged(f"parameters became NaN or infinite in epoch {epoch}", epoch, lr)
                val_loss: float | None = None
                values: dict[str, float] = {}
                if validation is not None:
                    val_loss, values = validation.assess(self.n_threads)
                    if not np.isfinite(val_loss):
                        raise _diverged(f"the validation loss became {val_loss} in epoch {epoch}", epoch, lr)
            except DivergedError:
                self._go_back(rollback)
                raise
            except BaseException:  # Ctrl-C, or a callback's: what was learned in this epoch stays, if it is any good
                if not checks.all_finite(model.parameters):
                    self._go_back(rollback)
                raise
            if epoch < epochs and isinstance(data, Chunks):
                rollback.keep()
            elif epoch < epochs and isinstance(data, Rows):
                order_again = functools.partial(self._order, session, data.inputs, self.epochs_done)
                rollback.good(functools.partial(_train_again, session, data, order_again, rates), seconds)
            self.epochs_done += 1
            self.history.add(loss, val_loss, values, seconds)
            hooks.call("on_epoch_end", EpochResult(epoch, epochs, loss, val_loss, values, seconds, n_rows))
            if self._stopped:
                break

    def _go_back(self, rollback: Rollback) -> None:
        """To the end of the last good epoch; with Ctrl-C on the way, to that of an earlier one."""
        try:
            rollback.back()
        finally:
            self.epochs_done -= rollback.missing
            self.history.forget(rollback.missing)

    def _order(self, session: Session, inputs: Inputs, epoch: int, more: bool = False) -> NDArray[np.int64]:
        """The order of the rows in the epoch that `epoch` others came before; with `more` to come, a core that is left draws

        the next one meanwhile. A batch of all rows is read as it stands.
        """
        n_rows = len(inputs)
        if session.settings.batch_size >= n_rows:
            return np.arange(n_rows)
        blocks = blocks_of(inputs)
        order = self._orders.take(epoch, n_rows, blocks)
        if more and n_rows >= MANY_ROWS and session.leaves_a_core:
            self._orders.draw_next(epoch + 1, n_rows, blocks)
        return order

    # --- what a training needs besides the rows ---

    def _rates(self, count: int) -> NDArray[np.float64]:
        """The learning rates of the next steps, where the end of the training is not known."""
        rates: NDArray[np.float64] = self.rate_factor * self.schedule.rates(self.optimizer.lr, self.steps_done, count)
        return rates

    def _step_settings(self, clocked: bool = False) -> StepSettings:
        """What the settings, as they are now, say of a step."""
        return StepSettings(
            self.batch_size,
            self.optimizer,
            self.l2,
            self.clip_norm or 0.0,
            self.dropout_rates,
            self.seed,
            self.n_threads,
            clocked,
        )

    def _current_session(self) -> Session:
        """The session of the model, for the settings as they are now.

        This is the one place that notices changed settings: the session makes anew what does not fit any more. With another
        model everything starts from the beginning.
        """
        settings, model = self._step_settings(), self.model
        if self._session is not None and self._session.parameters is model.parameters:
            self._session.apply(settings)
        else:
            if self._session is not None:
                self._session, self.epochs_done = None, 0  # the workspaces of before go before new ones come
            self._session = Session(model.architecture, model.parameters, settings)
            if self._kept is not None:
                kept, self._kept = self._kept, None
                if kept.model is model:
                    self._session.apply(replace(settings, optimizer=kept.optimizer))
                    self._session.resume(kept.state)
                    self._session.apply(settings)
                else:
                    self.epochs_done = 0
        if self._orders.seed != self.seed:
            self._orders = Orders(self.seed)
        return self._session

    # --- copies ---

    def __getstate__(self) -> dict[str, Any]:
        """Settings, counters and the optimizer's state: workspaces and compiled code are made anew by a copy."""
        state = {name: value for name, value in vars(self).items() if name not in ("_session", "_orders")}
        if self._session is not None:
            is_current = self._session.parameters is self.model.parameters  # not once another model has been set
            model = self.model if is_current else None
            state["_kept"] = Kept(model, self._session.settings.optimizer, self._session.state)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._session = None
        self._orders = Orders(self.seed)


class Kept(NamedTuple):
    """What a copy of a trainer goes on from: the session's state, and which model and optimizer it belongs to.

    The model is None where the state belongs to one that the trainer no longer has.
    """

    model: MLP | None
    optimizer: Any
    state: State


def _train_again(
    session: Session, data: Rows, order: Callable[[], NDArray[np.int64]], rates: NDArray[np.float64]
) -> None:  # fmt: skip
    """An epoch that was good, from the state before it."""
    session.epoch(*data, order(), rates)


def _diverged(what: str, epoch: int, lr: float) -> DivergedError:
    return DivergedError(
        f"{what}; the model keeps the parameters of {f'epoch {epoch - 1}' if epoch > 1 else 'before the training'}: "
        f"lower the learning rate (now {lr:g}), or standardise the features"
    )
