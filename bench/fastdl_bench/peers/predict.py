"""Predicts classes with one library, named by the argument, with a workload's network: the same weights everywhere."""

from __future__ import annotations

import functools
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fastdl_bench.cases import Workload
from fastdl_bench.data import initial_parameters, training_data
from fastdl_bench.protocol import Run, serve

Predict = Callable[[np.ndarray], Any]
Parameters = list[tuple[np.ndarray, np.ndarray]]


def with_fastdl(workload: Workload, parameters: Parameters, precision: str = "float32") -> Predict:
    import fastdl

    model = fastdl.MLP(workload.layers, workload.activation)
    if precision != "float32":
        model.precision = precision
    model.parameters[:] = np.concatenate([a.ravel() for pair in parameters for a in pair])
    return model.predict


def with_sklearn(workload: Workload, parameters: Parameters) -> Predict:
    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore")
    x, y = training_data(workload)
    model = MLPClassifier(workload.layers[1:-1], workload.activation, max_iter=1).fit(x, y)
    model.coefs_ = [weight for weight, _ in parameters]
    model.intercepts_ = [bias for _, bias in parameters]
    return model.predict


def with_torch(workload: Workload, parameters: Parameters, bf16: bool = False) -> Predict:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    modules: list[torch.nn.Module] = []
    with torch.no_grad():
        for weight, bias in parameters:
            layer = torch.nn.Linear(*weight.shape)
            layer.weight.copy_(torch.from_numpy(weight.T))
            layer.bias.copy_(torch.from_numpy(bias))
            modules += [layer, torch.nn.ReLU() if workload.activation == "relu" else torch.nn.Tanh()]
    network = torch.nn.Sequential(*modules[:-1])

    def predict(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(x)).argmax(1).numpy()

    return torch.autocast("cpu", torch.bfloat16)(predict) if bf16 else predict


def with_jax(workload: Workload, parameters: Parameters) -> Predict:
    import jax
    import jax.numpy as jnp

    layers = [tuple(map(jnp.asarray, pair)) for pair in parameters]
    activation = jax.nn.relu if workload.activation == "relu" else jnp.tanh

    @jax.jit
    def forward(x: jax.Array) -> jax.Array:
        for weight, bias in layers[:-1]:
            x = activation(x @ weight + bias)
        weight, bias = layers[-1]
        return (x @ weight + bias).argmax(axis=1)

    return lambda x: np.asarray(forward(x))


def with_numpy(workload: Workload, parameters: Parameters) -> Predict:
    hidden = np.tanh if workload.activation == "tanh" else lambda z, out: np.maximum(z, 0, out=out)

    def predict(x: np.ndarray) -> np.ndarray:
        for weight, bias in parameters[:-1]:
            x = x @ weight
            x += bias
            hidden(x, out=x)
        weight, bias = parameters[-1]
        return (x @ weight + bias).argmax(axis=1)

    return predict


LIBRARIES: dict[str, Callable[[Workload, Parameters], Predict]] = {
    "fastdl": with_fastdl,
    "fastdl-bf16": functools.partial(with_fastdl, precision="bf16-strict"),
    "sklearn": with_sklearn,
    "torch": with_torch,
    "torch-bf16": functools.partial(with_torch, bf16=True),
    "jax": with_jax,
    "numpy": with_numpy,
}


def prepared(library: str, workload: Workload, rows: int) -> Callable[[], np.ndarray]:
    """What is timed: the classes of so many rows of the workload's data, by that library."""
    predict = LIBRARIES[library](workload, initial_parameters(workload))
    x = np.resize(training_data(workload)[0], (rows, workload.layers[0]))
    return lambda: np.asarray(predict(x))


def setup(request: dict[str, Any]) -> Run:
    """For "rows" rows of the "workload"; says which classes it predicts, so that they can be compared."""
    predict = prepared(sys.argv[1], Workload.of(request["workload"]), request["rows"])

    def run(request: dict[str, Any]) -> dict[str, Any]:
        calls = request["calls"]
        start = time.perf_counter()
        for _ in range(calls):
            predict()
        return {"seconds": time.perf_counter() - start}

    run.notes = {"classes": predict().tolist()}  # type: ignore[attr-defined]
    return run


if __name__ == "__main__":
    serve(setup)
