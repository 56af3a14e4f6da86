"""An epoch is good when loss, validation loss and parameters are finite; otherwise everything goes back to the last good one."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass

import numpy as np
import pytest
from problems import make_data, make_model

import fastdl
from fastdl.schedules import Schedule
from fastdl.training import rollback

pytestmark = pytest.mark.usefixtures("one_thread")

FAST = {  # rates at which trainings end up in infinities
    "sgd": fastdl.SGD(1e20),
    "momentum": fastdl.Momentum(1e9),
    "nesterov": fastdl.Momentum(1e9, nesterov=True),
    "rmsprop": fastdl.RMSProp(1e25),
    "adam": fastdl.Adam(1e25),
    "adamw": fastdl.AdamW(1e25),
}


def state_of(trainer):
    training = trainer._session
    return [trainer.model.parameters.copy(), *(s.copy() for s in training.states)], (
        training.steps_done, trainer.steps_done, trainer.epochs_done
    )  # fmt: skip


def same(before, after):
    assert before[1] == after[1]
    for a, b in zip(before[0], after[0], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("clip_norm", [None, 1e35])
def test_divergence_rolls_everything_back(rng, name, clip_norm):
    """A copy that never diverged goes on with the same bits."""
    model = make_model([10, 16, 1], "relu", "linear", "float32")
    X, y = make_data(rng, 60, model.layers, "linear")
    slow = type(FAST[name])(lr=1e-3)
    trainer = fastdl.Trainer(model, slow, batch_size=20, epochs=3, clip_norm=clip_norm, dropout=0.2)
    trainer.fit(X, y)
    other, before = copy.deepcopy(trainer), state_of(trainer)
    trainer.optimizer = FAST[name]
    with pytest.raises(fastdl.DivergedError, match=r"lower the learning rate \(now 1e"):
        trainer.fit(X, y, validation_data=(X, y))
    good = len(trainer.history)
    if good == 0:
        same(before, state_of(trainer))
    assert np.isfinite(model.parameters).all()
    assert all(np.isfinite(s).all() for s in trainer._session.states)
    assert np.isfinite(trainer.history.loss + trainer.history.val_loss).all()
    if good == 0:
        trainer.optimizer = slow
        trainer.fit(X, y)
        other.fit(X, y)
        np.testing.assert_array_equal(model.parameters, other.model.parameters)


def test_recovery_after_momentum(rng):
    """The velocity goes back as well: with it, a lower rate would diverge again."""
    model = make_model([4, 6, 1], "identity", "linear")
    X, y = make_data(rng, 40, model.layers, "linear")
    trainer = fastdl.Trainer(model, fastdl.Momentum(1e60), batch_size=8, epochs=500)
    with pytest.raises(fastdl.DivergedError):
        trainer.fit(X, y)
    first = model.loss_and_gradient(X, y)[0]
    trainer.optimizer = fastdl.Momentum(1e-5)
    trainer.epochs = 20
    assert np.isfinite(trainer.fit(X, y).loss).all()
    assert model.loss_and_gradient(X, y)[0] <= first


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_last_step_of_an_epoch_is_looked_at(rng, dtype):
    """One batch per epoch: its loss is finite, and the parameters after it are not."""
    model = make_model([3, 2], "tanh", "linear", dtype)
    X, y = make_data(rng, 10, model.layers, "linear")
    huge = 1e30 if dtype == "float32" else 1e200
    y[3] = huge / (1e12 if dtype == "float32" else 1e80)
    start = model.parameters.copy()
    trainer = fastdl.Trainer(model, fastdl.SGD(lr=huge), batch_size=10, epochs=3)
    with pytest.raises(
        fastdl.DivergedError, match=r"parameters became NaN or infinite in epoch 1; .* before the training"
    ):
        trainer.fit(X, y)
    np.testing.assert_array_equal(model.parameters, start)
    assert len(trainer.history) == 0


def test_the_validation_loss_is_looked_at(rng):
    model = make_model([3, 2], "tanh", "linear", "float32")
    X, y = make_data(rng, 10, model.layers, "linear")
    far = np.full((2, 3), 3e38)
    start = model.parameters.copy()
    trainer = fastdl.Trainer(model, fastdl.SGD(lr=1e-3), batch_size=5, epochs=3)
    with pytest.raises(
        fastdl.DivergedError, match=r"the validation loss became (inf|nan) in epoch 1; .* before the training"
    ):
        trainer.fit(X, y, validation_data=(far, y[:2]))
    np.testing.assert_array_equal(model.parameters, start)
    assert (trainer.epochs_done, trainer.steps_done, len(trainer.history)) == (0, 0, 0)


def test_the_case_of_the_report(rng):
    """Losses of training that are finite while the validation loss is not."""
    Z = rng.normal(size=(200, 10)).astype("f4")
    v = Z.sum(1)
    for rate in (0.05, 0.1, 0.2, 0.4):
        model = fastdl.MLP([10, 64, 64, 64, 1], output="linear")
        trainer = fastdl.Trainer(model, fastdl.SGD(rate), batch_size=200, epochs=30)
        with contextlib.suppress(fastdl.DivergedError):
            trainer.fit(Z, v, validation_data=(Z, v))
        assert np.isfinite(trainer.history.val_loss).all()
        assert np.isfinite(model.predict(Z)).all()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_in_an_epoch_that_went_wrong(rng, error):
    """Parameters that are not finite do not stay, whatever ended the training."""
    model = make_model([4, 3], "tanh", "softmax")
    X, y = make_data(rng, 40, model.layers, "softmax")

    class Breaker(fastdl.Callback):
        def on_progress(self, epoch, rows_done):
            if epoch == 2:
                model.parameters[0] = np.nan
                raise error("now")

    trainer = fastdl.Trainer(model, batch_size=8, epochs=5, callbacks=[Breaker()])
    with pytest.raises(error, match="now"):
        trainer.fit(X, y)
    assert np.isfinite(model.parameters).all()
    other = make_model([4, 3], "tanh", "softmax")
    fastdl.Trainer(other, batch_size=8, epochs=1).fit(X, y)
    np.testing.assert_array_equal(model.parameters, other.parameters)
    assert trainer.steps_done == 5


@dataclass(frozen=True)
class Cliff(Schedule):
    """The rate as it is, until a step from which on it is far too large."""

    step: int = 0
    name = "cliff"

    def _rates(self, lr, t, begin, end):
        return np.where(t < self.step, lr, 1e300)


def fall(rng, epochs, good, **settings):
    """A trainer whose epoch after the `good` first ones went wrong, and one that made only these."""
    model = make_model([6, 9, 2], "tanh", "linear", "float32")
    X, y = make_data(rng, 50, model.layers, "linear")
    settings = {"batch_size": 20, "dropout": 0.3, "seed": 5, **settings}
    expected = fastdl.Trainer(copy.deepcopy(model), fastdl.Adam(0.01), epochs=good, **settings)
    expected.fit(X, y)
    trainer = fastdl.Trainer(model, fastdl.Adam(0.01), epochs=epochs, schedule=Cliff(3 * good), **settings)
    with pytest.raises(fastdl.DivergedError, match=f"epoch {good + 1}"):
        trainer.fit(X, y)
    return trainer, expected


@pytest.mark.parametrize("every", [0.0, 1e9], ids=["snapshot", "train-again"])
@pytest.mark.parametrize("batch_size", [20, 50])
def test_the_way_back_over_several_epochs(rng, monkeypatch, every, batch_size):
    """With a snapshot after each epoch, or trained again from the first: the same bits."""
    monkeypatch.setattr(rollback, "EPOCHS_PER_SNAPSHOT", every)
    good = 4 if batch_size == 20 else 12
    if batch_size == 50:
        monkeypatch.setattr(Cliff, "_rates", lambda self, lr, t, begin, end: np.where(t < good, lr, 1e300))
    trainer, expected = fall(rng, 15, good, batch_size=batch_size)
    same(state_of(expected), state_of(trainer))
    assert len(trainer.history) == good
    assert trainer.history.loss == expected.history.loss


def test_ctrl_c_on_the_way_back(rng, monkeypatch):
    """It ends at an earlier good epoch, with the history of that."""
    monkeypatch.setattr(rollback, "EPOCHS_PER_SNAPSHOT", 1e9)
    calls, epoch = [], fastdl.engine.Session.epoch

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 7:  # 4 good ones, a bad one, one again
            raise KeyboardInterrupt
        return epoch(self, *arguments)

    model = make_model([6, 9, 2], "tanh", "linear", "float32")
    X, y = make_data(rng, 50, model.layers, "linear")
    expected = fastdl.Trainer(copy.deepcopy(model), fastdl.Adam(0.01), batch_size=20, epochs=1)
    expected.fit(X, y)
    trainer = fastdl.Trainer(model, fastdl.Adam(0.01), batch_size=20, epochs=9, schedule=Cliff(12))
    monkeypatch.setattr(fastdl.engine.Session, "epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, y)
    assert len(trainer.history) == 1
    same(state_of(expected), state_of(trainer))


def test_a_callback_of_the_users_gets_a_snapshot_for_each_epoch(rng, monkeypatch):
    """What it does to the parameters between two epochs cannot be done again."""
    monkeypatch.setattr(rollback, "EPOCHS_PER_SNAPSHOT", 1e9)
    seen = []

    class Shrinks(fastdl.EarlyStopping):
        def on_epoch_end(self, result):
            self.trainer.model.parameters *= 0.5
            seen.append(self.trainer.model.parameters.copy())

    trainer, _ = fall(rng, 9, 4, callbacks=[Shrinks(monitor="loss")])
    # The last snapshot is of the end of the epoch, before the callback.
    np.testing.assert_array_equal(trainer.model.parameters * np.float32(0.5), seen[-1])
