"""`precision` of the estimators: that of the trainer's steps."""

from __future__ import annotations

import numpy as np
import pytest

import fastdl
from fastdl import estimators

EMULATED = "bf16-emulated"


@pytest.fixture
def data(rng):
    X = rng.standard_normal((200, 70)).astype(np.float32)
    return X, (X[:, 0] + X[:, 1] > 0).astype(int)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_steps_of_scikit_learns_solvers(data, solver):
    fitted = {}
    for precision in ("float32", EMULATED):
        model = estimators.MLPClassifier(
            (64,), solver=solver, max_iter=3, random_state=0, dtype="float32", precision=precision
        )
        with pytest.warns(match="converged"):
            model.fit(*data)
        fitted[precision] = model
    a, b = (np.asarray(m.loss_curve_) for m in fitted.values())
    assert (a != b).all()
    np.testing.assert_allclose(a, b, rtol=0.01)


def test_float64_is_refused(data):
    with pytest.raises(fastdl.InputError, match="precision: expected a float32 model for 'bf16-emulated', got float64"):
        estimators.MLPClassifier((64,), max_iter=1, dtype="float64", precision=EMULATED).fit(*data)
    with pytest.raises(ValueError, match="The 'precision' parameter of MLPClassifier must be a str among"):
        estimators.MLPClassifier((64,), precision="half").fit(*data)


def test_tabular(data):
    X, y = data
    losses = []
    for precision in ("float32", EMULATED):
        model = fastdl.TabularClassifier(hidden=(64, 64), epochs=2, recipe="plain", precision=precision).fit(X, y)
        losses.append(model.history_.loss)
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.01)
