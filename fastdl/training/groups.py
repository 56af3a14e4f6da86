"""Groups of parameters, and what learning rate and weight decay are multiplied by for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastdl import checks
from fastdl.engine.settings import Factors
from fastdl.errors import InputError
from fastdl.model import MLP
from fastdl.optimizers import Optimizer
from fastdl.suggest import did_you_mean

LAYERED = ("weights", "biases")
"""Groups that every layer has a part of: a factor for all, or one for each layer."""

Group = float | tuple[float, ...]


def groups_of(model: MLP) -> tuple[str, ...]:
    """The groups of a model's parameters."""
    own = [*LAYERED]
    own += ["activations"] if any(a.parametric for a in model.activations) else []
    own += ["embedding"] if model.embedding is not None else []
    own += ["categories"] if model.categories is not None else []
    own += ["input_scale"] if model.scale_inputs else []
    return tuple(own)


def check_groups(value: Any, name: str, model: MLP) -> dict[str, Group]:
    """Factors by group, all finite and 0 or more; none are the usual ones.

    Raises
    ------
    InputError : another kind of value, a group that the model does not have, or a factor that is no such number
    """
    if value is None:
        return {}
    known = groups_of(model)
    if not isinstance(value, Mapping):
        raise InputError(f"{name}: expected a dictionary such as {{'biases': 0.1}}, got {value!r}")
    for group in value:
        if group not in known:
            hint = did_you_mean(group, known) if isinstance(group, str) else ""
            raise InputError(f"{name}: expected groups that this model has ({', '.join(known)}), got {group!r}{hint}")
    return {group: _factor(factor, f"{name}[{group!r}]", group, model) for group, factor in value.items()}


def _factor(value: Any, name: str, group: str, model: MLP) -> Group:
    what = "a factor"
    if not isinstance(value, (list, tuple)) or group not in LAYERED:
        return checks.number(value, name, 0, what)
    if len(value) != len(model.weights):
        raise InputError(f"{name}: expected one factor, or {len(model.weights)} (one per layer), got {len(value)}")
    return tuple(checks.number(factor, name, 0, what) for factor in value)


def factors_of(
    model: MLP, optimizer: Optimizer, rates: Mapping[str, Group], decays: Mapping[str, Group], ntk: bool
) -> tuple[Factors, ...]:
    """What the engine is told, layer by layer; nothing where all is as usual."""
    if not (rates or decays or ntk):
        return ()
    result = []
    if model.input_stage is not None:
        usual = ("embedding", "input_scale")
        rate, scale_rate = (_of(rates, group, 0, 1.0) for group in usual)
        decay, scale_decay = (_of(decays, group, 0, 0.0) for group in usual)
        tables = _of(rates, "categories", 0, 1.0), _of(decays, "categories", 0, 0.0)
        result.append(Factors(rate, decay, scale_rate, scale_decay, *tables))
    for i, weight in enumerate(model.weights):
        slow = weight.shape[0] ** (0.5 if optimizer.scale_free else 1.0) if ntk else 1.0
        result.append(
            Factors(
                _of(rates, "weights", i, 1.0) / slow,
                _of(decays, "weights", i, 1.0) * slow,
                _of(rates, "biases", i, 1.0),
                _of(decays, "biases", i, 0.0),
                _of(rates, "activations", i, 1.0),
                _of(decays, "activations", i, 0.0),
            )
        )
    return tuple(result)


def _of(given: Mapping[str, Group], group: str, layer: int, usual: float) -> float:
    factor = given.get(group, usual)
    return factor[layer] if isinstance(factor, tuple) else factor
