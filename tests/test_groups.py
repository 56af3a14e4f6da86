"""Rates and weight decay by groups of parameters, the NTK parametrisation, and schedules of weight decay and dropout: against
optimizers in float64 NumPy whose rate is an array."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from problems import batches_of, make_data, make_model, oracle_loss_and_gradient

import fastdl
from fastdl.optimizers import OPTIMIZERS
from fastdl.schedules import Constant, CosLog4, FlatCosine

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS, ROWS, BATCH, EPOCHS = [5, 9, 6, 3], 45, 9, 3
STEPS = ROWS // BATCH * EPOCHS


def spread(model, weights, biases):
    """An array like the parameters with these numbers, one for each layer's weights and for its biases."""
    flat = np.zeros(model.n_parameters)
    for views, values in zip(model.views(flat), (weights, biases), strict=True):
        for view, value in zip(views, np.broadcast_to(values, len(views)), strict=True):
            view[:] = value
    return flat


def by_hand(model, X, y, optimizer, rates, decays, l2=0.0, clip=np.inf, scale=1.0):
    """Parameters after a training, where rates and decays [steps, P] are arrays; `scale` [P] trains theta * scale instead."""
    theta, states = model.parameters * scale, [np.zeros(model.n_parameters)] * optimizer.n_states
    hyper = optimizer.hyperparameters()
    step = 0
    for epoch in range(EPOCHS):
        for rows in batches_of(ROWS, BATCH, 0, epoch):
            g = oracle_loss_and_gradient(model, X[rows], y[rows], None, l2, theta / scale)[1]
            g = g * min(1.0, clip / np.sqrt(g @ g)) / scale
            hyper["lr"] = rates[step]
            if "weight_decay" in hyper:
                hyper["weight_decay"] = optimizer.weight_decay * decays[step]
            step += 1
            theta, states = reference.OPTIMIZERS[optimizer.name](theta, g, states, step, **hyper)
    return theta / scale


@pytest.fixture
def problem(rng):
    return (make_model(LAYERS, "tanh", "softmax"), *make_data(rng, ROWS, LAYERS, "softmax"))


def train(problem, optimizer, n_threads=1, **settings):
    model, X, y = problem
    fastdl.Trainer(model, optimizer, BATCH, EPOCHS, n_threads=n_threads, **settings).fit(X, y)
    return model.parameters


def always(array):
    return np.repeat(array[None], STEPS, axis=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize(
    ("rates", "decays"),
    [
        ({"biases": 0.1}, {}),
        ({"weights": [0.5, 1, 0], "biases": [0, 2.0, 0.25]}, {"weights": (3, 0, 1), "biases": 0.5}),
        ({}, {"weights": 0.2, "biases": [0, 1, 2]}),
    ],
)
def test_each_group_has_its_rate_and_decay(problem, name, clip, rates, decays):
    model, X, y = problem
    optimizer = OPTIMIZERS[name](lr=0.02, **({"weight_decay": 0.7} if name == "adamw" else {}))
    lr = 0.02 * spread(model, rates.get("weights", 1.0), rates.get("biases", 1.0))
    decay = spread(model, decays.get("weights", 1.0), decays.get("biases", 0.0))
    want = by_hand(model, X, y, optimizer, always(lr), always(decay), 0.01, clip or np.inf)
    got = train(problem, optimizer, group_rates=rates, group_decays=decays, l2=0.01, clip_norm=clip)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_a_rate_of_0_leaves_a_group_as_it_is(problem):
    model = problem[0]
    before = [b.copy() for b in model.biases], [w.copy() for w in model.weights]
    train(problem, fastdl.AdamW(0.05), group_rates={"biases": 0, "weights": [0, 1, 1]})
    for now, then in zip(model.biases, before[0], strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(model.weights[0], before[1][0])
    assert (model.weights[1] != before[1][1]).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ntk_trains_weights_times_the_root_of_their_inputs(problem, name):
    """With eps so small that it does not count, for which the gradients would have to be scaled too."""
    model, X, y = problem
    small = {"eps": 1e-30} if "eps" in OPTIMIZERS[name]().hyperparameters() else {}
    optimizer = OPTIMIZERS[name](lr=0.02, **small, **({"weight_decay": 0.7} if name == "adamw" else {}))
    scale = spread(model, np.sqrt(LAYERS[:-1]), 1.0)
    want = by_hand(model, X, y, optimizer, always(np.full(scale.size, 0.02)), always(spread(model, 1, 0)), scale=scale)
    np.testing.assert_allclose(train(problem, optimizer, ntk=True), want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("clip", [None, 0.3])
def test_weight_decay_follows_its_schedule(problem, clip):
    model, X, y = problem
    factors = FlatCosine().rates(1.0, 0, STEPS)
    decays = factors[:, None] * spread(model, 1, 0)
    optimizer = fastdl.AdamW(0.02, weight_decay=5.0)
    want = by_hand(model, X, y, optimizer, always(np.full(model.n_parameters, 0.02)), decays, clip=clip or np.inf)
    got = train(problem, optimizer, decay_schedule=FlatCosine(), clip_norm=clip)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


class EveryEpoch(fastdl.Callback):
    """A fit of one epoch at a time would have these dropout rates."""

    def __init__(self):
        self.rates = []

    def on_epoch_end(self, result):
        session = self.trainer._session
        self.rates.append([rate * session._dropout_factor for rate in session.settings.dropout])


def test_dropout_follows_its_schedule(problem):
    """Each epoch has the bits of a trainer that is told its rates; the last epochs of a falling schedule drop almost nothing."""
    model, X, y = problem
    factors = FlatCosine().rates(1.0, 0, 6 * ROWS // BATCH)[:: ROWS // BATCH]
    assert factors[0] == 1
    assert 0 < factors[-1] < 0.3
    watch = EveryEpoch()
    optimizer = fastdl.Adam(0.01)
    scheduled = make_model(LAYERS, "tanh", "softmax")
    trainer = fastdl.Trainer(
        scheduled, optimizer, BATCH, 6, dropout=[0.5, 0.2], dropout_schedule=FlatCosine(), callbacks=[watch]
    )
    trainer.fit(X, y)
    np.testing.assert_allclose(watch.rates, factors[:, None] * [0.5, 0.2], rtol=1e-12)
    told = fastdl.Trainer(model, optimizer, BATCH, 1)
    for factor in factors:
        told.dropout = [0.5 * factor, 0.2 * factor]
        told.fit(X, y)
    np.testing.assert_array_equal(scheduled.parameters, model.parameters)


def test_an_epoch_that_is_trained_again_has_the_same_decay_and_dropout(problem):
    """After a divergence the epochs since the last snapshot are trained again, to the same bits."""
    _, X, y = problem
    results = []
    for epochs in (3, 4):
        model = make_model(LAYERS, "tanh", "softmax")
        trainer = fastdl.Trainer(
            model, fastdl.AdamW(0.01, weight_decay=1.0), BATCH, 4, dropout=0.4, decay_schedule=CosLog4(),
            dropout_schedule=FlatCosine(),
        )  # fmt: skip
        stop = StopOrDiverge(epochs)
        trainer.callbacks = [stop]
        if epochs == 3:
            trainer.fit(X, y)
        else:
            with pytest.raises(fastdl.DivergedError):
                trainer.fit(X, y, validation_data=(X, y))
        results.append(model.parameters.copy())
        assert trainer.epochs_done == 3
    np.testing.assert_array_equal(*results)


class StopOrDiverge(fastdl.Callback):
    """Ends the training after three epochs, or lets the fourth diverge."""

    _only_watches = True

    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_end(self, result):
        if result.epoch == 3 and self.epochs == 3:
            self.trainer.stop()

    def on_progress(self, epoch, rows):
        if epoch == 4:
            self.trainer.model.parameters[:] = np.nan


def test_nothing_asked_for_is_the_same_to_the_last_bit(problem):
    _, X, y = problem
    results = []
    for settings in (
        {},
        {"group_rates": {"weights": 1.0, "biases": [1, 1, 1]}, "group_decays": {"weights": 1, "biases": 0}},
        {"decay_schedule": Constant(), "dropout_schedule": Constant()},
    ):
        model = make_model(LAYERS, "relu", "softmax", "float32")
        optimizer = fastdl.AdamW(0.01, weight_decay=0.3)
        fastdl.Trainer(model, optimizer, BATCH, EPOCHS, dropout=0.3, **settings).fit(X, y)
        results.append(model.parameters)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_number_of_threads_changes_no_bit(rng, dtype):
    layers = [20, 130, 70, 3]
    X, y = make_data(rng, 300, layers, "softmax")
    results = []
    for n_threads in (1, 2, 3):
        model = make_model(layers, "relu", "softmax", dtype)
        fastdl.Trainer(
            model, fastdl.AdamW(0.01), 100, 3, n_threads=n_threads, group_rates={"biases": 0.1}, ntk=True, dropout=0.2,
            decay_schedule=FlatCosine(), dropout_schedule=FlatCosine(),
        ).fit(X, y)  # fmt: skip
        results.append(model.parameters)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_sparse_rows_are_trained_as_dense_ones(rng):
    """Rows of weights that catch up later have the factors and the decay of each step they missed."""
    scipy_sparse = pytest.importorskip("scipy.sparse")
    X = np.where(rng.random((60, 40)) < 0.05, rng.normal(size=(60, 40)), 0.0)
    y = rng.integers(0, 3, 60)
    results = []
    for rows in (X, scipy_sparse.csr_array(X)):
        model = make_model([40, 8, 3], "tanh", "softmax")
        fastdl.Trainer(
            model, fastdl.AdamW(0.02, weight_decay=2.0), 6, 3, group_rates={"weights": [0.3, 1], "biases": 0.1},
            group_decays={"weights": 2.0, "biases": 1.0}, decay_schedule=CosLog4(),
        ).fit(rows, y)  # fmt: skip
        results.append(model.parameters)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-9, atol=1e-12)


def test_copies_go_on_with_the_same_groups(problem):
    import pickle

    model, X, y = problem
    trainer = fastdl.Trainer(model, fastdl.AdamW(0.01), BATCH, 2, group_rates={"biases": 0.1}, ntk=True)
    trainer.fit(X, y)
    other = pickle.loads(pickle.dumps(trainer))
    trainer.fit(X, y)
    other.fit(X, y)
    assert other.group_rates == {"biases": 0.1}
    np.testing.assert_array_equal(other.model.parameters, model.parameters)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"group_rates": 0.1}, r"group_rates: expected a dictionary such as \{'biases': 0.1\}, got 0.1"),
        (
            {"group_rates": {"bias": 1}},
            r"group_rates: expected groups that this model has \(weights, biases\), got 'bias'",
        ),
        ({"group_rates": {3: 1}}, "got 3"),
        ({"group_rates": {"biases": -1}}, r"group_rates\['biases'\]: expected a factor, a finite number of 0 or more"),
        (
            {"group_decays": {"weights": [1, 2]}},
            r"group_decays\['weights'\]: expected one factor, or 3 \(one per layer\)",
        ),
        ({"group_decays": {"weights": [1, 2, np.inf]}}, "group_decays"),
        ({"ntk": 1}, "ntk: expected True or False, got 1"),
        ({"decay_schedule": 0.1}, "decay_schedule: expected an instance such as"),
        ({"dropout_schedule": FlatCosine}, "dropout_schedule: expected an instance such as"),
    ],
)
def test_bad_input(problem, settings, words):
    with pytest.raises(fastdl.InputError, match=words):
        fastdl.Trainer(problem[0], **settings)


def test_a_schedule_must_not_drop_everything(problem):
    model, X, y = problem
    rising = fastdl.schedules.Step(5, factor=2)
    trainer = fastdl.Trainer(model, batch_size=BATCH, epochs=3, dropout=0.3, dropout_schedule=rising)
    with pytest.raises(
        fastdl.InputError, match=r"dropout_schedule: expected dropout rates below 1, got 1.2 in this fit"
    ):
        trainer.fit(X, y)
