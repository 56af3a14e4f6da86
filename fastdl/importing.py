"""The ways into a model from objects of other libraries."""

from __future__ import annotations

from typing import Any

from fastdl.files import sklearn_estimator, torch_module
from fastdl.model import MLP


def from_torch(module: Any, output: str | None = None) -> MLP:
    """The model that an `nn.Sequential` of PyTorch is, with a copy of its parameters.

    Parameters
    ----------
    module : Linear layers, each but the last with one activation (or none) behind it, Dropout anywhere, Softmax or Sigmoid at the
        end or not; Sequentials inside it are fine. Dropout does nothing in predictions: name its rate in `Trainer(dropout=...)`
    output : "linear", "sigmoid" or "softmax"; None for what the last module says, and "linear" where it is a Linear layer.
        Modules that were trained with CrossEntropyLoss end without a Softmax: say output="softmax"

    Raises
    ------
    InputError : another module, or one at a place where fastdl has none; it is named
    MissingExtraError : torch is not installed
    """
    return MLP._of_description(*torch_module.from_torch(module, output))


def from_sklearn(estimator: Any) -> MLP:
    """The model that a fitted multi-layer perceptron of scikit-learn is, with a copy of its parameters.

    Parameters
    ----------
    estimator : an `MLPClassifier` or `MLPRegressor`, of scikit-learn or of fastdl, or a pipeline of StandardScaler and one, whose
        statistics become those that the model carries

    `model.classes` are the labels, and `predict` gives their places, as `MLP.predict` does.

    Raises
    ------
    InputError : it is none of these, or not fitted
    """
    return MLP._of_description(*sklearn_estimator.from_sklearn(estimator))
