"""Checkpoints of interrupted trainings, other data, things of the user's own; and the callback that writes them."""

from __future__ import annotations

import numpy as np
import pytest
from checkpointing import LAYERS, Saver, same_training, shorten_calls, trainer_of
from problems import make_data
from test_rollback import Cliff

import fastdl

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


# --- interrupted ---


class Interrupt(fastdl.Callback):
    def __init__(self, epoch, rows, error=KeyboardInterrupt):
        self.epoch, self.rows, self.error = epoch, rows, error

    def on_progress(self, epoch, rows_done):
        if epoch == self.epoch and rows_done >= self.rows:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_saved_after_an_interruption(data, path, error):
    trainer = trainer_of(callbacks=[Interrupt(3, 20, error)])
    with pytest.raises(error):
        trainer.fit(*data)
    trainer.save_checkpoint(path)
    again, whole = fastdl.Trainer.from_checkpoint(path, callbacks=[]), trainer_of()
    for each in (whole, again):
        each.fit(*data)
    same_training(whole, again)


def test_ctrl_c_as_a_native_call_returns(data, path, monkeypatch):
    """Where a signal's handler usually raises: the steps that were taken are counted."""
    calls = []
    trainer = trainer_of()
    trainer._current_session()
    native = trainer._session._train_batches

    def interrupted(*arguments):
        native(*arguments)
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer._session, "_train_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*data)
    trainer.save_checkpoint(path)
    again, whole = fastdl.Trainer.from_checkpoint(path), trainer_of()
    for each in (whole, again):
        each.fit(*data)
    same_training(whole, again)


def test_a_step_that_was_ended_in_its_middle_is_not_saved(data, path, monkeypatch):
    trainer = trainer_of(callbacks=[Interrupt(3, 20)])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*data)
    trainer._session._counted = False
    with pytest.raises(fastdl.InputError, match="interrupted in the middle"):
        trainer.save_checkpoint(path)
    assert not path.exists()


# --- other data, other settings, things of one's own ---


@pytest.fixture
def saved(data, path):
    trainer = trainer_of(callbacks=[Saver(path, 3, rows=20)], epochs=4)
    trainer.model.feature_names = list("abcdef")
    trainer.fit(*data, validation_data=data)
    return fastdl.Trainer.from_checkpoint(path, callbacks=[])


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda X, y: ((X[:-1], y[:-1]), (X, y)), "59 rows of X instead of 60"),
        (lambda X, y: ((changed(X, (5, 2), 0.5), y), (X, y)), "other values of X in column 'c'"),
        (lambda X, y: ((changed(X, (5, [1, 4]), 0.5), y), (X, y)), "other values of X in columns 'b', 'e'"),
        (lambda X, y: ((X[::-1], y), (X, y)), "X with its rows in another order"),
        (lambda X, y: ((X, (y + 1) % 3), (X, y)), "other values of y"),
        (lambda X, y: ((X, y), None), "no validation X"),
        (lambda X, y: ((X, y), (X, (y + 1) % 3)), "other values of validation y"),
        (lambda X, y: ((X, y), (X, y, np.arange(60) + 1)), "validation weights where there was none"),
    ],
)
def test_other_data_are_refused_and_the_difference_is_named(saved, data, change, words):
    train, valid = change(*data)
    with pytest.raises(fastdl.InputError, match=f"data: expected those that this training began with, got {words}"):
        saved.fit(*train, validation_data=valid)
    assert len(saved.fit(*data, validation_data=data)) == 4  # nothing was lost


def test_weights_are_data(saved, data):
    with pytest.raises(fastdl.InputError, match="sample_weight where there was none"):
        saved.fit(*data, validation_data=data, sample_weight=np.arange(60) + 1.0)


@pytest.mark.parametrize(("name", "value"), [("batch_size", 9), ("seed", 1)])
def test_what_an_epoch_is_cut_by_does_not_change_within_it(saved, data, name, value):
    setattr(saved, name, value)
    with pytest.raises(fastdl.InputError, match=f"{name}: expected .* as in the epoch that is under way, got {value}"):
        saved.fit(*data, validation_data=data)


def test_things_of_ones_own_must_be_given(data, path):
    class Mine(fastdl.Callback):
        pass

    def metric(y, predictions):
        return float(np.mean(y == predictions))

    settings = {"schedule": Cliff(10**9), "callbacks": [Mine(), Saver(path, 2)], "metrics": {"mine": metric}}
    whole = trainer_of(**settings, early_stopping=fastdl.EarlyStopping(50, "mine", mode="max"))
    whole.fit(*data, validation_data=data)
    given = {}
    for name, words in (
        ("schedule", r"schedule to be given.*\(Cliff\)"),
        ("callbacks", r"\(Mine, Saver\).*callbacks=\[\]"),
        ("metrics", r"\(mine\)"),
    ):
        with pytest.raises(fastdl.InputError, match=words):
            fastdl.Trainer.from_checkpoint(path, **given)
        given[name] = {**settings, "callbacks": []}[name]
    again = fastdl.Trainer.from_checkpoint(path, **given)
    again.fit(*data, validation_data=data)
    same_training(whole, again)


def test_fastdls_own_callbacks_come_back(data, path):
    keeper, plateau = fastdl.Checkpoint(path, 0.5), fastdl.ReduceOnPlateau(3, factor=0.25)
    trainer_of(callbacks=[keeper, plateau], epochs=2).fit(*data, validation_data=data)
    again = fastdl.Trainer.from_checkpoint(path)
    assert again.callbacks == [fastdl.Checkpoint(str(path), 0.5), plateau]


# --- the callback ---


def test_the_callback_saves_before_the_first_step_and_at_the_end(data, path):
    seen = []

    class Look(fastdl.Callback):
        _comes_last = True

        def on_train_begin(self, epochs, rows):
            seen.append(fastdl.Trainer.from_checkpoint(path, callbacks=[]))

    trainer = trainer_of(callbacks=[fastdl.Checkpoint(path, 1000.0), Look()], early_stopping=8)
    trainer.fit(*data, validation_data=data)
    begun, ended = seen[0], fastdl.Trainer.from_checkpoint(path, callbacks=[])
    assert (begun.steps_done, ended.steps_done) == (0, 90)
    assert begun._pending is not None
    assert ended._pending is None
    assert ended.model.parameters.tobytes() == trainer.model.parameters.tobytes()
    begun.fit(*data, validation_data=data)
    same_training(trainer, begun)
    trainer.callbacks = []
    for each in (trainer, ended):
        each.fit(*data, validation_data=data)
    same_training(trainer, ended)


def test_the_callback_saves_often_and_each_file_goes_on(data, path, tmp_path, monkeypatch):
    """After every native call; any of the files will do."""
    files = []

    class Numbered(fastdl.Checkpoint):
        def write(self):
            files.append(tmp_path / f"{len(files)}")
            self.path = files[-1]
            super().write()

    trainer = trainer_of(callbacks=[Numbered(path, 0.0)], epochs=3)
    trainer.fit(*data)
    assert len(files) > 10
    for file in files[:-1:4]:
        again = fastdl.Trainer.from_checkpoint(file, callbacks=[])
        again.fit(*data)
        same_training(trainer, again)


def test_the_callback_goes_on_when_the_disk_is_full(data, path, monkeypatch):
    """A warning on the way; an error before the first step and at the end, with the old file whole."""
    trainer = trainer_of(callbacks=[fastdl.Checkpoint(path, 0.0)], epochs=2)
    with pytest.raises(fastdl.InputError, match="cannot write there"):
        trainer_of(callbacks=[fastdl.Checkpoint(path / "no" / "folder")]).fit(*data)

    class Full(fastdl.Callback):
        def on_epoch_end(self, result):
            monkeypatch.setattr("os.fsync", full)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    trainer.callbacks.append(Full())
    with (
        pytest.warns(UserWarning, match="goes on without a new checkpoint.*No space left"),
        pytest.raises(fastdl.InputError, match="No space left on device"),
    ):
        trainer.fit(*data)
    assert len(trainer.history) == 2
    monkeypatch.undo()
    again = fastdl.Trainer.from_checkpoint(path, callbacks=[])
    again.fit(*data)
    same_training(trainer, again)


def test_bad_arguments_of_the_callback(path):
    with pytest.raises(fastdl.InputError, match="every_seconds"):
        fastdl.Checkpoint(path, -1)
    with pytest.raises(fastdl.InputError, match="name of a file"):
        fastdl.Checkpoint(3)


def test_a_model_is_no_checkpoint(path, data):
    fastdl.MLP([3, 2]).save(path)
    with pytest.raises(fastdl.ModelFileError, match="expected a fastdl checkpoint"):
        fastdl.Trainer.from_checkpoint(path)
    trainer_of().save_checkpoint(path)
    with pytest.raises(fastdl.ModelFileError, match="expected a fastdl model file"):
        fastdl.load(path)


def test_a_trainer_without_checkpoints_pays_nothing(data, monkeypatch):
    """No fingerprint is made where nobody saves."""
    monkeypatch.setattr("fastdl.training.under_way.fingerprint", lambda *_: pytest.fail("made a fingerprint"))
    trainer = trainer_of()
    trainer.fit(*data)
    assert trainer._fit is None


def test_the_callback_belongs_to_a_trainer(data, path):
    pytest.importorskip("sklearn")
    with pytest.raises(fastdl.InputError, match=r"a callback of fastdl\.Trainer"):
        fastdl.MLPClassifier(max_iter=2, callbacks=[fastdl.Checkpoint(path)]).fit(*data)
