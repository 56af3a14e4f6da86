"""Trains with scikit-learn: one `fit` of `MLPClassifier` or `MLPRegressor`, from the weights that all peers start with.

Two classes are one logistic output there. The rows are shuffled in an order of its own, so that loss curves are similar
to the others', not equal.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor

from fastdl_bench.cases import Workload
from fastdl_bench.data import LEARNING_RATE, SEED, initial_parameters, training_data, validation_data
from fastdl_bench.protocol import Run, serve


def setup(request: dict[str, Any]) -> Run:
    """The estimator with early ends switched off."""
    workload = Workload.of(request["workload"])
    x, y = training_data(workload)
    initial = initial_parameters(workload)
    binary = workload.output == "softmax" and workload.layers[-1] == 2
    if binary:  # softmax of two scores is the sigmoid of their difference
        weight, bias = initial[-1]
        initial[-1] = (weight[:, 1:] - weight[:, :1], bias[1:] - bias[:1])
    kind = MLPClassifier if workload.output == "softmax" else MLPRegressor
    # scikit-learn's squared error is half of the others'; Adam does not depend on the scale of the gradient.
    factor = 1 if workload.output == "softmax" else 2

    def run(request: dict[str, Any]) -> dict[str, Any]:
        estimator = kind(
            hidden_layer_sizes=workload.layers[1:-1], activation=workload.activation, solver="adam", alpha=0.0,
            batch_size=workload.batch, learning_rate_init=LEARNING_RATE, max_iter=request["epochs"], shuffle=True,
            random_state=SEED, tol=0.0, n_iter_no_change=10**9,
        )  # fmt: skip
        classes = {"classes": np.unique(y)} if workload.output == "softmax" else {}
        estimator.partial_fit(x[: workload.batch], y[: workload.batch], **classes)
        estimator.coefs_ = [weight.copy() for weight, _ in initial]
        estimator.intercepts_ = [bias.copy() for _, bias in initial]
        estimator.loss_curve_.clear()
        estimator.set_params(warm_start=True)  # fit goes on from these weights, with a new optimizer
        start = time.perf_counter()
        estimator.fit(x, y)
        seconds = time.perf_counter() - start
        answer = {"seconds": seconds, "loss": [factor * float(loss) for loss in estimator.loss_curve_]}
        if request.get("accuracy"):
            answer["accuracy"] = float(estimator.score(*validation_data(workload)))
        return answer

    return run


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # that the optimisation has not converged is the point of a fixed number of epochs
    serve(setup)
