"""What a program sees of the estimators: parameters, labels, attributes, warnings, errors, data frames."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn.neural_network as theirs
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import check_estimator

import fastdl
from fastdl import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def classes(n=60, labels=3, seed=0):
    X, y = make_classification(n, 6, n_informative=5, n_redundant=0, n_classes=labels, random_state=seed)
    return X, y


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.parametrize("Estimator", [MLPClassifier, MLPRegressor])
def test_check_estimator(Estimator):
    """scikit-learn's checks of third-party estimators, all of them."""
    check_estimator(Estimator())


class TestWhatScikitLearnTestsThroughPrivateNames:
    """The six tests of its own that reach into its implementation, through public names."""

    def test_the_worked_example(self):
        """One step of gradient descent by hand: see `test_fit` in scikit-learn."""
        X, y = np.array([[0.6, 0.8, 0.7]]), np.array([0])
        mlp = MLPClassifier(2, "logistic", solver="sgd", learning_rate_init=0.1, alpha=0.1, momentum=0, random_state=1)
        mlp.partial_fit(X, y, classes=[0, 1])
        mlp.coefs_[0] = np.array([[0.1, 0.2], [0.3, 0.1], [0.5, 0]])
        mlp.coefs_[1] = np.array([[0.1], [0.2]])
        mlp.intercepts_[0] = np.array([0.1, 0.1])
        mlp.intercepts_[1] = np.array([1.0])
        mlp.partial_fit(X, y)
        # Forward: h = logistic(x W1 + b1) = (0.679179, 0.574443), p = logistic(h W2 + b2) = 0.765452. Backward: d2 = p - 0,
        # d1 = h (1 - h) d2 W2 = (0.016679, 0.037424). The step: W - 0.1 (input^T d + 0.1 W), b - 0.1 d.
        np.testing.assert_allclose(
            mlp.coefs_[0], [[0.0979993, 0.1957546], [0.2956657, 0.0960061], [0.4938325, -0.0026197]], atol=1e-7
        )
        np.testing.assert_allclose(mlp.coefs_[1], [[0.0470121], [0.1540292]], atol=1e-7)
        np.testing.assert_allclose(mlp.intercepts_[0], [0.0983321, 0.0962576], atol=1e-7)
        np.testing.assert_allclose(mlp.intercepts_[1], [0.9234548], atol=1e-7)
        np.testing.assert_allclose(mlp.predict_proba(X)[0, 1], 0.739, atol=1e-3)

    @pytest.mark.parametrize("labels", [2, 3])
    @pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu", ["tanh", "leaky_relu"]])
    def test_the_gradient_is_that_of_the_loss(self, labels, activation):
        """A step of plain gradient descent against differences of `loss_`, for each parameter."""
        rng = np.random.RandomState(42)
        X, y = rng.rand(5, 4), 1 + np.arange(5) % labels
        mlp = MLPClassifier(
            (3, 2), activation, solver="sgd", momentum=0, alpha=0.3, learning_rate_init=1e-3, random_state=1
        )
        mlp.partial_fit(X, y, classes=np.unique(y))
        parameters = [*mlp.coefs_, *mlp.intercepts_]
        before = [p.copy() for p in parameters]

        def loss_at(values):
            for p, value in zip(parameters, values):
                p[...] = value
            return mlp.partial_fit(X, y).loss_

        loss_at(before)
        gradient = [(b - p) / 1e-3 for b, p in zip(before, parameters)]
        for k, value in enumerate(before):
            for i in np.ndindex(value.shape):
                shifted = [[v.copy() for v in before] for _ in range(2)]
                shifted[0][k][i] += 1e-5
                shifted[1][k][i] -= 1e-5
                numeric = (loss_at(shifted[0]) - loss_at(shifted[1])) / 2e-5
                assert abs(numeric - gradient[k][i]) < 1e-7

    def test_the_adaptive_rate_falls_until_it_is_too_small(self, capsys):
        mlp = MLPClassifier(tol=0.5, max_iter=3000, solver="sgd", learning_rate="adaptive", verbose=True)
        mlp.fit([[3, 2], [1, 6]], [1, 0])
        lines = capsys.readouterr().out.splitlines()
        rates = [float(line.split("rate to ")[1]) for line in lines if "Setting learning rate to" in line]
        assert rates[0] == pytest.approx(0.0002)
        assert sorted(rates, reverse=True) == rates
        assert lines[-1].endswith("Learning rate too small. Stopping.")
        assert mlp.n_iter_ < mlp.max_iter

    @pytest.mark.parametrize("n_iter_no_change", [2, 5, 10])
    def test_epochs_without_an_improvement(self, n_iter_no_change):
        """The last n + 1 epochs were no better than the best one by tol, and there were no n + 1 such before them."""
        X, y = classes(100, 2)
        mlp = MLPClassifier(tol=0.01, max_iter=3000, solver="sgd", n_iter_no_change=n_iter_no_change, random_state=0)
        mlp.fit(X, y)
        curve = np.array(mlp.loss_curve_)
        best = np.minimum.accumulate(curve)[:-1]
        stuck = np.concatenate([[False], curve[1:] > best - 0.01])
        runs = [stuck[i : i + n_iter_no_change + 1].all() for i in range(len(stuck) - n_iter_no_change)]
        assert runs[-1]
        assert not any(runs[:-1])

    def test_no_end_of_patience(self):
        X, y = classes(50, 2)
        mlp = MLPClassifier(tol=1e9, max_iter=200, solver="sgd", n_iter_no_change=np.inf).fit(X, y)
        assert mlp.n_iter_ == 200


@pytest.mark.parametrize(
    "labels",
    [
        ["a", "b", "c"],
        ["yes", "no"],
        [True, False],
        [0.0, 1.0, 7.0],
        [-3, 5],
        [10, 2, 700],
        ["only"],
    ],
)
@pytest.mark.parametrize("kind", [np.array, list, "object"])
def test_labels_of_any_kind_come_back(labels, kind):
    X, y = classes(60, max(2, len(labels)))
    given = np.array(labels)[y % len(labels)]
    if kind == "object" and isinstance(labels[0], str):
        given = given.astype(object)
    elif kind != "object":
        given = kind(given)
    mlp = MLPClassifier(random_state=0, max_iter=60, learning_rate_init=0.02).fit(X, given)
    assert set(mlp.classes_) == set(labels)
    predicted = mlp.predict(X)
    assert predicted.dtype == theirs.MLPClassifier(max_iter=1).fit(X, given).predict(X).dtype
    assert np.mean(predicted == np.asarray(given)) > 0.85
    assert mlp.score(X, given) == np.mean(predicted == np.asarray(given))
    assert mlp.predict_proba(X).shape == (60, max(2, len(labels)))


def test_classes_that_a_batch_does_not_have():
    X, y = classes(90)
    mlp = MLPClassifier(random_state=0).partial_fit(X[y < 2], y[y < 2], classes=[0, 1, 2])
    assert mlp.predict_proba(X).shape == (90, 3)
    mlp.partial_fit(X[y == 2], y[y == 2])
    with pytest.raises(ValueError, match=r"`y` has classes not in `self.classes_`"):
        mlp.partial_fit(X[:2], [0, 3])
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        MLPClassifier().partial_fit(X, y)
    with pytest.raises(ValueError, match="is not the same as on last call to partial_fit"):
        mlp.partial_fit(X, y, classes=[0, 1])


def test_coefs_are_views_that_predictions_follow():
    """Numbers written into them count, and so do arrays put in their place."""
    X, y = classes()
    mlp = MLPRegressor(hidden_layer_sizes=5, random_state=0, max_iter=3).fit(X, y)
    assert all(c.base is not None for c in mlp.coefs_)
    mlp.coefs_[1][:] = 0
    mlp.intercepts_[1] = np.array([2.5])
    assert (mlp.predict(X) == 2.5).all()
    mlp.coefs_ = [np.zeros_like(c) for c in mlp.coefs_]
    mlp.intercepts_ = [np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([-1.0])]
    assert (mlp.predict(X) == -1).all()
    mlp.coefs_[1][:] = 1
    assert (mlp.predict(X) == 14).all()
    mlp.partial_fit(X, y)
    assert (mlp.predict(X) != 14).all()


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score"])
def test_not_fitted(method):
    with pytest.raises(NotFittedError, match="This MLPClassifier instance is not fitted yet"):
        getattr(MLPClassifier(), method)(*([[[1.0]]] if method != "score" else [[[1.0]], [1]]))


@pytest.mark.parametrize("Estimator", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_by_every_way_in(Estimator, bad):
    """By the short way for plain arrays as well as by the long one."""
    X, y = classes()
    mlp = Estimator(hidden_layer_sizes=5, random_state=0, max_iter=2).fit(X, y)
    for rows in (1, 3, 60):
        wrong = X[:rows].copy()
        wrong[-1, -1] = bad
        for given in (wrong, np.asfortranarray(wrong), wrong.tolist(), wrong.astype(np.float32)):
            with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
                mlp.predict(given)
            with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
                mlp.fit(given, y[:rows])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hidden_layer_sizes": -1}, "hidden_layer_sizes"),
        ({"hidden_layer_sizes": (5, 0)}, "hidden_layer_sizes must be > 0, got"),
        ({"activation": "rellu"}, "The 'activation' parameter of MLPClassifier must be"),
        ({"activation": ["relu", "tanh"]}, "activation: expected one name, or 1"),
        ({"solver": "adams"}, "The 'solver' parameter of MLPClassifier must be a str among"),
        ({"alpha": -1}, "The 'alpha' parameter of MLPClassifier must be a float in the range"),
        ({"n_threads": 0}, "The 'n_threads' parameter"),
        ({"dropout": 1.0}, "The 'dropout' parameter"),
        ({"dropout": [0.1, 0.2]}, "dropout: expected one rate, or 1"),
        ({"dropout": 0.5, "hidden_layer_sizes": ()}, "dropout: expected hidden layers"),
        ({"dropout": 0.5, "solver": "lbfgs"}, "dropout: expected solver 'adam' or 'sgd'"),
        ({"clip_norm": 0.0}, "The 'clip_norm' parameter"),
        ({"optimizer": "adam"}, "The 'optimizer' parameter of MLPClassifier must be an instance of"),
        ({"dtype": "float16"}, "The 'dtype' parameter"),
        (
            {"solver": "sgd", "learning_rate": "adaptive", "schedule": fastdl.schedules.Cosine()},
            "schedule: expected learning_rate='constant'",
        ),
    ],
)
def test_parameters_that_cannot_be(parameters, message):
    X, y = classes()
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**parameters).fit(X, y)


def test_data_that_cannot_be():
    X, y = classes()
    mlp = MLPClassifier(max_iter=1).fit(X, y)
    with pytest.raises(ValueError, match="X has 5 features, but MLPClassifier is expecting 6 features as input"):
        mlp.predict(X[:, :5])
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
        mlp.predict(X[0])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        mlp.fit(X, y[:-1])
    with pytest.raises(ValueError, match="Unknown label type"):
        mlp.fit(X, y + 0.5)
    with pytest.raises(ValueError, match=r"at least one (weight other than 0|non-zero number)"):
        mlp.fit(X, y, sample_weight=np.zeros(60))
    with pytest.raises(ValueError, match="expected both or none"):
        mlp.fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="in which this MLPRegressor computes"):
        MLPRegressor(max_iter=1).fit(X.astype(np.float32), y).predict(np.full((1, 6), 1e300))


def test_warm_start_keeps_to_its_layers():
    X, y = classes()
    mlp = MLPClassifier(5, warm_start=True, max_iter=2).fit(X, y)
    with pytest.raises(ValueError, match=r"expected the layers of the last fit, \[6, 5, 3\]"):
        mlp.set_params(hidden_layer_sizes=7).fit(X, y)
    mlp.set_params(hidden_layer_sizes=5, activation="tanh", solver="lbfgs").fit(X, y)
    mlp.set_params(solver="sgd", early_stopping=True).fit(X, y)
    mlp.set_params(early_stopping=False).fit(X, y)
    assert mlp.set_params(warm_start=False, hidden_layer_sizes=7).fit(X, y).coefs_[0].shape == (6, 7)


def test_divergence_ends_in_the_error_of_scikit_learn():
    X, y = classes()
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
        MLPRegressor(solver="sgd", learning_rate_init=1e6, activation="identity", max_iter=50).fit(X * 1e3, y)
    model = MLPRegressor(
        solver="sgd", learning_rate_init=1e3, activation="identity", early_stopping=True, random_state=0
    )
    with pytest.warns(ConvergenceWarning, match="the parameters are those of the best validation score"):
        model.fit(X, y)
    assert np.isnan(model.validation_scores_[-1])
    assert np.isfinite(model.predict(X)).all()


def test_an_interrupt_leaves_a_usable_model():
    X, y = classes()

    class Stop:
        def on_train_begin(self, epochs, rows):
            pass

        def on_progress(self, epoch, rows_done):
            pass

        def on_epoch_end(self, result):
            if result.epoch == 3:
                raise KeyboardInterrupt

    mlp = MLPClassifier(callbacks=[Stop()])
    with pytest.warns(UserWarning, match=r"Training interrupted by user\."):
        mlp.fit(X, y)
    assert mlp.n_iter_ == 3
    assert mlp.predict(X).shape == (60,)


class Columns:
    """The same table as data frames of several packages, with the columns in a given order."""

    names = ("a", "b", "c")

    def __init__(self, package):
        self.module = pytest.importorskip(package)
        self.package = package

    def __call__(self, values, names):
        data = {name: np.ascontiguousarray(values[:, i]) for i, name in enumerate(names)}
        return self.module.table(data) if self.package == "pyarrow" else self.module.DataFrame(data)


@pytest.mark.parametrize("package", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("Estimator", [MLPClassifier, MLPRegressor])
def test_columns_of_data_frames_are_found_by_name(package, Estimator):
    frame = Columns(package)
    X, y = classes()
    X = X[:, :3]
    mlp = Estimator(hidden_layer_sizes=5, random_state=0, max_iter=5).fit(frame(X, "abc"), y)
    assert mlp.feature_names_in_.tolist() == ["a", "b", "c"]
    expected = Estimator(hidden_layer_sizes=5, random_state=0, max_iter=5).fit(X, y).predict(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(mlp.predict(frame(X, "abc")), expected)
        np.testing.assert_array_equal(mlp.predict(frame(X[:, [2, 0, 1]], "cab")), expected)
    with pytest.raises(
        ValueError, match="Feature names unseen at fit time:\n- d\nFeature names seen at fit time, yet now"
    ):
        mlp.predict(frame(X, "abd"))
    with pytest.raises(ValueError, match="Feature names seen at fit time, yet now missing:\n- c\n"):
        mlp.predict(frame(X[:, :2], "ab"))
    with pytest.raises(ValueError, match="Feature names unseen at fit time:\n- d\n"):
        mlp.predict(frame(np.c_[X, y], "abcd"))
    with pytest.warns(UserWarning, match="X does not have valid feature names, but"):
        np.testing.assert_array_equal(mlp.predict(X), expected)
    with pytest.warns(UserWarning, match="X has feature names, but"):
        Estimator(hidden_layer_sizes=5, max_iter=1).fit(X, y).predict(frame(X, "abc"))
    again = mlp.set_params(warm_start=True).fit(frame(X[:, [2, 0, 1]], "cab"), y)
    other = Estimator(hidden_layer_sizes=5, random_state=0, max_iter=5, warm_start=True).fit(X, y).fit(X, y)
    np.testing.assert_array_equal(again.coefs_[0], other.coefs_[0])
    assert not hasattr(again.set_params(warm_start=False).fit(X, y), "feature_names_in_")
