"""Small problems that the tests of models and trainers share, and the oracle's view of a model."""

from __future__ import annotations

import numpy as np
import reference

import fastdl

TASKS = {  # name: (output unit, number of outputs)
    "linear1": ("linear", 1),
    "linear2": ("linear", 2),
    "sigmoid1": ("sigmoid", 1),
    "sigmoid3": ("sigmoid", 3),
    "softmax3": ("softmax", 3),
}


def make_data(rng, n_rows, layers, output):
    """X [N, I] and targets: labels [N] for softmax, else [N, O]."""
    X = rng.normal(size=(n_rows, layers[0]))
    if output == "softmax":
        return X, rng.integers(0, layers[-1], n_rows)
    if output == "sigmoid":
        return X, rng.integers(0, 2, (n_rows, layers[-1])).astype(np.float64)
    return X, rng.normal(size=(n_rows, layers[-1]))


def make_model(layers, activation="tanh", output="linear", dtype="float64", seed=1):
    """A model whose biases are not 0, so that a mistake in them shows."""
    model = fastdl.MLP(layers, activation, output, seed=seed, dtype=dtype)
    rng = np.random.default_rng(seed)
    for bias in model.biases:
        bias[:] = 0.2 * rng.normal(size=bias.size)
    return model


def oracle_arguments(model):
    """The leading arguments of `reference.network_loss_and_gradient`."""
    return model.layers, [(a.name, a.alpha) for a in model.activations], model.output


def oracle_loss_and_gradient(model, X, y, row_weight=None, l2=0.0, parameters=None):
    flat = model.parameters if parameters is None else parameters
    return reference.network_loss_and_gradient(*oracle_arguments(model), flat, X, y, row_weight, l2)


def distance_to_kinks(model, X) -> float:
    """The smallest |z| of the rectifiers: below it, finite differences are true derivatives."""
    layers, activations, _ = oracle_arguments(model)
    zs, _ = reference.network_forward(layers, activations, model.parameters, X)
    return min([np.abs(z).min() for z, a in zip(zs, model.activations, strict=False) if a.is_rectifier], default=np.inf)


def smooth_model_and_data(layers, activation, output, n_rows=4):
    """A float64 model, X and y such that no rectifier is near its kink and every layer's gradient is alive."""
    for seed in range(1, 500):
        model = make_model(layers, activation, output, seed=seed)
        X, y = make_data(np.random.default_rng(seed), n_rows, layers, output)
        _, gradient = oracle_loss_and_gradient(model, X, y)
        if distance_to_kinks(model, X) > 5e-3 and all(w.any() for w in model.views(gradient)[0]):
            return model, X, y
    raise AssertionError("no such point found")
