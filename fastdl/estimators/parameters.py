"""What each constructor parameter may be, in one table that scikit-learn's machinery reads.

The first block is scikit-learn's own, with more activations and more than one of them; the second is what fastdl adds.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, Options, StrOptions

from fastdl.activations import ACTIVATIONS, Activation
from fastdl.optimizers import Optimizer
from fastdl.precision import PRECISIONS
from fastdl.schedules import Schedule

STOCHASTIC_SOLVERS = ("sgd", "adam")

# scikit-learn's name of an activation -> ours, where they differ.
_OUR_NAME = {"logistic": "sigmoid"}

CONSTRAINTS: dict[str, list[Any]] = {
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "activation": [StrOptions({"logistic", *ACTIVATIONS}), Activation, "array-like"],
    "solver": [StrOptions({"lbfgs", *STOCHASTIC_SOLVERS})],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
    "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
    "power_t": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [Interval(Real, 0, None, closed="left")],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
    "momentum": [Interval(Real, 0, 1, closed="both")],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "beta_1": [Interval(Real, 0, 1, closed="left")],
    "beta_2": [Interval(Real, 0, 1, closed="left")],
    "epsilon": [Interval(Real, 0, None, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
    "max_fun": [Interval(Integral, 1, None, closed="left")],
    # fastdl's own
    "optimizer": [Optimizer, None],
    "schedule": [Schedule, None],
    "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
    "clip_norm": [Interval(Real, 0, None, closed="neither"), None],
    "callbacks": ["array-like", None],
    "precision": [StrOptions(set(PRECISIONS))],
    "dtype": [StrOptions({"float32", "float64"}), type, np.dtype, None],
    "n_threads": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
}
CLASSIFIER_CONSTRAINTS: dict[str, list[Any]] = {
    **CONSTRAINTS,
    "class_weight": [dict, list, StrOptions({"balanced"}), None],
}
REGRESSOR_CONSTRAINTS: dict[str, list[Any]] = {**CONSTRAINTS, "loss": [StrOptions({"squared_error", "poisson"})]}


def our_activation(name: Any) -> Any:
    """What `fastdl.MLP` calls an activation, or each of a list of them."""
    if isinstance(name, (list, tuple, np.ndarray)):
        return [our_activation(one) for one in name]
    return _OUR_NAME.get(str(name), str(name)) if isinstance(name, str) else name


def store(estimator: Any, given: dict[str, Any]) -> None:
    """Keep the constructor's arguments as attributes, untouched, as scikit-learn wants it."""
    for name, value in given.items():
        if name not in ("self", "__class__"):
            setattr(estimator, name, value)
