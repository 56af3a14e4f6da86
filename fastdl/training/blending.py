"""A network and a linear model of the same rows, mixed as other rows say: one network in the end.

With few rows a linear model is often as good as a network, or better, and it makes other mistakes. The mix is linear in the raw
outputs, (1 - s) network + s linear, with a share s for each number or label, and one for all classes of softmax. The share is the
mean of its posterior: a share is as probable as it makes the targets of rows that neither has learnt from, and before these are
seen all are alike. Of few rows it stays near one half, of many it goes to the best; no single row chooses between two models.
These rows count alike, whatever weights they have.

The linear model is that of the features as the network's first layer gets them, embeddings of numbers included; categories are 0
or 1 for each. It becomes a part of the network: in each hidden layer one more unit for each output, whose activation is the
identity, as a parametric activation is for some number of the unit's own. So the mix can be saved, trained on and exported as any
network with parametric activations; scikit-learn has none.

What it gains stands in `recipes`. Sources: Wolpert, Stacked Generalization (1992); Breiman, Stacked Regressions (1996); Hoeting,
Madigan, Raftery and Volinsky, Bayesian Model Averaging (1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl import calibration
from fastdl.activations import Activation
from fastdl.categories import CategoryEmbedding
from fastdl.model import MLP
from fastdl.tables.model import TableModel
from fastdl.training.linear import fit_linear
from fastdl.training.rows import TrainingRows

LINEAR_SHARE = "linear_share"
"""What the shares are called in metadata."""
LEAST = 0.01
"""A smaller share is none."""
MOST_FEATURES, MOST_OUTPUTS = 2000, 32
"""Beyond these a linear model would take longer than the network, or more room than it."""
EXACT = 1e-12
"""A smaller mean of squared errors, of standardised targets, says nothing more."""
_SHARES = np.linspace(0, 1, 51)
_LOSSES = ("squared_error", "sigmoid_cross_entropy", "softmax_cross_entropy")


def can_blend(model: MLP) -> bool:
    """Whether a network has hidden layers, a loss that there is a linear model for, and not too many features or outputs."""
    fits = model.layers[-1] <= MOST_OUTPUTS and _n_features(model) <= MOST_FEATURES
    return len(model.layers) > 2 and model.loss.spec.name in _LOSSES and fits


@dataclass(frozen=True)
class Pair:
    """A trained network beside a linear model of the same rows, and what both say of rows that neither has learnt from.

    model : the network
    coefficients [D + 1, O] : of `first_features`; the last row is the intercept
    network, linear [N, O] : raw outputs for the other rows
    targets : of these rows, as the loss takes them
    """

    model: MLP
    coefficients: NDArray[np.float64]
    network: NDArray[np.float64]
    linear: NDArray[np.float64]
    targets: NDArray[Any]

    @classmethod
    def of(
        cls,
        model: MLP,
        rows: tuple[Any, NDArray],
        held_out: tuple[Any, NDArray],
        sample_weight: NDArray | None = None,
        class_weight: Any = None,
    ) -> Pair:
        """Fit the linear model to the network's training rows (X, y), with the weights that the network was trained with."""
        learnt = TrainingRows.given(model, *rows, sample_weight, class_weight)
        y = learnt.own_targets
        y = np.eye(model.layers[-1])[y] if model.output == "softmax" else y
        found = fit_linear(first_features(model, rows[0]), y, model.output, weight=learnt.weight)
        there = first_features(model, held_out[0])
        targets = model.prepare_targets(held_out[1], len(there))
        return cls(model, found, model.forward(held_out[0]).astype(np.float64), there @ found[:-1] + found[-1], targets)

    @property
    def is_finite(self) -> bool:
        """Whether there is something to mix: a training that was interrupted may have left anything."""
        return all(bool(np.isfinite(told).all()) for told in (self.network, self.linear, self.coefficients))

    def evidence(self, share: float, temperature: float) -> NDArray[np.float64]:
        """The log likelihood of the targets, one for each share there is.

        That of the classes, or for numbers a normal one of each output whose variance fits best.
        """
        n, mixed = len(self.network), (1 - share) / temperature * self.network + share * self.linear
        if self.model.output == "linear":
            return -n / 2 * np.log(np.maximum(np.mean((mixed - self.targets) ** 2, axis=0), EXACT))
        if self.model.output == "softmax":
            return np.array([-n * calibration.log_loss(mixed, self.targets)])
        labels = zip(mixed.T, self.targets.T)
        return np.array([-n * calibration.log_loss(raw[:, None], truth[:, None]) for raw, truth in labels])


def blend(pairs: Sequence[Pair], n_rows: int, calibrates: bool = False) -> tuple[list[MLP], NDArray[np.float64]]:
    """(the mixes, the linear models' shares): the same shares for all pairs. The networks themselves where all shares are 0.

    n_rows : how many rows the pairs have been shown, each counted once, though several pairs may have seen it
    calibrates : divide the networks' outputs by the temperature that fits best, before they are mixed
    """
    networks, head = [pair.model for pair in pairs], pairs[0].model
    none = np.zeros(1 if head.output == "softmax" else head.layers[-1])
    if not all(pair.is_finite for pair in pairs):
        return networks, none
    shown = sum(len(pair.network) for pair in pairs)
    temperature = 1.0
    if calibrates and head.output != "linear":
        numbers = shown * len(none)
        loss_of = calibration.careful(
            lambda t: -float(sum(pair.evidence(0, t).sum() for pair in pairs)) / numbers, n_rows
        )
        temperature = calibration.best_temperature(loss_of)
    logs = np.array([sum(pair.evidence(share, temperature) for pair in pairs) for share in _SHARES])
    shares = np.array([posterior_mean(column * n_rows / shown) for column in logs.T])
    shares[shares < LEAST] = 0
    if not shares.any():
        return networks, none
    return [with_linear_part(pair.model, pair.coefficients, shares, temperature) for pair in pairs], shares


def posterior_mean(logs: NDArray[np.float64]) -> float:
    """The mean of a share that is uniform before, for the log likelihoods of 51 from 0 to 1; to three decimals.

    More of them would hang on how many threads the library of linear algebra has.
    """
    odds = np.exp(logs - logs.max())
    odds[[0, -1]] /= 2  # the ends of the integral
    return round(float(_SHARES @ odds / odds.sum()), 3)


def blended(
    model: MLP,
    rows: tuple[Any, NDArray],
    held_out: tuple[Any, NDArray],
    sample_weight: NDArray | None = None,
    class_weight: Any = None,
) -> MLP:
    """The mix of one network and a linear model, for what `Pair.of` takes; the network itself where there is nothing to mix.

    Its shares stand in `metadata["linear_share"]`.
    """
    if not can_blend(model):
        return model
    pair = Pair.of(model, rows, held_out, sample_weight, class_weight)
    (mixed,), shares = blend([pair], len(pair.network))
    if mixed is not model:
        mixed.metadata[LINEAR_SHARE] = noted(shares)
    return mixed


def noted(shares: NDArray[np.float64]) -> float | list[float] | None:
    """Shares as they stand in a model's metadata: one number, or one for each output; None where nothing was mixed."""
    if not shares.any():
        return None
    told: list[float] = shares.tolist()
    return told[0] if len(told) == 1 else told


def first_features(model: MLP, X: Any) -> NDArray[np.float64]:
    """What the first layer gets of X, but 0 or 1 for each row of the categories' tables in place of what stands in it: [N, D]."""
    codes = None if model.categories is None else CategoryEmbedding(model.categories.counts, 1)
    width = _n_numbers(model) + (0 if codes is None else len(codes.counts))
    probe = _like(model, (model.layers[0], width), (), "linear", codes)
    if codes is not None and probe.input_stage is not None:  # a category becomes its code
        probe.input_stage.tables[:, 0] = np.concatenate([np.arange(rows) for _, rows in codes.tables])
        probe.input_stage.scale[_n_numbers(model) :] = 1
    probe.weights[0][:] = np.eye(width)
    probe.biases[0][:] = 0
    found = probe.forward(X).astype(np.float64)
    if codes is None:
        return found
    numbers, told = np.split(found, [_n_numbers(model)], axis=1)
    return np.column_stack(
        [numbers, *(np.eye(rows)[told[:, k].astype(int)] for k, (_, rows) in enumerate(codes.tables))]
    )


def with_linear_part(
    model: MLP, coefficients: NDArray[np.float64], shares: NDArray[np.float64], temperature: float = 1.0
) -> MLP:
    """The network (1 - s) / temperature model + s linear: for the coefficients [D + 1, O] of `first_features`, and a share s for
    each output, or one for all."""
    outputs, n_numbers, old_codes = model.layers[-1], _n_numbers(model), model.categories
    inner = tuple(width + outputs for width in model.layers[1:-1])
    units = tuple(unit.made_parametric() for unit in model.activations)
    codes = None if old_codes is None else CategoryEmbedding(old_codes.counts, old_codes.size + outputs)
    mixed = _like(model, (model.layers[0], *inner, outputs), units, model.output, codes)
    kept = (1 - shares) / temperature
    of_numbers, of_codes, intercept = np.split(coefficients, [n_numbers, len(coefficients) - 1])
    for k, (weight, bias, old, old_bias) in enumerate(zip(mixed.weights, mixed.biases, model.weights, model.biases)):
        last = k == len(mixed.weights) - 1
        own = np.arange(len(old)) if k else _own_rows(model, outputs)  # where the old layer's inputs are now
        weight[:], bias[:] = 0, 0
        weight[own, : old.shape[1]] = old * (kept if last else 1)
        bias[: old.shape[1]] = old_bias * (kept if last else 1)
        if k:
            weight[-outputs:, -outputs:] = np.eye(outputs) * (shares if last else 1)
            continue
        weight[:n_numbers, -outputs:] = of_numbers
        others = np.setdiff1d(np.arange(len(weight)), own)
        weight[others, -outputs:] = np.tile(np.eye(outputs), (len(others) // outputs, 1))
        bias[-outputs:] = intercept[0]
        if old_codes is not None and mixed.input_stage is not None and model.input_stage is not None:
            mixed.input_stage.tables[:] = np.hstack([model.input_stage.tables, of_codes])
        if model.scale_inputs and mixed.input_stage is not None and model.input_stage is not None:
            mixed.input_stage.scale[own], mixed.input_stage.scale[others] = model.input_stage.scale, 1
    for mine, theirs, unit in zip(mixed.unit_alphas, model.unit_alphas, model.activations):
        mine[:-outputs] = theirs if unit.parametric else unit.first_unit_alpha
        mine[-outputs:] = unit.identity_unit_alpha
    return mixed


def _n_features(model: MLP) -> int:
    """How many features the linear model has."""
    return _n_numbers(model) + (0 if model.categories is None else sum(rows for _, rows in model.categories.tables))


def _n_numbers(model: MLP) -> int:
    """How many of the first layer's inputs come from no category; they are the first."""
    codes = model.categories
    return len(model.weights[0]) - (0 if codes is None else len(codes.counts) * codes.size)


def _own_rows(model: MLP, outputs: int) -> NDArray[np.int64]:
    """Where the first layer's inputs are when each category has become `outputs` numbers more."""
    n_numbers, rows = _n_numbers(model), np.arange(len(model.weights[0]))
    if model.categories is None:
        return rows
    before = (rows - n_numbers) // model.categories.size
    return rows + np.where(rows < n_numbers, 0, before) * outputs


def _like(
    model: MLP, layers: tuple[int, ...], units: tuple[Activation, ...], output: str, codes: CategoryEmbedding | None
) -> MLP:
    """A model of other layers behind the same inputs, with everything else of `model`; its tables are not filled."""
    same = output == model.output
    made = type(model)(
        layers, units, output, model.seed, model.dtype.name, loss=model.loss if same else None, embedding=model.embedding,
        scale_inputs=model.scale_inputs, categories=codes,
    )  # fmt: skip
    mine, theirs = made.input_stage, model.input_stage
    if mine is not None and theirs is not None:
        for name in ("frequencies", "phases", "weights", "biases", "edges"):
            getattr(mine, name)[...] = getattr(theirs, name)
        mine.scale[: _n_numbers(model)] = theirs.scale[: _n_numbers(model)]
    made.scaling, made.feature_names = model.scaling, model.feature_names
    if same:
        made.target_names, made.classes, made.precision = model.target_names, model.classes, model.precision
        made.metadata = dict(model.metadata)
    if isinstance(made, TableModel) and isinstance(model, TableModel):
        made.preprocessor = model.preprocessor
    return made
