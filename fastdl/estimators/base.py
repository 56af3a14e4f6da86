"""What classifier and regressor have in common: the course of `fit`, what is kept, and the way to predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from fastdl import sparse
from fastdl.activations import resolve
from fastdl.errors import InputError
from fastdl.estimators import inputs, lbfgs, stochastic
from fastdl.estimators.network import Network, Shape
from fastdl.estimators.parameters import STOCHASTIC_SOLVERS, our_activation
from fastdl.estimators.solvers import solver_of
from fastdl.estimators.stochastic import Data, Steps
from fastdl.estimators.stopping import Validation, Watch
from fastdl.estimators.threads import allowed_threads

_OUT_ACTIVATIONS = {"softmax": "softmax", "sigmoid": "logistic", "linear": "identity"}
# What a pickle or a copy does without: it is made again when it is needed.
_UNKEPT = ("_network",)


class BaseMLP(BaseEstimator, ABC):
    """Base of `MLPClassifier` and `MLPRegressor`.

    `coefs_` and `intercepts_` are what has been learned. They are views of the network's flat buffer: numbers written into them
    count at once, and arrays put in their place are copied there before they are used next.
    """

    _score_name = ""
    best_loss_: float | None
    validation_scores_: list[float] | None
    best_validation_score_: float | None

    @abstractmethod
    def _targets(self, y: NDArray, incremental: bool) -> NDArray:
        """Checked targets as the engine takes them, and what is learned of them on the way."""

    @abstractmethod
    def _check_X_y(self, X: Any, y: Any) -> tuple[NDArray, NDArray]:
        """X and y, checked together."""

    @abstractmethod
    def _output(self, y: NDArray) -> tuple[str, str, int]:
        """(output unit, loss, number of outputs) for such targets."""

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, incremental: bool, X_val: Any = None, y_val: Any = None
    ) -> Any:  # fmt: skip
        first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        hidden = _sizes(self.hidden_layer_sizes)
        self._check_combinations(X_val)
        if (X_val is None) != (y_val is None):
            raise InputError(
                "X_val, y_val: expected both or none, got one of them; pass fit(X, y, X_val=..., y_val=...)"
            )
        table = inputs.plain(X) if first else inputs.match_names(self, X)
        rows, labels = self._check_X_y(table, y)
        if first:
            inputs.learn_columns(self, X, rows)
        inputs.check_width(self, rows)
        targets = self._targets(labels, incremental)
        weight = self._weights(labels, sample_weight, rows, incremental)
        self._random_state = check_random_state(self.random_state)
        network = self._network_for(rows, targets, hidden, first)
        data = Data(_plain(rows, network.dtype), targets, weight)
        if targets.dtype != np.int64:
            data.y = _plain(targets, network.dtype)
        self._diverged = False
        if self._is_stochastic:
            self._fit_stochastic(network, data, X_val, y_val, incremental)
        else:
            lbfgs.run(self, network, data)
        if self._diverged or not network.is_finite:
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
                "preprocessed."
            )
        return self

    def _fit_stochastic(self, network: Network, data: Data, X_val: Any, y_val: Any, incremental: bool) -> None:
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        steps: Steps | None = self.__dict__.get("_steps")
        if not incremental or steps is None:
            steps = self._steps = Steps(solver_of(self))
        if not hasattr(self, "loss_curve_"):  # a first fit, or the last one was another solver's
            Watch.begin(self, self.early_stopping or X_val is not None)
        if self.best_loss_ is None and not self.early_stopping:
            self.best_loss_ = np.inf
        validation = None
        if X_val is not None:
            rows, labels = self._check_X_y(inputs.match_names(self, X_val), y_val)
            inputs.check_width(self, rows)
            targets = self._targets(labels, True)
            if targets.dtype != np.int64:
                targets = _plain(targets, network.dtype)
            validation = Validation(_plain(rows, network.dtype), targets, None)
        elif self.early_stopping:
            data, validation = self._split(data)
        if validation is not None and self.validation_scores_ is None:
            self.validation_scores_, self.best_validation_score_ = [], -np.inf
        stochastic.run(self, network, steps, data, validation, incremental)

    def _split(self, data: Data) -> tuple[Data, Validation]:
        """(rows to learn from, rows to judge by): the same as scikit-learn draws."""
        places = np.arange(len(data.x))
        train, kept = train_test_split(
            places,
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=self._strata(data.y),
        )
        if len(kept) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )

        def part(array: NDArray | None, rows: NDArray) -> Any:
            return None if array is None else array[rows]

        return (
            Data(data.x[train], data.y[train], part(data.weight, train)),
            Validation(data.x[kept], data.y[kept], part(data.weight, kept)),
        )

    def _strata(self, y: NDArray) -> NDArray | None:
        """What a split keeps the shares of."""
        return None

    def _weights(self, y: NDArray, sample_weight: Any, rows: NDArray, incremental: bool) -> NDArray[np.float64] | None:
        """The weight of each row [N] in float64; None if all weigh the same."""
        if sample_weight is None:
            return None
        weight: NDArray[np.float64] = _check_sample_weight(sample_weight, rows, dtype=np.float64)
        if not weight.any():
            raise InputError("sample_weight: expected at least one weight other than 0, got only zeros")
        return weight

    @property
    def _is_stochastic(self) -> bool:
        return self.optimizer is not None or self.solver in STOCHASTIC_SOLVERS

    def _network_for(self, rows: NDArray, targets: NDArray, hidden: list[int], first: bool) -> Network:
        """The network to train: a new one with random numbers, or the present one."""
        output, loss, n_outputs = self._output(targets)
        self.n_outputs_ = n_outputs
        layers = (rows.shape[1], *hidden, n_outputs)
        if first:
            dtype = np.dtype(self.dtype) if self.dtype is not None else rows.dtype
            if not self._is_stochastic and self.dtype is None:
                dtype = np.dtype(np.float64)  # as SciPy computes
        else:
            dtype = np.dtype(self._shape.dtype)
            present = (self.coefs_[0].shape[0], *(coef.shape[1] for coef in self.coefs_))
            if present != layers:
                raise InputError(
                    f"hidden_layer_sizes: expected the layers of the last fit, {list(present)} with inputs and outputs, since "
                    f"training goes on from there, got {list(layers)}; set warm_start=False to begin anew"
                )
        activations = tuple(resolve(our_activation(self.activation), len(hidden)))
        shape = Shape(layers, activations, output, loss, np.dtype(dtype).name)
        network: Network | None = self.__dict__.get("_network")
        if first or network is None or network.shape != shape:
            network = Network(shape)
            if first:
                network.draw(self._random_state)
            else:
                network.take(self.coefs_, self.intercepts_)
        elif not network.holds(self.coefs_, self.intercepts_):
            network.take(self.coefs_, self.intercepts_)
        self._adopt(network)
        if first:
            self.n_iter_ = self.t_ = 0
            self.n_layers_ = len(layers)
            self.out_activation_ = "exp" if loss == "poisson" else _OUT_ACTIVATIONS[output]
            for name in ("loss_curve_", "validation_scores_", "best_loss_", "best_validation_score_"):
                self.__dict__.pop(name, None)
        return network

    def _adopt(self, network: Network) -> None:
        self._network = network
        self._shape = network.shape
        self.coefs_ = list(network.model.weights)
        self.intercepts_ = list(network.model.biases)

    def _present(self) -> Network:
        """The network whose numbers are `coefs_` and `intercepts_`."""
        attributes = self.__dict__
        network: Network | None = attributes.get("_network")
        if network is not None and network.holds(attributes["coefs_"], attributes["intercepts_"]):
            return network
        if network is None:
            check_is_fitted(self, "coefs_")
            network = Network(self._shape)
        network.take(self.coefs_, self.intercepts_)
        self._adopt(network)
        return network

    def _raw(self, X: Any) -> NDArray[np.floating]:
        """Raw outputs [N, O] of the network."""
        network = self._present()
        if "feature_names_in_" not in self.__dict__ and inputs.ready(X, network.shape.layers[0], network.dtype):
            try:
                return network.engine.forward(X, self.n_threads)
            except InputError:
                pass  # it is not finite: the long way says so in scikit-learn's words
        rows = inputs.for_prediction(self, X, network.dtype)
        return network.engine.forward(rows, allowed_threads(self.n_threads))

    def _check_combinations(self, X_val: Any) -> None:
        """InputError about what is set and would do nothing."""
        given = {
            "dropout": bool(np.any(self.dropout)),
            "schedule": self.schedule is not None,
            "clip_norm": self.clip_norm is not None,
            "callbacks": bool(self.callbacks),
            "X_val": X_val is not None,
        }
        for name, is_given in given.items():
            if is_given and not self._is_stochastic:
                raise InputError(
                    f"{name}: expected solver 'adam' or 'sgd', or an optimizer, got solver='lbfgs', which knows no epochs; "
                    f"leave {name} out or choose another solver"
                )
        if (
            self.schedule is not None
            and self.optimizer is None
            and self.solver == "sgd"
            and self.learning_rate != "constant"
        ):
            raise InputError(
                f"schedule: expected learning_rate='constant' beside it, got {self.learning_rate!r}; only one of them can say "
                f"how the rate changes"
            )

    def _check_solver(self) -> bool:
        if not self._is_stochastic:
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name not in _UNKEPT}


def _sizes(given: Any) -> list[int]:
    sizes = list(given) if hasattr(given, "__iter__") else [given]
    if any(size <= 0 for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    return [int(size) for size in sizes]


def _plain(array: Any, dtype: np.dtype) -> Any:
    """The array as the engine takes it, a sparse matrix as sparse rows; numbers beyond the dtype's range are an error."""
    if sparse.is_sparse(array):
        return sparse.rows_of(array, array.shape[1], dtype)
    with np.errstate(over="ignore"):
        plain = np.require(array, dtype, ["C", "A", "W"])
    if plain.dtype != array.dtype and not np.isfinite(plain).all():
        raise ValueError(f"Input contains a value too large for dtype({np.dtype(dtype).name!r}); scale the data first.")
    return plain
