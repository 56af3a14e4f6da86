"""The solver "lbfgs": SciPy's L-BFGS-B on the engine's loss and gradient of all rows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from fastdl.engine import Settings
from fastdl.estimators.network import Network
from fastdl.estimators.stochastic import Data, loss_scales
from fastdl.estimators.threads import allowed_threads

# Since then `iprint` does nothing and is deprecated.
_QUIET_SINCE = (1, 15)


class Objective:
    """f(theta) = Σ w_r loss_r / Σ w_r + alpha/2 Σ W² / Σ w_r over all rows r, and its gradient.

    The loss of a row of a regression is Σ (p - y)² / 2 over its outputs: that is what scikit-learn's gradient belongs to. The
    loss it reports, and `reported`, are divided by the number of outputs.
    """

    def __init__(self, network: Network, data: Data, alpha: float, n_threads: int | str) -> None:
        self._network, self._data = network, data
        model = network.model
        total = float(len(data.x)) if data.weight is None else float(data.weight.sum())
        scale, self._divisor = loss_scales(network.shape.loss, model.layers[-1])
        self._l2 = alpha / total
        self._weight = None
        if data.weight is not None:
            self._weight = (data.weight * (len(data.x) / total)).astype(model.dtype)
        self._session = network.session(Settings(len(data.x), n_threads=n_threads))
        self._order = np.arange(len(data.x))
        self._table = self._session.step_table(np.zeros(1), 0.0, 0.0, scale)

    def __call__(self, theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Loss and gradient; the network's parameters become theta."""
        model = self._network.model
        model.parameters[:] = theta
        data = self._data
        loss, bad = self._session.epoch(data.x, data.y, self._weight, self._order, self._table)
        # The gradient of a loss that is not finite was never computed.
        gradient = np.array(self._session.gradient, np.float64) if bad < 0 else np.full(theta.shape, np.nan)
        for d_weight, weight in zip(model.views(gradient)[0], model.weights):
            d_weight += self._l2 * weight
        return loss + self._penalty(), gradient

    def _penalty(self) -> float:
        return self._l2 / 2.0 * self._network.square_sum()

    def finish(self, result: Any) -> float:
        """Leave the network with the best parameters, and return their loss as scikit-learn reports it."""
        self._network.model.parameters[:] = result.x
        penalty = self._penalty()
        return (float(result.fun) - penalty) / self._divisor + penalty


def run(estimator: Any, network: Network, data: Data) -> None:
    """Minimise until the gradient's largest number is below `tol`, or for `max_iter` iterations or `max_fun` evaluations."""
    objective = Objective(network, data, float(estimator.alpha), allowed_threads(estimator.n_threads))
    options = {"maxfun": estimator.max_fun, "maxiter": estimator.max_iter, "gtol": estimator.tol}
    if tuple(int(part) for part in scipy.__version__.split(".")[:2]) < _QUIET_SINCE:
        options["iprint"] = 1 if estimator.verbose else -1
    start = network.model.parameters.astype(np.float64)
    result = minimize(objective, start, method="L-BFGS-B", jac=True, options=options)
    estimator.n_iter_ = min(result.nit, estimator.max_iter)
    estimator.loss_ = objective.finish(result)
    if result.status != 0:
        _warn(estimator.n_iter_, estimator.max_iter, result)


def _warn(n_iter: int, max_iter: int, result: Any) -> None:
    message = f"lbfgs failed to converge after {n_iter} iteration(s) (status={result.status}):\n{result.message}\n"
    if n_iter == max_iter:
        message += f"\nIncrease the number of iterations to improve the convergence (max_iter={max_iter})."
    message += "\nYou might also want to scale the data as shown in:\n    https://scikit-learn.org/stable/modules/preprocessing.html"
    warnings.warn(message, ConvergenceWarning, stacklevel=5)
