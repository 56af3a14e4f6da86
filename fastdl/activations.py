"""What a user may say for `activation=`, resolved to one (name, code, alpha) per layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fastdl.checks import is_real
from fastdl.errors import InputError
from fastdl.suggest import did_you_mean
from fastdl_kernels.activations import SPECS

ACTIVATIONS: dict[str, int] = {name: spec.code for name, spec in SPECS.items() if spec.derivative_from == "out"}
"""Those that the engine trains: it takes derivatives from outputs, and keeps no z for the others."""


@dataclass(frozen=True)
class Activation:
    """An activation by name, with the parameter `alpha` of those that have one; NaN becomes the usual one."""

    name: str
    alpha: float = math.nan

    def __post_init__(self) -> None:
        if math.isnan(self.alpha):
            parameter = SPECS[self.name].alpha
            object.__setattr__(self, "alpha", 0.0 if parameter is None else parameter.default)

    @property
    def code(self) -> int:
        """The code that the kernels take."""
        return ACTIVATIONS[self.name]

    @property
    def is_rectifier(self) -> bool:
        """True for the ReLU family, which He initialisation is for."""
        return self.name in ("relu", "leaky_relu")


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
        if not (is_real(alpha) and math.isfinite(alpha) and 0 <= alpha < 1):
            raise InputError(f"LeakyReLU: expected alpha in [0, 1), got {alpha!r}; 0.01 is usual")
        super().__init__("leaky_relu", float(alpha))


ActivationLike = str | Activation
"""A name from ACTIVATIONS or an instance such as `LeakyReLU(0.1)`."""


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
    if activation == "leaky_relu":
        return LeakyReLU()
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return Activation(activation)
    raise InputError(
        f"activation: expected one of {', '.join(ACTIVATIONS)}, or LeakyReLU(alpha), got {activation!r}"
        f"{did_you_mean(activation, ACTIVATIONS)}"
    )
