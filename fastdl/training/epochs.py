"""The epochs of one `fit`: learning, looking at validation data, and the way back when one goes wrong."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl import checks
from fastdl.engine import START, Session
from fastdl.engine.permutation import permutation
from fastdl.errors import DivergedError
from fastdl.training.callbacks import EpochResult, Hooks
from fastdl.training.chunks import Chunks
from fastdl.training.read_ahead import blocks_of, reading_ahead
from fastdl.training.rollback import Rollback, diverged, train_again
from fastdl.training.rows import TrainingRows
from fastdl.training.shuffling import MANY_ROWS
from fastdl.training.step_numbers import StepNumbers
from fastdl.training.under_way import Fit


def run(trainer: Any, session: Session, fit: Fit, hooks: Hooks) -> None:
    """Train; a setting that a callback changes holds from the next `fit`: these are those of its start.

    Raises
    ------
    DivergedError : a number is not finite any more; all is as after the last good epoch
    """
    model, (data, validation) = trainer.model, fit.data
    numbers = StepNumbers(trainer, session, fit.n_batches, None if isinstance(data, Chunks) else fit.span)
    lr, place = numbers.lr, fit.place
    # How often epochs are trained again must not depend on the clocks of different processes.
    rollback = Rollback(session, hooks.may_change_model or trainer.ranks is not None)
    for epoch in fit.coming:
        start = time.perf_counter()
        fit.rate_factor = fit.rate_factor if place.batch and fit.rate_factor is not None else trainer.rate_factor
        progress: Callable[[int], None] = functools.partial(hooks.call, "on_progress", epoch)
        again: Callable[[], object] | None = None
        try:
            if isinstance(data, Chunks):
                key = trainer.seed, trainer._epochs_done
                loss, bad_batch = data.epoch(session, key, numbers, fit.rate_factor, progress)
            else:
                arrays = data.inputs, data.targets, data.weight
                rates, drop = numbers.of_epoch(fit.rate_factor, place.batch)
                order = order_of(trainer, session, data, trainer._epochs_done, epoch < fit.epochs)
                own = order if session.spread is None else session.spread.own(order, session.settings.batch_size)
                where = place, drop, data.rows is not None
                with reading_ahead(data.inputs, own, progress, len(order)) as told:
                    loss, bad_batch = session.epoch(*arrays, order, rates, told, *where)
                order_again = functools.partial(order_of, trainer, session, data, trainer._epochs_done)
                again = functools.partial(train_again, session, arrays, order_again, rates, where)
            seconds = time.perf_counter() - start
            if bad_batch >= 0:
                raise diverged(f"the loss became {loss} in epoch {epoch}, batch {bad_batch + 1}", epoch, lr)
            if not checks.all_finite(model.parameters):
                raise diverged(f"parameters became NaN or infinite in epoch {epoch}", epoch, lr)
            val_loss: float | None = None
            values: dict[str, float] = {}
            if validation is not None:
                val_loss, values = validation.assess(trainer.n_threads, trainer.ranks)
                if not np.isfinite(val_loss):
                    raise diverged(f"the validation loss became {val_loss} in epoch {epoch}", epoch, lr)
        except DivergedError:
            _go_back(trainer, rollback)
            raise
        except BaseException:  # Ctrl-C, or a callback's: what was learned in this epoch stays, if it is any good
            if not checks.all_finite(model.parameters):
                _go_back(trainer, rollback)
            raise
        if epoch < fit.epochs:
            if again is None:
                rollback.keep()
            else:
                rollback.good(again, seconds)
        place = START
        trainer._epochs_done += 1
        trainer.history.add(loss, val_loss, values, seconds)
        n_rows = data.rows if isinstance(data, Chunks) else len(data)
        hooks.call("on_epoch_end", EpochResult(epoch, fit.epochs, loss, val_loss, values, seconds, n_rows))
        trainer._stopped = trainer._stopped if trainer.ranks is None else trainer.ranks.any_of(trainer._stopped)
        if trainer._stopped:
            break


def order_of(
    trainer: Any, session: Session, data: TrainingRows, epoch: int, more: bool = False
) -> NDArray[np.int64]:  # fmt: skip
    """The order of the rows in the epoch that `epoch` others came before; with `more` to come, a core that is left draws the
    next one meanwhile. A batch of all rows is read as it stands.
    """
    n_rows, orders = len(data), trainer._orders
    if session.settings.batch_size >= n_rows:
        return data.places(np.arange(n_rows))
    # Rows that are chosen from others are shuffled as a copy of them would be, which lies in memory.
    blocks = blocks_of(data.inputs) if data.rows is None else None
    order = orders.take(epoch, n_rows, blocks)
    if more and n_rows >= MANY_ROWS and session.leaves_a_core:
        orders.draw_next(epoch + 1, n_rows, blocks)
    return data.places(order)


def _go_back(trainer: Any, rollback: Rollback) -> None:
    """To the end of the last good epoch; with Ctrl-C on the way, to that of an earlier one."""
    trainer._fit = None
    try:
        rollback.back()
    finally:
        trainer._epochs_done -= rollback.missing
        trainer.history.forget(rollback.missing)


def learn_once(
    session: Session, data: TrainingRows, numbers: StepNumbers, rate_factor: float, key: tuple[int, ...]
) -> float:
    """One pass over rows in an order drawn by `key`, and their mean loss.

    Raises
    ------
    DivergedError : a number is not finite any more; all is as before
    """
    session.snapshot()
    order = permutation(key, len(data))
    steps, drop = (
        numbers.of_next(rate_factor, -(-len(order) // session.settings.batch_size)),
        numbers.dropout_from_here(),
    )
    try:
        arrays = data.inputs, data.targets, data.weight
        loss, bad_batch = session.epoch(*arrays, data.places(order), steps, dropout_factor=drop)
        if bad_batch >= 0:
            raise diverged(f"the loss became {loss} in batch {bad_batch + 1}", 1, numbers.lr)
        if not checks.all_finite(session.parameters):
            raise diverged("parameters became NaN or infinite", 1, numbers.lr)
    except BaseException as error:
        if isinstance(error, DivergedError) or not checks.all_finite(session.parameters):
            session.restore()
        raise
    return loss
