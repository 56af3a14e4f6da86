"""What schedules say of the steps to come: learning rates, weight decay and dropout."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastdl.engine import Session
from fastdl.errors import InputError
from fastdl.schedules import Constant, Schedule
from fastdl.training.settings import Settings


class StepNumbers:
    """The schedules of one `fit`, as they are set at its start.

    Parameters
    ----------
    settings : of the training
    session : whose count of steps goes on during the fit
    n_batches : steps of an epoch
    span : the fit's first step and the one past its last; None where nobody knows it

    Raises
    ------
    InputError : `dropout_schedule` makes a dropout rate 1 or more; without `span`, a schedule needs it
    """

    def __init__(
        self, settings: Settings, session: Session, n_batches: int = 0, span: tuple[int, int] | None = None
    ) -> None:
        self._schedule, self._decay, self._dropout = (
            settings.schedule,
            settings.decay_schedule,
            settings.dropout_schedule,
        )
        self.lr = settings.optimizer.lr
        self._session, self._n_batches = session, n_batches
        self._span = span
        self._known_factor: float | None = None  # what the table of steps was made for, where all epochs have the same
        self._known: NDArray[np.float64] = np.zeros((0, 0))
        self._most_dropped = max(settings.dropout_rates, default=0.0)
        if span is None:
            check_schedules(settings)
        elif self._dropout is not None:
            self._check_dropout(self._dropout.rates(1.0, span[0], span[1] - span[0], span)[::n_batches])

    def _check_dropout(self, factors: NDArray[np.float64]) -> None:
        most = float(factors.max()) * self._most_dropped
        if most >= 1:
            raise InputError(f"dropout_schedule: expected dropout rates below 1, got {most:g} in this fit")

    def of_epoch(self, rate_factor: float, done: int = 0) -> tuple[NDArray[np.float64], float]:
        """(learning rates of the coming epoch's steps, or their step table; what the dropout rates are multiplied by).

        `done` of its steps were made before.
        """
        if rate_factor == self._known_factor:
            return self._known, 1.0
        first = self._session.steps_done - done
        if self._is_constant:  # making them takes longer than tiny epochs
            numbers = self._of_steps(rate_factor, first, self._n_batches)
            self._known_factor, self._known = rate_factor, self._session.step_table(numbers)
            return self._known, 1.0
        return self._of_steps(rate_factor, first, self._n_batches), self._of_dropout(first)

    @property
    def _is_constant(self) -> bool:
        return isinstance(self._schedule, Constant) and self._decay is None and self._dropout is None

    def of_next(self, rate_factor: float, count: int) -> NDArray[np.float64]:
        """The learning rates of the next `count` steps, or their step table."""
        return self._of_steps(rate_factor, self._session.steps_done, count)

    def dropout_from_here(self) -> float:
        """What the dropout rates are multiplied by in an epoch that begins now.

        Raises
        ------
        InputError : that makes one of them 1 or more
        """
        factor = self._of_dropout(self._session.steps_done)
        self._check_dropout(np.array([factor]))
        return factor

    def _of_steps(self, rate_factor: float, first: int, count: int) -> NDArray[np.float64]:
        numbers = rate_factor * self._schedule.rates(self.lr, first, count, self._span)
        if self._decay is None:
            return numbers
        return self._session.step_table(numbers, decay_factor=self._decay.rates(1.0, first, count, self._span))

    def _of_dropout(self, first: int) -> float:
        return 1.0 if self._dropout is None else float(self._dropout.rates(1.0, first, 1, self._span)[0])


def check_schedules(settings: Settings) -> None:
    """Raise InputError if a schedule depends on how many steps the training has, where nobody knows it."""
    for name in ("schedule", "decay_schedule", "dropout_schedule"):
        schedule: Schedule | None = getattr(settings, name)
        if schedule is not None and schedule.needs_end:
            raise InputError(
                f"{name}: expected one that does not depend on how many steps there will be, such as Cosine(steps=...), since "
                f"neither chunks nor partial_fit say so, got {schedule!r}"
            )
