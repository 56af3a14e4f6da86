"""The same numbers as scikit-learn: whole trainings in float64 agree to the last digits, epoch by epoch."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn.neural_network as theirs
from sklearn.exceptions import ConvergenceWarning

import fastdl as ours

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
WEIGHTED = "sample_weight" in inspect.signature(theirs.MLPClassifier.fit).parameters  # from scikit-learn 1.7 on
POISSON = "loss" in inspect.signature(theirs.MLPRegressor).parameters  # from scikit-learn 1.7 on
ROWS = 150  # in batches of 32: the last one is shorter, and its penalty divided by fewer rows


def problem(kind):
    """(name of the class, X, y)"""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, 5))
    score = X @ rng.standard_normal((5, 3)) + 0.5 * rng.standard_normal((ROWS, 3))
    return {
        "binary": ("MLPClassifier", X, np.array(["no", "yes"])[(score[:, 0] > 0).astype(int)]),
        "multiclass": ("MLPClassifier", X, score.argmax(axis=1) * 10),
        "multilabel": ("MLPClassifier", X, (score > 0).astype(int)),
        "regression": ("MLPRegressor", X, score[:, 0]),
        "regressions": ("MLPRegressor", X, score),
        "counts": ("MLPRegressor", X, rng.poisson(np.exp(score / 3))),
    }[kind]


KINDS = ["binary", "multiclass", "multilabel", "regression", "regressions"]


def both(name, **parameters):
    given = {
        "hidden_layer_sizes": (7, 4),
        "random_state": 3,
        "max_iter": 3,
        "batch_size": 32,
        "alpha": 0.5,
        **parameters,
    }
    return getattr(ours, name)(**given), getattr(theirs, name)(**given)


def fit(estimator, *arguments, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(*arguments, **more)


def assert_same(a, b, X):
    """The course of the training, what has been learned, and predictions."""
    if hasattr(b, "loss_curve_"):
        np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, **CLOSE)
        for name in ("validation_scores_", "best_validation_score_", "best_loss_"):
            wanted = getattr(b, name)
            assert (getattr(a, name) is None) == (wanted is None), name
            if wanted is not None:
                np.testing.assert_allclose(getattr(a, name), wanted, **CLOSE)
    np.testing.assert_allclose(a.loss_, b.loss_, **CLOSE)
    for name in ("coefs_", "intercepts_"):
        for mine, wanted in zip(getattr(a, name), getattr(b, name), strict=True):
            np.testing.assert_allclose(mine, wanted, **CLOSE)
            assert mine.dtype == wanted.dtype
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(a, name) == getattr(b, name), name
    expected = b.predict(X)
    predicted = a.predict(X)
    assert predicted.shape == expected.shape
    assert predicted.dtype == expected.dtype
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(predicted, expected, **CLOSE)
    else:
        np.testing.assert_array_equal(predicted, expected)
        np.testing.assert_array_equal(a.classes_, b.classes_)
        np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), **CLOSE)
        np.testing.assert_allclose(a.predict_log_proba(X), b.predict_log_proba(X), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_trainings_are_the_same(kind, activation, solver):
    name, X, y = problem(kind)
    a, b = both(name, activation=activation, solver=solver)
    assert_same(fit(a, X, y), fit(b, X, y), X)


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_lbfgs_takes_the_same_way(kind, activation):
    """On small inputs: scikit-learn's losses end at -log(2e-16), and the line search would see the difference."""
    name, X, y = problem(kind)
    X = X / 5
    a, b = both(name, activation=activation, solver="lbfgs", max_iter=5)
    assert_same(fit(a, X, y), fit(b, X, y), X)


@pytest.mark.parametrize(
    ("kind", "alpha"), [("binary", 1.0), ("multiclass", 1.0), ("regression", 1.0), ("regressions", 1.0)]
)
def test_lbfgs_reaches_the_same_minimum_of_a_convex_loss(kind, alpha):
    """A penalised linear model has one minimum. For several outputs scikit-learn's loss and gradient differ by a factor, and
    its line search may give up before it gets there: it is given the start."""
    name, X, y = problem(kind)
    a, b = both(name, hidden_layer_sizes=(), solver="lbfgs", max_iter=2000, tol=1e-9, alpha=alpha)
    fit(a, X, y)
    if kind == "regressions":
        penalty = np.eye(5) * alpha
        centred = X - X.mean(axis=0)
        exact = np.linalg.solve(centred.T @ centred + penalty, centred.T @ (y - y.mean(axis=0)))
        np.testing.assert_allclose(a.coefs_[0], exact, rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_allclose(a.loss_, fit(b, X, y).loss_, rtol=1e-6)


@pytest.mark.parametrize("learning_rate", ["constant", "invscaling", "adaptive"])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.9, False), (0.0, True), (1.0, True)])
def test_sgd_with_every_rate_and_momentum(learning_rate, momentum, nesterov):
    """tol=10 makes "adaptive" divide the rate after three epochs."""
    name, X, y = problem("multiclass")
    a, b = both(
        name, solver="sgd", learning_rate=learning_rate, momentum=momentum, nesterovs_momentum=nesterov, max_iter=12, tol=10,
        n_iter_no_change=2 if learning_rate == "adaptive" else 20, learning_rate_init=0.02, power_t=0.3,
    )  # fmt: skip
    assert_same(fit(a, X, y), fit(b, X, y), X)


@pytest.mark.parametrize(
    "parameters", [{"beta_1": 0.0}, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-2}, {"alpha": 0.0}]
)
def test_adam_with_other_numbers(parameters):
    name, X, y = problem("binary")
    a, b = both(name, max_iter=8, learning_rate_init=0.01, **parameters)
    assert_same(fit(a, X, y), fit(b, X, y), X)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_early_stopping_splits_and_stops_the_same(kind, solver):
    name, X, y = problem(kind)
    a, b = both(name, solver=solver, early_stopping=True, max_iter=40, n_iter_no_change=3, learning_rate_init=0.01)
    assert_same(fit(a, X, y), fit(b, X, y), X)


@pytest.mark.parametrize(
    "parameters", [{"shuffle": False}, {"batch_size": "auto"}, {"batch_size": 1}, {"batch_size": 149}]
)
def test_orders_and_batches(parameters):
    name, X, y = problem("regression")
    a, b = both(name, **parameters)
    assert_same(fit(a, X, y), fit(b, X, y), X)


@pytest.mark.parametrize("n_iter_no_change", [2, 5, 10])
@pytest.mark.parametrize("tol", [1e-1, 1e-3])
def test_the_same_number_of_epochs(n_iter_no_change, tol):
    name, X, y = problem("binary")
    a, b = both(name, n_iter_no_change=n_iter_no_change, tol=tol, max_iter=200, learning_rate_init=0.01)
    fit(a, X, y)
    fit(b, X, y)
    assert a.n_iter_ == b.n_iter_
    assert len(a.loss_curve_) == a.n_iter_


@pytest.mark.parametrize("learning_rate", ["constant", "invscaling", "adaptive"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_warm_starts_go_on_in_the_same_way(solver, learning_rate):
    name, X, y = problem("multiclass")
    a, b = both(name, solver=solver, warm_start=True, learning_rate=learning_rate)
    for _ in range(3):
        assert_same(fit(a, X, y), fit(b, X, y), X)
    a.set_params(max_iter=5, alpha=0.1)
    b.set_params(max_iter=5, alpha=0.1)
    assert_same(fit(a, X, y), fit(b, X, y), X)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fit_keeps_the_optimizer(kind, solver):
    """Through calls with more and with fewer rows than a batch."""
    name, X, y = problem(kind)
    a, b = both(name, solver=solver, batch_size="auto", learning_rate="invscaling")
    more = {} if name == "MLPRegressor" else {"classes": np.arange(3) if kind == "multilabel" else np.unique(y)}
    for part in (slice(0, 60), slice(60, 120), slice(100, 150), slice(0, 150)):
        a.partial_fit(X[part], y[part], **more)
        b.partial_fit(X[part], y[part], **more)
        assert_same(a, b, X)


def test_partial_fit_after_fit():
    name, X, y = problem("multiclass")
    a, b = both(name)
    fit(a, X, y).partial_fit(X, y)
    fit(b, X, y).partial_fit(X, y)
    assert_same(a, b, X)


@pytest.mark.skipif(not WEIGHTED, reason="this scikit-learn's MLP takes no sample_weight")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_sample_weight(kind, solver):
    name, X, y = problem(kind)
    weight = np.random.default_rng(1).uniform(0.1, 5, ROWS)
    a, b = both(name, solver=solver)
    if (kind, solver) == ("regressions", "lbfgs"):
        kind, y = "one of them", y[:, :1].ravel()  # see test_lbfgs_reaches_the_same_minimum_of_a_convex_loss
    X = X / 5  # see test_lbfgs_takes_the_same_way
    assert_same(fit(a, X, y, weight), fit(b, X, y, weight), X)
    if solver != "lbfgs":
        a.partial_fit(X, y, weight)
        b.partial_fit(X, y, weight)
        assert_same(a, b, X)


@pytest.mark.skipif(not POISSON, reason="this scikit-learn's MLP has no Poisson loss")
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("weighted", [False, True])
def test_poisson(solver, weighted):
    """Three outputs, some of whose counts are 0: the loss is their sum."""
    name, X, y = problem("counts")
    weight = np.random.default_rng(1).uniform(0.1, 5, ROWS) if weighted else None
    a, b = both(name, solver=solver, loss="poisson")
    assert_same(fit(a, X / 5, y, weight), fit(b, X / 5, y, weight), X)
    a, b = both(name, loss="poisson", early_stopping=True)
    assert_same(fit(a, X, y, weight), fit(b, X, y, weight), X)


@pytest.mark.skipif(not WEIGHTED, reason="this scikit-learn's MLP takes no sample_weight")
def test_sample_weight_and_early_stopping():
    name, X, y = problem("multiclass")
    weight = np.random.default_rng(1).uniform(0.1, 5, ROWS)
    a, b = both(name, early_stopping=True, max_iter=20)
    assert_same(fit(a, X, y, weight), fit(b, X, y, weight), X)


def test_random_state_instances_are_left_in_the_same_state():
    name, X, y = problem("regression")
    mine, wanted = np.random.RandomState(5), np.random.RandomState(5)
    a, b = both(name, early_stopping=True)
    fit(a.set_params(random_state=mine), X, y)
    fit(b.set_params(random_state=wanted), X, y)
    assert mine.randint(2**31) == wanted.randint(2**31)
    assert_same(a, b, X)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_float32_stays_float32_and_is_close(solver):
    name, X, y = problem("multiclass")
    a, b = both(name, solver=solver)
    X = X.astype(np.float32)
    fit(a, X, y)
    fit(b, X, y)
    assert a.coefs_[0].dtype == a.predict_proba(X).dtype == np.float32
    np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-5)


def test_threads_change_no_bit():
    name, X, y = problem("multiclass")
    X, y = np.tile(X, (20, 8)), np.tile(y, 20)
    curves = set()
    for n_threads in (1, 2, 3, "auto"):
        model = fit(getattr(ours, name)((64, 32), random_state=0, max_iter=3, n_threads=n_threads), X, y)
        curves.add((tuple(model.loss_curve_), model.coefs_[0].tobytes(), model.predict_proba(X).tobytes()))
    assert len(curves) == 1
