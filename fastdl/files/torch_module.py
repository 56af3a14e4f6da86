"""Models as PyTorch's `nn.Sequential`, and back."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.activations import ACTIVATIONS, Activation
from fastdl.errors import InputError, MissingExtraError
from fastdl.files.portable import Portable, described, folded, is_plain
from fastdl.losses import OUTPUTS
from fastdl.suggest import did_you_mean

_ALPHAS = {"leaky_relu": "negative_slope", "elu": "alpha"}
"""What PyTorch calls alpha, where an activation has one."""
_FIXED = {"gelu": ("approximate", "none"), "softplus": ("beta", 1)}
"""What must be so in PyTorch for an activation to be ours."""


def torch() -> Any:
    """The torch module, or one sentence on how to get it."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(
            'PyTorch modules need torch, which is not installed: pip install "fastdl[torch]"'
        ) from error
    return torch


def to_torch(model: Portable, dtype: str | None = None) -> Any:
    """An `nn.Sequential` from raw inputs [N, I] to raw outputs [N, O]: Linear, activation, Linear, ...

    Where inputs are clipped or embedded a module `inputs` stands in front. The others have their numbers as names all the same.

    Raises
    ------
    InputError : dtype is none of ours
    MissingExtraError : torch is not installed
    """
    nn = torch().nn
    name = model.dtype.name if dtype is None else dtype
    if name not in ("float32", "float64"):
        raise InputError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
    kind = getattr(torch(), name)
    modules: dict[str, Any] = {}
    dense = folded(model) if is_plain(model) else (model.weights, model.biases)
    for i, (weight, bias) in enumerate(zip(*dense)):
        linear = nn.Linear(*weight.shape, dtype=kind)
        with torch().no_grad():
            linear.weight.copy_(torch().from_numpy(np.ascontiguousarray(weight.T)))
            linear.bias.copy_(torch().from_numpy(np.array(bias)))
        modules[str(2 * i)] = linear
        if i < len(model.activations):
            modules[str(2 * i + 1)] = _module_of(model.activations[i], model.unit_alphas[i], kind)
    first = {} if is_plain(model) else {"inputs": _inputs(model, kind)}
    return nn.Sequential(OrderedDict(first | modules))


def _module_of(activation: Activation, unit_alphas: NDArray[Any], kind: Any) -> Any:
    """The module of an activation; a parametric one has the units' own numbers as its parameter `weight`."""
    nn = torch().nn
    alpha = {_ALPHAS[activation.name]: activation.alpha} if activation.name in _ALPHAS else {}
    plain = getattr(nn, activation.spec.torch or "")(**alpha)
    if not activation.parametric:
        return plain
    own = nn.Parameter(torch().tensor(unit_alphas, dtype=kind))
    if activation.name == "leaky_relu":
        slopes = nn.PReLU(len(unit_alphas), dtype=kind)
        slopes.weight = own
        return slopes

    class Parametric(nn.Module):  # type: ignore[name-defined]
        """c act(z) + (1 - c) z, with a number c of each unit."""

        def __init__(self) -> None:
            super().__init__()
            self.activation, self.weight = plain, own

        def forward(self, z: Any) -> Any:
            return self.weight * self.activation(z) + (1 - self.weight) * z

    return Parametric()


def _inputs(model: Portable, kind: Any) -> Any:
    """A module that does what the model does in front of its first layer; frequencies and the like are its parameters."""
    nn, scaling, stage = torch().nn, model.scaling, model.stage

    class Inputs(nn.Module):  # type: ignore[name-defined]
        """Standardisation with smooth clipping, and embeddings of numbers."""

        def __init__(self) -> None:
            super().__init__()
            for name in () if scaling is None else ("mean", "scale"):
                self.register_buffer(name, torch().tensor(getattr(scaling, name), dtype=kind))
            if scaling is not None and scaling.clip is not None:
                self.register_buffer("limits", torch().tensor(scaling.limits, dtype=kind))
            if stage is None:
                return
            numbers = stage.numbers._asdict()
            edges = numbers.pop("edges")
            for name, values in numbers.items():
                setattr(self, f"learnt_{name}", nn.Parameter(torch().tensor(values, dtype=kind)))
            for name, values in zip(("starts", "slopes", "least", "most"), stage.term_arrays if edges.size else ()):
                self.register_buffer(name, torch().tensor(values, dtype=kind))

        def terms(self, own: Any) -> Any:
            """What the linear maps take of the embedded columns [N, E, 1]."""
            if hasattr(self, "starts"):
                return torch().clamp((own - self.starts) * self.slopes, self.least, self.most)
            angles = 2 * np.pi * self.learnt_frequencies * own
            if self.learnt_phases.numel():
                return torch().cos(angles + self.learnt_phases)
            return torch().cat([torch().cos(angles), torch().sin(angles)], 2)

        def rows(self, codes: Any) -> Any:
            """The rows of tables that codes [N, C] belong to, beside each other; row 0 for what is no code."""
            assert stage is not None
            starts = torch().tensor(stage.starts)
            known = (codes >= 1) & (codes < starts.diff()) & (codes == codes.floor())
            return self.learnt_tables[torch().where(known, codes, 0.0).long() + starts[:-1]].flatten(1)

        def forward(self, x: Any) -> Any:
            if scaling is not None:
                x = (x - self.mean) / self.scale
                if scaling.clip is not None:
                    x = x / torch().sqrt(1 + (x / self.limits) ** 2)
            if stage is None:
                return x
            own = x[:, list(stage.embedded)].unsqueeze(2)
            made = torch().einsum("nej,ekj->nek", self.terms(own), self.learnt_weights) + self.learnt_biases
            made = torch().cat([made, own], 2) if stage.passes else made
            found = [self.rows(x[:, list(stage.codes)])] if stage.codes else []
            x = torch().cat([made.flatten(1), x[:, list(stage.others)], *found], 1)
            return x * self.learnt_scale if stage.has_scale else x

    return Inputs()


def from_torch(module: Any, output: str | None = None) -> tuple[dict[str, Any], NDArray[Any]]:
    """(description, parameters) of an `nn.Sequential` of Linear, activations, Dropout, and Softmax or Sigmoid at the end.

    Raises
    ------
    InputError : a module that is none of these, or at a place where fastdl has none; it is named
    MissingExtraError : torch is not installed
    """
    nn = torch().nn
    if output is not None and output not in OUTPUTS:
        raise InputError(f"output: expected one of {', '.join(OUTPUTS)}, got {output!r}{did_you_mean(output, OUTPUTS)}")
    modules = [(name, part) for name, part in _flat(module) if not isinstance(part, (nn.Dropout, nn.AlphaDropout))]
    linears: list[Any] = []
    units: list[Activation | None] = []  # behind each Linear
    end = None
    for place, (name, part) in enumerate(modules, start=1):
        what = f"module {name} ({part})"
        if end is not None:
            raise InputError(f"{what}: expected nothing behind {end}, which gives probabilities")
        if isinstance(part, nn.Linear):
            linears.append(part)
            units.append(None)
            continue
        if isinstance(part, nn.Softmax) or (isinstance(part, nn.Sigmoid) and place == len(modules)):
            end = what
            _check_end(part, what)
            found = "softmax" if isinstance(part, nn.Softmax) else "sigmoid"
            if output not in (None, found):
                raise InputError(f"output: expected {found!r}, as {what} says, got {output!r}; leave it out")
            output = found
            continue
        activation = _activation(part, what)
        if not linears:
            raise InputError(f"{what}: expected a Linear layer in front of an activation")
        if units[-1] is not None and activation.name != "identity":
            raise InputError(f"{what}: expected one activation behind a Linear layer, got a second one")
        units[-1] = units[-1] or (activation if activation.name != "identity" else None)
    if not linears:
        raise InputError(f"module: expected at least one Linear layer, got {module}")
    if units[-1] is not None:
        raise InputError(
            f"module: expected a Linear layer, Softmax or Sigmoid at the end, got {units[-1].name}; fastdl has linear, sigmoid "
            f"and softmax outputs"
        )
    return _described(linears, [unit or Activation("identity") for unit in units[:-1]], output or "linear")


def _described(linears: list[Any], units: list[Activation], output: str) -> tuple[dict[str, Any], NDArray[Any]]:
    weights, biases = [], []
    for linear in linears:
        weight = linear.weight.detach().cpu()
        dtype = "float64" if weight.dtype == torch().float64 else "float32"
        weights.append(weight.to(getattr(torch(), dtype)).numpy().T)
        bias = np.zeros(len(weight)) if linear.bias is None else linear.bias.detach().cpu().double().numpy()
        biases.append(bias)
    for before, after in itertools.pairwise(weights):
        if before.shape[1] != after.shape[0]:
            raise InputError(
                f"module: expected each Linear layer to take what the one before gives, got {before.shape[1]} outputs in "
                f"front of {after.shape[0]} inputs"
            )
    dtype = "float64" if any(weight.dtype == np.float64 for weight in weights) else "float32"
    if output == "softmax" and weights[-1].shape[1] < 2:
        raise InputError("module: expected at least 2 outputs in front of Softmax, got 1; use Sigmoid for one label")
    return described(weights, biases, units, output, dtype)


def _flat(module: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(name, module) of all that a Sequential consists of, those of Sequentials inside it too."""
    nn = torch().nn
    if not isinstance(module, nn.Module):
        raise InputError(f"module: expected an nn.Sequential of PyTorch, got {type(module).__name__}")
    if isinstance(module, nn.Linear):
        yield prefix or "0", module
    elif type(module) is not nn.Sequential:
        raise InputError(
            f"module: expected an nn.Sequential of Linear layers and activations, got {type(module).__name__}, whose forward may "
            f"do anything; put its layers into a Sequential"
        )
    else:
        for name, part in enumerate(module):  # one that stands at several places comes as often
            if isinstance(part, nn.Sequential):
                yield from _flat(part, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", part


def _activation(part: Any, what: str) -> Activation:
    """The activation that a module is."""
    kind = type(part).__name__
    name = next((name for name in ACTIVATIONS if Activation(name).spec.torch == kind), None)
    if name is None or type(part) is not getattr(torch().nn, kind):
        known = ", ".join(str(Activation(name).spec.torch) for name in ACTIVATIONS)
        raise InputError(f"{what}: expected Linear, Dropout, Softmax, Sigmoid or one of {known}, got {kind}")
    if name in _FIXED:
        attribute, value = _FIXED[name]
        if getattr(part, attribute) != value:
            raise InputError(f"{what}: expected {attribute}={value!r}, which is what fastdl computes")
    return Activation(name, float(getattr(part, _ALPHAS[name])) if name in _ALPHAS else None)


def _check_end(part: Any, what: str) -> None:
    if getattr(part, "dim", 1) not in (1, -1, None):
        raise InputError(f"{what}: expected dim=1, over the classes of a row")
