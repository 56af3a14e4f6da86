"""A call of `fit` that is under way: how far it has come, and how one that a checkpoint holds is taken up again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray

from fastdl.engine import START, Place, Session, State
from fastdl.errors import EngineError, InputError
from fastdl.model import MLP
from fastdl.training.callbacks import EpochResult
from fastdl.training.chunks import Chunks
from fastdl.training.early_stopping import EarlyStopping, ReduceOnPlateau, Watcher
from fastdl.training.fingerprint import difference, fingerprint
from fastdl.training.rows import TrainingRows
from fastdl.training.settings import SETTINGS
from fastdl.training.validation import Validation

WATCHERS = (EarlyStopping, ReduceOnPlateau)
"""Callbacks of which a checkpoint knows how far they have come; classes derived from them are a user's own."""


class Kept(NamedTuple):
    """What a copy of a trainer goes on from: the session's state, and which model and optimizer it belongs to.

    The model is None where the state belongs to one that the trainer no longer has.
    """

    model: MLP | None
    optimizer: Any
    state: State


class Data(NamedTuple):
    """What a training reads, as the engine takes it."""

    rows: TrainingRows | Chunks
    validation: Validation | None

    @property
    def n_rows(self) -> int:
        """How many rows an epoch has; 0 where nobody knows it."""
        return 0 if isinstance(self.rows, Chunks) else len(self.rows)

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data: see `fingerprint.fingerprint`. Of chunks nothing does."""
        if isinstance(self.rows, Chunks):
            raise EngineError("chunks have no fingerprint")
        held, own = self.validation, self.rows.alone
        return fingerprint(
            {
                "X": own.inputs,
                "y": own.targets,
                "sample_weight": own.weight,
                "validation X": None if held is None else held.inputs,
                "validation y": None if held is None else held.targets,
                "validation weights": None if held is None else held.weight,
            }
        )


@dataclass
class Pending:
    """A training that a checkpoint holds and that has not come to its end: the next `fit` finishes it.

    fit : what `Fit.now` gave
    watchers : for each of fastdl's callbacks that follow a value, its class, monitor and progress
    best : the parameters that watchers have kept, by the watcher's number
    """

    fit: dict[str, Any]
    watchers: list[dict[str, Any]] = field(default_factory=list)
    best: dict[int, NDArray] = field(default_factory=dict)

    @property
    def place(self) -> Place:
        """Where the epoch under way is."""
        return Place(self.fit["batch"], self.fit["loss_sum"])

    def check(self, trainer: Any, done: int, data: Data) -> None:
        """Raise InputError unless the training can go on with these settings and data to the same bits."""
        if trainer.epochs < done:
            raise InputError(f"epochs: expected at least the {done} that are done, got {trainer.epochs}")
        for name in ("batch_size", "seed"):
            if self.place.batch and getattr(trainer, name) != self.fit[name]:
                raise InputError(
                    f"{name}: expected {self.fit[name]} as in the epoch that is under way, got {getattr(trainer, name)}; "
                    f"change it when that has ended"
                )
        if isinstance(data.rows, Chunks):
            raise InputError("data: expected X and y, with which this training began, got chunks")
        known = self.fit["fingerprint"]
        found = difference(known, data.fingerprint(), trainer.model.feature_names)
        if found is not None:
            raise InputError(
                f"data: expected those that this training began with, got {found}; give it the same data, or begin a "
                f"new training with `Trainer(model)`"
            )

    def take_up(self, trainer: Any, callbacks: Sequence[Any], n_rows: int) -> None:
        """Have the callbacks watch on from where they were; those that were not yet told of the last epoch are told."""
        known, history = dict(enumerate(self.watchers)), trainer.history
        for callback in callbacks:
            if type(callback) not in WATCHERS:
                continue
            same = [i for i, w in known.items() if (w["class"], w["monitor"]) == _kind(callback)]
            if not same:
                continue
            callback.go_on(known.pop(same[0])["progress"], self.best.get(same[0]))
            if callback.seen < len(history):
                values = {name: series[-1] for name, series in history.metrics.items()}
                val_loss = history.val_loss[-1] if history.val_loss else None
                told = (
                    len(history),
                    trainer.epochs,
                    history.loss[-1],
                    val_loss,
                    values,
                    history.epoch_seconds[-1],
                    n_rows,
                )
                callback.on_epoch_end(EpochResult(*told))


def _kind(watcher: Watcher) -> tuple[str, str]:
    return type(watcher).__name__, watcher.monitor


class Fit:
    """A call of `fit` from its first step on, or the rest of one.

    Parameters
    ----------
    trainer, session : whose call it is; parameters and states are those that it begins with
    data : what it reads
    callbacks : in the order in which they are called
    pending : what it goes on from, if it began elsewhere

    Attributes
    ----------
    done, place : how many epochs the history has already, and where the next one goes on
    epochs : how many there will be
    n_batches : of an epoch; 0 where nobody knows it
    rate_factor : what the rates of the epoch under way are multiplied by; None until it is known
    """

    def __init__(
        self, trainer: Any, session: Session, data: Data, callbacks: Sequence[Any], pending: Pending | None
    ) -> None:
        self.settings = {name: getattr(trainer, name) for name in SETTINGS}
        self.epochs: int = trainer.epochs
        self.data, self.callbacks = data, callbacks
        self.n_batches = -(-data.n_rows // session.settings.batch_size)
        self.done = 0 if pending is None else len(trainer.history)
        self.place = START if pending is None else pending.place
        if not 0 <= self.place.batch <= self.n_batches:
            raise InputError(f"expected at most {self.n_batches} batches of an epoch done, got {self.place.batch}")
        self.rate_factor = pending.fit["rate_factor"] if pending is not None and self.place.batch else None
        self._pending = pending
        self._fingerprint = None if pending is None else pending.fit["fingerprint"]
        self._steps, self._epochs_before = session.steps_done - self.place.batch, trainer.epochs_done - self.done
        self._span_start = self._steps if pending is None else pending.fit["first_step"]

    @property
    def span(self) -> tuple[int, int]:
        """The first step of the training and the one past its last, for schedules."""
        return self._span_start, self._steps + (self.epochs - self.done) * self.n_batches

    @property
    def coming(self) -> range:
        """The numbers of the epochs to come, from 1."""
        return range(self.done + 1, self.epochs + 1)

    def take_up(self, trainer: Any) -> None:
        """The training has begun anew for all callbacks: those that a checkpoint knows go on from where they were."""
        if self._pending is not None:
            self._pending.take_up(trainer, self.callbacks, self.data.n_rows)
            self._pending = None

    def now(self, trainer: Any, session: Session) -> Pending:
        """What the training can go on from, elsewhere, to the same bits.

        Raises
        ------
        InputError : it was interrupted where that cannot be said: in the middle of a step, or while callbacks ran
        """
        if self._pending is not None:
            return self._pending
        if isinstance(self.data.rows, Chunks):
            raise InputError(
                "save_checkpoint: expected a training on X and y, got one on chunks, whose place is not kept; save it when fit "
                "has ended"
            )
        loss_sum, history = session.settle(), trainer.history
        epochs = trainer.epochs_done - self._epochs_before
        batch = session.steps_done - self._steps - (epochs - self.done) * self.n_batches
        lists = [history.loss, history.epoch_seconds, *history.metrics.values()]
        lists += [history.val_loss] if self.data.validation is not None else []
        watchers = [callback for callback in self.callbacks if type(callback) in WATCHERS]
        described = [
            {"class": type(w).__name__, "monitor": w.monitor, "progress": w.progress()} for w in watchers
        ]  # fmt: skip
        if (
            loss_sum is None
            or not 0 <= batch <= self.n_batches
            or any(len(values) != epochs for values in lists)
            or any(d["progress"] is None for d in described)
        ):
            raise InputError(
                "save_checkpoint: expected a training that is between two steps, got one that was interrupted in the middle "
                "of one; its last checkpoint, or another fit, goes on"
            )
        if self._fingerprint is None:
            self._fingerprint = self.data.fingerprint()
        fit = {
            "first_step": self._span_start,
            "batch": batch,
            "loss_sum": loss_sum if batch else 0.0,
            "rows": self.data.n_rows,
            "batch_size": session.settings.batch_size,
            "seed": self.settings["seed"],
            "rate_factor": self.rate_factor if batch else None,
            "stopped": trainer._stopped,
            "fingerprint": self._fingerprint,
        }
        copies = {i: w.best_parameters for i, w in enumerate(watchers)}
        return Pending(fit, described, {i: best for i, best in copies.items() if best is not None})
