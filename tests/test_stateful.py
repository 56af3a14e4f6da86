"""Random sequences of what users do with a trainer: whatever came before, the next fit does what it says.

The same sequence is played on three trainers that differ in their number of threads only (hypothesis chooses the steps and
shrinks what fails to the shortest sequence). After each step the trainers agree to the last bit, views are views of the
parameters, and every number is finite; after each fit the parameters are those of the oracle in `by_hand`, which knows
nothing of what the trainer keeps from one call to the next.

    scripts/test tests/test_stateful.py                           500 sequences, the same ones each time
    FASTDL_SEQUENCES=1000 scripts/test tests/test_stateful.py     so many new ones, drawn at random
"""

from __future__ import annotations

import copy
import dataclasses
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from by_hand import ByHand, Settings, epochs_until_stopped, validation_values
from copying import COPIES, by_checkpoint
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import fastdl
from fastdl import schedules

SEQUENCES = int(os.environ.get("FASTDL_SEQUENCES", "0"))
STEPS = 12  # of a sequence at the most
THREADS = (1, 2, 3)
HUGE = 1e300  # a learning rate with which every training diverges

# layers, activation, output, dtype, standardised?
MODELS = (
    ((3, 5, 1), "tanh", "linear", "float64", True),
    ((4, 6, 4, 2), "relu", "linear", "float32", False),
    ((3, 5, 3), "sigmoid", "softmax", "float64", False),
    ((4, 7, 2), "tanh", "softmax", "float32", False),
    ((3, 4, 1), "leaky_relu", "sigmoid", "float64", False),
    ((4, 4, 4, 2), "tanh", "sigmoid", "float32", True),
)

OPTIMIZERS = (
    fastdl.SGD(lr=0.05),
    fastdl.SGD(lr=0.01),
    fastdl.Momentum(lr=0.05),
    fastdl.Momentum(lr=0.02, beta=0.5, nesterov=True),
    fastdl.RMSProp(lr=1e-3),
    fastdl.Adam(lr=0.01),
    fastdl.Adam(lr=1e-3, beta1=0.5, beta2=0.9, eps=1e-6),
    fastdl.AdamW(lr=0.01, weight_decay=0.1),
)

CHANGES = st.one_of(
    st.tuples(st.just("optimizer"), st.sampled_from(OPTIMIZERS)),
    st.tuples(st.just("batch_size"), st.sampled_from([1, 2, 3, 5, 8, 40])),
    st.tuples(st.just("epochs"), st.integers(1, 4)),
    st.tuples(st.just("l2"), st.sampled_from([0.0, 0.01, 0.1])),
    st.tuples(st.just("clip_norm"), st.sampled_from([None, 0.05, 1.0])),
    st.tuples(st.just("dropout"), st.sampled_from([0.0, 0.0, 0.3])),
    st.tuples(st.just("seed"), st.integers(0, 5)),
    st.tuples(
        st.just("schedule"),
        st.sampled_from(
            [schedules.Constant(), schedules.Cosine(), schedules.Step(3), schedules.Warmup(4, schedules.Cosine(20))]
        ),
    ),
    st.tuples(
        st.just("early_stopping"),
        st.sampled_from([None, None, 1, fastdl.EarlyStopping(1, "loss"), fastdl.EarlyStopping(2, restore_best=False)]),
    ),
)


class Recorder(fastdl.Callback):
    """Keeps the parameters after each epoch, and presses Ctrl-C after some."""

    def __init__(self, model, interrupt_after=None):
        self.model, self.interrupt_after = model, interrupt_after
        self.parameters = []

    def on_epoch_end(self, *_):
        self.parameters.append(self.model.parameters.copy())
        if len(self.parameters) == self.interrupt_after:
            raise KeyboardInterrupt


def make(index):
    """A model of the table; each call gives the same one."""
    layers, activation, output, dtype, standardised = MODELS[index]
    model = fastdl.MLP(layers, activation, output, seed=index, dtype=dtype)
    if standardised:
        X, y, _ = data_for(model, 30, 0, False)
        model.standardize(X, y if output == "linear" else None)
    return model


def data_for(model, rows, seed, weighted):
    """(X, y, weights or None); the targets can be learned."""
    rng = np.random.default_rng((seed, rows))
    X = rng.normal(size=(rows, model.layers[0]))
    scores = X[:, :1] * np.arange(1, model.layers[-1] + 1) + 0.3 * rng.normal(size=(rows, model.layers[-1]))
    y = scores
    if model.output == "softmax":
        y = scores.argmax(axis=1)
    elif model.output == "sigmoid":
        y = (scores > 0).astype(np.float64)
    return X, y, 0.1 + rng.random(rows) if weighted else None


ROWS = st.sampled_from([8, 13, 21, 40, 7, 2])
DATA = st.tuples(ROWS, st.integers(0, 3), st.booleans())  # rows, seed, weights?


class Training(RuleBasedStateMachine):
    """Three trainers, the settings that they were given, and the oracle."""

    @initialize(index=st.integers(0, len(MODELS) - 1), optimizer=st.sampled_from(OPTIMIZERS))
    def begin(self, index, optimizer):
        self.settings = Settings(optimizer, batch_size=5)
        self.threads = list(THREADS)
        self._begin([make(index) for _ in THREADS])

    def _begin(self, models):
        self._begin_by_hand()
        self.trainers = [
            fastdl.Trainer(model, n_threads=n, **self.settings.as_dict())
            for model, n in zip(models, self.threads, strict=True)
        ]

    def _begin_by_hand(self):
        """Counts and states begin at zero; `interrupted` is (data, validation, settings) of a fit that Ctrl-C has ended."""
        self.by_hand, self.interrupted = ByHand(), None

    # --- steps ---

    @rule(changes=st.lists(CHANGES, min_size=1, max_size=3), data=DATA, validation=st.none() | DATA)
    def change_settings_and_fit(self, changes, data, validation):
        """By assignment."""
        for name, value in changes:
            setattr(self.settings, name, value)
            for trainer in self.trainers:
                setattr(trainer, name, value)
        self._fit(data, validation)

    @rule(by=st.integers(1, 2))
    def turn_threads(self, by):
        """Each trainer gets another one's number of threads."""
        self.threads = self.threads[by:] + self.threads[:by]
        for trainer, n in zip(self.trainers, self.threads, strict=True):
            trainer.n_threads = n

    @rule(index=st.integers(0, len(MODELS) - 1))
    def change_model(self, index):
        """Another model, with which everything begins: states, steps, the order of the rows."""
        for trainer in self.trainers:
            trainer.model = make(index)
        self._begin_by_hand()

    @rule(factor=st.sampled_from([0.5, -1.0]))
    def change_parameters(self, factor):
        """In place, as who sets weights does."""
        for trainer in self.trainers:
            trainer.model.weights[0][:] *= factor

    @rule()
    def start_anew(self):
        """New trainers for the models as they are."""
        self._begin([trainer.model for trainer in self.trainers])

    @rule(data=DATA, validation=st.none() | DATA)
    def fit(self, data, validation):
        self._fit(data, validation)

    @rule(data=DATA, validation=st.none() | DATA, after=st.integers(1, 3))
    def interrupted_fit(self, data, validation, after):
        """Ctrl-C at the end of an epoch, if the training gets so far."""
        self._fit(data, validation, interrupt_after=after)

    @rule(data=DATA, validation=st.none() | DATA)
    def diverge_and_recover(self, data, validation):
        """A huge rate, and then the one of before: as if the attempt had never been made, if its first epoch failed."""
        before, settings = [copy.deepcopy(trainer) for trainer in self.trainers], self.settings
        parameters = self.trainers[0].model.parameters.copy()
        optimizer = dataclasses.replace(settings.optimizer, lr=HUGE)
        for trainer in self.trainers:
            trainer.optimizer = optimizer
        self.settings = dataclasses.replace(settings, optimizer=optimizer)
        outcome = self._fit(data, validation, may_diverge=True)
        self.settings = settings
        for trainer in self.trainers:
            trainer.optimizer = settings.optimizer
        if outcome == "DivergedError" and len(self.trainers[0].history) == 0:
            np.testing.assert_array_equal(self.trainers[0].model.parameters, parameters)
            for trainer in before:
                self._outcome(trainer, data, validation, None)
            self._fit(data, validation)
            self._agree([*self.trainers, *before])
        else:  # it has learned huge parameters
            for trainer in self.trainers:
                trainer.model.parameters[:] = parameters
            self.start_anew()

    @rule(way=st.sampled_from(sorted({**COPIES, "checkpoint": None})), data=DATA)
    def copy_trainers(self, way, data):
        """The copies go on as the originals would; one from a checkpoint of a fit that was interrupted finishes it."""
        interrupted, self.interrupted = self.interrupted, None
        if way == "checkpoint" and interrupted is not None:
            if interrupted[2] == self.settings:
                self._finish(interrupted)
                return
            way = "deepcopy"
        originals = self.trainers
        if way == "copy":
            originals = [copy.deepcopy(trainer) for trainer in self.trainers]
        self.trainers = [{**COPIES, "checkpoint": by_checkpoint}[way](trainer) for trainer in self.trainers]
        for original, trainer in zip(originals, self.trainers, strict=True):
            assert not np.shares_memory(original.model.parameters, trainer.model.parameters)
        for trainer in originals:
            self._outcome(trainer, data, None, None)
        self._fit(data, None)
        self._agree([*self.trainers, *originals])

    @rule(way=st.sampled_from(sorted(COPIES)))
    def copy_models(self, way):
        """The trainers go on with copies of their models: other models, with which everything begins."""
        for trainer in self.trainers:
            original = trainer.model
            trainer.model = COPIES[way](original)
            np.testing.assert_array_equal(trainer.model.parameters, original.parameters)
            assert not np.shares_memory(trainer.model.parameters, original.parameters)
        self._begin_by_hand()

    @rule()
    def save_and_load(self):
        """The model of the file is the model."""
        model = self.trainers[0].model
        X, _, _ = data_for(model, 13, 9, False)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.fastdl"
            model.save(path)
            loaded = fastdl.load(path)
        np.testing.assert_array_equal(loaded.parameters, model.parameters)
        np.testing.assert_array_equal(loaded.predict(X), model.predict(X))

    @rule(rows=ROWS, data=st.data())
    def predict(self, rows, data):
        """The same for each of the trainers, whatever the memory that the rows lie in."""
        X, _, _ = data_for(self.trainers[0].model, rows, 9, False)
        wanted = self.trainers[0].model.predict(X)
        form = data.draw(st.sampled_from([np.asfortranarray, list, lambda a: np.repeat(a, 2, 0)[::2], np.float64]))
        for trainer in self.trainers:
            np.testing.assert_array_equal(trainer.model.predict(form(X)), wanted)

    # --- what a fit must do ---

    def _outcome(self, trainer, data, validation, interrupt_after):
        """(how a fit ended, the parameters after each of its epochs)."""
        X, y, w = data_for(trainer.model, *data)
        recorder = Recorder(trainer.model, interrupt_after)
        trainer.callbacks = [recorder]
        if validation is not None:
            validation = data_for(trainer.model, *validation)
            validation = validation[:2] if validation[2] is None else validation
        try:
            history = trainer.fit(X, y, validation_data=validation, sample_weight=w)
            assert history is trainer.history
            return "finished", recorder.parameters
        except (fastdl.InputError, fastdl.DivergedError, KeyboardInterrupt) as error:
            return type(error).__name__, recorder.parameters
        finally:
            trainer.callbacks = []

    def _fit(self, data, validation, interrupt_after=None, may_diverge=False):
        """Fit all three and compare; returns how it ended."""
        trainer, settings = self.trainers[0], self.settings
        start = trainer.model.parameters.copy()
        found = [self._outcome(t, data, validation, interrupt_after) for t in self.trainers]
        (outcome, recorded), *others = found
        for other, parameters in others:
            assert other == outcome
            np.testing.assert_array_equal(parameters, recorded)
        stopping = settings.early_stopping
        stopping = fastdl.EarlyStopping(stopping) if isinstance(stopping, int) else stopping
        cannot_watch = stopping is not None and stopping.monitor != "loss" and validation is None
        if settings.batch_size > data[0] or cannot_watch:
            assert outcome == "InputError"
        if outcome == "InputError":
            assert settings.batch_size > data[0] or cannot_watch
            np.testing.assert_array_equal(trainer.model.parameters, start)
            return outcome
        assert outcome != "DivergedError" or may_diverge
        interrupted = outcome == "KeyboardInterrupt"
        self.interrupted = (data, validation, dataclasses.replace(settings)) if interrupted else None
        self._agree(self.trainers)
        history = trainer.history
        assert len(recorded) == len(history)
        self._check_history(history, validation)
        learned = self.by_hand.fit(trainer.model, start, settings, data_for(trainer.model, *data), len(history))
        assert (trainer.epochs_done, trainer.steps_done) == (self.by_hand.epochs, self.by_hand.steps)
        if learned is not None and not may_diverge:
            np.testing.assert_allclose(recorded, learned[0], rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(history.loss, learned[1], rtol=1e-8)
        last = len(history)
        if outcome == "finished":
            last = self._check_stopping(history, stopping)
        # The parameters are those of an epoch that was good.
        np.testing.assert_array_equal(trainer.model.parameters, recorded[last - 1] if last else start)
        if validation is not None and last:
            self._check_validation(trainer.model, history, data_for(trainer.model, *validation), last - 1)
        return outcome

    def _finish(self, interrupted):
        """Have copies from checkpoints do the epochs that Ctrl-C has left out."""
        data, validation, settings = interrupted
        done = copy.deepcopy(self.trainers[0].history)
        self.trainers = [by_checkpoint(trainer) for trainer in self.trainers]
        other = (data[0], data[1] + 1, data[2])
        for trainer in self.trainers:
            assert self._outcome(trainer, other, validation, None) == ("InputError", [])
            outcome, recorded = self._outcome(trainer, data, validation, None)
            assert (outcome, len(recorded)) == ("finished", len(trainer.history) - len(done))
            assert trainer.history.loss[: len(done)] == done.loss
        self._agree(self.trainers)
        self._check_stopping(self.trainers[0].history, settings.early_stopping)
        self.start_anew()

    def _check_stopping(self, history, stopping):
        """The epoch whose parameters the model must have."""
        stopping = fastdl.EarlyStopping(stopping) if isinstance(stopping, int) else stopping
        if stopping is None:
            assert (len(history), history.best_epoch) == (self.settings.epochs, None)
            return len(history)
        assert (len(history), history.best_epoch) == epochs_until_stopped(history, stopping, self.settings.epochs)
        return history.best_epoch if stopping.restore_best else len(history)

    def _check_history(self, history, validation):
        """Every value of an epoch that counts is finite, and there is one for each."""
        values = [history.loss, *([history.val_loss, *history.metrics.values()] if validation is not None else [])]
        for column in values:
            assert len(column) == len(history)
            assert np.isfinite(column).all()

    def _check_validation(self, model, history, validation, epoch):
        wanted = validation_values(model, *validation)
        found = {"val_loss": history.val_loss, **history.metrics}
        tolerance = 1e-9 if model.dtype == np.float64 else 1e-4
        for name, value in wanted.items():
            assert found[name][epoch] == pytest.approx(value, rel=tolerance, abs=tolerance), name

    def _agree(self, trainers):
        first = trainers[0]
        for trainer in trainers[1:]:
            np.testing.assert_array_equal(trainer.model.parameters, first.model.parameters)
            assert (trainer.epochs_done, trainer.steps_done) == (first.epochs_done, first.steps_done)
            for name in ("loss", "val_loss", "metrics", "best_epoch"):
                assert getattr(trainer.history, name) == getattr(first.history, name), name

    # --- what holds after every step ---

    @precondition(lambda self: hasattr(self, "trainers"))
    @invariant()
    def sound(self):
        for trainer in self.trainers:
            model = trainer.model
            flat = model.parameters
            assert flat.flags.carray
            assert flat.dtype == model.dtype
            assert np.isfinite(flat).all()
            at = flat.ctypes.data
            for weight, bias in zip(model.weights, model.biases, strict=True):
                for view in (weight, bias):
                    assert view.ctypes.data == at
                    at += view.nbytes
            assert at == flat.ctypes.data + flat.nbytes
        self._agree(self.trainers)


@pytest.mark.usefixtures("thread_counts")
def test_sequences_of_steps():
    options = (
        {"max_examples": SEQUENCES, "derandomize": False, "print_blob": True} if SEQUENCES else {"max_examples": 500}
    )
    run_state_machine_as_test(
        Training,
        settings=settings(
            deadline=None, database=None, stateful_step_count=STEPS, suppress_health_check=list(HealthCheck), **options
        ),
    )
