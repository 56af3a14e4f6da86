"""The checkpoint of a run: kept while it trains, and read when it is resumed."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fastdl.cli.train_options import TrainOptions
from fastdl.errors import InputError, ModelFileError
from fastdl.files.archive import UNUSABLE, unusable
from fastdl.tables.data import TrainingData
from fastdl.training import checkpoint_file
from fastdl.training.callbacks import EpochResult
from fastdl.training.checkpoint import Checkpoint
from fastdl.training.trainer import Trainer

CHECKPOINT = "checkpoint.fastdl"
"""The name of the file in a run's folder."""
LONGEST_PAUSE = 30.0
"""Seconds between two writes at the most."""
PAUSES_PER_WRITE = 49.0
"""A pause takes at least so many times as long as the write before it: writing costs 2 % of the time."""


class Keeper(Checkpoint):
    """Keeps a run's checkpoint as it goes: as often as costs 2 % of the time, and at least every 30 seconds.

    Parameters
    ----------
    path : the file
    trainer : what is saved
    note : what a resumed run needs besides: see `note_of`
    say : what tells the user when a write on the way has failed
    """

    _only_watches = True
    _comes_last = True

    def __init__(self, path: Path, trainer: Trainer, note: dict[str, Any], say: Callable[[str], object]) -> None:
        super().__init__(path)
        self._trainer, self._note, self._say = trainer, note, say
        self._cost, self._failed = 0.0, False

    def write(self) -> None:
        """Write the checkpoint now."""
        start = time.monotonic()
        checkpoint_file.write(self._trainer, self.path, self._note)
        self._written = time.monotonic()
        self._cost = self._written - start

    def pause(self) -> float:
        """Seconds between two writes."""
        return min(LONGEST_PAUSE, PAUSES_PER_WRITE * self._cost)

    def on_epoch_end(self, result: EpochResult) -> None:
        """Write, if it is time or the last epoch."""
        last = result.epoch == result.epochs or self._trainer._stopped
        self._write_if_due(last)

    def on_train_end(self) -> None:
        """The file stays as the last epoch left it: with more epochs, a resumed run goes on from there."""

    def failed(self, error: InputError) -> None:
        """Say so once."""
        if not self._failed:
            self._say(f"the training goes on without a new checkpoint: {error}")
        self._failed = True

    def rescue(self) -> None:
        """Write after an interruption, if the training can be taken up exactly there; else the last checkpoint stays."""
        if self._trainer._fit is not None or self._trainer._pending is not None:
            with contextlib.suppress(InputError):
                self.write()


def note_of(options: TrainOptions, loaded: TrainingData) -> dict[str, Any]:
    """What a resumed run needs: the options, where they were typed, and what the data were like."""
    return {"options": asdict(options), "folder": os.getcwd(), "data": _facts(loaded)}


@dataclass(frozen=True)
class Kept:
    """The checkpoint of a run that was read.

    options : of `fastdl train`, with the data files as they are found from here
    facts : what the data were like
    done, batches : finished epochs, and batches of the one under way
    stopped : early stopping has ended the training
    """

    trainer: Trainer
    options: TrainOptions
    facts: dict[str, Any]
    done: int
    batches: int
    stopped: bool


def read(folder: Path) -> Kept:
    """The checkpoint in a run's folder.

    Raises
    ------
    ModelFileError : there is none, or it is truncated, altered or of another kind
    """
    path = folder / CHECKPOINT
    if not path.exists():
        raise ModelFileError(f"{folder}: expected the folder of a run with a {CHECKPOINT}, found none; train it anew")
    contents = checkpoint_file.read(path)
    if contents.pending is None or "options" not in contents.note:
        raise ModelFileError(
            f"{path}: expected the checkpoint of fastdl train, got one that Python wrote; use it there"
        )
    trainer = checkpoint_file.trainer_of(Trainer, contents, {"callbacks": []}, path)
    try:
        options = TrainOptions(**contents.note["options"])
        where = str(contents.note["folder"])
        options = replace(
            options, data=_found(options.data, where), validation_data=_found(options.validation_data, where)
        )
        facts = dict(contents.note["data"])
    except UNUSABLE as error:
        raise unusable(path, error) from error
    fit = contents.pending.fit
    return Kept(trainer, options, facts, len(contents.history), fit["batch"], fit["stopped"])


def check_data(kept: Kept, loaded: TrainingData) -> None:
    """Raise InputError, which names the difference, unless the data look as they did; their numbers are compared in `fit`."""
    names = {
        "rows": "rows",
        "features": "features",
        "feature_names": "the features",
        "targets": "the targets",
        "classes": "the classes",
    }
    now = _facts(loaded)
    for name, words in names.items():
        before, after = kept.facts.get(name), now[name]
        if before == after:
            continue
        if isinstance(before, list) and isinstance(after, list):
            new, gone = [str(v) for v in after if v not in before], [str(v) for v in before if v not in after]
            change = [f"new {', '.join(new[:5])}"] * bool(new) + [f"without {', '.join(gone[:5])}"] * bool(gone)
            what = f"{words} {' and '.join(change) or 'in another order'}"
        else:
            what = f"{after} {words} instead of {before}"
        raise InputError(
            f"{', '.join(map(str, loaded.files))}: expected the data that this run began with, got {what}; "
            f"restore them, or train anew"
        )


def _found(files: list[str], folder: str) -> list[str]:
    """Files that were typed in `folder`, as they are found from here."""
    if os.getcwd() == folder or list(files) == ["digits"]:
        return list(files)
    there = [Path(folder) / file for file in files]
    return [str(path) if path.exists() or "*" in file else file for path, file in zip(there, files)]


def _facts(loaded: TrainingData) -> dict[str, Any]:
    facts = {
        "rows": len(loaded.rows),
        "features": loaded.n_features,
        "feature_names": loaded.feature_names,
        "targets": list(loaded.targets.names),
        "classes": loaded.targets.classes,
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts, default=str))
    return plain
