"""Models with an input stage that tests share, and the oracle's view of them."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checking import differences, eps, relative_error
from stage_reference import Stage

import fastdl
from fastdl import PBLD, Periodic, PiecewiseLinear

STAGES = {  # embedding, scales
    "scale": (None, True),
    "pbld": (PBLD(), False),
    "pbld-scale": (PBLD(), True),
    "some-columns": (PBLD(size=3, frequencies=5, sigma=0.5, columns=[3, 0]), True),
    "wide": (PBLD(size=7, frequencies=21, sigma=0.3, columns=[1, 2, 4]), True),
    "smallest": (PBLD(size=2, frequencies=1, columns=[4]), False),
    "periodic": (Periodic(sigma=0.3), False),
    "periodic-scale": (Periodic(size=5, frequencies=19, columns=[4, 1, 3]), True),
    "periodic-smallest": (Periodic(size=1, frequencies=1, columns=[0]), True),
    "pieces": (PiecewiseLinear(), False),
    "pieces-scale": (PiecewiseLinear(size=3, pieces=21, columns=[2, 0]), True),
    "pieces-smallest": (PiecewiseLinear(size=1, pieces=1), True),
}
every_stage = pytest.mark.parametrize(("embedding", "scales"), STAGES.values(), ids=STAGES)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def staged(
    embedding, scales, layers=(5, 7, 3), output="softmax", dtype="float64", activation="tanh", seed=1, categories=None
):
    """A model whose biases, scales, edges and units' own numbers are not the initial ones, so that a mistake in them shows."""
    model = fastdl.MLP(
        list(layers), activation, output, seed, dtype, embedding=embedding, scale_inputs=scales, categories=categories
    )
    rng = np.random.default_rng(seed)
    for bias in model.biases:
        bias[:] = 0.2 * rng.normal(size=bias.size)
    for alphas in model.unit_alphas:
        alphas[:] = rng.uniform(-0.5, 1.5, alphas.size)
    if model.input_stage is None:
        return model
    scale, edges = model.input_stage.scale, model.input_stage.edges
    scale[:] = rng.uniform(0.5, 1.5, scale.size)
    tables = model.input_stage.tables
    tables[:] = rng.normal(size=tables.shape)
    edges[:] = np.cumsum(rng.uniform(0.05, 0.3, edges.shape), axis=1) - 1.5
    if edges.shape[1] > 2:
        edges[0, -2] = edges[0, -3]  # a piece of no width
    return model


def stage_of(model):
    """The stage as the oracle takes it."""
    e, c = model.embedding, model.categories
    tables = ([], 0) if c is None else ([(column, count + 1) for column, count in c.counts.items()], c.size)
    if e is None:
        return Stage(model.layers[0], [], "cosines", 0, 1, model.scale_inputs, *tables)
    columns = [i for i in range(model.layers[0]) if c is None or i not in c.counts] if e.columns is None else e.columns
    terms = {"pbld": "cosines", "periodic": "waves", "piecewise": "pieces"}[e.name]
    return Stage(model.layers[0], list(columns), terms, e.count, e.size, model.scale_inputs, *tables)


def split(model, flat):
    """(the numbers of the layers that have weights, those of each layer's units, those of the stage) of a flat buffer."""
    dense = sum(w.size + b.size for w, b in zip(model.weights, model.biases, strict=True))
    flat, sizes = reference.f64(flat), [a.size for a in model.unit_alphas]
    own = np.split(flat[dense : dense + sum(sizes)], np.cumsum(sizes)[:-1]) if sizes else []
    return flat[:dense], own, flat[dense + sum(sizes) :]


def forward(model, X):
    """The raw outputs in float64 NumPy."""
    dense, units, own = split(model, model.parameters)
    inputs = stage_of(model).forward(X, own)[1]
    activations = [(a.name, a.alpha) for a in model.activations]
    return reference.network_forward((inputs.shape[1], *model.layers[1:]), activations, dense, inputs, units)[0][-1]


def oracle(model, X, y, weight=None, l2=0.0, parameters=None):
    """(loss, gradient) in float64 NumPy."""
    dense, units, own = split(model, model.parameters if parameters is None else parameters)
    stage = stage_of(model)
    inputs = stage.forward(X, own)[1]
    activations = [(a.name, a.alpha) for a in model.activations]
    layers = (inputs.shape[1], *model.layers[1:])
    loss, gradient, d_inputs = reference.network_backward(
        layers, activations, model.output, dense, inputs, y, weight, l2, units
    )
    return loss, np.concatenate([gradient, stage.backward(X, own, d_inputs)])


def parts(model, flat):
    """Each kind of parameter that is learnt in a buffer laid out like the model's, by name."""
    found = {f"weights[{i}]": w for i, w in enumerate(model.views(flat)[0])}
    found |= {f"biases[{i}]": b for i, b in enumerate(model.views(flat)[1])}
    found |= {f"unit_alphas[{i}]": a for i, a in enumerate(model.architecture.alpha_views(flat))}
    if model.input_stage is not None:
        found |= model.architecture.stage_views(flat)._asdict()
    return {name: part for name, part in found.items() if name != "edges"}


def check_by_differences(model, X, y, limit):
    """Each part of the gradient against central differences of the loss of weighted rows with a penalty; the gradient."""
    weight, l2 = [0.5, 3.0, 0.0, 1.0, 1.0, 2.0], 0.3
    value, gradient = model.loss_and_gradient(X, y, weight, l2)

    def loss():
        return model.loss_and_gradient(X, y, weight, l2)[0]

    wanted = parts(model, differences(loss, model.parameters))
    assert value == loss()
    for name, part in parts(model, gradient).items():
        assert relative_error(part, wanted[name]) <= limit, name
    return gradient


def check_by_oracle(rng, model, X, y, loss_limit, limit):
    """Loss and each part of the gradient of weighted rows with a penalty against the oracle; limits count units of rounding."""
    rounding, weight = eps(model.dtype), rng.random(len(X)) * 3
    loss, gradient = model.loss_and_gradient(X, y, weight, 0.2)
    want_loss, want = oracle(model, X, y, weight / weight.mean(), 0.2)
    assert loss == pytest.approx(want_loss, rel=loss_limit * rounding)
    wanted = parts(model, want)
    for name, part in parts(model, gradient).items():
        error = np.linalg.norm(part - wanted[name])
        assert error <= limit * rounding * (np.linalg.norm(wanted[name]) + 0.02 * np.linalg.norm(want)), name
