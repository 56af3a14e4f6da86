"""Output units, and what a user may say for `loss=`; the kernels' specs say what each loss is.

An output unit says how raw outputs are read; a loss says what they are trained for:

| output  | losses                                                                                  | default                |
|---------|-----------------------------------------------------------------------------------------|------------------------|
| linear  | squared_error, `Huber(delta)`, absolute_error, `Quantile(q)`, poisson (outputs are e^z) | squared_error          |
| sigmoid | `CrossEntropy(label_smoothing)`                                                         | sigmoid cross-entropy  |
| softmax | `CrossEntropy(label_smoothing)`                                                         | softmax cross-entropy  |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdl.checks import is_real
from fastdl.errors import InputError
from fastdl.network import LossTerm
from fastdl.suggest import did_you_mean
from fastdl_kernels.loss_rows import SPECS, LossSpec


@dataclass(frozen=True)
class OutputUnit:
    """How the last layer's raw outputs are read, and the loss that they are trained with by default."""

    name: str
    loss: str
    task: str


OUTPUTS: dict[str, OutputUnit] = {
    unit.name: unit
    for unit in (
        OutputUnit("linear", "squared_error", "regression"),
        OutputUnit("sigmoid", "sigmoid_cross_entropy", "binary labels"),
        OutputUnit("softmax", "softmax_cross_entropy", "classes"),
    )
}
"""Registry: tests, benchmarks and the command line iterate over it."""

CROSS_ENTROPY = "cross_entropy"
"""What a user may call the cross-entropy that goes with the output unit."""


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss by name.

    Parameters
    ----------
    name : one of `LOSSES`, or "cross_entropy" for the one of the output unit
    parameter : its number, where it has one (default: the spec's); one for each output where the spec says so

    Raises
    ------
    InputError : there is no such loss, or the parameter is out of its limits
    """

    name: str
    parameter: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.name not in (*SPECS, CROSS_ENTROPY):
            raise InputError(
                f"loss: expected one of {', '.join(SPECS)}, got {self.name!r}{did_you_mean(self.name, SPECS)}"
            )
        limits, value = self.spec.parameter, self.parameter
        if limits is None:
            object.__setattr__(self, "parameter", None)
            return
        values = [limits.default] if value is None else list(value) if isinstance(value, (tuple, list)) else [value]
        if len(values) != 1 and not (limits.per_output and values):
            raise InputError(f"{self._who}: expected one number for {limits.name}, got {value!r}")
        for number in values:
            good = is_real(number) and math.isfinite(number) and limits.lowest <= number < limits.limit
            if not good or (limits.open and number == limits.lowest):
                edge = "(" if limits.open else "["
                raise InputError(
                    f"{self._who}: expected {limits.name} in {edge}{limits.lowest:g}, {limits.limit:g}), got {number!r}; "
                    f"{limits.default:g} is usual"
                )
        several = isinstance(value, (tuple, list))
        object.__setattr__(self, "parameter", tuple(map(float, values)) if several else float(values[0]))

    @property
    def _who(self) -> str:
        return type(self).__name__ if type(self) is not Loss else self.name

    def __eq__(self, other: object) -> bool:
        """Whether both are the same, however they were made: `Huber(1.0)` is a named one."""
        return isinstance(other, Loss) and (self.name, self.parameter) == (other.name, other.parameter)

    def __hash__(self) -> int:
        return hash((self.name, self.parameter))

    @property
    def spec(self) -> LossSpec:
        """Formula, gradient and targets."""
        return SPECS["softmax_cross_entropy" if self.name == CROSS_ENTROPY else self.name]

    @property
    def output(self) -> str:
        """The output unit that it goes with."""
        return "linear" if self.spec.output == "exp" else self.spec.output

    @property
    def is_log_link(self) -> bool:
        """Whether raw outputs are logarithms of what is predicted."""
        return self.spec.output == "exp"

    def term(self, n_outputs: int) -> LossTerm:
        """The loss as the engine takes it."""
        numbers: tuple[float, ...] = ()
        if isinstance(self.parameter, tuple):
            numbers = self.parameter
        elif self.parameter is not None:
            numbers = (self.parameter,) * (n_outputs if self.spec.parameter and self.spec.parameter.per_output else 1)
        takes_labels = self.spec.targets == "classes"
        return LossTerm(self.spec.code, takes_labels, self.spec.mean_over == "elements", numbers)

    def to_json(self) -> dict[str, Any]:
        """The loss as plain values."""
        return {
            "name": self.name,
            "parameter": list(self.parameter) if isinstance(self.parameter, tuple) else self.parameter,
        }


class Huber(Loss):
    """(z - t)² / 2 for errors up to delta, and delta (|z - t| - delta / 2) beyond (Huber, 1964): outliers count less.

    Parameters
    ----------
    delta : the error from which on the loss is linear, above 0 (default 1); in deviations of the targets, where they are
        standardised

    Raises
    ------
    InputError : delta is not a finite number above 0
    """

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__("huber", delta)


class Quantile(Loss):
    """q (t - z) below the target and (1 - q)(z - t) above it (Koenker and Bassett, 1978): the output learns the quantile q.

    Parameters
    ----------
    q : in (0, 1), 0.5 is the median; or several, one for each output: `MLP([8, 64, 3], output="linear", loss=Quantile((0.1,
        0.5, 0.9)))` learns three quantiles of one target, which is given as [N]

    Raises
    ------
    InputError : q is not in (0, 1)
    """

    def __init__(self, q: float | Sequence[float] = 0.5) -> None:
        super().__init__("quantile", tuple(q) if isinstance(q, (Sequence, np.ndarray)) else q)


class CrossEntropy(Loss):
    """The cross-entropy of the output unit, softmax or sigmoid, with labels smoothed (Szegedy et al., 2016).

    Parameters
    ----------
    label_smoothing : in [0, 1), how much of each label is spread evenly over all classes (over 0 and 1 for sigmoid)

    Raises
    ------
    InputError : label_smoothing is not in [0, 1)
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__(CROSS_ENTROPY, label_smoothing)


LOSSES = tuple(SPECS)
"""The names of all losses."""

LossLike = str | Loss
"""A name from `LOSSES`, or an instance such as `Huber(1.5)`."""


def resolve(loss: LossLike | None, output: str, n_outputs: int) -> Loss:
    """The loss that the user means for an output unit with so many outputs; None is the unit's default.

    Raises
    ------
    InputError : loss and output unit do not go together
    """
    default = OUTPUTS[output].loss
    if loss is None:
        return Loss(default)
    if not isinstance(loss, (str, Loss)):
        raise InputError(
            f"loss: expected a name such as {default!r}, or an instance such as fastdl.Huber(1.0), got {loss!r}"
        )
    chosen = Loss(loss) if isinstance(loss, str) else loss
    if chosen.name == CROSS_ENTROPY and output != "linear":
        return Loss(default, chosen.parameter)
    if chosen.name == CROSS_ENTROPY or chosen.output != output:
        fitting = [
            name for name, spec in SPECS.items() if ("linear" if spec.output == "exp" else spec.output) == output
        ]
        raise InputError(
            f"loss: expected one of {', '.join(fitting)} for output={output!r}, got {chosen.name!r}"
            + (f", which goes with output={chosen.output!r}" if chosen.name != CROSS_ENTROPY else "")
        )
    if isinstance(chosen.parameter, tuple) and len(chosen.parameter) not in (1, n_outputs):
        raise InputError(
            f"loss: expected one number, or {n_outputs} (one for each output), got {len(chosen.parameter)}: {chosen.parameter}"
        )
    if isinstance(chosen.parameter, tuple) and len(chosen.parameter) == 1:
        return Loss(chosen.name, chosen.parameter[0])
    return Loss(chosen.name, chosen.parameter)
