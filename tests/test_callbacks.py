"""Callbacks: hooks, the trainer they see, stopping, plateaus, and metrics of one's own."""

from __future__ import annotations

import numpy as np
import pytest
from problems import make_data, make_model

import fastdl

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def problem(rng):
    return (make_model([4, 6, 3], "tanh", "softmax"), *make_data(rng, 40, [4, 6, 3], "softmax"))


def test_the_base_class_does_nothing(problem):
    model, X, y = problem
    other = make_model([4, 6, 3], "tanh", "softmax")
    fastdl.Trainer(model, batch_size=8, epochs=2, callbacks=[fastdl.Callback()]).fit(X, y)
    fastdl.Trainer(other, batch_size=8, epochs=2).fit(X, y)
    np.testing.assert_array_equal(model.parameters, other.parameters)


@pytest.mark.parametrize("hook", ["on_train_begin", "on_progress", "on_epoch_end", "on_train_end"])
def test_an_object_with_one_method_will_do(problem, hook):
    model, X, y = problem
    calls = []
    watcher = type("Watcher", (), {hook: lambda self, *arguments: calls.append(arguments)})()
    fastdl.Trainer(model, batch_size=8, epochs=3, callbacks=[watcher]).fit(X, y)
    want = {"on_train_begin": [(3, 40)], "on_train_end": [()]}
    if hook in want:
        assert calls == want[hook]
    elif hook == "on_epoch_end":
        assert [result.epoch for (result,) in calls] == [1, 2, 3]
    else:
        assert calls
        assert all(1 <= epoch <= 3 and 0 < rows <= 40 for epoch, rows in calls)


def test_the_trainer_is_there_during_a_fit(problem):
    model, X, y = problem
    seen = []

    class Looker(fastdl.Callback):
        def on_train_begin(self, epochs, rows):
            seen.append((self.trainer, len(self.trainer.history)))

        def on_epoch_end(self, result):
            seen.append((self.trainer, len(self.trainer.history)))
            assert self.trainer.history.loss[-1] == result.loss

        def on_train_end(self):
            seen.append((self.trainer, len(self.trainer.history)))

    looker = Looker()
    trainer = fastdl.Trainer(model, batch_size=8, epochs=2, callbacks=[looker])
    trainer.fit(X, y)
    assert seen == [(trainer, 0), (trainer, 1), (trainer, 2), (trainer, 2)]
    assert looker.trainer is None


def test_a_callback_that_stops(problem):
    model, X, y = problem

    class Stopper(fastdl.Callback):
        ended = 0

        def on_epoch_end(self, result):
            if result.loss < 0.9:
                self.trainer.stop()

        def on_train_end(self):
            self.ended += 1

    stopper = Stopper()
    trainer = fastdl.Trainer(model, fastdl.Adam(0.01), batch_size=8, epochs=200, callbacks=[stopper])
    history = trainer.fit(X, y)
    assert 1 < len(history) < 200
    assert history.loss[-1] < 0.9 <= min(history.loss[:-1])
    assert stopper.ended == 1
    trainer.epochs = 1
    assert len(trainer.fit(X, y)) == 1  # the next fit is a new one


def test_stopping_in_the_middle_ends_with_the_epoch(problem):
    model, X, y = problem
    stopper = type("S", (fastdl.Callback,), {"on_progress": lambda self, epoch, rows: self.trainer.stop()})()
    assert len(fastdl.Trainer(model, batch_size=8, epochs=9, callbacks=[stopper]).fit(X, y)) == 1


def test_no_train_end_after_an_exception(problem):
    model, X, y = problem
    calls = []

    class Failing(fastdl.Callback):
        def on_epoch_end(self, result):
            raise RuntimeError("no")

        def on_train_end(self):
            calls.append("end")

    failing = Failing()
    with pytest.raises(RuntimeError, match="no"):
        fastdl.Trainer(model, batch_size=8, epochs=9, callbacks=[failing]).fit(X, y)
    assert calls == []
    assert failing.trainer is None


def test_settings_that_a_callback_changes_hold_from_the_next_fit(problem):
    model, X, y = problem

    class Changer(fastdl.Callback):
        def on_epoch_end(self, result):
            self.trainer.batch_size, self.trainer.epochs = 20, 7

    trainer = fastdl.Trainer(model, batch_size=8, epochs=3, callbacks=[Changer()])
    assert len(trainer.fit(X, y)) == 3
    assert trainer.steps_done == 15
    assert len(trainer.fit(X, y)) == 7
    assert trainer.steps_done == 15 + 14


# --- early stopping as a callback; metrics of one's own ---


def absolute_error(y, predictions):
    return np.abs(y - predictions).mean()


def test_early_stopping_among_the_callbacks(problem):
    model, X, y = problem
    other = make_model([4, 6, 3], "tanh", "softmax")
    stopping = fastdl.EarlyStopping(2)
    a = fastdl.Trainer(model, fastdl.Adam(0.05), 8, 60, early_stopping=2).fit(X[:20], y[:20], (X[20:], y[20:]))
    b = fastdl.Trainer(other, fastdl.Adam(0.05), 8, 60, callbacks=[stopping]).fit(X[:20], y[:20], (X[20:], y[20:]))
    assert a.val_loss == b.val_loss
    assert a.best_epoch == b.best_epoch < len(a) < 60
    np.testing.assert_array_equal(model.parameters, other.parameters)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_metric_of_ones_own(rng, mode):
    """It gets targets and predictions in the units of the data, and decides which epoch was the best."""
    X = rng.normal(size=(60, 3))
    y = 100 * X[:, 0] + 500
    model = fastdl.MLP([3, 4, 1], "tanh", output="linear").standardize(X[:40], y[:40])
    trainer = fastdl.Trainer(
        model, fastdl.Adam(0.05), 10, 15, metrics={"mine": absolute_error},
        early_stopping=fastdl.EarlyStopping(100, monitor="mine", mode=mode),
    )  # fmt: skip
    history = trainer.fit(X[:40], y[:40], validation_data=(X[40:], y[40:]))
    assert list(history.metrics) == ["rmse", "r2", "mine"]
    values = history.metrics["mine"]
    assert history.best_epoch == int(np.argmin(values) if mode == "min" else np.argmax(values)) + 1
    assert values[history.best_epoch - 1] == pytest.approx(absolute_error(y[40:], model.predict(X[40:])), rel=1e-6)


def test_a_metric_of_classes_gets_classes(problem):
    model, X, y = problem
    trainer = fastdl.Trainer(model, batch_size=8, epochs=2, metrics={"hits": lambda y, p: (y == p).sum()})
    history = trainer.fit(X, y, validation_data=(X, y))
    np.testing.assert_allclose(history.metrics["hits"], 40 * np.array(history.metrics["accuracy"]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metrics": {"mine": 3}}, "metrics: expected a dictionary from names to functions"),
        ({"metrics": {"accuracy": max}}, "metrics: expected names of your own, got 'accuracy'"),
        ({"metrics": {"val_loss": max}}, "metrics: expected names of your own, got 'val_loss'"),
        (
            {"early_stopping": fastdl.EarlyStopping(3, monitor="mine")},
            "expected monitor to be one of val_loss, loss, accuracy",
        ),
        (
            {"metrics": {"mine": max}, "early_stopping": fastdl.EarlyStopping(3, monitor="mine")},
            "expected mode='min' or mode='max' with monitor='mine'",
        ),
        ({"callbacks": [fastdl.Callback]}, r"callbacks: expected objects, got the class Callback; use Callback\(\)"),
        ({"callbacks": [3]}, "callbacks: expected objects with at least one of the methods"),
        ({"callbacks": fastdl.Callback()}, r"callbacks: expected a list of objects, got Callback; use \[callback\]"),
    ],
)
def test_bad_input(problem, options, words):
    with pytest.raises(fastdl.InputError, match=words):
        fastdl.Trainer(problem[0], **options)


def test_a_metric_that_fails_is_named(problem):
    model, X, y = problem
    trainer = fastdl.Trainer(model, batch_size=8, epochs=2, metrics={"mine": lambda y, p: "no"})
    with pytest.raises(fastdl.InputError, match=r"metrics\['mine'\]: expected a function of \(y, predictions\)"):
        trainer.fit(X, y, validation_data=(X, y))


# --- plateaus ---


def test_reduce_on_plateau(problem):
    """By hand: the rate after each epoch, from the losses alone."""
    model, X, y = problem
    rates = []

    class Looker(fastdl.Callback):
        def on_epoch_end(self, result):
            rates.append(self.trainer.rate_factor)

    plateau = fastdl.ReduceOnPlateau(2, monitor="loss", factor=0.1, lowest=1e-3)
    trainer = fastdl.Trainer(model, fastdl.SGD(20.0), 40, 60, callbacks=[plateau, Looker()])
    losses = trainer.fit(X, y).loss
    want, factor, best, waited = [], 1.0, np.inf, 0
    for loss in losses:
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
        if waited == 2:
            factor, waited = max(1e-3, 0.1 * factor), 0
        want.append(factor)
    np.testing.assert_allclose(rates, want)
    assert want[-1] < 1
    # The epochs that follow are trained at that rate: a step of plain gradient descent, by hand.
    before = model.parameters.copy()
    gradient = model.loss_and_gradient(X, y)[1]
    trainer.epochs, trainer.callbacks = 1, []
    trainer.fit(X, y)
    np.testing.assert_allclose(model.parameters, before - 20.0 * rates[-1] * gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", [{"factor": 1.0}, {"factor": 0.0}, {"lowest": 2.0}, {"patience": 0}, {"mode": "up"}])
def test_bad_plateaus(bad):
    with pytest.raises(fastdl.InputError, match="ReduceOnPlateau: "):
        fastdl.ReduceOnPlateau(**bad)


# --- weights ---


def test_validation_weights(rng):
    """A weight of 3 is the row three times, for the loss and for the metrics."""
    for output, n_out in (("softmax", 3), ("sigmoid", 2), ("linear", 2)):
        X, y = make_data(rng, 30, [4, n_out], output)
        w = rng.integers(0, 4, 30)
        several = np.repeat(np.arange(30), w)
        results = []
        for data in ((X, y, w), (X[several], y[several])):
            model = make_model([4, 6, n_out], "tanh", output)
            results.append(fastdl.Trainer(model, batch_size=10, epochs=2).fit(X, y, validation_data=data))
        assert results[0].val_loss == pytest.approx(results[1].val_loss, rel=1e-9)
        for name, values in results[0].metrics.items():
            assert values == pytest.approx(results[1].metrics[name], rel=1e-9), name


def test_class_weights_are_row_weights(problem):
    _, X, y = problem
    weights = {0: 2.0, 1: 0.5}
    mine = np.linspace(1, 2, 40)
    models = [make_model([4, 6, 3], "tanh", "softmax") for _ in range(4)]
    fastdl.Trainer(models[0], batch_size=8, epochs=2, class_weight=weights).fit(X, y, sample_weight=mine)
    by_hand = np.array([2.0, 0.5, 1.0])[y] * mine
    fastdl.Trainer(models[1], batch_size=8, epochs=2).fit(X, y, sample_weight=by_hand)
    np.testing.assert_array_equal(models[0].parameters, models[1].parameters)
    fastdl.Trainer(models[2], batch_size=8, epochs=2, class_weight="balanced").fit(X, y)
    fastdl.Trainer(models[3], batch_size=8, epochs=2).fit(X, y, sample_weight=1 / np.bincount(y)[y])
    np.testing.assert_allclose(models[2].parameters, models[3].parameters, rtol=1e-12)


@pytest.mark.parametrize(
    ("layers", "output", "value"),
    [
        ([4, 3], "softmax", {3: 1.0}), ([4, 3], "softmax", "equal"), ([4, 3], "softmax", {0: -1.0}), ([4, 1], "linear", {0: 1.0}),
        ([4, 2], "sigmoid", "balanced"), ([4, 3], "softmax", [1, 2, 3]),
    ],
)  # fmt: skip
def test_bad_class_weights(layers, output, value):
    with pytest.raises(fastdl.InputError, match="class_weight: expected"):
        fastdl.Trainer(fastdl.MLP(layers, output=output), class_weight=value)
