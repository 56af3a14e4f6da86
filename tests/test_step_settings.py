"""What a step can be told besides its learning rate: an L2 penalty, an eps and a factor of the loss; and the penalties' mean."""

from __future__ import annotations

import numpy as np
import pytest

import fastdl
from fastdl.engine import Session, Settings

ROWS, BATCH = 70, 32  # the last batch is shorter


def model_and_data(output="softmax", dtype="float64"):
    rng = np.random.default_rng(0)
    model = fastdl.MLP([5, 9, 3], "tanh", output, dtype=dtype)
    X = rng.standard_normal((ROWS, 5)).astype(dtype)
    y = rng.integers(3, size=ROWS) if output == "softmax" else rng.standard_normal((ROWS, 3)).astype(dtype)
    return model, X, y


def run(table=None, optimizer=None, output="softmax", threads=1, clip=0.0, dtype="float64", **settings):
    """(parameters after an epoch, its loss, its penalty)"""
    model, X, y = model_and_data(output, dtype)
    optimizer = optimizer or fastdl.SGD(0.1)
    given = Settings(BATCH, optimizer, clip_norm=clip, n_threads=threads, penalised=True)
    session = Session(model.architecture, model.parameters, given)
    rates = np.full(3, optimizer.lr)
    loss, bad = session.epoch(X, y, None, np.arange(ROWS), session.step_table(rates, **settings))
    assert bad == -1
    return model.parameters.copy(), loss, session.penalty


def by_hand(l2, scale, output="softmax"):
    """The same with `loss_and_gradient` and plain descent."""
    model, X, y = model_and_data(output)
    total = penalty = 0.0
    for i, start in enumerate(range(0, ROWS, BATCH)):
        part = slice(start, min(ROWS, start + BATCH))
        rows = part.stop - part.start
        loss, gradient = model.loss_and_gradient(X[part], y[part])
        step = scale[i] * gradient
        for d, w in zip(model.views(step)[0], model.weights):
            d += l2[i] * w
            penalty += rows * l2[i] / 2 * np.sum(w * w)
        total += rows * scale[i] * loss
        model.parameters -= 0.1 * step
    return model.parameters, total / ROWS, penalty / ROWS


@pytest.mark.parametrize("output", ["softmax", "linear"])
@pytest.mark.parametrize("clip", [0.0, 1e9])
def test_each_step_has_its_own_penalty_and_scale(output, clip):
    l2, scale = np.array([0.3, 0.0, 1.5]), np.array([1.0, 2.5, 0.25])
    parameters, loss, penalty = run(output=output, clip=clip, l2=l2, scale=scale)
    expected = by_hand(l2, scale, output)
    np.testing.assert_allclose(parameters, expected[0], rtol=1e-12, atol=1e-14)
    assert loss == pytest.approx(expected[1], rel=1e-12)
    assert penalty == pytest.approx(expected[2], rel=1e-12)


@pytest.mark.parametrize("optimizer", [fastdl.Adam(0.01), fastdl.RMSProp(0.01)])
def test_each_step_has_its_own_eps(optimizer):
    plain = run(optimizer=optimizer)[0]
    assert np.array_equal(plain, run(optimizer=optimizer, eps=1e-8)[0])
    last = run(optimizer=optimizer, eps=np.array([1e-8, 1e-8, 1e30]))[0]
    assert not np.array_equal(plain, last)
    two = run(optimizer=optimizer, eps=np.array([1e-8, 1e-8, 1e30]), l2=np.array([0, 0, 3.0]))[0]
    np.testing.assert_allclose(last, two, atol=1e-9)  # the third step moves nothing


def test_a_scale_of_0_teaches_nothing():
    model, _, _ = model_and_data()
    parameters, loss, _ = run(scale=0.0)
    assert np.array_equal(parameters, model.parameters)
    assert loss == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_the_number_of_threads_changes_no_bit(dtype, clip):
    results = [run(threads=n, clip=clip, dtype=dtype, l2=0.1) for n in (1, 2, 3)]
    for other in results[1:]:
        assert np.array_equal(results[0][0], other[0])
        assert results[0][1:] == other[1:]
