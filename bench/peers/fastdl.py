"""Trains with `fastdl.Trainer` as a user does: one `fit` of several epochs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import fastdl
from bench.cases import Workload
from bench.data import LEARNING_RATE, SEED, initial_parameters, training_data
from bench.protocol import Run, serve


def setup(request: dict[str, Any]) -> Run:
    """The model with the initial weights that all peers have."""
    workload = Workload.of(request["workload"])
    x, y = training_data(workload)
    model = fastdl.MLP(workload.layers, activation=workload.activation, output=workload.output)
    initial = np.concatenate([a.ravel() for pair in initial_parameters(workload) for a in pair])

    def run(request: dict[str, Any]) -> dict[str, Any]:
        model.parameters[:] = initial
        trainer = fastdl.Trainer(
            model, fastdl.Adam(lr=LEARNING_RATE), batch_size=workload.batch, epochs=request["epochs"], seed=SEED
        )
        start = time.perf_counter()
        history = trainer.fit(x, y)
        return {"seconds": time.perf_counter() - start, "loss": history.loss}

    return run


if __name__ == "__main__":
    serve(setup)
