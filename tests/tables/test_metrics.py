"""Metrics beside those of scikit-learn, the naive answer, and columns that give the target away."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as peer

import fastdl
from fastdl import metrics
from fastdl.tables import leaks
from fastdl.tables.encoded import OneHot
from fastdl.tables.kinds import CategoryColumn, NumberColumn


def softmax(raw):
    e = np.exp(raw - raw.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_classes(rng):
    y = rng.choice(4, 200, p=[0.6, 0.2, 0.15, 0.05])
    raw = rng.standard_normal((200, 4)) + np.eye(4)[y]
    said = raw.argmax(axis=1)
    found = metrics.report(fastdl.MLP([2, 4]), raw, y)
    expected = {
        "accuracy": peer.accuracy_score(y, said),
        "balanced_accuracy": peer.balanced_accuracy_score(y, said),
        "auc": np.mean([peer.roc_auc_score(y == k, np.log(softmax(raw)[:, k])) for k in range(4)]),
        "log_loss": peer.log_loss(y, softmax(raw)),
        "f1": peer.f1_score(y, said, average="macro"),
    }
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-9)


@pytest.mark.parametrize("ties", [False, True])
def test_two_classes(rng, ties):
    y = (rng.random(300) < 0.2).astype(float)
    raw = rng.standard_normal((300, 1)) + y[:, None]
    raw = np.round(raw) + 0.25 if ties else raw
    found = metrics.report(fastdl.MLP([2, 1], output="sigmoid"), raw, y[:, None])
    chance = 1 / (1 + np.exp(-raw[:, 0]))
    expected = {
        "accuracy": peer.accuracy_score(y, chance > 0.5),
        "balanced_accuracy": peer.balanced_accuracy_score(y, chance > 0.5),
        "auc": peer.roc_auc_score(y, chance),
        "log_loss": peer.log_loss(y, chance),
        "f1": peer.f1_score(y, chance > 0.5),
    }
    np.testing.assert_allclose([found[name] for name in expected], list(expected.values()), rtol=1e-9)


def test_several_labels(rng):
    y = rng.integers(0, 2, (100, 3)).astype(float)
    raw = rng.standard_normal((100, 3)) + y
    found = metrics.report(fastdl.MLP([2, 3], output="sigmoid"), raw, y)
    assert found["accuracy"] == np.mean((raw > 0) == (y > 0))
    np.testing.assert_allclose(found["auc"], peer.roc_auc_score(y, raw), rtol=1e-9)
    np.testing.assert_allclose(found["f1"], peer.f1_score(y, raw > 0, average="macro"), rtol=1e-9)


def test_numbers(rng):
    y = rng.standard_normal((100, 2))
    raw = y + 0.3 * rng.standard_normal((100, 2))
    found = metrics.report(fastdl.MLP([2, 2], output="linear"), raw, y)
    expected = {
        "rmse": np.sqrt(peer.mean_squared_error(y, raw)),
        "mae": peer.mean_absolute_error(y, raw),
        "r2": peer.r2_score(y, raw),
    }
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-9)


def test_one_class_has_no_auc():
    found = metrics.report(fastdl.MLP([2, 1], output="sigmoid"), np.array([[1.0], [2]]), np.ones((2, 1)))
    assert "auc" not in found
    assert found["accuracy"] == 1


def test_the_naive_answer():
    train, y = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    found = metrics.baseline(fastdl.MLP([2, 2]), train, y)
    assert found == {"accuracy": 0.5, "balanced_accuracy": 0.5, "log_loss": pytest.approx(-np.log([0.75, 0.25]).mean())}
    found = metrics.baseline(fastdl.MLP([2, 1], output="linear"), np.array([1.0, 3]), np.array([1.0, 4]))
    assert found == {"rmse": pytest.approx(np.sqrt(2.5)), "mae": 1.5, "r2": pytest.approx(1 - 5 / 4.5)}


# Columns that give the target away


def telling(columns, parts, y, classes):
    return leaks.telling(columns, parts, np.arange(len(y)), y, classes)


def test_columns_that_alone_predict_the_target(rng):
    y = rng.integers(0, 3, 200)
    same, other = CategoryColumn("same", ("a", "b", "c")), CategoryColumn("other", ("a", "b"))
    near, number = CategoryColumn("near", ("a", "b", "c")), NumberColumn("number")
    nearly = np.where(np.arange(200) < 5, 0, y)
    parts = [OneHot((y + 1) % 3, 3), OneHot(rng.integers(0, 2, 200), 2), OneHot(nearly, 3), y * 2.5]
    assert telling([same, other, near, number], parts, y, True) == ["same", "number"]
    binary = (y == 1).astype(np.int64)
    assert telling([number], [np.where(binary == 1, 1, -1) * rng.random(200)], binary, True) == ["number"]
    assert telling([number], [rng.random(200)], binary, True) == []
    values = rng.standard_normal(200)
    noisy = values + 0.1 * rng.standard_normal(200)
    columns = [NumberColumn("twice"), NumberColumn("noisy"), same]
    assert telling(columns, [3 - 2 * values, noisy, OneHot(y, 3)], values, False) == ["twice"]
    assert telling([same], [OneHot(y, 3)], y * 1.5 + 1e-6 * values, False) == ["same"]


def test_few_rows_tell_nothing():
    y = np.array([0, 1] * 5)
    assert telling([CategoryColumn("c", ("a", "b"))], [OneHot(y, 2)], y, True) == []
