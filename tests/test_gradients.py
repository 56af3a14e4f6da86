"""model.loss_and_gradient against central differences, and against the oracle network."""

from __future__ import annotations

import numpy as np
import pytest
from checking import differences, eps, relative_error
from problems import TASKS, make_data, make_model, oracle_loss_and_gradient, smooth_model_and_data

import fastdl
from fastdl.activations import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("one_thread")
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
every_task = pytest.mark.parametrize("task", TASKS)


def check_by_differences(model, X, y, sample_weight=None, l2=0.0):
    """Every parameter, tensor by tensor, so that no small layer hides behind a large one."""

    def loss():
        return model.loss_and_gradient(X, y, sample_weight, l2)[0]

    value, gradient = model.loss_and_gradient(X, y, sample_weight, l2)
    assert gradient.shape == model.parameters.shape
    numeric = differences(loss, model.parameters)
    assert value == loss()  # restored, and the same bits again
    for kind, got, want in zip(("weights", "biases"), model.views(gradient), model.views(numeric), strict=True):
        for layer, (a, b) in enumerate(zip(got, want, strict=True)):
            assert relative_error(a, b) <= 1e-6, f"{kind}[{layer}]"


@every_activation
@every_task
@pytest.mark.parametrize("regularised", [False, True], ids=["plain", "l2-and-weights"])
def test_every_activation_and_output_unit(activation, task, regularised):
    output, n_out = TASKS[task]
    model, X, y = smooth_model_and_data([3, 4, n_out], activation, output)
    if regularised:
        check_by_differences(model, X, y, sample_weight=[0.5, 3.0, 0.0, 1.0], l2=0.3)
    else:
        check_by_differences(model, X, y)


@pytest.mark.parametrize("extra", [{"l2": 0.3}, {"sample_weight": [0.5, 3.0, 0.0, 1.0]}], ids=["l2", "weights"])
@every_task
def test_l2_alone_and_weights_alone(task, extra):
    output, n_out = TASKS[task]
    check_by_differences(*smooth_model_and_data([3, 3, n_out], "tanh", output), **extra)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n_rows", [1100, 3000, 12_000])
@every_task
def test_many_rows_of_a_small_network(rng, task, n_rows, dtype):
    """From four blocks of rows on each takes its share of the gradient, and from 32 on a share stands for several blocks."""
    output, n_out = TASKS[task]
    model = make_model([7, 20, 5, n_out], ["tanh", "relu"], output, dtype)
    X, y = make_data(rng, n_rows, model.layers, output)
    weight = rng.random(n_rows)
    loss, gradient = model.loss_and_gradient(X, y, weight, 0.1)
    wanted_loss, wanted = oracle_loss_and_gradient(model, X, y, weight / weight.mean(), 0.1)
    c = 10 * eps(dtype) * n_rows**0.5
    assert abs(loss - wanted_loss) <= c * wanted_loss
    for kind in (0, 1):
        for a, b in zip(model.views(gradient)[kind], model.views(wanted)[kind], strict=True):
            assert relative_error(a, b) <= c


@every_task
def test_linear_model(task):
    output, n_out = TASKS[task]
    check_by_differences(*smooth_model_and_data([5, n_out], [], output), l2=0.1)


@pytest.mark.parametrize(
    "activations",
    [
        ["relu", "tanh", "sigmoid"],
        [fastdl.LeakyReLU(0.2), "identity", "relu"],
        ["sigmoid", fastdl.LeakyReLU(0.0), fastdl.LeakyReLU(0.7)],
    ],
    ids=repr,
)
def test_a_different_activation_in_each_layer(activations):
    check_by_differences(*smooth_model_and_data([3, 5, 4, 3, 2], activations, "softmax"), l2=0.01)


@every_activation
def test_twenty_hidden_layers(activation):
    model, X, y = smooth_model_and_data([2] + [3] * 20 + [2], activation, "softmax", n_rows=2)
    assert len(model.weights) == 21
    check_by_differences(model, X, y)


@every_activation
@every_task
@pytest.mark.parametrize("hidden", [(), (7,), (19, 33, 5)], ids=str)
def test_against_the_oracle(rng, activation, task, hidden):
    """Both dtypes; 50 rows through layers with tails. float32 is compared with the oracle at its own parameters."""
    output, n_out = TASKS[task]
    layers = [11, *hidden, n_out]
    X, y = make_data(rng, 50, layers, output)
    weight = rng.random(50) * 3
    for dtype, rtol in (("float64", 1e-13), ("float32", 10 * eps("float32"))):
        model = make_model(layers, activation, output, dtype)
        rows, targets = X.astype(dtype), y if output == "softmax" else y.astype(dtype)
        for sample_weight, l2 in ((None, 0.0), (None, 0.2), (weight, 0.0), (weight, 0.2)):
            normalised = None if sample_weight is None else weight / weight.mean()
            want_loss, want = oracle_loss_and_gradient(model, rows, targets, normalised, l2)
            loss, gradient = model.loss_and_gradient(rows, targets, sample_weight, l2)
            assert isinstance(loss, float)
            assert gradient.dtype == model.dtype
            assert loss == pytest.approx(want_loss, rel=rtol)
            for got_part, want_part in zip(model.views(gradient), model.views(want), strict=True):
                for a, b in zip(got_part, want_part, strict=True):
                    assert np.linalg.norm(a - b) <= 10 * rtol * np.linalg.norm(b) + rtol * np.linalg.norm(want) * 0.1


@every_activation
@every_task
def test_float32_agrees_with_float64(rng, activation, task):
    output, n_out = TASKS[task]
    layers = [20, 30, 10, n_out]
    X, y = make_data(rng, 64, layers, output)
    X = X.astype("float32")
    model32 = make_model(layers, activation, output, "float32")
    model64 = make_model(layers, activation, output, "float64")
    model64.parameters[:] = model32.parameters
    loss32, gradient32 = model32.loss_and_gradient(X, y, l2=1e-3)
    loss64, gradient64 = model64.loss_and_gradient(X, y, l2=1e-3)
    assert loss32 == pytest.approx(loss64, rel=1e-6)
    assert np.linalg.norm(gradient32 - gradient64) <= 1e-5 * np.linalg.norm(gradient64)
    assert loss32 != loss64  # else float32 is not what was computed


def test_the_gradient_belongs_to_the_caller(rng):
    """A later call does not change an earlier result, and neither call changes the parameters."""
    model = make_model([4, 6, 3], "relu", "softmax", "float32")
    before = model.parameters.copy()
    X, y = make_data(rng, 8, model.layers, "softmax")
    _, first = model.loss_and_gradient(X, y)
    kept = first.copy()
    model.loss_and_gradient(X[::-1] * 3, y)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(model.parameters, before)
    assert not np.shares_memory(first, model.parameters)


def test_equal_weights_change_nothing_but_rounding(rng):
    """Only the ratios of the weights count: they are divided by their mean."""
    model = make_model([4, 6, 3], "tanh", "softmax")
    X, y = make_data(rng, 9, model.layers, "softmax")
    loss, gradient = model.loss_and_gradient(X, y)
    for w in (np.ones(9), np.full(9, 1e-6), np.full(9, 7, np.int64)):
        weighted_loss, weighted = model.loss_and_gradient(X, y, sample_weight=w)
        assert weighted_loss == pytest.approx(loss, rel=1e-14)
        np.testing.assert_allclose(weighted, gradient, rtol=1e-12, atol=1e-15)


def test_weights_count_rows(rng):
    """Weight 2 is the row twice, weight 0 is the row left out."""
    model = make_model([4, 6, 2], "tanh", "linear")
    X, y = make_data(rng, 6, model.layers, "linear")
    times = np.array([2, 0, 1, 3, 0, 1])
    loss, gradient = model.loss_and_gradient(X, y, sample_weight=times)
    want_loss, want = model.loss_and_gradient(np.repeat(X, times, axis=0), np.repeat(y, times, axis=0))
    assert loss == pytest.approx(want_loss, rel=1e-13)
    np.testing.assert_allclose(gradient, want, rtol=1e-11, atol=1e-14)
