"""Ways in which models and trainers are copied: each takes one and returns another."""

from __future__ import annotations

import copy
import functools
import io
import pickle
import tempfile
from pathlib import Path

import joblib


def _by_pickle(protocol, thing):
    return pickle.loads(pickle.dumps(thing, protocol))


def _out_of_band(thing):
    """Protocol 5, with the arrays beside the pickle, in memory that may not be written."""
    buffers = []
    data = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])


def _by_joblib(thing):
    file = io.BytesIO()
    joblib.dump(thing, file)
    file.seek(0)
    return joblib.load(file)


def _mapped(thing):
    """Through a file that joblib maps into memory that may not be written."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "thing")
        joblib.dump(thing, path)
        return joblib.load(path, mmap_mode="r")


def by_checkpoint(trainer):
    """A trainer through a file of fastdl's own; the classes of a test's own are given again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        trainer.save_checkpoint(path)
        settings = {name: getattr(trainer, name) for name in ("callbacks", "metrics", "schedule", "early_stopping")}
        return type(trainer).from_checkpoint(path, **settings)


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {k}": functools.partial(_by_pickle, k) for k in (2, 3, 4, 5)},
    "pickle 5, out of band": _out_of_band,
    "joblib": _by_joblib,
    "joblib, mapped": _mapped,
}
