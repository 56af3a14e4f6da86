"""Trainer and History: what they report, what ends a training, and going on with a second fit."""

from __future__ import annotations

import _thread
import signal
import threading

import numpy as np
import pytest
import reference
from problems import TASKS, batches_seen, make_data, make_model

import fastdl
from fastdl.optimizers import OPTIMIZERS

pytestmark = pytest.mark.usefixtures("one_thread")


class Recorder(fastdl.Callback):
    """Keeps what the trainer told, and the parameters after each epoch."""

    def __init__(self, model, stop_after=None, error=KeyboardInterrupt):
        self.model, self.stop_after, self.error = model, stop_after, error
        self.begun, self.progress, self.results, self.parameters = [], [], [], []

    def on_train_begin(self, epochs, rows):
        self.begun.append((epochs, rows))

    def on_progress(self, epoch, rows_done):
        self.progress.append((epoch, rows_done))

    def on_epoch_end(self, result):
        self.results.append(result)
        self.parameters.append(self.model.parameters.copy())
        if result.epoch == self.stop_after:
            raise self.error("from a callback")


@pytest.fixture
def problem(rng):
    """A float64 classifier and 40 rows."""
    model = make_model([4, 6, 3], "tanh", "softmax")
    return (model, *make_data(rng, 40, model.layers, "softmax"))


# --- history and callbacks ---


def test_history_has_one_value_per_epoch(problem):
    model, X, y = problem
    trainer = fastdl.Trainer(model, epochs=7, batch_size=16)
    history = trainer.fit(X, y, validation_data=(X[:9], y[:9]))
    assert history is trainer.history
    assert isinstance(history, fastdl.History)
    assert len(history) == 7
    assert [len(v) for v in (history.loss, history.val_loss, history.epoch_seconds)] == [7, 7, 7]
    assert {name: len(values) for name, values in history.metrics.items()} == {"accuracy": 7}
    assert all(type(v) is float for v in history.loss + history.val_loss + history.epoch_seconds)
    assert min(history.epoch_seconds) >= 0


def test_history_without_validation_data(problem):
    model, X, y = problem
    history = (
        fastdl.Trainer(model, epochs=2).fit(X, y)
        if len(X) >= 64
        else fastdl.Trainer(model, epochs=2, batch_size=8).fit(X, y)
    )
    assert (history.val_loss, history.metrics) == ([], {})
    assert len(history.loss) == 2


def test_training_lowers_the_loss(problem):
    model, X, y = problem
    history = fastdl.Trainer(model, fastdl.Adam(lr=0.01), batch_size=8, epochs=30).fit(X, y)
    assert history.loss[-1] < 0.8 * history.loss[0]
    assert model.loss_and_gradient(X, y)[0] < 0.8 * history.loss[0]


def test_callbacks(problem):
    model, X, y = problem
    recorders = Recorder(model), Recorder(model)
    trainer = fastdl.Trainer(model, epochs=3, batch_size=8, callbacks=recorders)
    history = trainer.fit(X, y, validation_data=(X, y))
    for recorder in recorders:
        assert recorder.begun == [(3, 40)]
        assert [(r.epoch, r.epochs, r.rows) for r in recorder.results] == [(1, 3, 40), (2, 3, 40), (3, 3, 40)]
        assert [r.loss for r in recorder.results] == history.loss
        assert [r.val_loss for r in recorder.results] == history.val_loss
        assert [r.metrics["accuracy"] for r in recorder.results] == history.metrics["accuracy"]
        assert [r.seconds for r in recorder.results] == history.epoch_seconds
        assert all(1 <= epoch <= 3 and 0 <= rows <= 40 for epoch, rows in recorder.progress)
        assert recorder.progress == sorted(recorder.progress)
        np.testing.assert_array_equal(recorder.parameters[-1], model.parameters)
        assert not np.array_equal(recorder.parameters[0], recorder.parameters[1])


def test_callback_without_validation(problem):
    model, X, y = problem
    recorder = Recorder(model)
    fastdl.Trainer(model, epochs=1, batch_size=8, callbacks=[recorder]).fit(X, y)
    assert (recorder.results[0].val_loss, recorder.results[0].metrics) == (None, {})


# --- validation ---


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_validation_equals_numpy(rng, task, dtype):
    """val_loss is the plain mean loss, without weights and penalty, after the epoch; metrics as NumPy has them."""
    output, n_out = TASKS[task]
    model = make_model([4, 6, n_out], "tanh", output, dtype)
    X, y = make_data(rng, 40, model.layers, output)
    Xv, yv = make_data(rng, 27, model.layers, output)
    Xv = Xv.astype(dtype)
    trainer = fastdl.Trainer(model, epochs=2, batch_size=8, l2=0.1)
    history = trainer.fit(X, y, validation_data=(Xv, yv), sample_weight=rng.random(40))
    layers, activations = model.layers, [(a.name, a.alpha) for a in model.activations]
    raw = reference.network_forward(layers, activations, model.parameters, Xv)[1][-1]
    targets = yv if output == "softmax" else yv.astype(dtype).astype(np.float64)
    rtol = 1e-12 if dtype == "float64" else 1e-5
    assert history.val_loss[-1] == pytest.approx(reference.LOSS_ROWS[output](raw, targets)[0].mean(), rel=rtol)
    if output == "softmax":
        want = {"accuracy": np.mean(raw.argmax(axis=1) == yv)}
    elif output == "sigmoid":
        want = {"accuracy": np.mean((raw > 0) == (yv == 1))}
    else:
        residual, total = ((raw - yv) ** 2).sum(axis=0), ((yv - yv.mean(axis=0)) ** 2).sum(axis=0)
        want = {"rmse": np.sqrt(((raw - yv) ** 2).mean()), "r2": np.mean(1 - residual / total)}
    assert {k: v[-1] for k, v in history.metrics.items()} == {k: pytest.approx(v, rel=rtol) for k, v in want.items()}


def test_regression_metrics_are_in_the_units_of_the_data(rng):
    X = rng.normal(size=(50, 3))
    y = 1000 * X[:, 0] + 5000 + rng.normal(size=50)
    model = fastdl.MLP([3, 1], output="linear", dtype="float64").standardize(X, y)
    history = fastdl.Trainer(model, fastdl.SGD(lr=0.3), 50, 200).fit(X, y, validation_data=(X, y))
    residual = model.predict(X) - y
    assert history.metrics["rmse"][-1] == pytest.approx(np.sqrt((residual**2).mean()), rel=1e-9)
    assert history.metrics["r2"][-1] == pytest.approx(1 - (residual**2).sum() / ((y - y.mean()) ** 2).sum(), rel=1e-12)
    assert history.val_loss[-1] == pytest.approx((residual**2).mean() / y.var(), rel=1e-9)
    assert 0.5 < history.metrics["rmse"][-1] < 2


def test_validation_does_not_change_the_training(problem):
    model, X, y = problem
    other = make_model([4, 6, 3], "tanh", "softmax")
    fastdl.Trainer(model, epochs=3, batch_size=8).fit(X, y, validation_data=(X[:5], y[:5]))
    fastdl.Trainer(other, epochs=3, batch_size=8).fit(X, y)
    np.testing.assert_array_equal(model.parameters, other.parameters)


def test_the_data_is_not_changed(problem):
    model, X, y = problem
    kept = X.copy(), y.copy()
    fastdl.Trainer(model, epochs=2, batch_size=8).fit(X, y, validation_data=(X, y))
    np.testing.assert_array_equal(X, kept[0])
    np.testing.assert_array_equal(y, kept[1])


# --- going on ---


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fit_twice_goes_on(rng, name, dtype):
    """fit(5) and fit(5) are fit(10), to the last bit: optimizer state, step count and epoch count are kept."""
    models = [make_model([4, 9, 3], "relu", "softmax", dtype) for _ in range(2)]
    X, y = make_data(rng, 30, [4, 3], "softmax")
    weight = rng.random(30)
    trainer = fastdl.Trainer(models[0], OPTIMIZERS[name](), batch_size=7, epochs=5, l2=0.01, seed=3)
    parts = [trainer.fit(X, y, sample_weight=weight) for _ in range(2)]
    whole = fastdl.Trainer(models[1], OPTIMIZERS[name](), batch_size=7, epochs=10, l2=0.01, seed=3)
    history = whole.fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(models[0].parameters, models[1].parameters)
    assert parts[0].loss + parts[1].loss == history.loss
    assert trainer.history is parts[1]


def test_a_new_trainer_starts_anew(problem):
    """Optimizer state belongs to the trainer, parameters to the model."""
    model, X, y = problem
    start = model.parameters.copy()
    results = []
    for _ in range(2):
        model.parameters[:] = start
        fastdl.Trainer(model, fastdl.Adam(lr=0.1), epochs=2, batch_size=8).fit(X, y)
        results.append(model.parameters.copy())
    np.testing.assert_array_equal(results[0], results[1])


def test_the_parameter_buffer_stays_the_same_object(problem):
    model, X, y = problem
    buffer, weight = model.parameters, model.weights[0]
    before = weight.copy()
    fastdl.Trainer(model, epochs=1, batch_size=8).fit(X, y)
    assert model.parameters is buffer
    assert model.weights[0] is weight
    assert (weight != before).any()


# --- what ends a training early ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_size", [8, 40])
def test_divergence(rng, dtype, batch_size):
    """A rate far too high ends in DivergedError; the model keeps the parameters of the last good epoch."""
    model = make_model([4, 6, 2], "identity", "linear", dtype)
    X, y = make_data(rng, 40, model.layers, "linear")
    recorder = Recorder(model)
    trainer = fastdl.Trainer(model, fastdl.SGD(lr=3.0), batch_size, 1000, callbacks=[recorder])
    start = model.parameters.copy()
    with pytest.raises(fastdl.DivergedError, match=r"epoch (\d+), batch (\d+)") as caught:
        trainer.fit(X, y)
    message = str(caught.value)
    assert "lower the learning rate" in message
    assert "3" in message
    assert "\n" not in message
    finished = len(recorder.results)
    assert f"epoch {finished + 1}," in message
    assert len(trainer.history) == finished < 1000
    assert np.isfinite(trainer.history.loss).all()
    np.testing.assert_array_equal(model.parameters, recorder.parameters[-1] if finished else start)
    assert np.isfinite(model.parameters).all()


@pytest.mark.parametrize("poison", [1e200, 1e308])
def test_divergence_names_the_batch(rng, poison):
    """One row whose squared error overflows: the message names the batch that holds it."""
    batches = batches_seen(30, 4, epochs=1)[0]
    batch = next(k for k, rows in enumerate(batches, 1) if 17 in rows)
    model = make_model([3, 1], "identity", "linear")
    start = model.parameters.copy()
    X, y = make_data(rng, 30, model.layers, "linear")
    y[17] = poison
    trainer = fastdl.Trainer(model, fastdl.SGD(lr=1e-3), batch_size=4, epochs=5)
    with pytest.raises(
        fastdl.DivergedError, match=rf"the loss became inf in epoch 1, batch {batch};.*before the training"
    ):
        trainer.fit(X, y)
    np.testing.assert_array_equal(model.parameters, start)
    assert len(trainer.history) == 0


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "linear"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "tanh", "identity"])
def test_nan_is_noticed_through_every_activation_and_loss(rng, output, activation):
    """A NaN weight in the first layer reaches the loss."""
    model = make_model([3, 20, 2], activation, output, "float32")
    X, y = make_data(rng, 30, model.layers, output)
    model.weights[0][1, 18] = np.nan
    with pytest.raises(fastdl.DivergedError, match=r"the loss became nan in epoch 1, batch 1\b"):
        fastdl.Trainer(model, batch_size=30, epochs=1).fit(X, y)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_in_a_callback_ends_the_training(problem, error):
    """The model is usable, the history holds the finished epochs, and a later fit goes on from there."""
    model, X, y = problem
    recorder = Recorder(model, stop_after=3, error=error)
    trainer = fastdl.Trainer(model, epochs=5, batch_size=8, callbacks=[recorder])
    with pytest.raises(error, match="from a callback"):
        trainer.fit(X, y, validation_data=(X, y))
    assert len(recorder.results) == 3
    assert len(trainer.history) == len(trainer.history.val_loss) == len(trainer.history.metrics["accuracy"]) == 3
    np.testing.assert_array_equal(model.parameters, recorder.parameters[-1])
    other = make_model([4, 6, 3], "tanh", "softmax")
    fastdl.Trainer(other, epochs=3, batch_size=8).fit(X, y)
    np.testing.assert_array_equal(model.parameters, other.parameters)
    assert model.predict(X).shape == (40,)
    recorder.stop_after = None
    assert len(trainer.fit(X, y)) == 5


@pytest.mark.parametrize("n_rows", [64, 20_000], ids=["tiny-epochs", "long-epochs"])
def test_control_c(rng, n_rows):
    """An interrupt in the middle of a training that would take hours ends it between two batches."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's is ignored
    model = make_model([8, 16, 3], "relu", "softmax", "float32")
    X, y = make_data(rng, n_rows, model.layers, "softmax")
    recorder = Recorder(model)
    trainer = fastdl.Trainer(model, epochs=1_000_000, batch_size=2, callbacks=[recorder])
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(X, y)
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert abs(len(trainer.history) - len(recorder.results)) <= 1
    assert np.isfinite(model.parameters).all()
    assert model.predict(X[:5]).shape == (5,)
