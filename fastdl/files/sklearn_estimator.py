"""Networks of scikit-learn's `MLPClassifier` and `MLPRegressor` as ours, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.activations import ACTIVATIONS, Activation
from fastdl.errors import InputError, MissingExtraError
from fastdl.files.portable import Portable, described, folded, is_plain

_OUTPUTS = {"softmax": "softmax", "logistic": "sigmoid", "identity": "linear", "exp": "linear"}
"""Our output unit for each of scikit-learn's output activations."""
_OURS = {Activation(name).spec.sklearn: name for name in ACTIVATIONS if Activation(name).spec.sklearn}


def from_sklearn(estimator: Any) -> tuple[dict[str, Any], NDArray[Any]]:
    """(description, parameters) of a fitted multi-layer perceptron, or of a pipeline of StandardScaler and one.

    Raises
    ------
    InputError : it is none, or not fitted
    """
    scaler, network = _steps(estimator)
    kind = type(network).__name__
    if not hasattr(network, "hidden_layer_sizes"):
        raise InputError(
            f"estimator: expected an MLPClassifier or MLPRegressor of scikit-learn, or a pipeline of StandardScaler and one, "
            f"got {kind}"
        )
    if not hasattr(network, "coefs_"):
        raise InputError(f"estimator: expected a fitted {kind}, got one that is not; call fit first")
    weights, biases = list(network.coefs_), list(network.intercepts_)
    output = _OUTPUTS[network.out_activation_]
    is_multilabel = output == "sigmoid" and weights[-1].shape[1] > 1
    classes = None
    if output != "linear" and not is_multilabel:
        classes = np.asarray(network.classes_).tolist()
        if len(classes) < 2:
            raise InputError(f"estimator: expected at least two classes, got only {classes!r}")
    names = getattr(network if scaler is None else scaler, "feature_names_in_", None)
    return described(
        weights,
        biases,
        _activations(network.activation, len(weights) - 1),
        output,
        np.asarray(weights[0]).dtype.name,
        "poisson" if network.out_activation_ == "exp" else None,
        classes=classes,
        scaling=None if scaler is None else _scaling(scaler, weights[0].shape[0]),
        feature_names=None if names is None else [str(name) for name in names],
    )


def _steps(estimator: Any) -> tuple[Any, Any]:
    """(StandardScaler or None, what is behind it)."""
    if not hasattr(estimator, "steps"):
        return None, estimator
    steps = [step for _, step in estimator.steps if step is not None and step != "passthrough"]
    kinds = [type(step).__name__ for step in steps]
    if len(steps) == 1:
        return None, steps[0]
    if len(steps) != 2 or kinds[0] != "StandardScaler":
        raise InputError(
            f"estimator: expected a pipeline of StandardScaler and a multi-layer perceptron, got {' and '.join(kinds)}"
        )
    if not hasattr(steps[0], "n_features_in_"):
        raise InputError("estimator: expected a fitted pipeline, got one that is not; call fit first")
    return steps[0], steps[1]


def _scaling(scaler: Any, n_inputs: int) -> dict[str, Any]:
    mean = scaler.mean_ if scaler.with_mean else np.zeros(n_inputs)
    scale = scaler.scale_ if scaler.with_std else np.ones(n_inputs)
    return {"mean": mean.tolist(), "scale": scale.tolist(), "y_mean": None, "y_scale": None}


def _activations(given: Any, n_hidden: int) -> list[Activation]:
    """One for all, or one each; scikit-learn's names and ours."""
    each = [given] * n_hidden if isinstance(given, (str, Activation)) else list(given)
    return [a if isinstance(a, Activation) else Activation(_OURS.get(a, a)) for a in each]


def to_sklearn(model: Portable) -> Any:
    """A fitted `MLPClassifier` or `MLPRegressor` of scikit-learn with the same predictions; standardisation is folded in.

    Raises
    ------
    InputError : scikit-learn has no such network: other activations, or several of them
    MissingExtraError : scikit-learn is not installed
    """
    try:
        from sklearn.neural_network import MLPClassifier, MLPRegressor
        from sklearn.preprocessing import LabelBinarizer
    except ImportError as error:
        raise MissingExtraError(
            'to_sklearn needs scikit-learn, which is not installed: pip install "fastdl[sklearn]"'
        ) from error
    units = set(model.activations) or {Activation("relu")}
    names = {a.label for a in units}
    if len(units) > 1 or any(a.spec.sklearn is None or a.parametric for a in units):
        raise InputError(
            f"to_sklearn: expected one activation for all hidden layers, of relu, tanh, sigmoid and identity, which scikit-learn "
            f"has, got {', '.join(sorted(names))}; fastdl.MLPClassifier and MLPRegressor have the others"
        )
    if not is_plain(model):
        raise InputError(
            "to_sklearn: expected a model of dense layers, got one that clips or embeds its inputs, which scikit-learn cannot; "
            "train with recipe='plain', or export ONNX"
        )
    weights, biases = folded(model, fold_targets=True)
    settings = {
        "hidden_layer_sizes": tuple(model.layers[1:-1]),
        "activation": next(iter(units)).spec.sklearn,
    }
    if model.output == "linear":
        loss = {"loss": "poisson"} if model.log_link else {}
        estimator: Any = MLPRegressor(**settings, **loss)
        estimator.out_activation_ = "exp" if model.log_link else "identity"
    else:
        estimator = MLPClassifier(**settings)
        estimator.out_activation_ = "softmax" if model.output == "softmax" else "logistic"
        labels = np.arange(model.layers[-1]) if model.classes is None else model.class_array("to_sklearn")
        if model.output == "softmax" and model.layers[-1] == 2:  # scikit-learn has one output for two classes
            weights[-1], biases[-1] = weights[-1] @ [[-1.0], [1.0]], biases[-1] @ [[-1.0], [1.0]]
            estimator.out_activation_ = "logistic"
        if (np.sort(labels) != labels).any():
            order = np.argsort(labels, kind="stable")
            labels = labels[order]
            if weights[-1].shape[1] == 1:
                weights[-1], biases[-1] = -weights[-1], -biases[-1]
            else:
                weights[-1], biases[-1] = weights[-1][:, order], biases[-1][order]
        known = np.eye(len(labels), dtype=int) if model.classes is None else labels
        try:
            estimator._label_binarizer = LabelBinarizer().fit(known)
        except ValueError as error:
            raise InputError(
                f"to_sklearn: expected classes that scikit-learn takes for labels, got {labels.tolist()!r} ({error}); set "
                f"model.classes to texts"
            ) from error
        estimator.classes_ = estimator._label_binarizer.classes_
    dtype = model.dtype if model.scaling is None else np.float64  # what was folded in may be far from 0
    estimator.coefs_ = [weight.astype(dtype) for weight in weights]
    estimator.intercepts_ = [bias.astype(dtype) for bias in biases]
    estimator.n_layers_, estimator.n_outputs_ = len(model.layers), weights[-1].shape[1]
    estimator.n_features_in_ = model.layers[0]
    if model.description["feature_names"] is not None and model.table is None:
        estimator.feature_names_in_ = np.array(model.description["feature_names"], dtype=object)
    estimator.n_iter_ = estimator.t_ = 0
    return estimator
