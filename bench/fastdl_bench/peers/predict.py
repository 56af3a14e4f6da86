"""Predicts classes with one library, named by the argument: the digits' network 64-128-10, the same weights everywhere."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fastdl_bench.cases import WORKLOADS
from fastdl_bench.data import initial_parameters, training_data
from fastdl_bench.protocol import Run, serve

DIGITS = WORKLOADS["digits"]
Predict = Callable[[np.ndarray], Any]
Parameters = list[tuple[np.ndarray, np.ndarray]]


def with_fastdl(parameters: Parameters) -> Predict:
    import fastdl

    model = fastdl.MLP(DIGITS.layers)
    model.parameters[:] = np.concatenate([a.ravel() for pair in parameters for a in pair])
    return model.predict


def with_sklearn(parameters: Parameters) -> Predict:
    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore")
    x, y = training_data(DIGITS)
    model = MLPClassifier(DIGITS.layers[1:-1], max_iter=1).fit(x, y)
    model.coefs_ = [weight for weight, _ in parameters]
    model.intercepts_ = [bias for _, bias in parameters]
    return model.predict


def with_torch(parameters: Parameters) -> Predict:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    network = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    with torch.no_grad():
        for layer, (weight, bias) in zip((network[0], network[2]), parameters):
            layer.weight.copy_(torch.from_numpy(weight.T))
            layer.bias.copy_(torch.from_numpy(bias))

    def predict(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(x)).argmax(1).numpy()

    return predict


def with_jax(parameters: Parameters) -> Predict:
    import jax
    import jax.numpy as jnp

    (w1, b1), (w2, b2) = [tuple(map(jnp.asarray, pair)) for pair in parameters]
    forward = jax.jit(lambda x: (jax.nn.relu(x @ w1 + b1) @ w2 + b2).argmax(axis=1))
    return lambda x: np.asarray(forward(x))


LIBRARIES: dict[str, Callable[[Parameters], Predict]] = {
    "fastdl": with_fastdl,
    "sklearn": with_sklearn,
    "torch": with_torch,
    "jax": with_jax,
}


def setup(request: dict[str, Any]) -> Run:
    """For "rows" rows of the digits; says which classes it predicts, so that they can be compared."""
    predict = LIBRARIES[sys.argv[1]](initial_parameters(DIGITS))
    x = np.ascontiguousarray(training_data(DIGITS)[0][: request["rows"]])

    def run(request: dict[str, Any]) -> dict[str, Any]:
        calls = request["calls"]
        start = time.perf_counter()
        for _ in range(calls):
            predict(x)
        return {"seconds": time.perf_counter() - start}

    run.notes = {"classes": np.asarray(predict(x)).tolist()}  # type: ignore[attr-defined]
    return run


if __name__ == "__main__":
    serve(setup)
