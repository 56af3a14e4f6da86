"""What schedules say of the steps of each epoch of a fit: learning rates, weight decay and dropout."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastdl.engine import Session
from fastdl.errors import InputError
from fastdl.schedules import Constant
from fastdl.training.settings import Settings


class StepNumbers:
    """The schedules of one `fit`, as they are set at its start.

    Parameters
    ----------
    settings : of the training
    session : whose count of steps goes on during the fit
    n_batches : steps of an epoch
    span : the fit's first step and the one past its last

    Raises
    ------
    InputError : `dropout_schedule` makes a dropout rate 1 or more
    """

    def __init__(self, settings: Settings, session: Session, n_batches: int, span: tuple[int, int]) -> None:
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
        if self._dropout is not None and settings.dropout_rates:
            factors = self._dropout.rates(1.0, span[0], span[1] - span[0], span)[::n_batches]
            most = float(factors.max()) * max(settings.dropout_rates)
            if most >= 1:
                raise InputError(f"dropout_schedule: expected dropout rates below 1, got {most:g} in this fit")

    def of_epoch(self, rate_factor: float, done: int = 0) -> tuple[NDArray[np.float64], float]:
        """(learning rates of the coming epoch's steps, or their step table; what the dropout rates are multiplied by).

        `done` of its steps were made before.
        """
        if rate_factor == self._known_factor:
            return self._known, 1.0
        session, n, span = self._session, self._n_batches, self._span
        first = session.steps_done - done
        numbers = rate_factor * self._schedule.rates(self.lr, first, n, span)
        if self._decay is not None:
            numbers = session.step_table(numbers, decay_factor=self._decay.rates(1.0, first, n, span))
        if self._dropout is None:
            if (
                isinstance(self._schedule, Constant) and self._decay is None
            ):  # making them takes longer than tiny epochs
                self._known_factor, self._known = rate_factor, session.step_table(numbers)
                return self._known, 1.0
            return numbers, 1.0
        return numbers, float(self._dropout.rates(1.0, first, 1, span)[0])
