"""Checkpoints: a training that is saved anywhere and taken up elsewhere comes to the bits of one that was never interrupted."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from checkpointing import LAYERS, Saver, same_training, shorten_calls, trainer_of
from problems import TASKS, make_data, make_model
from processes import run_program
from test_rollback import Cliff

import fastdl
from fastdl import schedules
from fastdl.optimizers import OPTIMIZERS
from fastdl.training import checkpoint_file

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def short_calls(monkeypatch):
    shorten_calls(monkeypatch)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "c.fastdl"


@pytest.fixture
def data(rng):
    return make_data(rng, 60, LAYERS, "softmax")


# --- between two calls of fit ---


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_five_epochs_saved_and_five_more(data, path, name, dtype):
    """As ten, and as two fits of five for a schedule that runs over a fit."""
    settings = {"optimizer": OPTIMIZERS[name](), "schedule": schedules.Step(20)}
    whole = trainer_of(dtype, **settings)
    whole.fit(*data)
    first = trainer_of(dtype, **settings, epochs=5)
    first.fit(*data)
    first.save_checkpoint(path)
    again = fastdl.Trainer.from_checkpoint(path)
    assert again.model is not first.model
    assert (again.steps_done, again.epochs_done, again.history) == (first.steps_done, 5, first.history)
    assert again.record() == first.record()
    again.fit(*data)
    first.fit(*data)
    same_training(again, first)
    assert again.model.parameters.tobytes() == whole.model.parameters.tobytes()


@pytest.mark.parametrize("task", TASKS)
def test_every_task_and_a_model_of_everything(rng, path, task):
    output, n_out = TASKS[task]
    model = make_model([4, 5, n_out], [fastdl.LeakyReLU(0.1)], output, "float32")
    X, y = make_data(rng, 30, model.layers, output)
    model.standardize(X * 3 + 1, y * 2 if output == "linear" else None)
    model.feature_names, model.metadata = ["a", "b", "c", "π"], {"note": [1, 2.5, None]}
    weight = rng.random(30)
    trainer = fastdl.Trainer(model, batch_size=8, epochs=2)
    trainer.fit(X, y, sample_weight=weight)
    trainer.save_checkpoint(path)
    again = fastdl.Trainer.from_checkpoint(path)
    assert again.model.metadata == model.metadata
    assert repr(again.model) == repr(model)
    for each in (trainer, again):
        each.fit(X, y, sample_weight=weight)
    same_training(trainer, again)


def test_before_the_first_fit(data, path):
    trainer = trainer_of()
    trainer.save_checkpoint(path)
    again = fastdl.Trainer.from_checkpoint(path)
    for each in (trainer, again):
        each.fit(*data)
    same_training(trainer, again)


def test_a_checkpoint_of_what_a_checkpoint_gave(data, path, tmp_path):
    """Loaded and saved again, unused: the same file, and the same training."""
    trainer_of(callbacks=[Saver(path, 4, rows=20)]).fit(*data)
    fastdl.Trainer.from_checkpoint(path, callbacks=[]).save_checkpoint(tmp_path / "again")
    again = checkpoint_file.read(tmp_path / "again")
    assert again.pending.fit == checkpoint_file.read(path).pending.fit
    whole, resumed = trainer_of(), fastdl.Trainer.from_checkpoint(tmp_path / "again")
    for each in (whole, resumed):
        each.fit(*data)
    same_training(whole, resumed)


def test_another_model_begins_anew(data, path):
    trainer = trainer_of()
    trainer.fit(*data)
    trainer.model = make_model([6, 4, 3], "relu", "softmax", "float32")
    trainer.save_checkpoint(path)
    again = fastdl.Trainer.from_checkpoint(path)
    for each in (trainer, again):
        each.fit(*data)
    same_training(trainer, again)


# --- while fit is under way ---


@pytest.mark.parametrize("rows", [None, 1, 30, 60], ids=["end", "begin", "middle", "all"])
@pytest.mark.parametrize("settings", [{}, {"early_stopping": fastdl.EarlyStopping(20)}, {"batch_size": 60}], ids=str)
def test_saved_within_an_epoch(data, path, rows, settings):
    """The rest of the epoch, its recorded loss, schedules over the whole fit, early stopping: as if nothing had been."""
    settings = copy.deepcopy(settings)
    saver = Saver(path, 4, rows)
    whole = trainer_of(callbacks=[saver], **settings)
    whole.fit(*data, validation_data=(data[0][:20], data[1][:20]))
    again = fastdl.Trainer.from_checkpoint(path, callbacks=[])
    place = checkpoint_file.read(path).pending.place
    if rows in (1, 30) and whole.batch_size == 7:
        assert 0 < place.batch < 9
    history = again.fit(*data, validation_data=(data[0][:20], data[1][:20]))
    assert len(history) == 10
    same_training(whole, again)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_in_another_process_with_another_number_of_threads(data, path, tmp_path, threads):
    X, y = data
    np.savez(tmp_path / "data.npz", X=X, y=y)
    whole = trainer_of(callbacks=[Saver(path, 4, rows=20)], early_stopping=fastdl.EarlyStopping(30))
    whole.fit(X, y, validation_data=(X[:20], y[:20]))
    contents = checkpoint_file.read(path)
    trainer = fastdl.Trainer.from_checkpoint(path, callbacks=[])
    trainer.save_checkpoint(path)  # without the class of this test's own
    assert contents.pending.place.batch > 0
    run_program(
        "resumed_training.py",
        str(path),
        str(tmp_path / "data.npz"),
        str(tmp_path / "out.npz"),
        NUMBA_NUM_THREADS=threads,
    )
    with np.load(tmp_path / "out.npz") as out:
        assert out["parameters"].tobytes() == whole.model.parameters.tobytes()
        loss, val_loss, metrics = json.loads(str(out["history"]))
    assert (loss, val_loss, metrics) == (whole.history.loss, whole.history.val_loss, whole.history.metrics)


def stopping_case(rng):
    X, y = make_data(rng, 40, LAYERS, "softmax")
    return (X, y), make_data(rng, 40, LAYERS, "softmax")


@pytest.mark.parametrize("epoch", [1, 3, 5])
@pytest.mark.parametrize("saver_first", [True, False])
def test_early_stopping_and_plateaus_watch_on(rng, path, epoch, saver_first):
    """Whether they had been told of the epoch when it was saved or not."""
    train, valid = stopping_case(rng)

    def settings(*more):
        watchers = [fastdl.ReduceOnPlateau(1), *more]
        return {
            "callbacks": watchers[::-1] if saver_first else watchers,
            "early_stopping": fastdl.EarlyStopping(7),
            "optimizer": fastdl.Adam(0.03),
            "epochs": 60,
            "schedule": None,
        }

    whole = trainer_of(**settings(Saver(path, epoch)))
    whole.fit(*train, validation_data=valid)
    assert epoch < len(whole.history) < 60
    again = fastdl.Trainer.from_checkpoint(path, callbacks=[fastdl.ReduceOnPlateau(1)])
    again.fit(*train, validation_data=valid)
    same_training(whole, again)
    assert again.rate_factor == whole.rate_factor < 1


def test_a_training_that_was_stopped_stays_so(rng, path):
    """Saved in the epoch in which early stopping ended it, behind it: the best parameters come back, and no epoch."""
    train, valid = stopping_case(rng)
    settings = {"optimizer": fastdl.Adam(0.03), "epochs": 60, "schedule": None}
    whole = trainer_of(**settings, early_stopping=2)
    last = len(whole.fit(*train, validation_data=valid))

    class Late(Saver):
        _comes_last = True

    trainer_of(**settings, early_stopping=2, callbacks=[Late(path, last)]).fit(*train, validation_data=valid)
    again = fastdl.Trainer.from_checkpoint(path, callbacks=[])
    assert len(again.fit(*train, validation_data=valid)) == last
    same_training(whole, again)


def test_more_epochs_go_on(data, path):
    whole = trainer_of(schedule=None)
    whole.fit(*data)
    trainer_of(schedule=None, epochs=4, callbacks=[Saver(path, 3, rows=10)]).fit(*data)
    again = fastdl.Trainer.from_checkpoint(path, callbacks=[])
    again.epochs = 10
    again.fit(*data)
    same_training(whole, again)
    again = fastdl.Trainer.from_checkpoint(path, callbacks=[])
    again.epochs = 1
    with pytest.raises(fastdl.InputError, match="epochs: expected at least the 2 that are done, got 1"):
        again.fit(*data)


@pytest.mark.parametrize("optimizer", [fastdl.Adam(0.01), fastdl.Momentum(0.1), fastdl.SGD(0.1)], ids=lambda o: o.name)
@pytest.mark.parametrize("l2", [0.0, 0.01])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_sparse_inputs_in_the_middle_of_an_epoch(rng, path, optimizer, l2, clip_norm):
    """Rows of weights that wait for their columns are brought up to date in the file."""
    sparse = pytest.importorskip("scipy.sparse")
    X = sparse.random(64, 50, 0.05, "csr", dtype=np.float32, random_state=3)
    y = rng.integers(0, 3, 64)
    settings = {"optimizer": optimizer, "l2": l2, "clip_norm": clip_norm, "batch_size": 4}
    whole = trainer_of(model=make_model([50, 9, 3], "tanh", "softmax", "float32"), **settings)
    whole.fit(X, y)
    saver = Saver(path, 3, rows=20)
    saving = trainer_of(model=make_model([50, 9, 3], "tanh", "softmax", "float32"), **settings, callbacks=[saver])
    saving.fit(X, y)
    same_training(whole, saving)  # saving changes nothing
    assert 0 < saver.saved < 64
    again = fastdl.Trainer.from_checkpoint(path, callbacks=[])
    again.fit(X, y)
    same_training(whole, again)


def test_another_training_after_the_resumed_one(data, path):
    """A further fit begins a history of its own, as ever."""
    whole = trainer_of(callbacks=[Saver(path, 4, rows=20)])
    whole.fit(*data)
    again = fastdl.Trainer.from_checkpoint(path, callbacks=[])
    again.fit(*data)
    whole.callbacks = []
    for each in (whole, again):
        assert len(each.fit(*data)) == 10
    same_training(whole, again)


def test_divergence_after_it_was_taken_up(rng, path):
    """The model keeps finite numbers: those of the last good epoch since, or of the checkpoint."""
    X, y = make_data(rng, 50, LAYERS, "softmax")
    trainer = trainer_of(schedule=None, callbacks=[Saver(path, 2, rows=20)])
    trainer.fit(X, y)
    again = fastdl.Trainer.from_checkpoint(path, callbacks=[])
    again.schedule = Cliff(8 * 3)
    with pytest.raises(fastdl.DivergedError, match="epoch 4"):
        again.fit(X, y)
    good = trainer_of(schedule=None, epochs=3)
    good.fit(X, y)
    same_training(good, again)
