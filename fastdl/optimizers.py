"""Optimizers as data: the hyper-parameters that the engine passes to the kernels, checked once here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np

from fastdl.checks import is_real
from fastdl.errors import InputError


@dataclass(frozen=True)
class Optimizer:
    """Base of all optimizers: a learning rate, and how many flat state buffers the update keeps.

    Subclasses list their hyper-parameters as fields, in the order in which the kernel takes them.
    """

    lr: float

    name: ClassVar[str]
    code: ClassVar[int]
    states: ClassVar[tuple[str, ...]]
    """Names of the flat buffers that an update keeps: of the same names, one optimizer can go on with another's."""
    scale_free: ClassVar[bool] = False
    """Whether a gradient times a number gives the same update, but for eps."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, bool):
                if not isinstance(value, (bool, np.bool_)):
                    raise InputError(f"{type(self).__name__}: expected {field.name} to be True or False, got {value!r}")
                object.__setattr__(self, field.name, bool(value))
                continue
            low_open, high, wanted = _LIMITS[field.name]
            ok = is_real(value) and math.isfinite(value)
            if not ok or not (value > 0 if low_open else value >= 0) or not value < high:
                raise InputError(f"{type(self).__name__}: expected {field.name} {wanted}, got {value!r}")
            object.__setattr__(self, field.name, float(value))

    @property
    def n_states(self) -> int:
        """How many flat buffers an update keeps."""
        return len(self.states)

    def hyperparameters(self) -> dict[str, Any]:
        """The fields by name, as they are written into a run's configuration."""
        return asdict(self)


# field -> (0 excluded?, exclusive upper limit, how the error says it)
_LIMITS: dict[str, tuple[bool, float, str]] = {
    "lr": (True, math.inf, "(the learning rate) to be a finite number above 0, such as 0.001"),
    "beta": (False, 1.0, "to be in [0, 1), such as 0.9"),
    "beta1": (False, 1.0, "to be in [0, 1), such as 0.9"),
    "beta2": (False, 1.0, "to be in [0, 1), such as 0.999"),
    "eps": (True, math.inf, "to be a finite number above 0, such as 1e-8"),
    "weight_decay": (False, math.inf, "to be a finite number of 0 or more, such as 0.01"),
}


@dataclass(frozen=True)
class SGD(Optimizer):
    """theta <- theta - lr g."""

    lr: float = 0.1

    name = "sgd"
    code = 0
    states = ()


@dataclass(frozen=True)
class Momentum(Optimizer):
    """v <- beta v + (1 - beta) g; theta <- theta - lr v.

    With `nesterov` theta <- theta - lr (beta v + (1 - beta) g), with the new v: one step ahead (Sutskever et al., 2013).
    """

    lr: float = 0.1
    beta: float = 0.9
    nesterov: bool = False

    name = "momentum"
    code = 1
    states = ("velocity",)


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """s <- beta s + (1 - beta) g²; theta <- theta - lr g / sqrt(s + eps) (Tieleman and Hinton, 2012)."""

    lr: float = 1e-3
    beta: float = 0.9
    eps: float = 1e-8

    name = "rmsprop"
    code = 2
    states = ("mean_square",)
    scale_free = True


@dataclass(frozen=True)
class Adam(Optimizer):
    """m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) g²;
    theta <- theta - lr m̂ / (sqrt(v̂) + eps), m̂ = m / (1 - beta1^t), v̂ = v / (1 - beta2^t) (Kingma and Ba, 2015)."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    name = "adam"
    code = 3
    states = ("m", "v")
    scale_free = True


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: theta <- theta - lr weight_decay theta - lr m̂ / (sqrt(v̂) + eps), where the decay
    acts on weights and not on biases (Loshchilov and Hutter, 2019)."""

    weight_decay: float = 0.01

    name = "adamw"


OPTIMIZERS: dict[str, type[Optimizer]] = {cls.name: cls for cls in (SGD, Momentum, RMSProp, Adam, AdamW)}
"""Registry: tests, benchmarks and the command line iterate over it."""


def optimizer_of(values: Mapping[str, Any]) -> Optimizer:
    """The optimizer of a name and hyper-parameters, as a run's record has them.

    Raises
    ------
    InputError : there is no such optimizer, or a number is out of its limits
    """
    numbers = {name: value for name, value in values.items() if name != "name"}
    kind: Any = OPTIMIZERS.get(str(values.get("name")))
    if kind is None or set(numbers) != {field.name for field in fields(kind)}:
        raise InputError(f"optimizer: expected one of {', '.join(OPTIMIZERS)} with all its numbers, got {values!r}")
    optimizer: Optimizer = kind(**numbers)
    return optimizer
