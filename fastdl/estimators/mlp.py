"""`MLPClassifier` and `MLPRegressor`: scikit-learn's multi-layer perceptrons, trained by fastdl's engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.utils import check_X_y
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target, unique_labels
from sklearn.utils.validation import column_or_1d

from fastdl.errors import InputError
from fastdl.estimators import inputs
from fastdl.estimators.base import BaseMLP
from fastdl.estimators.labels import Labels
from fastdl.estimators.parameters import CLASSIFIER_CONSTRAINTS, REGRESSOR_CONSTRAINTS, store

_FLOATS = (np.float64, np.float32)


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multi-layer perceptron that classifies, with the parameters, attributes and results of scikit-learn's `MLPClassifier`.

    The loss of a row is the cross-entropy of its label (several labels: their sum); a batch of rows with weights w_r has

        Σ w_r loss_r / Σ w_r + alpha/2 Σ W² / Σ w_r

    Parameters
    ----------
    hidden_layer_sizes : sizes of the hidden layers; () is a linear model
    activation : "identity", "logistic", "tanh", "relu", any other of fastdl's, or a list with one for each hidden layer
    solver : "adam", "sgd", or "lbfgs" (SciPy's, on all rows at once)
    alpha : weight of the L2 penalty; the penalty is divided by the rows of a batch
    batch_size : rows of a mini-batch; "auto" is min(200, rows)
    learning_rate : of "sgd": "constant", "invscaling" (lr / (rows seen + 1)^power_t), "adaptive" (a fifth each time it sticks)
    learning_rate_init : the first learning rate, of "sgd" and "adam"
    power_t : see learning_rate
    max_iter : epochs at the most, or iterations of "lbfgs"
    shuffle : whether each epoch has a new order of the rows
    random_state : int, RandomState or None: of first parameters, orders and splits, the same numbers as scikit-learn draws
    tol, n_iter_no_change : training ends after so many epochs in which the loss (or score) got no better by tol; of "lbfgs", tol
        is the gradient's largest number
    verbose : whether to print a line each epoch
    warm_start : whether `fit` goes on from the parameters of the last one
    momentum, nesterovs_momentum : of "sgd"
    early_stopping : whether to judge epochs by the accuracy on rows kept apart, and to keep the best parameters
    validation_fraction : how many are kept apart
    beta_1, beta_2, epsilon : of "adam"
    max_fun : evaluations of "lbfgs" at the most

    fastdl's own, which default to scikit-learn's behaviour:

    optimizer : a fastdl optimizer such as `fastdl.AdamW(lr=1e-3)` instead of `solver` and its numbers
    schedule : one of `fastdl.schedules`, for the rate of each step
    dropout : share of hidden outputs set to 0 in training: one for all hidden layers, or one each
    clip_norm : the largest norm of a step's gradient
    class_weight : {label: weight} or "balanced" (rows / (classes * rows of the class)), times `sample_weight`
    callbacks : a list of `fastdl.Callback`
    dtype : "float32" or "float64", of parameters and arithmetic; None: that of X in fit (float64 for "lbfgs")
    n_threads : how many threads, or "auto"; results do not depend on it
    precision : "float32" or "bf16", of the steps of SGD and Adam: as that of `fastdl.Trainer`

    Attributes
    ----------
    classes_ : labels
    coefs_, intercepts_ : weights (in, out) and biases (out,) of each layer: views of one flat buffer
    loss_, best_loss_, loss_curve_ : the last, the smallest and each epoch's loss
    validation_scores_, best_validation_score_ : accuracies on the rows kept apart; None without such rows
    n_iter_, t_ : epochs (or iterations), and rows seen
    n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_ : the shape

    Raises
    ------
    ValueError, TypeError : parameters or data that cannot be used, in scikit-learn's words
    """

    loss = "log_loss"
    _parameter_constraints = CLASSIFIER_CONSTRAINTS
    _score_name = "accuracy"

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        optimizer: Any = None,
        schedule: Any = None,
        dropout: Any = 0.0,
        clip_norm: float | None = None,
        class_weight: Any = None,
        callbacks: Any = None,
        dtype: Any = None,
        n_threads: Any = "auto",
        precision: str = "float32",
    ) -> None:
        store(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None
    ) -> MLPClassifier:  # fmt: skip
        """Learn the labels y of the rows of X.

        Parameters
        ----------
        X : numbers [N, I]: an array, nested lists, a sparse matrix (never made dense as a whole), or a data frame, whose
            columns' names are remembered
        y : labels of any kind [N], or a multilabel indicator matrix [N, L]
        sample_weight : the weight of each row [N]
        X_val, y_val : rows of your own to score after each epoch; with early_stopping, they take the place of those that
            would be split off

        Returns
        -------
        The estimator itself.
        """
        return self._fit(X, y, sample_weight, False, X_val, y_val)

    @available_if(lambda self: self._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> MLPClassifier:
        """Learn from one epoch over these rows, going on from where the last call ended, optimizer included.

        `classes` are all the labels that there will ever be; the first call needs them. Returns the estimator itself.
        """
        if not hasattr(self, "classes_"):
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            known = unique_labels(classes)
            self._labels = Labels(y if type_of_target(y).startswith("multilabel") else known)
            self.classes_ = known
        elif classes is not None and not np.array_equal(self.classes_, unique_labels(classes)):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {self.classes_!r}"
            )
        return self._fit(X, y, sample_weight, True)

    def predict(self, X: Any) -> NDArray[Any]:
        """Labels [N], or [N, L] for a multilabel problem."""
        network, labels = self._present(), self._labels
        if (
            labels.kind == "multiclass"
            and self.n_threads == "auto"
            and "feature_names_in_" not in self.__dict__
            and inputs.ready(X, network.shape.layers[0], network.dtype)
        ):
            try:
                return labels.classes[network.engine.classes(X)]
            except InputError:
                pass  # it is not finite: the long way says so in scikit-learn's words
        return labels.decode(self._raw(X))

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Probabilities of the classes [N, C], in the order of `classes_`; of each label [N, L] for a multilabel problem."""
        raw = self._raw(X)
        probabilities = self._present().engine.probabilities(raw)
        if probabilities.shape[1] == 1:
            return np.concatenate([1 - probabilities, probabilities], axis=1)
        return probabilities

    def predict_log_proba(self, X: Any) -> NDArray[np.floating]:
        """The logarithms of `predict_proba`."""
        probabilities = self.predict_proba(X)
        return np.log(probabilities, out=probabilities)

    def _check_X_y(self, X: Any, y: Any) -> tuple[NDArray, NDArray]:
        X, y = check_X_y(X, y, multi_output=True, accept_sparse=inputs.SPARSE, dtype=_FLOATS, estimator=self)
        if getattr(y, "ndim", 1) == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y

    def _targets(self, y: NDArray, incremental: bool) -> NDArray:
        if not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            self._labels = Labels(y)
            self.classes_ = self._labels.classes
        else:
            classes = unique_labels(y)
            if self.warm_start and not incremental and set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                    f"Previously got {self.classes_}, `y` has {classes}"
                )
            if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
                raise ValueError(
                    f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
                )
        return self._labels.encode(y, np.dtype(np.float64))

    def _output(self, y: NDArray) -> tuple[str, str, int]:
        return self._labels.output, "log_loss", self._labels.n_outputs

    def _strata(self, y: NDArray) -> NDArray | None:
        return self._labels.split_column(y)

    def _weights(self, y: NDArray, sample_weight: Any, rows: NDArray, incremental: bool) -> NDArray[np.float64] | None:
        weight = super()._weights(y, sample_weight, rows, incremental)
        if self.class_weight is None:
            return weight
        if incremental and isinstance(self.class_weight, str):
            raise InputError(
                "class_weight='balanced' is not supported for partial_fit: the shares of the classes are those of all data. "
                "Pass a dictionary of weights, such as sklearn.utils.class_weight.compute_class_weight gives."
            )
        of_class = compute_sample_weight(self.class_weight, y)
        return of_class if weight is None else weight * of_class

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _more_tags(self) -> dict[str, Any]:  # before scikit-learn 1.6
        return {"multilabel": True}


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multi-layer perceptron for numbers, with the parameters, attributes and results of scikit-learn's `MLPRegressor`.

    The loss of a row is (p - y)² / 2, averaged over outputs ("squared_error"), or y log(y / p) - y + p with p = exp(output),
    summed over outputs ("poisson", y >= 0); a batch of rows with weights w_r has

        Σ w_r loss_r / Σ w_r + alpha/2 Σ W² / Σ w_r

    Parameters
    ----------
    loss : "squared_error" or "poisson"

    All others are those of `MLPClassifier`, but for class_weight. Rows kept apart are scored by R².

    Attributes
    ----------
    Those of `MLPClassifier`, but for classes_.

    Raises
    ------
    ValueError, TypeError : parameters or data that cannot be used, in scikit-learn's words
    """

    _parameter_constraints = REGRESSOR_CONSTRAINTS
    _score_name = "r2"

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        optimizer: Any = None,
        schedule: Any = None,
        dropout: Any = 0.0,
        clip_norm: float | None = None,
        callbacks: Any = None,
        dtype: Any = None,
        n_threads: Any = "auto",
        precision: str = "float32",
    ) -> None:
        store(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None
    ) -> MLPRegressor:  # fmt: skip
        """Learn the numbers y [N] or [N, O] of the rows of X; see `MLPClassifier.fit`."""
        return self._fit(X, y, sample_weight, False, X_val, y_val)

    @available_if(lambda self: self._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Learn from one epoch over these rows, going on from where the last call ended, optimizer included."""
        return self._fit(X, y, sample_weight, True)

    def predict(self, X: Any) -> NDArray[np.floating]:
        """The predicted numbers [N], or [N, O] for several outputs."""
        raw = self._raw(X)
        if self.loss == "poisson":
            np.exp(raw, out=raw)
        return raw[:, 0] if raw.shape[1] == 1 else raw

    def _check_X_y(self, X: Any, y: Any) -> tuple[NDArray, NDArray]:
        X, y = check_X_y(
            X, y, multi_output=True, y_numeric=True, accept_sparse=inputs.SPARSE, dtype=_FLOATS, estimator=self
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y

    def _targets(self, y: NDArray, incremental: bool) -> NDArray:
        if self.loss == "poisson" and (y < 0).any():
            raise InputError(f"y: expected numbers of 0 or more for loss='poisson', got {y.min()}")
        return np.asarray(y[:, None] if y.ndim == 1 else y, np.float64)

    def _output(self, y: NDArray) -> tuple[str, str, int]:
        return "linear", self.loss, y.shape[1]
