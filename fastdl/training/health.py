"""The health of a training: the rows that it is looked at on, and a callback that looks after epochs while it costs little."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastdl.engine import Session, Settings
from fastdl.errors import InputError
from fastdl.sparse import SparseRows
from fastdl.training.callbacks import Callback, EpochResult

if TYPE_CHECKING:
    from fastdl.engine.health import Health

MOST_ROWS, MOST_NUMBERS = 512, 1 << 20
"""Of the rows of a training so many are kept to be looked at, evenly, and fewer where they are wide: 4 MB in float32 at most."""
SHARE = 0.02
"""Of the time of the epochs that looking after them may take."""
FIRST = 0.001
"""Seconds that a look is expected to take before there was any."""


def sample(inputs: NDArray | SparseRows, targets: NDArray) -> tuple[NDArray, NDArray] | None:
    """Copies of some rows, evenly; None of sparse ones."""
    if isinstance(inputs, SparseRows):
        return None
    count = min(len(inputs), MOST_ROWS, max(1, MOST_NUMBERS // inputs.shape[1]))
    some = np.linspace(0, len(inputs) - 1, count).astype(np.int64)
    return np.ascontiguousarray(inputs[some]), np.ascontiguousarray(targets[some])


def of_trainer(
    trainer: Any,
    given: tuple[Any, Any] | None,
    kept: tuple[Any, NDArray] | None,
    span: tuple[int, int] | None,
    settings: Settings,
    session: Session | None,
) -> Health:
    """The health of a trainer's model: see `Trainer.health`.

    given, kept : rows as a user gave them, or else prepared ones of the last `fit`
    span, settings, session : steps of the last `fit`, and what steps are now. Kept rows and the optimizer's state are the
        session's, as long as it is for the model and the optimizer that the trainer has
    """
    from fastdl.engine.health import health

    model = trainer.model
    mine = session if session is not None and session.parameters is model.parameters else None
    rows = kept if mine is not None else None
    if given is not None:
        inputs = model.prepare_inputs(given[0])
        rows = inputs, model.prepare_targets([] if given[1] is None else given[1], len(inputs))
    if rows is None or isinstance(rows[0], SparseRows) or len(rows[0]) == 0:
        raise InputError(
            "health: expected rows to look at, and this trainer keeps none, as it was not fitted here or on sparse rows; "
            "use trainer.health(X, y) with a dense array"
        )
    same = mine is not None and type(mine.settings.optimizer) is type(settings.optimizer)
    state = mine.state if mine is not None and same else None
    names = [*(a.name for a in model.activations), model.output]
    coming = trainer.steps_done if span is None else min(trainer.steps_done, span[1] - 1)
    rate = trainer.rate_factor * float(trainer.schedule.rates(trainer.optimizer.lr, coming, 1, span)[0])
    step = replace(settings, n_threads=1), state, rate
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
        if self._spent + self._cost > SHARE * self._trained:
            return
        start = time.perf_counter()
        try:
            self.seen.append(self.trainer.health())
        except InputError:  # there are no dense rows to look at
            self._cost = float("inf")
            return
        self._cost = time.perf_counter() - start
        self._spent += self._cost
