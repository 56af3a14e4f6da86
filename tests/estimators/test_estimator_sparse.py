"""Sparse inputs of the estimators: as scikit-learn's, and as dense ones."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn.neural_network
from scipy import sparse
from sklearn.utils.estimator_checks import check_estimator_sparse_array, check_estimator_sparse_matrix

from fastdl import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SETTINGS = {"hidden_layer_sizes": (9,), "max_iter": 5, "random_state": 0, "batch_size": 16}


@pytest.fixture
def data(rng):
    X = sparse.random_array((90, 40), density=0.15, format="csr", rng=rng)
    y = rng.integers(0, 3, 90)
    return X, y


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_the_same_as_scikit_learn(data, solver, early_stopping, kind):
    X, y = data
    given = {**SETTINGS, "solver": solver, "early_stopping": early_stopping}
    ours = MLPClassifier(**given).fit(X.asformat(kind), y)
    theirs = sklearn.neural_network.MLPClassifier(**given).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X.asformat(kind)), theirs.predict_proba(X), rtol=1e-6)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    if solver != "lbfgs":
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-7)


def test_partial_fit_regression_and_data_of_ones_own(data, rng):
    X, y = data
    incremental = MLPClassifier(**SETTINGS), MLPClassifier(**SETTINGS)
    for start in (0, 30, 60):
        part = slice(start, start + 30)
        incremental[0].partial_fit(X[part], y[part], classes=[0, 1, 2])
        incremental[1].partial_fit(X[part].toarray(), y[part], classes=[0, 1, 2])
    np.testing.assert_allclose(incremental[0].coefs_[0], incremental[1].coefs_[0], rtol=1e-9, atol=1e-12)
    weight, numbers = rng.random(90), rng.normal(size=90)
    regressors = [
        MLPRegressor(**SETTINGS).fit(rows, numbers, weight, X_val=rows[:20], y_val=numbers[:20])
        for rows in (X, X.toarray())
    ]
    np.testing.assert_allclose(regressors[0].predict(X), regressors[1].predict(X.toarray()), rtol=1e-9)
    np.testing.assert_allclose(regressors[0].validation_scores_, regressors[1].validation_scores_, rtol=1e-9)


@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
def test_scikit_learns_checks_of_sparse_input(estimator):
    check_estimator_sparse_array(estimator.__name__, estimator(max_iter=3))
    check_estimator_sparse_matrix(estimator.__name__, estimator(max_iter=3))


def test_what_is_refused(data):
    X, y = data
    mlp = MLPClassifier(**SETTINGS).fit(X, y)
    with pytest.raises(ValueError, match="X has 39 features, but MLPClassifier is expecting 40"):
        mlp.predict(X[:, :39])
    X.data[3] = np.nan
    for call in (lambda: mlp.fit(X, y), lambda: mlp.predict(X)):
        with pytest.raises(ValueError, match="contains NaN"):
            call()
    X.data[3] = 1e300
    single = MLPClassifier(**SETTINGS, dtype="float32")
    with pytest.raises(ValueError, match="X as float32: expected finite numbers, got inf"):
        single.fit(X, y)
