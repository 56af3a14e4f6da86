"""Whole `fit` calls, and predictions of a row, with one class named by the argument: fastdl's estimator or scikit-learn's, or
fastdl's `Trainer` with the same network, batches and number of epochs."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fastdl_bench.estimators import CASES, Fit
from fastdl_bench.protocol import Run, serve

Answer = dict[str, Any]


def _estimator(fit: Fit, module: Any, epochs: int) -> Any:
    kind = module.MLPClassifier if fit.classes else module.MLPRegressor
    # Every epoch is run, also where the loss no longer falls.
    return kind(
        hidden_layer_sizes=fit.hidden, batch_size=fit.batch, max_iter=epochs, random_state=0, tol=0.0, n_iter_no_change=10**9
    )  # fmt: skip


def with_estimator(module: Any) -> Callable[[Fit, Any, np.ndarray, int], tuple[float, float, Any]]:
    """Seconds of fit, the last loss, and the fitted model."""

    def train(fit: Fit, x: Any, y: np.ndarray, epochs: int) -> tuple[float, float, Any]:
        model = _estimator(fit, module, epochs)
        start = time.perf_counter()
        model.fit(x, y)
        return time.perf_counter() - start, model.loss_, model

    return train


def with_trainer(fit: Fit, x: Any, y: np.ndarray, epochs: int) -> tuple[float, float, Any]:
    import fastdl

    output, n_out = ("softmax", fit.classes) if fit.classes else ("linear", 1)
    model = fastdl.MLP([x.shape[1], *fit.hidden, n_out], output=output)
    batch = min(200, x.shape[0]) if isinstance(fit.batch, str) else fit.batch
    trainer = fastdl.Trainer(model, batch_size=batch, epochs=epochs, l2=1e-4 / batch)
    start = time.perf_counter()
    history = trainer.fit(x, y)
    return time.perf_counter() - start, history.loss[-1], model


def setup(request: dict[str, Any]) -> Run:
    """The data of a case, and a first fit of one epoch, which loads what there is to load."""
    case = CASES[request["case"]]
    if sys.argv[1] == "trainer":
        train: Any = with_trainer
    else:
        import sklearn.neural_network

        import fastdl

        train = with_estimator(fastdl if sys.argv[1] == "fastdl" else sklearn.neural_network)
    x, y = case.data()
    _, _, fitted = train(case, x, y, 1)
    row = x[:1].copy()

    def run(request: dict[str, Any]) -> Answer:
        if "calls" in request:
            start = time.perf_counter()
            for _ in range(request["calls"]):
                fitted.predict(row)
            return {"seconds": time.perf_counter() - start}
        seconds, loss, _ = train(case, x, y, case.epochs)
        return {"seconds": seconds, "loss": float(loss)}

    return run


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # that the optimisation has not converged is the point of a fixed number of epochs
    serve(setup)
