"""What a page shows, against scikit-learn: confusion, curves, calibration, importance, partial dependence."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import calibration as sk_calibration
from sklearn import metrics as sk_metrics
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.inspection import partial_dependence as sk_partial_dependence
from sklearn.inspection import permutation_importance as sk_importance

import fastdl
from fastdl.report import classes, fields, importance, numbers, values


@pytest.fixture
def scores(rng):
    """Chances of three classes [N, 3], with ties, and the true classes."""
    chances = rng.dirichlet([1, 1, 1], 500).round(2)
    return chances, np.array([rng.choice(3, p=c / c.sum()) for c in chances])


def test_confusion_is_scikit_learns(scores):
    chances, truth = scores
    predicted = chances.argmax(axis=1)
    expected = sk_metrics.confusion_matrix(truth, predicted)
    assert (classes.confusion(truth, predicted, 3) == expected).all()
    found = classes.described(chances, truth, ["a", "b", "c"])
    assert found["confusion"]["counts"] == expected.tolist()
    assert found["n_mistakes"] == (predicted != truth).sum()
    first = found["pairs"][0]
    off = expected - np.diag(expected.diagonal())
    assert first["rows"] == off.max() == off["abc".index(first["truth"]), "abc".index(first["predicted"])]
    sure = chances[np.arange(500), predicted]
    assert found["mistakes"][0]["chance"] == sure[predicted != truth].max()
    assert predicted[found["mistakes"][0]["place"]] != truth[found["mistakes"][0]["place"]]


def test_curves_are_scikit_learns(scores):
    chances, truth = scores
    for k in range(3):
        fpr, tpr, _ = sk_metrics.roc_curve(truth == k, chances[:, k], drop_intermediate=False)
        found = classes.roc(chances[:, k], truth == k)
        np.testing.assert_allclose(found, (fpr, tpr), rtol=1e-12)
        precision, recall, _ = sk_metrics.precision_recall_curve(truth == k, chances[:, k])
        got_recall, got_precision, average = classes.precision_recall(chances[:, k], truth == k)
        np.testing.assert_allclose(got_recall, recall[-2::-1], rtol=1e-12)
        np.testing.assert_allclose(got_precision, precision[-2::-1], rtol=1e-12)
        assert average == pytest.approx(sk_metrics.average_precision_score(truth == k, chances[:, k]))
    shown = {c["name"]: c["auc"] for c in classes.described(chances, truth, ["a", "b", "c"])["curves"]}
    for k, name in enumerate("abc"):
        assert shown[name] == pytest.approx(sk_metrics.roc_auc_score(truth == k, chances[:, k]), rel=1e-6)


def test_calibration_is_scikit_learns(rng):
    chances = np.r_[rng.random(400).round(3), 0.0, 0.1, 0.5, 1.0]
    came = rng.random(404) < chances
    share, mean = sk_calibration.calibration_curve(came, chances, n_bins=10)
    found = classes.calibration(chances, came)
    np.testing.assert_allclose(found["mean"], mean)
    np.testing.assert_allclose(found["share"], share)
    assert found["rows"].sum() == 404
    assert found["error"] == pytest.approx(np.sum(np.abs(mean - share) * found["rows"]) / 404)


def test_many_classes_are_grouped(rng):
    truth = rng.integers(0, 200, 5000)
    predicted = np.where(rng.random(5000) < 0.5, truth, rng.integers(0, 200, 5000))
    found = classes.described(np.eye(200)[predicted], truth, list(range(200)))
    counts = np.array(found["confusion"]["counts"])
    assert counts.shape == (20, 20)
    assert counts.sum() == 5000
    assert found["confusion"]["names"][-1] == "181 others"
    kept = [int(name) for name in found["confusion"]["names"][:-1]]
    expected = sk_metrics.confusion_matrix(truth, predicted, labels=range(200))[np.ix_(kept, kept)]
    assert (counts[:-1, :-1] == expected).all()


def test_numbers(rng):
    actual = rng.normal(size=3000)
    predicted = actual + rng.normal(size=3000) / 10
    predicted[7] = actual[7] + 50
    found = numbers.described(predicted, actual, "y")
    assert sum(found["errors"]["counts"]) == 3000
    assert found["largest"][0]["place"] == 7
    assert found["largest"][0]["error"] == pytest.approx(50)
    assert len(found["points"][0]) <= numbers.MOST_POINTS
    np.testing.assert_allclose(np.average(found["middles"][1]), (predicted - actual).mean(), atol=1e-6)


@pytest.fixture
def trained(rng):
    """A classifier of three columns, of which the second says most and the third nothing."""
    X = rng.normal(size=(600, 3))
    y = (X[:, 0] + 3 * X[:, 1] > 0).astype(int)
    model = fastdl.MLP([3, 16, 2], dtype="float64").standardize(X)
    fastdl.Trainer(model, epochs=10, n_threads=1).fit(X, y)
    return model, X, y, [fields.Field(f"feature {i}", "number", i, i + 1) for i in range(3)]


class Wrapped(ClassifierMixin, BaseEstimator):
    """A model as scikit-learn's inspection wants it."""

    def __init__(self, model=None):
        self.model = model
        self.classes_ = np.array([0, 1])
        self.fitted_ = True

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return self.model.predict_proba(np.ascontiguousarray(X))

    def predict(self, X):
        return self.predict_proba(X).argmax(axis=1)


def test_importance_is_scikit_learns(trained):
    """Of other shuffles, so within the deviation of their means."""
    model, X, y, columns = trained
    inputs = model.prepare_inputs(X)
    found = importance.permutation_importance(model, inputs, model.prepare_targets(y, 600), columns, repeats=40)
    expected = sk_importance(Wrapped(model), X, y, scoring="neg_log_loss", n_repeats=40, random_state=0)
    for entry, mean, deviation in zip(found, expected.importances_mean, expected.importances_std, strict=True):
        assert entry["mean"] == pytest.approx(mean, abs=4 * deviation / 40**0.5 + 1e-6)
        assert entry["deviation"] == pytest.approx(deviation, rel=0.6, abs=1e-6)
    assert found[1]["mean"] > 3 * found[0]["mean"] > 9 * abs(found[2]["mean"])
    assert (inputs == model.prepare_inputs(X)).all()


def test_partial_dependence_is_scikit_learns(trained):
    model, X, _, columns = trained
    found = importance.partial_dependence(model, X, columns[1])
    expected = sk_partial_dependence(
        Wrapped(model), X, [1], custom_values={1: np.array(found["x"])}, method="brute", response_method="predict_proba"
    )
    (line,) = [line for line in found["lines"] if line["name"] == "1"]
    np.testing.assert_allclose(line["y"], expected["average"][0], rtol=1e-6)


def test_importance_ends_in_time(trained):
    model, X, y, columns = trained
    found = importance.described(model, X, y, columns, seconds=0.0)
    assert found["measured"] == 0
    assert found["count"] == 3


def test_thinned_indices_keep_the_ends():
    assert values.thin(5, 10).tolist() == [0, 1, 2, 3, 4]
    found = values.thin(1000, 10)
    assert (found[0], found[-1], len(found)) == (0, 999, 10)


def test_values_that_are_not_finite_are_no_json():
    assert values.plain({"a": np.array([1.0, np.nan, np.inf]), "b": (np.int64(3), np.True_)}) == {
        "a": [1, None, None], "b": [3, True],
    }  # fmt: skip
