"""The average of the parameters that `AverageParameters` gives the model, against sums by hand."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from problems import make_data, make_model

import fastdl

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS, ROWS = [5, 9, 3], 45


class Recorder(fastdl.Callback):
    """The parameters after each epoch."""

    def __init__(self):
        self.seen = []

    def on_epoch_end(self, result):
        self.seen.append(self.trainer.model.parameters.copy())


def train(callbacks, epochs=4, fits=1, dtype="float64", **settings):
    model = make_model(LAYERS, "tanh", "softmax", dtype)
    X, y = make_data(np.random.default_rng(0), ROWS, LAYERS, "softmax")
    trainer = fastdl.Trainer(model, fastdl.Adam(0.05), 9, epochs, callbacks=callbacks, **settings)
    for _ in range(fits):
        history = trainer.fit(X, y, validation_data=(X, y))
    return model.parameters, history


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999999])
@pytest.mark.parametrize("epochs", [1, 2, 7])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_model_ends_with_the_average(decay, epochs, dtype):
    recorder = Recorder()
    got, history = train([recorder, fastdl.AverageParameters(decay)], epochs, dtype=dtype)
    shares = decay ** np.arange(epochs - 1, -1, -1.0)
    want = np.average(np.asarray(recorder.seen, np.float64), axis=0, weights=shares)
    np.testing.assert_allclose(
        got, want, rtol=1e-5 if dtype == "float32" else 1e-9, atol=1e-6 if dtype == "float32" else 1e-12
    )
    plain = Recorder()
    _, other = train([plain], epochs, dtype=dtype)
    np.testing.assert_array_equal(plain.seen, recorder.seen)  # the training is the same
    assert history.loss == other.loss
    assert history.val_loss == other.val_loss


def test_a_second_fit_goes_on_from_the_average():
    recorder, average = Recorder(), fastdl.AverageParameters(0.5)
    got, _ = train([recorder, average], 2, fits=2)
    first = np.average(recorder.seen[:2], axis=0, weights=[0.5, 1])
    np.testing.assert_allclose(got, np.average(recorder.seen[2:], axis=0, weights=[0.5, 1]), rtol=1e-9)
    assert np.abs(recorder.seen[2] - first).max() < np.abs(recorder.seen[2] - recorder.seen[1]).max() + 0.5
    assert average._average is None
    assert pickle.loads(pickle.dumps(average)) == average


def test_after_an_exception_the_model_keeps_what_it_learned():
    class Fails(fastdl.Callback):
        def on_epoch_end(self, result):
            if result.epoch == 3:
                raise RuntimeError("enough")

    model = make_model(LAYERS, "tanh", "softmax")
    X, y = make_data(np.random.default_rng(0), ROWS, LAYERS, "softmax")
    recorder = Recorder()
    with pytest.raises(RuntimeError, match="enough"):
        fastdl.Trainer(model, batch_size=9, callbacks=[recorder, fastdl.AverageParameters(), Fails()]).fit(X, y)
    np.testing.assert_array_equal(model.parameters, recorder.seen[-1])


def test_early_stopping_may_end_it_but_not_restore_the_best():
    stopping = fastdl.EarlyStopping(1, "loss", min_delta=100.0, restore_best=False)
    recorder = Recorder()
    got, _ = train([recorder, fastdl.AverageParameters(0.5)], 9, early_stopping=stopping)
    assert len(recorder.seen) == 2
    np.testing.assert_allclose(got, np.average(recorder.seen, axis=0, weights=[0.5, 1]), rtol=1e-9)
    with pytest.raises(
        fastdl.InputError, match=r"AverageParameters: expected no early stopping that restores the best epoch"
    ):
        train([fastdl.AverageParameters()], early_stopping=5)


@pytest.mark.parametrize("decay", [-0.1, 1, 1.5, float("nan"), "0.9", None])
def test_bad_input(decay):
    with pytest.raises(fastdl.InputError, match=r"AverageParameters: (expected decay|decay: expected)"):
        fastdl.AverageParameters(decay)
