"""What a user may say for `activation=`, resolved to one (name, alpha) per layer; the kernels' specs say what each is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastdl.checks import is_real
from fastdl.errors import InputError
from fastdl.suggest import did_you_mean
from fastdl_kernels.activations import SPECS, ActivationSpec

ACTIVATIONS = tuple(SPECS)
"""The names of all activations."""

# Standard deviations of initial weights ("he": sqrt(2 / I)) of activations that are near 0 for z < 0, and near z for z > 0. SELU
# keeps its fixed point with sqrt(1 / I) (Klambauer et al., 2017). All others start as Glorot and Bengio (2010) say.
_INIT = {"relu": "he", "leaky_relu": "he", "elu": "he", "gelu": "he", "silu": "he", "mish": "he", "selu": "lecun"}


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation by name.

    Parameters
    ----------
    name : one of `ACTIVATIONS`
    alpha : its parameter, where it has one (default: the spec's); 0 where it has none
    parametric : whether each unit of a layer learns a number c of its own: z + c (act(z) - z), with c = 1 at first (RealMLP,
        Holzmüller, Grinsztajn and Steinwart, 2024). Of "leaky_relu" each unit learns its slope, alpha at first: see `PReLU`

    Raises
    ------
    InputError : there is no such activation, or alpha is out of its limits
    """

    name: str
    alpha: float | None = None
    parametric: bool = False

    def __post_init__(self) -> None:
        if self.name not in SPECS:
            raise InputError(
                f"activation: expected one of {', '.join(SPECS)}, got {self.name!r}{did_you_mean(self.name, SPECS)}"
            )
        if not isinstance(self.parametric, bool):
            raise InputError(f"{self.name}: expected parametric to be True or False, got {self.parametric!r}")
        limits = self.spec.alpha
        if limits is None:
            object.__setattr__(self, "alpha", 0.0)
            return
        alpha = limits.default if self.alpha is None else self.alpha
        if not (is_real(alpha) and math.isfinite(alpha) and limits.lowest <= alpha < limits.limit):
            who = type(self).__name__ if type(self) is not Activation else self.name
            raise InputError(
                f"{who}: expected alpha in [{limits.lowest:g}, {limits.limit:g}), got {alpha!r}; {limits.default:g} is usual"
            )
        object.__setattr__(self, "alpha", float(alpha))

    def __eq__(self, other: object) -> bool:
        """Whether both are the same, however they were made: `LeakyReLU(0.01)` is a named one."""
        return isinstance(other, Activation) and self._told == other._told

    def __hash__(self) -> int:
        return hash(self._told)

    @property
    def _told(self) -> tuple[str, float | None, bool]:
        return self.name, self.alpha, self.parametric

    @property
    def label(self) -> str:
        """What it is called where people read it: `parametric selu`."""
        return f"parametric {self.name}" if self.parametric else self.name

    @property
    def first_unit_alpha(self) -> float:
        """What the units' own numbers are at first."""
        return float(self.alpha or 0.0) if self.name == "leaky_relu" else 1.0

    @property
    def identity_unit_alpha(self) -> float:
        """With what a unit's own number makes it pass z on as it is."""
        return 1.0 if self.name == "leaky_relu" else 0.0

    def to_json(self) -> dict[str, Any]:
        """Name and numbers, as they stand in a model file."""
        return {"name": self.name, "alpha": self.alpha, **({"parametric": True} if self.parametric else {})}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Activation:
        """The activation that `to_json` described."""
        return Activation(told["name"], told["alpha"], told.get("parametric", False))

    def made_parametric(self) -> Activation:
        """The same with a number for each unit."""
        return Activation(self.name, self.alpha if self.spec.alpha is not None else None, True)

    @property
    def spec(self) -> ActivationSpec:
        """Formula, derivative, and how it is called elsewhere."""
        return SPECS[self.name]

    @property
    def code(self) -> int:
        """The code that the kernels take."""
        return self.spec.code

    @property
    def is_rectifier(self) -> bool:
        """True for the ReLU family: two straight lines with a corner at 0."""
        return self.name in ("relu", "leaky_relu")

    @property
    def init(self) -> str:
        """The scheme of initial weights that goes with it: see `initialisation.deviation`."""
        return _INIT.get(self.name, "glorot")


class LeakyReLU(Activation):
    """max(alpha z, z), with 0 <= alpha < 1.

    Parameters
    ----------
    alpha : slope for z < 0 (default 0.01)

    Raises
    ------
    InputError : alpha is not a number in [0, 1)
    """

    def __init__(self, alpha: float = 0.01) -> None:
        super().__init__("leaky_relu", alpha)


class PReLU(Activation):
    """max(0, z) + a min(0, z) with a slope a for each unit, which is learnt (He et al., 2015): parametric leaky ReLU.

    Parameters
    ----------
    alpha : the slopes at first (default 0.25)

    Raises
    ------
    InputError : alpha is not a number in [0, 1)
    """

    def __init__(self, alpha: float = 0.25) -> None:
        super().__init__("leaky_relu", alpha, True)


class ELU(Activation):
    """z for z > 0, and alpha (e^z - 1) below, with alpha >= 0 (Clevert et al., 2016).

    Parameters
    ----------
    alpha : minus the limit for z -> -infinity (default 1)

    Raises
    ------
    InputError : alpha is not a finite number of 0 or more
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__("elu", alpha)


ActivationLike = str | Activation
"""A name from `ACTIVATIONS`, or an instance such as `LeakyReLU(0.1)`."""


def resolve(activation: ActivationLike | Sequence[ActivationLike], n_hidden: int) -> list[Activation]:
    """One `Activation` per hidden layer from a single one for all, or from one each."""
    if isinstance(activation, (str, Activation)):
        return [_resolve_one(activation)] * n_hidden
    if not isinstance(activation, Sequence):
        raise InputError(
            f"activation: expected a name, LeakyReLU(alpha), or a list of one per hidden layer, got {activation!r}"
        )
    if len(activation) != n_hidden:
        raise InputError(
            f"activation: expected one name, or {n_hidden} (one per hidden layer), got {len(activation)}: {activation!r}"
        )
    return [_resolve_one(a) for a in activation]


def _resolve_one(activation: ActivationLike) -> Activation:
    if isinstance(activation, Activation):
        return activation
    if not isinstance(activation, str):
        raise InputError(
            f"activation: expected one of {', '.join(SPECS)}, or an instance such as LeakyReLU(0.1), got {activation!r}"
        )
    return Activation(activation)
