"""The learned numbers of an estimator: a `fastdl.MLP`, with scikit-learn's lists of weights and biases as views of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.activations import Activation
from fastdl.engine import Session, Settings
from fastdl.model import MLP


@dataclass(frozen=True)
class Shape:
    """All of a network but its numbers: sizes of all layers, hidden activations, output unit, loss, dtype."""

    layers: tuple[int, ...]
    activations: tuple[Activation, ...]
    output: str
    loss: str
    dtype: str


class Network:
    """A network's parameters, what predicts with them, and the lists `coefs` and `intercepts` of views of them."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        more: dict[str, Any] = {"loss": shape.loss} if shape.loss == "poisson" else {}
        self.model = MLP(list(shape.layers), list(shape.activations), shape.output, dtype=shape.dtype, **more)
        self.engine = self.model.engine
        self.coefs: list[NDArray] = list(self.model.weights)
        self.intercepts: list[NDArray] = list(self.model.biases)

    @property
    def dtype(self) -> np.dtype:
        """Of parameters and arithmetic."""
        return self.model.dtype

    def holds(self, coefs: Sequence[NDArray], intercepts: Sequence[NDArray]) -> bool:
        """Whether these lists are the views of this network, one and all."""
        model = self.model
        if len(coefs) != len(model.weights) or len(intercepts) != len(model.biases):
            return False
        for given, own in zip(coefs, model.weights):
            if given is not own:
                return False
        for given, own in zip(intercepts, model.biases):  # noqa: SIM110 a loop takes half of the time of all()
            if given is not own:
                return False
        return True

    def draw(self, random: np.random.RandomState) -> None:
        """Glorot's uniform numbers for weights and biases, in scikit-learn's order and bounds: sqrt(f / (I + O)), where f is
        2 for the logistic function and 6 for the others (Glorot and Bengio, 2010)."""
        hidden = self.shape.activations
        for i, (coef, intercept) in enumerate(zip(self.model.weights, self.model.biases)):
            # The last layer goes with the one underneath.
            activation = hidden[min(i, len(hidden) - 1)].name if hidden else ""
            bound = math.sqrt((2.0 if activation == "sigmoid" else 6.0) / sum(coef.shape))
            coef[:] = random.uniform(-bound, bound, coef.shape)
            intercept[:] = random.uniform(-bound, bound, intercept.shape)

    def take(self, coefs: Sequence[NDArray], intercepts: Sequence[NDArray]) -> None:
        """Copy the numbers of these lists."""
        for own, given in zip([*self.model.weights, *self.model.biases], [*coefs, *intercepts]):
            own[:] = np.reshape(given, own.shape)

    def square_sum(self) -> float:
        """Σ w² over all weights, biases not counted."""
        return math.fsum(float(np.vdot(w, w)) for w in self.model.weights)

    @property
    def is_finite(self) -> bool:
        """Whether every parameter is."""
        return bool(np.isfinite(self.model.parameters).all())

    def session(self, settings: Settings) -> Session:
        """What runs mini-batches on this network."""
        return Session(self.model.architecture, self.model.parameters, settings)
