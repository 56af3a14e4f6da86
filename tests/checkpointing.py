"""Trainings that save checkpoints, and how two of them are compared."""

from __future__ import annotations

from problems import make_model

import fastdl
from fastdl import schedules
from fastdl.engine import session

LAYERS = [6, 9, 3]
SETTINGS = {"batch_size": 7, "l2": 0.01, "dropout": 0.2, "seed": 4, "clip_norm": 5.0}
PLAN = schedules.Warmup(5, schedules.Cosine())  # over the whole of a fit


def shorten_calls(monkeypatch):
    """Python gets its turn after few steps, so that epochs have places to be saved at."""
    monkeypatch.setattr(session, "SECONDS_PER_CALL", 0.0)
    monkeypatch.setattr("fastdl.engine.thread_tuner.SECONDS_PER_CALL", 1e-6)
    monkeypatch.setattr("fastdl.engine.thread_tuner.TRIAL_SECONDS", 1e-6)


class Saver(fastdl.Callback):
    """Saves once: at `epoch`, when `rows` of it (or more) are done; None: at its end."""

    def __init__(self, path, epoch, rows=None):
        self.path, self.epoch, self.rows, self.saved = path, epoch, rows, None

    def on_progress(self, epoch, rows_done):
        if epoch == self.epoch and self.rows is not None and rows_done >= self.rows and self.saved is None:
            self.saved = rows_done
            self.trainer.save_checkpoint(self.path)

    def on_epoch_end(self, result):
        if result.epoch == self.epoch and self.rows is None:
            self.trainer.save_checkpoint(self.path)


def trainer_of(dtype="float32", model=None, **settings):
    model = model or make_model(LAYERS, "tanh", "softmax", dtype)
    return fastdl.Trainer(model, **{**SETTINGS, "epochs": 10, "schedule": PLAN, **settings})


def same_training(a, b):
    """Bitwise the same parameters, optimizer states and history, but for times."""
    assert a.model.parameters.tobytes() == b.model.parameters.tobytes()
    for mine, other in zip(a._session.states, b._session.states, strict=True):
        assert mine.tobytes() == other.tobytes()
    assert (a.steps_done, a.epochs_done) == (b.steps_done, b.epochs_done)
    mine, other = a.history, b.history
    assert (mine.loss, mine.val_loss, mine.metrics, mine.best_epoch) == (
        other.loss, other.val_loss, other.metrics, other.best_epoch
    )  # fmt: skip
    assert len(mine.epoch_seconds) == len(other.epoch_seconds)
