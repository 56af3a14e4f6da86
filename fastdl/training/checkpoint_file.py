"""Checkpoints as files: all that a training needs to go on to the same bits, in an archive that executes nothing.

`checkpoint.json` holds the model's description, the settings, counters, history, and where the training is; beside it are the
parameters, the optimizer's states, and the parameters that early stopping has kept. What is Python code cannot be kept:
callbacks, metrics, schedules of the user's own, which have to be given again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from fastdl._version import __version__
from fastdl.engine import State
from fastdl.errors import InputError
from fastdl.files import archive
from fastdl.files.archive import UNUSABLE, unusable
from fastdl.model import MLP
from fastdl.network import aligned_zeros
from fastdl.training.averaging import AverageParameters
from fastdl.training.checkpoint import Checkpoint
from fastdl.training.early_stopping import EarlyStopping, ReduceOnPlateau
from fastdl.training.history import History
from fastdl.training.settings import SETTINGS
from fastdl.training.under_way import Kept, Pending

CHECKPOINT = archive.Kind("fastdl checkpoint", "checkpoint.json", "fastdl-checkpoint", (1,))
CALLBACKS: dict[str, Any] = {cls.__name__: cls for cls in (EarlyStopping, ReduceOnPlateau, Checkpoint)}
"""Callbacks that a checkpoint brings back."""
REPLACEABLE = ("schedule", "early_stopping")
"""Settings that may be a class of the user's own, which no file can hold."""


STORED = ("optimizer", "decay_schedule", "dropout_schedule")
"""Settings that must be of fastdl's classes."""


class Contents(NamedTuple):
    """A checkpoint that was read.

    settings : of the trainer, but for those that are `missing`: (setting, class of the user's own)
    note : what the writer has added
    """

    model: MLP
    settings: dict[str, Any]
    missing: list[tuple[str, str]]
    rate_factor: float
    epochs_done: int
    history: History
    kept: Kept | None
    pending: Pending | None
    note: dict[str, Any]


def write(
    trainer: Any, path: str | os.PathLike[str], note: Mapping[str, Any] | None = None
) -> None:  # fmt: skip
    """Write a trainer to `path`, and a `note` of plain values.

    Raises
    ------
    InputError : it cannot be written, or was interrupted in the middle of a step
    """
    kept: Kept | None = trainer._keep()
    if kept is not None and kept.model is not trainer.model:  # another model has been set since: everything begins anew
        kept = None
    fit = None if kept is None else trainer._fit
    pending: Pending | None = None if kept is None else trainer._pending
    if fit is not None:
        pending = fit.now(trainer, trainer._session)
    values = fit.settings if fit is not None else {name: getattr(trainer, name) for name in SETTINGS}
    settings, own = _plain_settings(values)
    arrays: dict[str, NDArray] = {"parameters": trainer.model.parameters}
    state = None
    if kept is not None:
        states = [s for s in kept.state.states if s.size]
        arrays |= {f"state{i}": s for i, s in enumerate(states)}
        optimizer = _plain_settings({"optimizer": kept.optimizer})[0]["optimizer"]
        state = {
            "optimizer": optimizer,
            "steps_done": kept.state.steps_done,
            "updates_done": kept.state.updates_done,
            "states": len(states),
        }
    if pending is not None:
        arrays |= {f"best{i}": best for i, best in pending.best.items()}
    description = {
        "fastdl": __version__,
        "model": trainer.model._description(),
        "settings": settings,
        "own": own,
        "n_threads": values["n_threads"],
        "rate_factor": trainer.rate_factor,
        "epochs_done": trainer.epochs_done,
        "history": dict(vars(trainer.history)),
        "state": state,
        "fit": None if pending is None else {**pending.fit, "watchers": pending.watchers},
        "note": dict(note or {}),
    }
    if trainer.ranks is None or trainer.ranks.is_first:  # the others have helped to gather what it holds
        archive.write(path, CHECKPOINT, description, arrays)


def read(path: str | os.PathLike[str]) -> Contents:
    """What a file of `write` holds.

    Raises
    ------
    ModelFileError : the file is missing, of another kind, truncated or altered
    """
    description, arrays = archive.read(path, CHECKPOINT)
    try:
        return _contents(description, arrays)
    except UNUSABLE as error:
        raise unusable(path, error) from error


def _plain_settings(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings as plain values, and what there is of the user's own: (settings, setting -> names of classes)."""
    settings: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name, value in values.items():
        setting = SETTINGS[name]
        if setting.plain is None:
            continue
        plain = setting.plain(value)
        if name in (*REPLACEABLE, *STORED) and not _comes_back(setting.read, plain, value):
            if name in STORED:
                raise InputError(f"{name}: expected one of fastdl's, which a file can hold, got {value!r}")
            own[name] = type(value).__name__
            continue
        settings[name] = plain
    if "callbacks" in values:
        if any(isinstance(c, AverageParameters) for c in values["callbacks"]):
            raise InputError(
                "save_checkpoint: expected no AverageParameters among the callbacks, since no file holds its average so far; "
                "leave it or the checkpoint out"
            )
        settings["callbacks"] = [
            {"class": type(c).__name__, "settings": c.describe()}
            for c in values["callbacks"]
            if type(c) is CALLBACKS.get(type(c).__name__)
        ]
        users = [type(c) for c in values["callbacks"] if type(c).__module__.split(".")[0] != "fastdl"]
        own |= {"callbacks": [cls.__name__ for cls in users], "metrics": list(values["metrics"])}
    return settings, own


def _comes_back(read: Any, plain: Any, value: Any) -> bool:
    """Whether a file's plain values make the same object again; a subclass of the user's own does not come back."""
    try:
        again = read(plain)
    except UNUSABLE:
        return False
    return type(again) is type(value) and again == value


def _contents(description: dict[str, Any], arrays: dict[str, NDArray]) -> Contents:
    from fastdl.tables.model import model_of

    model = model_of(description["model"], arrays["parameters"])
    told, own = description["settings"], description["own"]
    missing = [(name, str(own[name])) for name in REPLACEABLE if own.get(name)]
    missing += [(name, ", ".join(map(str, own[name]))) for name in ("callbacks", "metrics") if own[name]]
    settings: dict[str, Any] = {"n_threads": description["n_threads"]}
    for name, setting in SETTINGS.items():
        if setting.plain is not None and name not in dict(missing):
            settings[name] = setting.read(told[name])
    settings["callbacks"] = [CALLBACKS[c["class"]](**c["settings"]) for c in told["callbacks"]]
    values = description["history"]
    history = History(
        _numbers(values["loss"]),
        _numbers(values["val_loss"]),
        {str(name): _numbers(series) for name, series in values["metrics"].items()},
        _numbers(values["epoch_seconds"]),
        None if values["best_epoch"] is None else _count(values["best_epoch"]),
    )
    return Contents(
        model,
        settings,
        missing,
        float(description["rate_factor"]),
        _count(description["epochs_done"]),
        history,
        _kept(description["state"], arrays, model),
        _pending(description["fit"], arrays, model, history),
        dict(description["note"]),
    )


def _kept(values: Any, arrays: Mapping[str, NDArray], model: MLP) -> Kept | None:
    if values is None:
        return None
    optimizer = SETTINGS["optimizer"].read(values["optimizer"])
    if values["states"] != optimizer.n_states:
        raise ValueError(f"expected {optimizer.n_states} states of {optimizer.name}, got {values['states']!r}")
    given = [_like_parameters(arrays[f"state{i}"], model) for i in range(optimizer.n_states)]
    states = given + [aligned_zeros(0, model.dtype) for _ in range(2 - len(given))]
    return Kept(model, optimizer, State(states, _count(values["steps_done"]), _count(values["updates_done"])))


def _pending(values: Any, arrays: Mapping[str, NDArray], model: MLP, history: History) -> Pending | None:
    if values is None:
        return None
    counts = {name: _count(values[name]) for name in ("first_step", "batch", "rows", "batch_size", "seed")}
    factor = values["rate_factor"]
    fit = {
        **counts,
        "loss_sum": float(values["loss_sum"]),
        "rate_factor": None if factor is None else float(factor),
        "stopped": bool(values["stopped"]),
        "fingerprint": dict(values["fingerprint"]),
    }
    series = [history.epoch_seconds, *history.metrics.values(), *([history.val_loss] if history.val_loss else [])]
    if any(len(column) != len(history) for column in series):
        raise ValueError("expected a history with one value for each epoch that is done")
    watchers = [
        {
            "class": str(w["class"]),
            "monitor": str(w["monitor"]),
            "progress": {
                "best": float(w["progress"]["best"]),
                "waited": _count(w["progress"]["waited"]),
                "seen": _count(w["progress"]["seen"]),
            },
        }
        for w in values["watchers"]
    ]
    best = {i: arrays[f"best{i}"] for i in range(len(watchers)) if f"best{i}" in arrays}
    return Pending(fit, watchers, {i: _like_parameters(array, model) for i, array in best.items()})


def _like_parameters(array: NDArray, model: MLP) -> NDArray:
    if array.shape != model.parameters.shape or array.dtype != model.dtype:
        raise ValueError(f"expected {model.n_parameters} numbers in {model.dtype}, got {array.size} in {array.dtype}")
    return array


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**62:
        raise ValueError(f"expected a count, got {value!r:.99}")
    return value


def _numbers(values: Any) -> list[float]:
    if not isinstance(values, list) or not all(type(v) in (int, float) for v in values):
        raise ValueError("expected a list of numbers")
    return [float(v) for v in values]


def trainer_of(kind: Any, found: Contents, given: Mapping[str, Any], path: str | os.PathLike[str]) -> Any:
    """A trainer (of the class `kind`) that goes on from what the file `path` held; `given` are settings instead of the file's.

    Raises
    ------
    InputError : the training had something of the user's own that is not given
    ModelFileError : the settings that the file states are impossible
    """
    for name, classes in found.missing:
        if given.get(name) is None:
            empty = {"callbacks": "[]", "metrics": "{}"}.get(name)
            without = f", or {name}={empty} to go on without" if empty else ""
            raise InputError(
                f"{path}: expected {name} to be given, since this training had some of your own ({classes}), which no file "
                f"can hold; use from_checkpoint(path, {name}=...){without}"
            )
    named = {name: value for name, value in given.items() if value is not None}
    trainer = kind(found.model, **named)
    try:
        for name in SETTINGS:
            if name in found.settings and name not in named:
                setattr(trainer, name, found.settings[name])
        trainer.rate_factor = found.rate_factor
    except UNUSABLE as error:
        raise unusable(path, error) from error
    trainer._epochs_done, trainer.history = found.epochs_done, found.history
    trainer._kept, trainer._pending = found.kept, found.pending
    return trainer
