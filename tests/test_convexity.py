"""A linear model's loss is convex: full-batch training must end at the optimum that other solvers find."""

from __future__ import annotations

import numpy as np
import pytest

import fastdl

pytestmark = pytest.mark.usefixtures("one_thread")
N, FEATURES, L2 = 120, 5, 0.05


def optimum(X, y, n_out, output, lr, epochs=1500):
    """A linear model after full-batch gradient descent with momentum, and how flat the loss is there."""
    model = fastdl.MLP([X.shape[1], n_out], output=output, dtype="float64", seed=3)
    fastdl.Trainer(model, fastdl.Momentum(lr=lr), batch_size=len(X), epochs=epochs, l2=L2).fit(X, y)
    assert np.abs(model.loss_and_gradient(X, y, l2=L2)[1]).max() < 1e-9
    return model


@pytest.fixture
def X(rng):
    """Features that are correlated and not centred."""
    return rng.normal(size=(N, FEATURES)) @ (np.eye(FEATURES) + 0.3) + 0.3


@pytest.mark.parametrize("n_out", [1, 3])
def test_ridge_in_closed_form(rng, X, n_out):
    """min (1/(N O)) Σ (x w + b - y)² + (l2/2) Σ w²: centre, solve (X'X + (l2 N O / 2) I) w = X'y."""
    y = X @ rng.normal(size=(FEATURES, n_out)) + rng.normal(size=(N, n_out)) + 7
    Xc, yc = X - X.mean(axis=0), y - y.mean(axis=0)
    weights = np.linalg.solve(Xc.T @ Xc + L2 * N * n_out / 2 * np.eye(FEATURES), Xc.T @ yc)
    model = optimum(X, y, n_out, "linear", lr=0.1 * n_out, epochs=3000)
    np.testing.assert_allclose(model.weights[0], weights, atol=1e-7)
    np.testing.assert_allclose(model.biases[0], y.mean(axis=0) - X.mean(axis=0) @ weights, atol=1e-7)


@pytest.mark.parametrize("n_out", [1, 3])
def test_ridge_of_scikit_learn(rng, X, n_out):
    linear_model = pytest.importorskip("sklearn.linear_model")
    y = X @ rng.normal(size=(FEATURES, n_out)) + rng.normal(size=(N, n_out)) + 7
    model = optimum(X, y, n_out, "linear", lr=0.1 * n_out, epochs=3000)
    peer = linear_model.Ridge(alpha=L2 * N * n_out / 2, solver="cholesky").fit(X, y)
    np.testing.assert_allclose(model.weights[0].T, peer.coef_.reshape(n_out, FEATURES), atol=1e-7)
    np.testing.assert_allclose(model.biases[0], peer.intercept_, atol=1e-7)


def peer_classifier(X, y):
    """C weighs the sum of the losses against |w|²/2; ours is the mean against l2 |w|²/2."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    return linear_model.LogisticRegression(C=1 / (L2 * N), solver="lbfgs", tol=1e-12, max_iter=10_000).fit(X, y)


def test_binary_logistic_regression(rng, X):
    y = (X @ rng.normal(size=FEATURES) + rng.normal(size=N) > 0.5).astype(int)
    model = optimum(X, y, 1, "sigmoid", lr=0.5)
    peer = peer_classifier(X, y)
    np.testing.assert_allclose(model.weights[0].T, peer.coef_, atol=1e-5)
    np.testing.assert_allclose(model.biases[0], peer.intercept_, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(X)[:, 0], peer.predict_proba(X)[:, 1], atol=1e-5)


def test_multinomial_logistic_regression(rng, X):
    """The biases are determined but for a constant that the softmax does not see."""
    y = (X @ rng.normal(size=(FEATURES, 4)) + rng.normal(size=(N, 4))).argmax(axis=1)
    model = optimum(X, y, 4, "softmax", lr=1.0)
    peer = peer_classifier(X, y)
    np.testing.assert_allclose(model.weights[0].T, peer.coef_, atol=1e-5)
    centred = [b - b.mean() for b in (model.biases[0], peer.intercept_)]
    np.testing.assert_allclose(centred[0], centred[1], atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(X), peer.predict_proba(X), atol=1e-5)


def test_the_start_does_not_matter(X, rng):
    """One optimum from every start."""
    y = (X[:, 0] > 0.5).astype(int)
    ends = []
    for seed in range(3):
        model = fastdl.MLP([FEATURES, 1], output="sigmoid", dtype="float64", seed=seed, init=2.0)
        fastdl.Trainer(model, fastdl.Momentum(lr=0.5), batch_size=N, epochs=1500, l2=L2).fit(X, y)
        ends.append(model.parameters.copy())
    np.testing.assert_allclose(ends[1], ends[0], atol=1e-8)
    np.testing.assert_allclose(ends[2], ends[0], atol=1e-8)
