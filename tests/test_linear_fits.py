"""Linear models that are found to the end: what minimises the objective, to the digits of float64."""

from __future__ import annotations

import numpy as np
import pytest

from fastdl.training import linear
from fastdl.training.linear import fit_linear

N, D = 150, 5


def features(rng):
    x = rng.standard_normal((N, D)) * [1, 0.1, 30, 1, 1] + [0, 5, -3, 0, 0]
    x[:, 3] = rng.integers(0, 2, N)  # a feature of two values
    return x


def targets(rng, x, output, n_outputs):
    raw = (x - x.mean(axis=0)) / x.std(axis=0) @ rng.standard_normal((D, n_outputs)) + rng.standard_normal(
        (N, n_outputs)
    )
    if output == "softmax":
        return np.eye(n_outputs)[raw.argmax(axis=1)]
    return (raw > 0.3).astype(float) if output == "sigmoid" else raw


def objective(flat, x, y, output, penalty, weight):
    """Row by row, in the features' own units: coefficients count as those of features of deviation 1, or of values 1 apart."""
    found = flat.reshape(D + 1, -1)
    total = 0.0
    mean = np.average(x, axis=0, weights=weight)
    deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    deviation[3] = 1
    for row, target, w in zip(x, y, weight, strict=True):
        raw = row @ found[:-1] + found[-1]
        if output == "linear":
            total += w * np.sum((raw - target) ** 2) / 2
        elif output == "sigmoid":
            total += w * np.sum(np.logaddexp(0, raw) - target * raw)
        else:
            total += w * (np.logaddexp.reduce(raw) - target @ raw)
    intercept = found[-1] + mean @ found[:-1]
    return total + penalty / 2 * (np.sum((found[:-1] * deviation[:, None]) ** 2) + 0.01 * np.sum(intercept**2))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("output", "n_outputs"), [("linear", 1), ("linear", 3), ("sigmoid", 1), ("sigmoid", 2), ("softmax", 3)]
)
def test_the_objective_is_at_its_least(output, n_outputs, weighted):
    rng = np.random.default_rng(0)
    x = features(rng)
    y = targets(rng, x, output, n_outputs)
    weight = rng.uniform(0.1, 3, N) if weighted else np.ones(N)
    found = fit_linear(x, y, output, 2.0, weight if weighted else None)
    least = objective(found.ravel(), x, y, output, 2.0, weight)
    for k in range(found.size):
        step = np.zeros(found.size)
        step[k] = 1e-3 / max(1, np.abs(x[:, min(k // n_outputs, D - 1)]).max())
        for sign in (1, -1):
            assert objective(found.ravel() + sign * step, x, y, output, 2.0, weight) > least - 1e-7


@pytest.mark.parametrize("output", ["linear", "sigmoid"])
def test_weights_stand_for_rows(output):
    rng = np.random.default_rng(1)
    x = features(rng)
    y = targets(rng, x, output, 1)
    counts = rng.integers(0, 4, N)
    x[counts == 0, 3] = 9.5  # which would be a third value
    again = fit_linear(np.repeat(x, counts, axis=0), np.repeat(y, counts, axis=0), output)
    np.testing.assert_allclose(fit_linear(x, y, output, weight=counts.astype(float)), again, rtol=1e-4, atol=1e-6)


def test_what_never_varies_counts_nothing():
    rng = np.random.default_rng(2)
    x = features(rng)
    y = targets(rng, x, "linear", 1)
    wider = np.column_stack([x, np.full(N, 7.0)])
    found = fit_linear(wider, y, "linear")
    np.testing.assert_allclose(np.delete(found, D, axis=0), fit_linear(x, y, "linear"), rtol=1e-9)
    assert found[D] == 0


def test_a_class_that_no_row_has_is_improbable_and_finite():
    rng = np.random.default_rng(3)
    x = features(rng)
    y = np.column_stack([targets(rng, x, "softmax", 2), np.zeros(N)])
    found = fit_linear(x, y, "softmax")
    raw = x @ found[:-1] + found[-1]
    chances = np.exp(raw - np.logaddexp.reduce(raw, axis=1)[:, None])[:, 2]
    assert (chances < 0.01).all()
    assert chances.mean() > 1e-5


def test_separable_classes_stay_finite():
    x = np.linspace(-1, 1, 40)[:, None]
    found = fit_linear(x, (x > 0).astype(float), "sigmoid")
    assert 1 < found[0, 0] < 100
    assert abs(found[1, 0]) < 1e-6


def test_more_features_than_rows_and_than_the_work_allows(monkeypatch):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((30, 200))
    y = x[:, :1]
    found = fit_linear(x, y, "linear", 1e-6)
    np.testing.assert_allclose(x @ found[:-1] + found[-1], y, atol=1e-4)
    np.testing.assert_allclose(fit_linear(x[:, ::-1], y, "linear", 1e-6)[-2::-1], found[:-1], atol=1e-9)
    monkeypatch.setattr(linear, "MOST_WORK", 30 * 4)  # 4 directions
    less = fit_linear(x, y, "linear", 1e-6)
    assert np.linalg.matrix_rank(np.column_stack([less[:-1], found[:-1]])) == 2
    assert 0.1 < np.std(x @ less[:-1] - y) < 1.0


@pytest.mark.parametrize("wide", [False, True])
def test_directions_span_the_rows(wide):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((20, 6)) @ rng.standard_normal((6, 50)) if wide else rng.standard_normal((80, 12))
    found = linear._directions(x, 100)
    np.testing.assert_allclose(found.T @ found, np.eye(found.shape[1]), atol=1e-10)
    np.testing.assert_allclose(x @ found @ found.T, x, atol=1e-9)
    most = linear._directions(x, 3)
    spread = np.linalg.svd(x, compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(x @ most, compute_uv=False), spread[:3], rtol=1e-9)


@pytest.mark.parametrize("what", ["x", "y"])
def test_numbers_that_are_not_finite_are_refused(what):
    rng = np.random.default_rng(6)
    x = features(rng)
    y = targets(rng, x, "linear", 1)
    {"x": x, "y": y}[what][3, 0] = np.inf
    with pytest.raises(np.linalg.LinAlgError):
        fit_linear(x, y, "linear")
    weight = np.ones(N)
    weight[3] = 0
    assert np.isfinite(fit_linear(x, y, "linear", weight=weight)).all()  # of rows that do not count nothing is asked
