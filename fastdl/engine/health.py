"""How the layers of a network are doing in its training: a look at some rows and one step that is taken apart from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastdl_kernels as fk
from fastdl import html
from fastdl.engine.session import Session
from fastdl.engine.settings import Settings, State
from fastdl.network import Architecture, aligned_copy, views

SATURATED, ALWAYS = 0.01, 0.95
"""A sigmoid or tanh unit is saturated where it is so near to an end of its range, of which the width is 1, on so many rows."""
MANY, LARGE_STEP = 0.4, 0.1
"""A share of dead or saturated units, and a step relative to the weights, from which on there is advice."""
BINS, DRAWN = 12, 40_000
"""Bins of a histogram, and about how many numbers it is of: those of evenly taken rows, where there are more."""


class StepFactors(NamedTuple):
    """What schedules say of a step: its learning rate, and what weight decay and the dropout rates are multiplied by."""

    rate: float
    decay: float = 1.0
    dropout: float = 1.0


@dataclass(frozen=True)
class LayerHealth:
    """One layer, on the rows that were looked at.

    dead : share of the ReLU units whose output is 0 on every row; None for other activations
    saturated : share of the sigmoid or tanh units within 1 % of their range from its ends, on 95 % of the rows or more; or None
    mean, deviation, counts, edges : of the pre-activations z = a @ W + b over rows and units, and a histogram of them or of
        some rows
    weight_norm, gradient_norm, update_norm : Euclidean norms of W, of the gradient of the mean loss, and of what a step
        adds to W
    update_ratio : update_norm / weight_norm; about 0.001 is usual
    not_finite : how many of the layer's weights, biases and their gradients are NaN or infinite
    """

    name: str
    activation: str
    units: int
    dead: float | None
    saturated: float | None
    mean: float
    deviation: float
    counts: list[int]
    edges: list[float]
    weight_norm: float
    gradient_norm: float
    update_norm: float
    update_ratio: float
    not_finite: int


@dataclass(frozen=True)
class Health:
    """The layers of a network in its training, from the first to the output; `print` it, or take the numbers.

    rows : how many rows were looked at; epoch, rate : after how many epochs, and the learning rate of the step
    """

    layers: tuple[LayerHealth, ...]
    rows: int
    epoch: int
    rate: float

    @property
    def advice(self) -> list[str]:
        """One sentence for each thing that is wrong; empty where nothing stands out."""
        found = []
        for layer in self.layers:
            if layer.not_finite:
                found.append(
                    f"{layer.not_finite:,} numbers of the {layer.name} layer are NaN or infinite: lower the rate (now "
                    f"{self.rate:g}), standardise the features, or clip the gradient"
                )
                continue
            if layer.dead is not None and layer.dead > MANY:
                found.append(
                    f"{100 * layer.dead:.0f} % of the units of the {layer.name} layer are dead: lower the rate (now "
                    f"{self.rate:g}), use leaky ReLU, or He initialisation"
                )
            if layer.saturated is not None and layer.saturated > MANY:
                found.append(
                    f"{100 * layer.saturated:.0f} % of the units of the {layer.name} layer are saturated: lower the rate (now "
                    f"{self.rate:g}), standardise the features, or use ReLU"
                )
            if layer.update_ratio > LARGE_STEP:
                found.append(
                    f"a step changes the weights of the {layer.name} layer by {100 * layer.update_ratio:.0f} % of their norm: "
                    f"lower the rate (now {self.rate:g})"
                )
        return found

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {**asdict(self), "layers": [asdict(layer) for layer in self.layers], "advice": self.advice}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Heads and cells of a table with a line for each layer."""
        heads = ["layer", "units", "dead", "saturated", "z", "|weights|", "|gradient|", "|update|", "update/weights"]
        lines = []
        for layer in self.layers:
            shares = ["" if share is None else f"{100 * share:.1f} %" for share in (layer.dead, layer.saturated)]
            norms = (layer.weight_norm, layer.gradient_norm, layer.update_norm, layer.update_ratio)
            spread = f"{layer.mean:.2g} ± {layer.deviation:.2g}"
            name = f"{layer.name} ({layer.activation})"
            lines.append([name, f"{layer.units:,}", *shares, spread, *(f"{value:.3g}" for value in norms)])
        return heads, lines

    def _repr_html_(self) -> str:
        """What a notebook shows: a line for each layer, and the advice."""
        heads, lines = self.table()
        return html.table(heads, lines) + "".join(f"<p>{html.text(line)}</p>" for line in self.advice)

    def __str__(self) -> str:
        heads, lines = self.table()
        widths = [max(map(len, column)) for column in zip(heads, *lines)]
        rows = [
            "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
            for row in (heads, *lines)
        ]
        return "\n".join([*rows, *(self.advice or ["nothing stands out"])])


def health(
    architecture: Architecture,
    names: list[str],
    parameters: NDArray,
    rows: tuple[NDArray, NDArray],
    step: tuple[Settings, State | None, StepFactors],
    epoch: int,
) -> Health:
    """Look at the layers of a network that have weights, with these parameters, which stay as they are.

    names : of the activations of hidden layers and of the output unit
    rows : prepared inputs [N, I] and targets of N rows
    step : settings, the optimizer's state (None: at the start) and what schedules say of the step, which is taken on copies
        with the first rows, as many as a batch has

    Cost: a forward pass over the rows, a gradient and a step of one batch.
    """
    x, y = rows
    settings, state, factors = step
    size = min(settings.batch_size, len(x))
    gradient = _gradient(architecture, parameters, x[:size], y[:size])
    changed = aligned_copy(parameters)
    session = Session(architecture, changed, settings)
    if state is not None:
        session.resume(state)
    table = session.step_table(np.array([factors.rate]), decay_factor=np.array([factors.decay]))
    session.epoch(x[:size], y[:size], None, np.arange(size), table, dropout_factor=factors.dropout)
    arrays = [views(architecture.dense, flat) for flat in (parameters, gradient, changed)]
    found, a = [], _staged(architecture, parameters, x)
    for i, ((weight, bias), name) in enumerate(zip(zip(*arrays[0]), names, strict=True)):
        last = i == len(names) - 1
        code, alpha = (fk.IDENTITY, 0.0) if last else (architecture.hidden[i].code, architecture.hidden[i].alpha)
        z, out = np.empty((2, len(x), weight.shape[1]), architecture.dtype)
        fk.linear_forward_keep(a, weight, bias, code, alpha, z, out)
        own = np.zeros(0) if last else architecture.alpha_views(parameters)[i]
        if own.size:
            out = np.where(z > 0, z, own * z) if code == fk.LEAKY_RELU else own * out + (1 - own) * z
        a = out
        d_weight, d_bias, new = arrays[1][0][i], arrays[1][1][i], arrays[2][0][i]
        wrong = sum(int((~np.isfinite(array)).sum()) for array in (weight, bias, d_weight, d_bias))
        found.append(_layer("output" if last else f"hidden {i + 1}", name, z, a, (weight, d_weight, new), wrong))
    return Health(tuple(found), len(x), epoch, float(factors.rate))


def _staged(architecture: Architecture, parameters: NDArray, x: NDArray) -> NDArray:
    """What the first layer with weights reads: x, or what an input stage makes of it."""
    stage, learnt = architecture.stage, architecture.stage_views(parameters)
    if stage is None or learnt is None:
        return x
    order, count, n_numbers = stage.order(x.shape[1]), len(stage.embedded), x.shape[1] - len(stage.categories)
    numbers, others = x[:, order[:count]], x[:, order[count:n_numbers]]
    if stage.categories:
        others = np.concatenate([others, learnt.looked_up(x[:, order[n_numbers:]], stage.starts)], axis=1)
    if not count:
        return np.ascontiguousarray(others * learnt.scale if stage.scaled else others)
    # In the network's own precision: cosines in float64 take four times as long, and nobody sees the difference here.
    maps = np.matmul(learnt.weights, learnt.terms(numbers)[..., None])[..., 0] + learnt.biases
    made = np.concatenate([maps, numbers[:, :, None]], axis=2)[:, :, : stage.size]
    out = np.concatenate([made.reshape(len(x), -1), others], axis=1)
    return np.ascontiguousarray(out * learnt.scale if stage.scaled else out)


def _gradient(architecture: Architecture, parameters: NDArray, x: NDArray, y: NDArray) -> NDArray:
    """Of the mean loss, flat."""
    session = Session(architecture, aligned_copy(parameters), Settings(len(x), n_threads=1))
    session.epoch(x, y, None, np.arange(len(x)), np.zeros(1))
    return session.gradient


def _layer(
    name: str, activation: str, z: NDArray, a: NDArray, weights: tuple[NDArray, NDArray, NDArray], not_finite: int
) -> LayerHealth:
    weight, d_weight, new = (array.astype(np.float64) for array in weights)
    dead = float((a == 0).all(axis=0).mean()) if activation == "relu" and name != "output" else None
    saturated = None
    if activation in ("sigmoid", "tanh") and name != "output":
        # tanh as 2 sigmoid(2z) - 1: both in [0, 1]
        inside = a if activation == "sigmoid" else (a + 1) / 2
        near = (inside < SATURATED) | (inside > 1 - SATURATED)
        saturated = float((near.mean(axis=0) >= ALWAYS).mean())
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = float(z.mean(dtype=np.float64)), float(z.std(dtype=np.float64))
        norms = [float(np.sqrt(np.square(array).sum())) for array in (weight, d_weight, new - weight)]
        some = z[:: -(-z.size // DRAWN)]
        some = some[np.isfinite(some)].astype(np.float64)
        counts, edges = np.histogram(some, BINS) if some.size else (np.zeros(1, int), np.zeros(2))
    return LayerHealth(
        name=name,
        activation=activation,
        units=z.shape[1],
        dead=dead,
        saturated=saturated,
        mean=mean,
        deviation=deviation,
        counts=counts.tolist(),
        edges=edges.tolist(),
        weight_norm=norms[0],
        gradient_norm=norms[1],
        update_norm=norms[2],
        update_ratio=norms[2] / norms[0] if norms[0] else 0.0,
        not_finite=not_finite,
    )
