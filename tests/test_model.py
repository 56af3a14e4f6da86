"""MLP: its flat buffer and views, initial parameters, prediction, standardisation."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import reference
from checking import DTYPES, assert_close, eps
from problems import make_data, make_model

import fastdl
from fastdl.activations import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("one_thread")

every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def oracle_forward(model, X):
    activations = [(a.name, a.alpha) for a in model.activations]
    return reference.network_forward(model.layers, activations, model.parameters, X)[1][-1]


# --- the flat buffer ---


@every_dtype
@pytest.mark.parametrize("layers", [[1, 1], [5, 3], [7, 4, 2], [3, *[4] * 20, 2]], ids=str)
def test_layout(layers, dtype):
    """weights[0] row by row, biases[0], weights[1], ...: all of them views of the one aligned buffer."""
    model = fastdl.MLP(layers, output="linear", dtype=dtype)
    size = sum((n_in + 1) * n_out for n_in, n_out in pairwise(layers))
    assert model.parameters.shape == (size,) == (model.n_parameters,)
    assert model.parameters.dtype == dtype
    assert model.parameters.flags.c_contiguous
    assert model.parameters.ctypes.data % 64 == 0
    model.parameters[:] = np.arange(size)
    pieces = []
    for weight, bias, n_in, n_out in zip(model.weights, model.biases, layers[:-1], layers[1:], strict=True):
        assert weight.shape == (n_in, n_out)
        assert bias.shape == (n_out,)
        assert np.shares_memory(weight, model.parameters)
        assert np.shares_memory(bias, model.parameters)
        pieces += [weight.ravel(), bias]
    np.testing.assert_array_equal(np.concatenate(pieces), np.arange(size))


def test_the_views_are_the_model():
    model = fastdl.MLP([2, 2], output="linear", dtype="float64")
    model.weights[0][:] = [[1, 2], [3, 4]]
    model.biases[0][:] = [10, 20]
    np.testing.assert_array_equal(model.forward([[1, 1], [0, 2]]), [[14, 26], [16, 28]])
    np.testing.assert_array_equal(model.parameters, [1, 2, 3, 4, 10, 20])


# --- initial parameters ---


RELU_FAMILY = ("relu", "leaky_relu", "elu", "gelu", "silu", "mish")


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_initial_deviation_follows_the_activation(activation):
    """He for the ReLU family, LeCun for SELU, Glorot for the others and for the output layer; biases are 0."""
    model = fastdl.MLP([300, 200, 100, 80], activation, seed=3)
    variances = {"selu": (1 / 300, 1 / 200), **dict.fromkeys(RELU_FAMILY, (2 / 300, 2 / 200))}
    wanted = np.sqrt([*variances.get(activation, (2 / 500, 2 / 300)), 2 / 180])
    for weight, deviation in zip(model.weights, wanted, strict=True):
        assert weight.std() == pytest.approx(deviation, rel=0.03)
        assert abs(weight.mean()) < 4 * deviation / weight.size**0.5
        assert len(np.unique(weight)) > 0.99 * weight.size  # symmetry is broken
        excess = (weight.astype(float) ** 4).mean() / (weight.astype(float) ** 2).mean() ** 2
        assert excess == pytest.approx(3, rel=0.2)  # normal
    assert not any(bias.any() for bias in model.biases)


@pytest.mark.parametrize(("init", "wanted"), [("he", (2 / 300) ** 0.5), ("glorot", 0.0632), (0.01, 0.01), (3, 3.0)])
def test_init_on_request(init, wanted):
    model = fastdl.MLP([300, 200, 10], "tanh", init=init)
    assert model.weights[0].std() == pytest.approx(wanted, rel=0.03)
    if init == 0.01:
        assert model.weights[1].std() == pytest.approx(0.01, rel=0.06)


def test_seeds():
    one, again, other = (fastdl.MLP([5, 4, 3], seed=s).parameters for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_both_dtypes_start_alike():
    """float32 starts from the float64 numbers, rounded."""
    narrow, wide = (fastdl.MLP([5, 4, 3], seed=7, dtype=d).parameters for d in DTYPES)
    np.testing.assert_array_equal(narrow, wide.astype("float32"))


def test_layers_do_not_repeat_each_other():
    weights = fastdl.MLP([4, 4, 4, 4], "tanh").weights
    assert not np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[1], weights[2])


# --- prediction ---


@every_dtype
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (9,), (33, 17), (6,) * 20], ids=str)
def test_forward(rng, dtype, activation, hidden):
    model = make_model([7, *hidden, 3], activation, "linear", dtype)
    X = rng.normal(size=(29, 7)).astype(dtype)
    want = oracle_forward(model, X)
    out = model.forward(X)
    assert out.dtype == dtype
    assert_close(out, want, 20 * eps(dtype) * (1 + len(hidden)) * np.abs(want).max())


@pytest.mark.parametrize("n_rows", [0, 1, 5, 1000])
def test_shapes(rng, n_rows):
    X = rng.normal(size=(n_rows, 4))
    for output, n_out, shape, kind in [
        ("softmax", 3, (n_rows,), "i"),
        ("sigmoid", 1, (n_rows,), "i"),
        ("sigmoid", 3, (n_rows, 3), "i"),
        ("linear", 1, (n_rows,), "f"),
        ("linear", 2, (n_rows, 2), "f"),
    ]:
        model = make_model([4, 6, n_out], "relu", output)
        assert model.forward(X).shape == (n_rows, n_out)
        assert model.predict(X).shape == shape
        assert model.predict(X).dtype.kind == kind
        if output != "linear":
            assert model.predict_proba(X).shape == (n_rows, n_out)


def test_predictions_of_classes(rng):
    model = make_model([4, 6, 3], "tanh", "softmax")
    X = rng.normal(size=(50, 4))
    want = reference.softmax(oracle_forward(model, X))
    np.testing.assert_allclose(model.predict_proba(X), want, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X), want.argmax(axis=1))
    assert model.predict(X).dtype == np.int64


@pytest.mark.parametrize("n_out", [1, 3])
def test_predictions_of_labels(rng, n_out):
    model = make_model([4, 6, n_out], "tanh", "sigmoid")
    X = rng.normal(size=(50, 4))
    want = reference.sigmoid(oracle_forward(model, X))
    np.testing.assert_allclose(model.predict_proba(X), want, rtol=1e-12)
    labels = (want > 0.5).astype(int)
    np.testing.assert_array_equal(model.predict(X), labels[:, 0] if n_out == 1 else labels)


@every_dtype
@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_saturated_probabilities(dtype, output):
    """Huge logits give probabilities 0 and 1, without NaN or a warning."""
    model = fastdl.MLP([1, 2], output=output, dtype=dtype)
    model.parameters[:] = [1e20, -1e20, 0, 0]
    np.testing.assert_array_equal(model.predict_proba([[1e5], [-1e5]]), [[1, 0], [0, 1]])


CONVERSIONS = {
    "list": lambda X: X.tolist(),
    "fortran": lambda X: np.asfortranarray(X),
    "strided-rows": lambda X: np.repeat(X, 2, axis=0)[::2],
    "strided-columns": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "reversed": lambda X: np.ascontiguousarray(X[::-1])[::-1],
    "int8": lambda X: X.astype("int8"),
    "float16": lambda X: X.astype("float16"),
    "big-endian": lambda X: X.astype(">f8"),
    "longdouble": lambda X: X.astype(np.longdouble),
    "object": lambda X: X.astype(object),
    "read-only": lambda X: np.frombuffer(X.tobytes()).reshape(X.shape),
    "misaligned": lambda X: np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view("float64").reshape(X.shape),
}


@pytest.mark.parametrize("kind", CONVERSIONS)
@every_dtype
def test_any_numeric_array_will_do(rng, kind, dtype):
    """Layout and dtype of X change nothing: small whole numbers are exact in all of them."""
    convert = CONVERSIONS[kind]
    model = make_model([4, 6, 3], "relu", "softmax", dtype)
    X = rng.integers(-5, 6, size=(11, 4)).astype(float)
    y = rng.integers(0, 3, 11)
    np.testing.assert_array_equal(model.forward(convert(X)), model.forward(X))
    results = []
    for data, labels in ((X, y), (convert(X), y.astype(float)), (convert(X), y[:, None].astype("uint8"))):
        model = make_model([4, 6, 3], "relu", "softmax", dtype)
        fastdl.Trainer(model, epochs=2, batch_size=4).fit(data, labels)
        results.append(model.parameters)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("output", ["sigmoid", "linear"])
def test_one_target_may_be_a_vector(rng, output):
    model = make_model([4, 6, 1], "relu", output)
    X, y = make_data(rng, 9, model.layers, output)
    loss, gradient = model.loss_and_gradient(X, y)
    vector_loss, vector_gradient = model.loss_and_gradient(X, y[:, 0])
    assert loss == vector_loss
    np.testing.assert_array_equal(gradient, vector_gradient)
    if output == "sigmoid":
        assert model.loss_and_gradient(X, y[:, 0].astype(bool))[0] == loss


def test_leaky_relu_slope_is_used():
    for alpha in (0.0, 0.01, 0.5):
        model = fastdl.MLP([1, 1, 1], fastdl.LeakyReLU(alpha), "linear", dtype="float64")
        model.parameters[:] = [1, 0, 1, 0]
        np.testing.assert_array_equal(model.forward([[-2.0], [3.0]]), [[-2 * alpha], [3]])
    assert fastdl.MLP([1, 1, 1], "leaky_relu", "linear").activations[0].alpha == 0.01


def test_repr_says_what_it_is():
    assert repr(fastdl.MLP([4, 3, 2], "tanh")) == "MLP([4, 3, 2], activation='tanh', output='softmax', dtype='float32')"
    assert "['relu', 'tanh']" in repr(fastdl.MLP([4, 3, 3, 2], ["relu", "tanh"]))
    assert "activation" not in repr(fastdl.MLP([4, 2]))


# --- standardisation ---


@every_dtype
def test_standardised_inputs(rng, dtype):
    """x' = (x - mean) / deviation, in float64 before the rounding to the model's dtype; a constant column becomes 0."""
    X = rng.normal(size=(40, 4)) * [1, 100, 1e-3, 0] + [0, 1e4, 5, 3]
    model, plain = (make_model([4, 6, 3], "tanh", "softmax", dtype) for _ in range(2))
    assert model.standardize(X) is model
    standard = (X - X.mean(axis=0)) / np.where(np.arange(4) == 3, 1, X.std(axis=0))
    assert_close(model.forward(X), plain.forward(standard), 1e3 * eps(dtype))
    assert_close(model.forward(X[:5]), plain.forward(standard[:5]), 1e3 * eps(dtype))  # not anew of each X


@pytest.mark.parametrize("n_out", [1, 2])
def test_standardised_targets(rng, n_out):
    """predict answers in the units of y, forward in the network's own."""
    X, y = rng.normal(size=(40, 3)), rng.normal(size=(40, n_out)) * [1000, 0.1][:n_out] + 77
    model = make_model([3, 4, n_out], "tanh", "linear").standardize(X, y)
    want = model.forward(X) * y.std(axis=0) + y.mean(axis=0)
    np.testing.assert_allclose(model.predict(X), want[:, 0] if n_out == 1 else want, rtol=1e-12)
    model.standardize(X)
    assert model.scaling.y_mean is None
    np.testing.assert_array_equal(model.predict(X), model.forward(X)[:, 0] if n_out == 1 else model.forward(X))
