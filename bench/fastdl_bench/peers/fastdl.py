"""Trains with `fastdl.Trainer` as a user does: one `fit` of several epochs; `--precision` is that of the trainer."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

import fastdl
from fastdl_bench.cases import Workload
from fastdl_bench.data import LEARNING_RATE, SEED, initial_parameters, training_data, validation_data
from fastdl_bench.protocol import Run, serve


def setup(request: dict[str, Any]) -> Run:
    """The model with the initial weights that all peers have."""
    workload = Workload.of(request["workload"])
    x, y = training_data(workload)
    model = fastdl.MLP(workload.layers, activation=workload.activation, output=workload.output)
    initial = np.concatenate([a.ravel() for pair in initial_parameters(workload) for a in pair])

    def run(request: dict[str, Any]) -> dict[str, Any]:
        model.parameters[:] = initial
        more: dict[str, Any] = {"precision": sys.argv[-1]} if "--precision" in sys.argv else {}
        trainer = fastdl.Trainer(
            model, fastdl.Adam(lr=LEARNING_RATE), batch_size=workload.batch, epochs=request["epochs"], seed=SEED, **more
        )
        start = time.perf_counter()
        history = trainer.fit(x, y)
        answer = {"seconds": time.perf_counter() - start, "loss": history.loss}
        if request.get("accuracy"):
            x_valid, y_valid = validation_data(workload)
            answer["accuracy"] = float((model.predict(x_valid) == y_valid).mean())
        return answer

    return run


if __name__ == "__main__":
    serve(setup)
