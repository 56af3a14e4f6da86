"""The health of a training: the rows that it is looked at on, and a callback that looks after epochs while it costs little."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdl.engine import Session, Settings
from fastdl.errors import InputError
from fastdl.inputs import array_of
from fastdl.sparse import SparseRows
from fastdl.tables.data import TrainingData
from fastdl.training.callbacks import Callback, EpochResult, agreed
from fastdl.training.chunks import Chunks
from fastdl.training.rows import TrainingRows

if TYPE_CHECKING:
    from fastdl.engine.health import Health

MOST_ROWS, MOST_NUMBERS = 512, 1 << 20
"""Of the rows of a training so many are kept to be looked at, evenly, and fewer where they are wide: 4 MB in float32 at most."""
LAST_ROWS, LAST_NUMBERS = 20_000, 1 << 23
"""The same of the look at the end of a training; here the widest layer counts."""
SHARE = 0.02
"""Of the time of the epochs that looking after them may take."""
FIRST = 0.001
"""Seconds that a look is expected to take before there was any."""


class LookedAt(NamedTuple):
    """Some rows of a training, copied, to look at how the layers answer to them.

    inputs [n, I], targets : as the model takes them
    span : the first step of the training and the one past its last, for schedules
    """

    inputs: NDArray
    targets: NDArray
    span: tuple[int, int]

    @classmethod
    def of(cls, data: TrainingRows | Chunks, span: tuple[int, int]) -> LookedAt | None:
        """Rows of a training, evenly; None of sparse ones and of chunks, which nobody has seen yet."""
        if isinstance(data, Chunks) or isinstance(data.inputs, SparseRows):
            return None
        most = min(MOST_ROWS, max(1, MOST_NUMBERS // max(1, data.inputs.shape[1])))
        if data.rows is None and isinstance(data.inputs, np.ndarray):  # 3 µs, where numbers of rows take 40
            step = -(-len(data) // most)
            return cls(data.inputs[::step].copy(), data.targets[::step].copy(), span)
        some = data.places(_evenly(len(data), most))
        return cls(np.ascontiguousarray(data.inputs[some]), np.ascontiguousarray(data.targets[some]), span)


def of_trainer(
    trainer: Any, given: tuple[Any, Any] | None, kept: LookedAt | None, settings: Settings, session: Session | None
) -> Health:
    """The health of a trainer's model: see `Trainer.health`.

    given, kept : rows as a user gave them, or else those of the last `fit`
    settings, session : what steps are now. Kept rows and the optimizer's state are the session's, as long as it is for the
        model and the optimizer that the trainer has
    """
    from fastdl.engine.health import StepFactors, health

    model = trainer.model
    mine = session if session is not None and session.parameters is model.parameters else None
    if mine is not None and mine.spread is not None:
        mine.settle()  # the optimizer's state of all ranks
    rows: tuple[Any, NDArray] | None = None if mine is None or kept is None else (kept.inputs, kept.targets)
    if given is not None:
        inputs = model.prepare_inputs(given[0])
        inputs = inputs if isinstance(inputs, SparseRows) else array_of(inputs)
        rows = inputs, model.prepare_targets([] if given[1] is None else given[1], len(inputs))
    if rows is None or isinstance(rows[0], SparseRows) or len(rows[0]) == 0:
        raise InputError(
            "health: expected rows to look at, and this trainer keeps none, as it was not fitted here, or on sparse rows "
            "or chunks; use trainer.health(X, y) with a dense array"
        )
    same = mine is not None and type(mine.settings.optimizer) is type(settings.optimizer)
    state = mine.state if mine is not None and same else None
    names = [*(a.label for a in model.activations), model.output]
    span = None if kept is None else kept.span
    coming = trainer.steps_done if span is None else min(trainer.steps_done, span[1] - 1)

    def now(schedule: Any, value: float) -> float:
        return value if schedule is None else float(schedule.rates(value, coming, 1, span)[0])

    numbers = StepFactors(
        trainer.rate_factor * now(trainer.schedule, trainer.optimizer.lr),
        now(trainer.decay_schedule, 1.0),
        now(trainer.dropout_schedule, 1.0),
    )
    step = replace(settings, n_threads=1), state, numbers
    return health(model.architecture, names, model.parameters, rows, step, trainer.epochs_done)


class HealthWatch(Callback):
    """A callback that takes `trainer.health()` after epochs, as long as that takes 2 % of the epochs' time at most.

    Attributes
    ----------
    seen : what was found, the oldest first; each has its `epoch`

    With short epochs it looks after some of them only.
    """

    _only_watches = True

    def __init__(self) -> None:
        self.seen: list[Health] = []
        self._trained = self._spent = 0.0
        self._cost = FIRST

    def on_train_begin(self, epochs: int, rows: int) -> None:
        """Forget what other trainings have shown."""
        self.seen.clear()
        self._trained = self._spent = 0.0
        self._cost = FIRST

    def on_epoch_end(self, result: EpochResult) -> None:
        """Look, if it is cheap enough."""
        self._trained += result.seconds
        if not agreed(self.trainer, self._spent + self._cost <= SHARE * self._trained):
            return
        start = time.perf_counter()
        try:
            self.seen.append(self.trainer.health())
        except InputError:  # there are no dense rows to look at
            self._cost = float("inf")
            return
        self._cost = time.perf_counter() - start
        self._spent += self._cost

    def look(self, trainer: Any, loaded: TrainingData) -> None:
        """Look once more at the end of a training, if it has come to the end of an epoch: at more rows, for the time that is
        left of the 2 %."""
        if not trainer.history.loss:
            return
        left = SHARE * self._trained - self._spent
        wanted = int(MOST_ROWS * min(1e6, left / self._cost)) if self._cost > FIRST else MOST_ROWS
        widest = max(trainer.model.architecture.layers)
        count = max(
            min(wanted, LAST_ROWS, LAST_NUMBERS // widest), min(MOST_ROWS, MOST_NUMBERS // loaded.n_features), 1
        )
        rows = loaded.train[_evenly(len(loaded.train), count)]
        with contextlib.suppress(InputError):
            self.seen.append(trainer.health(loaded.copied(rows), loaded.targets.y[rows]))


def _evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of 0 .. count - 1."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)
