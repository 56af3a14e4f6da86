"""Settings are live: what is set on a trainer holds from the next fit, and what still fits is kept.

The oracle is a trainer by hand in float64, which changes its setting at the same place.
"""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from problems import batches_of, go_on_by_hand, make_data, make_model

import fastdl
from fastdl import schedules
from fastdl.training.settings import SETTINGS, Settings

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS, ROWS = [5, 9, 3], 45


@pytest.fixture
def problem(rng):
    return (make_model(LAYERS, "tanh", "softmax"), *make_data(rng, ROWS, LAYERS, "softmax"))


# --- one place: every setting is an argument of Trainer, with its default ---


def test_every_setting_is_an_argument_and_an_attribute():
    arguments = inspect.signature(fastdl.Trainer).parameters
    annotated = inspect.get_annotations(Settings)
    assert set(SETTINGS) == set(annotated)
    assert set(arguments) == set(SETTINGS) - {"rate_factor"}
    for name, argument in arguments.items():
        default = inspect.Parameter.empty if SETTINGS[name].default is ... else SETTINGS[name].default
        assert argument.default is default or argument.default == default, name
    assert all(f"\n    {name} : " in fastdl.Trainer.__doc__ for name in SETTINGS)


@pytest.mark.parametrize("name", [n for n in SETTINGS if n not in ("callbacks", "metrics")])
def test_every_setting_is_checked_when_it_is_set(problem, name):
    trainer = fastdl.Trainer(problem[0])
    before = getattr(trainer, name)
    with pytest.raises(fastdl.InputError, match=f"{name}: expected"):
        setattr(trainer, name, object())
    assert getattr(trainer, name) == before


def test_lists_that_are_changed_in_place_are_checked_by_fit(problem):
    model, X, y = problem
    trainer = fastdl.Trainer(model, batch_size=9, epochs=1)
    trainer.callbacks.append(object())
    with pytest.raises(fastdl.InputError, match="callbacks: expected objects with at least one of the methods"):
        trainer.fit(X, y)


# --- each value holds from the next fit ---

OLD = {"batch_size": 9, "l2": 0.0, "clip_norm": None, "seed": 3}
CHANGES = [
    {"batch_size": 20},
    {"batch_size": 4},
    {"l2": 0.1},
    {"clip_norm": 0.05},
    {"seed": 11},
    {"n_threads": 2},
    {"batch_size": 15, "l2": 0.01, "clip_norm": 0.2, "seed": 5},
]


@pytest.mark.parametrize("kind", [fastdl.SGD, fastdl.Momentum, fastdl.RMSProp, fastdl.Adam, fastdl.AdamW])
@pytest.mark.parametrize("change", CHANGES, ids=lambda c: "-".join(c))
def test_a_changed_setting_holds_and_the_optimizer_goes_on(problem, kind, change):
    """fit, change, fit: as by hand with the same change, with state and step count of the optimizer kept."""
    model, X, y = problem
    optimizer = kind(lr=0.01)
    trainer = fastdl.Trainer(model, optimizer, epochs=2, **OLD)
    by_hand = ByHand(model, optimizer)
    trainer.fit(X, y)
    by_hand.fit(X, y, 2, **OLD)
    for name, value in change.items():
        setattr(trainer, name, value)
    trainer.fit(X, y)
    by_hand.fit(X, y, 2, **{**OLD, **change})
    np.testing.assert_allclose(model.parameters, by_hand.theta, rtol=1e-9, atol=1e-12)
    assert (trainer.epochs_done, trainer.steps_done) == (4, by_hand.step)


@pytest.mark.parametrize(
    ("first", "second", "goes_on"),
    [
        (fastdl.Adam(0.01), fastdl.Adam(0.002, beta1=0.8, eps=1e-4), True),
        (fastdl.Adam(0.01), fastdl.AdamW(0.01, weight_decay=0.1), True),
        (fastdl.Momentum(0.1), fastdl.Momentum(0.05, beta=0.5, nesterov=True), True),
        (fastdl.SGD(0.1), fastdl.SGD(0.01), True),
        (fastdl.Momentum(0.1), fastdl.RMSProp(1e-3), False),
        (fastdl.Adam(0.01), fastdl.Momentum(0.1), False),
        (fastdl.SGD(0.1), fastdl.Adam(0.01), False),
        (fastdl.RMSProp(1e-3), fastdl.SGD(0.1), False),
    ],
    ids=lambda value: value.name if isinstance(value, fastdl.optimizers.Optimizer) else str(value),
)
def test_another_optimizer(problem, first, second, goes_on):
    """One with the same kind of state goes on with it; any other starts with fresh state and its first step."""
    model, X, y = problem
    trainer = fastdl.Trainer(model, first, epochs=2, **OLD)
    by_hand = ByHand(model, first)
    trainer.fit(X, y)
    by_hand.fit(X, y, 2, **OLD)
    trainer.optimizer = by_hand.optimizer = second
    if not goes_on:
        by_hand.forget()
    trainer.fit(X, y)
    by_hand.fit(X, y, 2, **OLD)
    np.testing.assert_allclose(model.parameters, by_hand.theta, rtol=1e-9, atol=1e-12)


def test_dropout_schedule_and_epochs_change(problem):
    """The same as a trainer that had the new values from the start and goes on from the same state."""
    model, X, y = problem
    trainer = fastdl.Trainer(model, fastdl.SGD(0.05), batch_size=9, epochs=1)
    trainer.fit(X, y)
    other = make_model(LAYERS, "tanh", "softmax")
    fresh = fastdl.Trainer(other, fastdl.SGD(0.05), 9, 3, schedule=schedules.Step(2, 0.9), dropout=[0.5])
    state = fresh.__getstate__()
    fresh.__setstate__({**state, **{k: v for k, v in trainer.__getstate__().items() if k in ("_kept", "_epochs_done")}})
    fresh.model.parameters[:] = model.parameters
    fresh._kept = fresh._kept._replace(model=other)
    trainer.dropout, trainer.epochs, trainer.schedule = 0.5, 3, schedules.Step(2, 0.9)
    trainer.fit(X, y)
    fresh.fit(X, y)
    assert len(trainer.history) == 3
    assert trainer.steps_done == fresh.steps_done == 20
    np.testing.assert_array_equal(model.parameters, other.parameters)


def test_another_model_starts_from_the_beginning(rng, problem):
    model, X, y = problem
    trainer = fastdl.Trainer(model, batch_size=9, epochs=2, dropout=0.25)
    trainer.fit(X, y)
    kept = model.parameters.copy()
    other, same = (make_model([5, 4, 6, 3], "relu", "softmax", "float32") for _ in range(2))
    trainer.model = other
    trainer.fit(X, y)
    fastdl.Trainer(same, batch_size=9, epochs=2, dropout=0.25).fit(X, y)
    np.testing.assert_array_equal(other.parameters, same.parameters)
    np.testing.assert_array_equal(model.parameters, kept)
    assert (trainer.epochs_done, trainer.steps_done) == (2, 10)


def test_another_model_that_the_settings_do_not_fit(problem):
    model, X, y = problem
    trainer = fastdl.Trainer(model, batch_size=9, epochs=1, dropout=[0.5])
    trainer.model = make_model([5, 4, 6, 3], "relu", "softmax")
    with pytest.raises(fastdl.InputError, match=r"dropout: expected one rate, or 2 \(one per hidden layer\), got 1"):
        trainer.fit(X, y)
    trainer.dropout = 0.5
    trainer.fit(X, y)


def test_nothing_is_made_anew_without_a_change(problem):
    model, X, y = problem
    trainer = fastdl.Trainer(model, batch_size=9, epochs=1)
    trainer.fit(X, y)
    workspace, states = trainer._session.workspace, trainer._session.states
    trainer.epochs, trainer.schedule, trainer.optimizer = 2, schedules.Cosine(), fastdl.Adam(lr=0.5, beta2=0.9)
    trainer.l2, trainer.seed, trainer.dropout = 0.1, 4, 0.1
    trainer.fit(X, y)
    assert trainer._session.workspace is workspace
    assert trainer._session.states is states
    trainer.batch_size = 10
    trainer.fit(X, y)
    assert trainer._session.workspace is not workspace
    assert trainer._session.states is states


def test_more_and_fewer_rows(rng, problem):
    """The same trainer on data of other sizes, with and without weights, is as good as by hand."""
    model = problem[0]
    trainer = fastdl.Trainer(model, fastdl.Adam(0.01), epochs=1, **OLD)
    by_hand = ByHand(model, trainer.optimizer)
    for rows in (45, 9, 100, 10):
        X, y = make_data(rng, rows, LAYERS, "softmax")
        trainer.fit(X, y)
        by_hand.fit(X, y, 1, **OLD)
    np.testing.assert_allclose(model.parameters, by_hand.theta, rtol=1e-9, atol=1e-12)


# --- what a model is made of stays ---


@pytest.mark.parametrize("name", ["layers", "activations", "output", "dtype", "weights", "biases", "seed"])
def test_what_a_model_is_made_of_cannot_change(problem, name):
    model = problem[0]
    before = getattr(model, name)
    with pytest.raises(fastdl.InputError, match=f"{name}: expected a model to keep what it is made of"):
        setattr(model, name, before)
    assert getattr(model, name) is before


def test_parameters_that_are_assigned_go_into_the_buffer(problem):
    model = problem[0]
    buffer, weight = model.parameters, model.weights[0]
    model.parameters = np.arange(model.n_parameters)
    assert model.parameters is buffer
    assert weight[0, 1] == 1
    with pytest.raises(fastdl.InputError, match=r"parameters: expected 84 numbers of shape \(84,\), got shape \(3,\)"):
        model.parameters = np.ones(3)


def test_read_only_parameters_are_refused(problem):
    model, X, y = problem
    model.parameters.flags.writeable = False
    kept = model.parameters.copy()
    with pytest.raises(fastdl.InputError, match=r"parameters: expected memory that may be written to"):
        fastdl.Trainer(model, batch_size=9, epochs=1).fit(X, y)
    np.testing.assert_array_equal(model.parameters, kept)
    assert model.predict(X).shape == (ROWS,)


class ByHand:
    """A training in float64 NumPy that goes on from call to call."""

    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer
        self.theta, self.epochs, self.step = model.parameters.astype(np.float64), 0, 0
        self.forget()

    def forget(self):
        """No state any more; the optimizer counts its steps from 0."""
        self.states, self.first = [np.zeros(self.theta.size)] * self.optimizer.n_states, self.step

    def fit(self, X, y, epochs, batch_size, l2, clip_norm, seed, n_threads=1):
        batches = [batches_of(len(X), batch_size, seed, self.epochs + e) for e in range(epochs)]
        self.theta, _, self.states = go_on_by_hand(
            self.model,
            X,
            y,
            self.optimizer,
            batches,
            l2=l2,
            clip_norm=np.inf if clip_norm is None else clip_norm,
            start=(self.theta, self.states, self.step - self.first),
        )
        self.epochs += epochs
        self.step += sum(len(b) for b in batches)
