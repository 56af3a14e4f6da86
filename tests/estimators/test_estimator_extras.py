"""What fastdl's estimators can do and scikit-learn's cannot."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

import fastdl
from fastdl import MLPClassifier, MLPRegressor
from fastdl.optimizers import OPTIMIZERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def data():
    return make_classification(200, 6, n_informative=5, n_redundant=0, n_classes=3, random_state=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fastdls_optimizers_do_what_its_trainer_does(name, data):
    """The same bits as `Trainer` on the same parameters, order and penalty: one epoch of one batch each."""
    X, y = data
    optimizer = OPTIMIZERS[name](lr=0.01)
    mlp = MLPClassifier(
        (8,), optimizer=optimizer, solver="lbfgs", alpha=0.0, batch_size=200, random_state=0, max_iter=1
    )
    mlp.partial_fit(X, y, classes=[0, 1, 2])
    model = fastdl.MLP([6, 8, 3], dtype="float64")
    for mine, theirs in zip([*model.weights, *model.biases], [*mlp.coefs_, *mlp.intercepts_]):
        mine[:] = theirs
    trainer = fastdl.Trainer(model, OPTIMIZERS[name](lr=0.01), batch_size=200, epochs=3)
    fresh = MLPClassifier(
        (8,), optimizer=optimizer, alpha=0.0, batch_size=200, random_state=0, max_iter=3, warm_start=True
    )
    fresh.partial_fit(X, y, classes=[0, 1, 2])
    for mine, theirs in zip(fresh.coefs_, mlp.coefs_):
        mine[:] = theirs
    for mine, theirs in zip(fresh.intercepts_, mlp.intercepts_):
        mine[:] = theirs
    fresh.fit(X, y)  # a fit begins with new states
    trainer.fit(X, y)
    for mine, theirs in zip(fresh.coefs_, model.weights):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(fresh.loss_curve_[1:], trainer.history.loss)


def test_one_activation_for_each_layer(data):
    X, y = data
    mixed = MLPClassifier((5, 4), ["tanh", "leaky_relu"], random_state=0, max_iter=3).fit(X, y)
    raw = np.tanh(X @ mixed.coefs_[0] + mixed.intercepts_[0]) @ mixed.coefs_[1] + mixed.intercepts_[1]
    raw = np.where(raw > 0, raw, 0.01 * raw) @ mixed.coefs_[2] + mixed.intercepts_[2]
    np.testing.assert_array_equal(mixed.predict(X), raw.argmax(axis=1))
    assert MLPClassifier((5,), fastdl.LeakyReLU(0.3), max_iter=2).fit(X, y).n_iter_ == 2


def test_no_hidden_layers_are_a_linear_model(data):
    X, y = data
    mlp = MLPClassifier((), solver="lbfgs", alpha=2.0, max_iter=1000, tol=1e-8).fit(X, y)
    linear = LogisticRegression(C=0.5, max_iter=5000, tol=1e-10).fit(X, y)
    np.testing.assert_allclose(mlp.predict_proba(X), linear.predict_proba(X), atol=1e-4)
    assert MLPClassifier((), learning_rate_init=0.05).fit(X, y).score(X, y) > 0.5


@pytest.mark.parametrize("class_weight", [{0: 1.0, 1: 5.0, 2: 0.5}, "balanced"])
def test_class_weights_are_weights_of_rows(class_weight, data):
    X, y = data
    X, y = X[20:], np.sort(y)[20:]
    of_class = {0: 1.0, 1: 5.0, 2: 0.5}
    if class_weight == "balanced":
        of_class = {c: len(y) / (3 * np.sum(y == c)) for c in range(3)}
    weight = np.array([of_class[c] for c in y])
    plain = MLPClassifier(random_state=0, max_iter=3).fit(X, y, sample_weight=weight)
    mlp = MLPClassifier(random_state=0, max_iter=3, class_weight=class_weight).fit(X, y)
    np.testing.assert_allclose(mlp.coefs_[0], plain.coefs_[0], rtol=1e-12)
    twice = np.arange(1.0, 1 + len(y))
    plain.fit(X, y, sample_weight=weight * twice)
    mlp.fit(X, y, sample_weight=twice)
    np.testing.assert_allclose(mlp.coefs_[0], plain.coefs_[0], rtol=1e-12)
    if class_weight == "balanced":
        with pytest.raises(ValueError, match="class_weight='balanced' is not supported for partial_fit"):
            mlp.partial_fit(X, y)


def test_weights_of_0_are_rows_that_are_not_there(data):
    X, y = data
    kept = np.arange(200) % 2 == 0
    full = MLPClassifier(random_state=0, batch_size=200, max_iter=5).fit(X, y, sample_weight=kept.astype(float))
    half = MLPClassifier(random_state=0, batch_size=100, max_iter=5).fit(X[kept], y[kept])
    np.testing.assert_allclose(full.coefs_[0], half.coefs_[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(full.loss_curve_, half.loss_curve_)
    single = MLPClassifier(random_state=0, batch_size=1, max_iter=2).fit(X, y, sample_weight=kept.astype(float))
    assert np.isfinite(single.loss_)  # batches that teach nothing


def test_validation_rows_of_ones_own(data):
    X, y = data
    mlp = MLPClassifier(random_state=0, max_iter=30, learning_rate_init=0.01)
    mlp.fit(X[:150], y[:150], X_val=X[150:], y_val=y[150:])
    assert len(mlp.validation_scores_) == mlp.n_iter_
    assert mlp.validation_scores_[-1] == mlp.score(X[150:], y[150:])
    assert mlp.best_loss_ == min(mlp.loss_curve_)
    mlp.set_params(early_stopping=True, max_iter=300, n_iter_no_change=5)
    mlp.fit(X[:150], y[:150], X_val=X[150:], y_val=y[150:])
    assert mlp.n_iter_ < 300
    assert mlp.best_validation_score_ == max(mlp.validation_scores_) == mlp.score(X[150:], y[150:])
    regressor = MLPRegressor(random_state=0, max_iter=30).fit(X[:150], y[:150], X_val=X[150:], y_val=y[150:])
    assert regressor.validation_scores_[-1] == pytest.approx(regressor.score(X[150:], y[150:]), rel=1e-12)
    weighted = MLPClassifier(random_state=0, early_stopping=True, max_iter=20).fit(X, y, sample_weight=np.ones(200))
    plain = MLPClassifier(random_state=0, early_stopping=True, max_iter=20).fit(X, y)
    assert weighted.validation_scores_ == plain.validation_scores_


def test_callbacks_hear_of_each_epoch(data):
    X, y = data
    heard = []

    class Listener:
        def on_train_begin(self, epochs, rows):
            heard.append((epochs, rows))

        def on_progress(self, epoch, rows_done):
            heard.append((epoch, rows_done))

        def on_epoch_end(self, result):
            heard.append(result)

    mlp = MLPClassifier(callbacks=[Listener()], max_iter=2, early_stopping=True).fit(X, y)
    results = [item for item in heard if isinstance(item, fastdl.EpochResult)]
    assert heard[0] == (2, 180)
    assert [r.epoch for r in results] == [1, 2]
    assert [r.loss for r in results] == mlp.loss_curve_
    assert [r.metrics["accuracy"] for r in results] == mlp.validation_scores_


def test_schedules_and_clipping_change_the_steps(data):
    """A rate of 0 moves nothing, and a gradient of norm 1e-3 moves plain descent by 1e-3 times the rate."""
    X, y = data
    mlp = MLPClassifier(solver="sgd", momentum=0, random_state=0, max_iter=1, batch_size=200, warm_start=True)
    mlp.fit(X, y)
    before = np.concatenate([p.ravel() for p in [*mlp.coefs_, *mlp.intercepts_]])
    mlp.set_params(clip_norm=1e-3, learning_rate_init=0.5).fit(X, y)
    after = np.concatenate([p.ravel() for p in [*mlp.coefs_, *mlp.intercepts_]])
    assert np.linalg.norm(after - before) == pytest.approx(0.5e-3, rel=1e-9)
    mlp.set_params(clip_norm=None, schedule=fastdl.schedules.Exponential(every=1, factor=1e-9), max_iter=4).fit(X, y)
    assert mlp.loss_curve_[-1] == pytest.approx(mlp.loss_curve_[-2], rel=1e-6)
    assert mlp.loss_curve_[-4] != pytest.approx(mlp.loss_curve_[-3], rel=1e-6)


def test_dropout(data):
    X, y = data
    fits = [MLPClassifier((40,), dropout=d, random_state=0, max_iter=5).fit(X, y) for d in (0.0, 0.5, [0.5])]
    assert fits[1].loss_curve_ == fits[2].loss_curve_
    assert fits[0].loss_curve_[-1] < fits[1].loss_curve_[-1]
    assert MLPClassifier((40,), dropout=0.5, random_state=1, max_iter=5).fit(X, y).loss_curve_ != fits[1].loss_curve_


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_dtype(solver, data):
    X, y = data
    mlp = MLPClassifier(dtype="float32", solver=solver, max_iter=30, random_state=0).fit(X, y)
    assert mlp.coefs_[0].dtype == mlp.predict_proba(X).dtype == np.float32
    assert mlp.score(X, y) > 0.6
    other = MLPClassifier(dtype=np.float64, solver=solver, max_iter=30, random_state=0).fit(X.astype(np.float32), y)
    assert other.coefs_[0].dtype == np.float64


def test_poisson():
    """The loss, number for number: Σ y log(y / p) - y + p."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 2))
    y = rng.poisson(np.exp(X @ [[0.5, 0.2], [0.1, 0.3]])).astype(float)
    mlp = MLPRegressor("poisson", (), solver="lbfgs", alpha=0.0, tol=1e-9, max_iter=500).fit(X, y)
    p = mlp.predict(X)
    assert mlp.out_activation_ == "exp"
    assert p.shape == (80, 2)
    assert mlp.loss_ == pytest.approx(
        np.mean(np.sum(np.where(y > 0, y * np.log(np.maximum(y, 1) / p), 0) - y + p, axis=1))
    )
    np.testing.assert_allclose(X.T @ (p - y), 0, atol=1e-3)
