"""Schedules: a number for every single step, as a function of how many steps were done before it.

`Trainer(schedule=...)` says what becomes of the optimizer's `lr`. Given as `decay_schedule` or `dropout_schedule`, a schedule is
taken with lr = 1, and weight decay or dropout rates are multiplied by it. Steps (mini-batches) are counted over the whole life
of a trainer, so that a second `fit` goes on where the first ended.

>>> from fastdl.schedules import Cosine, Step, Warmup
>>> Step(every=2, factor=0.5).rates(0.1, 0, 5)
array([0.1  , 0.1  , 0.05 , 0.05 , 0.025])
>>> Warmup(4, Cosine(steps=4)).rates(0.1, 0, 4)
array([0.025, 0.05 , 0.075, 0.1  ])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastdl import checks
from fastdl.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """Base of all schedules; t counts the steps done before, from 0."""

    name: ClassVar[str]

    def rates(self, lr: float, first: int, count: int, span: tuple[int, int] | None = None) -> NDArray[np.float64]:
        """The learning rates of the steps first .. first + count - 1, for an optimizer with the rate `lr`.

        `span` holds the first step of the fit under way and the one past its last (default: these steps).
        """
        t = np.arange(first, first + count, dtype=np.float64)
        return self._rates(lr, t, *(span or (first, first + count)))

    def _rates(self, lr: float, t: NDArray[np.float64], begin: int, end: int) -> NDArray[np.float64]:
        raise NotImplementedError

    @property
    def needs_end(self) -> bool:
        """Whether the numbers depend on how many steps the fit under way has."""
        return False

    def describe(self) -> dict[str, Any]:
        """Name and numbers, as they are written into a run's configuration."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class Constant(Schedule):
    """lr."""

    name = "constant"

    def _rates(self, lr: float, t: NDArray[np.float64], begin: int, end: int) -> NDArray[np.float64]:
        return np.full(t.size, lr)


@dataclass(frozen=True)
class Step(Schedule):
    """lr factor^floor(t / every): times `factor` at once, every so many steps."""

    every: int
    factor: float = 0.5

    name = "step"

    def __post_init__(self) -> None:
        _check_decay(self)

    def _rates(self, lr: float, t: NDArray[np.float64], begin: int, end: int) -> NDArray[np.float64]:
        return lr * self.factor ** np.floor(t / self.every)


@dataclass(frozen=True)
class Exponential(Schedule):
    """lr factor^(t / every): times `factor` within so many steps, a little in each (0.5: `every` is the half-life)."""

    every: int
    factor: float = 0.5

    name = "exponential"

    def __post_init__(self) -> None:
        _check_decay(self)

    def _rates(self, lr: float, t: NDArray[np.float64], begin: int, end: int) -> NDArray[np.float64]:
        return lr * self.factor ** (t / self.every)


@dataclass(frozen=True)
class Cosine(Schedule):
    """final + (lr - final) (1 + cos(π min(1, t / steps))) / 2 (Loshchilov and Hutter, 2017, without restarts).

    With steps=None it runs from the first to the last step of each `fit`, and a second fit starts from lr again.
    """

    steps: int | None = None
    final: float = 0.0

    name = "cosine"

    def __post_init__(self) -> None:
        if self.steps is not None:
            checks.count(self.steps, "Cosine: steps", 1, "the steps until the final rate, or None for those of a fit")
        checks.number(self.final, "Cosine: final", 0, "the learning rate at the end")

    @property
    def needs_end(self) -> bool:
        """Whether the numbers depend on how many steps the fit under way has."""
        return self.steps is None

    def _rates(self, lr: float, t: NDArray[np.float64], begin: int, end: int) -> NDArray[np.float64]:
        start, steps = (begin, end - begin) if self.steps is None else (0, self.steps)
        return self.final + (lr - self.final) * (1 + np.cos(np.pi * _share(t, start, start + steps))) / 2


@dataclass(frozen=True)
class CosLog4(Schedule):
    """lr (1 - cos(2π log2(1 + 15 s))) / 2, where s goes from 0 to 1 over the steps of each `fit`: four waves, each twice as long
    as the one before, between 0 and lr (Holzmüller, Grinsztajn and Steinwart, 2024). The rates of RealMLP."""

    name = "coslog4"
    needs_end = True

    def _rates(self, lr: float, t: NDArray[np.float64], begin: int, end: int) -> NDArray[np.float64]:
        return lr * (1 - np.cos(2 * np.pi * np.log2(1 + 15 * _share(t, begin, end)))) / 2


@dataclass(frozen=True)
class FlatCosine(Schedule):
    """lr for the first half of the steps of each `fit`, then lr (1 + cos(π (2 s - 1))) / 2, down to 0, where s goes from 0 to 1
    over them. RealMLP has it for weight decay and dropout (there: flat_cos)."""

    name = "flat_cosine"
    needs_end = True

    def _rates(self, lr: float, t: NDArray[np.float64], begin: int, end: int) -> NDArray[np.float64]:
        return lr * (1 + np.cos(np.pi * np.maximum(0, 2 * _share(t, begin, end) - 1))) / 2


@dataclass(frozen=True)
class Warmup(Schedule):
    """lr (t + 1) / steps for t < steps, and then another schedule, which counts from 0 there."""

    steps: int
    then: Schedule = field(default_factory=Constant)

    name = "warmup"

    def __post_init__(self) -> None:
        checks.count(self.steps, "Warmup: steps", 1, "the steps until the full rate")
        if not isinstance(self.then, Schedule):
            raise InputError(f"Warmup: expected then to be a schedule such as Cosine(), got {self.then!r}")

    @property
    def needs_end(self) -> bool:
        """Whether the numbers depend on how many steps the fit under way has."""
        return self.then.needs_end

    def _rates(self, lr: float, t: NDArray[np.float64], begin: int, end: int) -> NDArray[np.float64]:
        after = self.then._rates(lr, t - self.steps, max(0, begin - self.steps), max(0, end - self.steps))
        return np.where(t < self.steps, lr * (t + 1) / self.steps, after)

    def describe(self) -> dict[str, Any]:
        """Name and numbers, as they are written into a run's configuration."""
        return {"name": self.name, "steps": self.steps, "then": self.then.describe()}


def _share(t: NDArray[np.float64], begin: int, end: int) -> NDArray[np.float64]:
    """How much of the steps from begin to end is done before each step: from 0 to 1."""
    return np.clip((t - begin) / max(1, end - begin), 0, 1)


def _check_decay(schedule: Step | Exponential) -> None:
    name = type(schedule).__name__
    checks.count(schedule.every, f"{name}: every", 1, "a number of steps")
    if checks.number(schedule.factor, f"{name}: factor", 0, "what the rate is multiplied by") == 0:
        raise InputError(f"{name}: expected factor above 0, such as 0.5, got {schedule.factor!r}")


SCHEDULES: dict[str, type[Schedule]] = {
    cls.name: cls for cls in (Constant, Step, Exponential, Cosine, CosLog4, FlatCosine)
}
"""Registry: tests and the command line iterate over it. `Warmup` goes in front of any."""


def schedule_of(values: Mapping[str, Any]) -> Schedule:
    """The schedule that `Schedule.describe` described.

    Raises
    ------
    InputError : there is no such schedule, or a number is out of its limits
    """
    numbers = {name: value for name, value in values.items() if name != "name"}
    name = str(values.get("name"))
    kind: Any = {**SCHEDULES, Warmup.name: Warmup}.get(name)
    if kind is None or set(numbers) != {f.name for f in fields(kind)}:
        raise InputError(f"schedule: expected one of {', '.join(SCHEDULES)} or warmup with all numbers, got {values!r}")
    if kind is Warmup:
        numbers["then"] = schedule_of(numbers["then"])
    schedule: Schedule = kind(**numbers)
    return schedule
