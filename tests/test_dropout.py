"""Dropout: masks that are a function of seed, step, layer, row and unit, their statistics, and gradients through them."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checking import differences, relative_error
from problems import make_data, make_model

import fastdl
from fastdl.engine import Session, Settings
from fastdl.engine.dropout import UNITS, drop
from fastdl_kernels.serial import entry, mix
from fastdl_kernels.simd import pointer

pytestmark = pytest.mark.usefixtures("one_thread")


@entry
def dropped_block(data, m0, m1, n0, n1, rate, key):
    """`drop` on a block of an array."""
    drop(pointer(data, 0), data.shape[1], m0, m1, n0, n1, rate, key)


@entry
def key_of(seed, step, layer):
    return mix(mix(seed, step), layer)


def layer_key(seed, step, layer):
    """The key that the engine gives to `drop`."""
    return np.uint64(key_of(seed, step, layer))


def mask(rows, units, rate, seed=0, step=1, layer=0, dtype="float64"):
    """What a layer's outputs of 1 become."""
    data = np.ones((rows, units), dtype)
    dropped_block(data, 0, rows, 0, units, round(rate * UNITS), layer_key(seed, step, layer))
    return data


# --- the masks ---


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rate_and_scale(rate, dtype):
    """Outputs are 0 or 1 / (1 - rate), and their mean is that of the outputs before, within five deviations."""
    a = mask(1000, 1000, rate, dtype=dtype)
    np.testing.assert_allclose(np.unique(a), [0, 1 / (1 - rate)], rtol=1e-7)
    deviation = np.sqrt(rate / (1 - rate))
    assert abs(a.mean() - 1) < 5 * deviation / 1000
    for axis in (0, 1):  # in each row and each column, the largest of 1000
        assert np.abs(a.mean(axis=axis) - 1).max() < 5 * deviation / np.sqrt(1000)


def correlation(a, b):
    return abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) * np.sqrt(a.size)


def test_rows_units_steps_layers_and_seeds_are_independent():
    a = mask(500, 500, 0.5)
    assert correlation(a[:, :-1], a[:, 1:]) < 5
    assert correlation(a[:-1], a[1:]) < 5
    assert correlation(a, a.T) < 5
    for other in (mask(500, 500, 0.5, seed=1), mask(500, 500, 0.5, step=2), mask(500, 500, 0.5, layer=1)):
        assert correlation(a, other) < 5
    np.testing.assert_array_equal(a, mask(500, 500, 0.5))


def test_blocks_make_up_the_whole():
    """However a layer is cut into jobs: the mask depends on row and unit alone, and nothing else is touched."""
    whole, key = mask(70, 90, 0.3, seed=5, step=9, layer=2), layer_key(5, 9, 2)
    for rows, units in [((0, 70), (0, 90)), ((0, 1), (0, 90)), ((13, 37), (5, 86)), ((69, 70), (89, 90))]:
        data = np.ones((70, 90))
        dropped_block(data, *rows, *units, round(0.3 * UNITS), key)
        inside = np.zeros((70, 90), bool)
        inside[slice(*rows), slice(*units)] = True
        np.testing.assert_array_equal(data, np.where(inside, whole, 1.0))


# --- gradients ---

LAYERS = [5, 7, 6, 3]
RATES = [0.3, 0.5]


def gradient_at(model, X, y, step, dropout=RATES, l2=0.0, seed=3):
    """(loss, gradient) with the masks of a step."""
    settings = Settings(len(X), l2=l2, n_threads=1, dropout=tuple(dropout), seed=seed)
    session = Session(model.architecture, model.parameters, settings)
    session.steps_done = step
    loss, _ = session.epoch(X, y, None, np.arange(len(X)), np.zeros(1))
    return loss, session.gradient.copy()


def by_hand(model, X, y, masks):
    """(loss, gradient) by the oracle's formulas, with masks that hold 0 or 1 / (1 - rate)."""
    weights, biases = reference.split(model.layers, model.parameters)
    zs, outs = [], [X]
    for l, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        zs.append(outs[-1] @ weight + bias)
        if l < len(masks):
            a = model.activations[l]
            outs.append(reference.VALUES[a.name](zs[-1], a.alpha) * masks[l])
    loss, d_z = reference.mean_loss(reference.softmax_cross_entropy_rows, zs[-1], y)
    pieces = []
    for l in reversed(range(len(weights))):
        pieces[:0] = [(outs[l].T @ d_z).ravel(), d_z.sum(axis=0)]
        if l > 0:
            a = model.activations[l - 1]
            d_z = (d_z @ weights[l].T) * masks[l - 1] * reference.DERIVATIVES[a.name](zs[l - 1], a.alpha)
    return loss, np.concatenate(pieces)


def masks_of(model, n_rows, step, rates=RATES, seed=3):
    """The masks that a training with this seed uses in its step (counted from 0)."""
    key = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return [mask(n_rows, n, p, key, step + 1, l) for l, (n, p) in enumerate(zip(model.layers[1:-1], rates))]


every_activation = pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "tanh", "identity"])


@every_activation
@pytest.mark.parametrize("step", [0, 7])
def test_gradient_equals_the_oracle(rng, activation, step):
    units = fastdl.LeakyReLU(0.3) if activation == "leaky_relu" else activation
    model = make_model(LAYERS, units, "softmax")
    X, y = make_data(rng, 9, LAYERS, "softmax")
    loss, gradient = gradient_at(model, X, y, step)
    want_loss, want = by_hand(model, X, y, masks_of(model, 9, step))
    assert loss == pytest.approx(want_loss, rel=1e-13)
    np.testing.assert_allclose(gradient, want, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_gradient_equals_differences(rng, activation):
    """With the mask held fixed the loss is a smooth function of the parameters."""
    model = make_model(LAYERS, activation, "softmax")
    X, y = make_data(rng, 9, LAYERS, "softmax")
    _, gradient = gradient_at(model, X, y, 3)
    numeric = differences(lambda: gradient_at(model, X, y, 3)[0], model.parameters)
    assert relative_error(gradient, numeric) < 1e-7


@every_activation
def test_wide_float32_layers(rng, activation):
    """Layers of several vectors with tails, one of them without dropout."""
    model = make_model([9, 70, 33, 41, 3], activation, "softmax", "float32")
    X, y = make_data(rng, 65, model.layers, "softmax")
    X = X.astype("float32")
    rates = [0.2, 0.0, 0.7]
    _, gradient = gradient_at(model, X, y, 4, rates)
    _, want = by_hand(model, X, y, masks_of(model, 65, 4, rates))
    assert np.abs(gradient - want).max() < 2e-5 * np.abs(want).max()


# --- trainings ---


def train(n_threads=1, first_call=1, dropout=(0.2, 0.5), epochs=2, seed=0, **options):
    model = make_model([30, 130, 65, 4], ["relu", "tanh"], "softmax", "float32")
    X, y = make_data(np.random.default_rng(3), 150, model.layers, "softmax")
    trainer = fastdl.Trainer(model, fastdl.Adam(), 40, 1, n_threads=n_threads, dropout=dropout, seed=seed, **options)
    losses = []
    for _ in range(epochs):
        if trainer._session is not None:
            trainer._session.tuner.steps = first_call
        losses += trainer.fit(X, y, validation_data=(X, y)).loss
    return model, losses, trainer.history


@pytest.mark.parametrize("n_threads", [2, 3, "auto"])
def test_the_same_bits_for_any_threads(n_threads):
    model, losses, _ = train(n_threads)
    want, want_losses, _ = train()
    np.testing.assert_array_equal(model.parameters, want.parameters)
    assert losses == want_losses


@pytest.mark.parametrize("first_call", [2, 100])
def test_the_same_bits_however_many_batches_a_call_takes(first_call):
    np.testing.assert_array_equal(train(first_call=first_call)[0].parameters, train()[0].parameters)


def test_a_rate_of_0_changes_no_bit():
    for dropout in (0.0, [0.0, 0.0], 0):
        model, losses, _ = train(dropout=dropout)
        plain, plain_losses, _ = train(dropout=[0.0, 0])
        np.testing.assert_array_equal(model.parameters, plain.parameters)
        assert losses == plain_losses
    assert not np.array_equal(train(dropout=0.1)[0].parameters, plain.parameters)


def test_a_rate_that_is_nearly_1_drops_all():
    """It is written as a whole number below 2^32, and not as 2^32, with which 32 bits would begin anew."""
    model = make_model([4, 8, 1])
    x, y = make_data(np.random.default_rng(0), 64, [4, 8, 1], "linear")
    before = model.parameters.copy()
    trainer = fastdl.Trainer(model, fastdl.Momentum(lr=0.1), batch_size=64, epochs=1, dropout=1 - 1e-12)
    trainer.fit(x, y)
    n_first = 4 * 8 + 8
    np.testing.assert_array_equal(model.parameters[:n_first], before[:n_first])  # no gradient comes through
    assert np.isfinite(model.parameters).all()


def test_one_rate_is_one_for_each_layer():
    np.testing.assert_array_equal(train(dropout=0.3)[0].parameters, train(dropout=[0.3, 0.3])[0].parameters)


def test_seeds_draw_other_masks(rng):
    model = make_model(LAYERS, "tanh", "softmax")
    X, y = make_data(rng, 9, LAYERS, "softmax")
    assert gradient_at(model, X, y, 0, seed=1)[0] != gradient_at(model, X, y, 0, seed=2)[0]


def test_prediction_and_validation_drop_nothing():
    model, _, history = train()
    X, y = make_data(np.random.default_rng(3), 150, model.layers, "softmax")
    _, outs = reference.network_forward(model.layers, [("relu", 0), ("tanh", 0)], model.parameters, X)
    np.testing.assert_allclose(model.forward(X), outs[-1], rtol=1e-4, atol=1e-5)
    want = reference.mean_loss(reference.softmax_cross_entropy_rows, outs[-1], y)[0]
    assert history.val_loss[-1] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    ("layers", "dropout", "words"),
    [
        ([4, 3, 2], 1.0, r"dropout: expected rates in \[0, 1\)"),
        ([4, 3, 2], -0.1, "dropout: expected the dropout rate"),
        ([4, 3, 2], "half", "dropout: expected the dropout rate"),
        ([4, 3, 2], [0.1, 0.2], r"dropout: expected one rate, or 1 \(one per hidden layer\), got 2"),
        ([4, 3, 3, 2], [0.1, None], "dropout: expected the dropout rate"),
        ([4, 2], 0.1, "dropout: expected a model with hidden layers"),
    ],
)
def test_bad_rates(layers, dropout, words):
    with pytest.raises(fastdl.InputError, match=words):
        fastdl.Trainer(fastdl.MLP(layers), dropout=dropout)
