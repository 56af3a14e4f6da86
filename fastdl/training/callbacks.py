"""What a training tells those who watch it, and how they can end it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from fastdl.errors import InputError

HOOKS = ("on_train_begin", "on_progress", "on_epoch_end", "on_train_end")
"""The methods that a trainer calls, in the order of a training."""


@dataclass(frozen=True)
class EpochResult:
    """One finished epoch.

    Attributes
    ----------
    epoch, epochs : its number, counted from 1, of how many in this call of `fit`
    loss, val_loss : mean loss in training and on the validation data (None without them)
    metrics : name -> value on the validation data
    seconds, rows : time of the training without validation, and rows learned from
    """

    epoch: int
    epochs: int
    loss: float
    val_loss: float | None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    rows: int = 0

    def value(self, monitor: str) -> float:
        """ "loss", "val_loss" or a metric by its name."""
        values = {"loss": self.loss, "val_loss": self.val_loss, **self.metrics}
        if values.get(monitor) is None:
            known = [name for name, value in values.items() if value is not None]
            raise InputError(
                f"monitor: expected one of {', '.join(known)}, which this training measures, got {monitor!r}"
                f"{'' if 'val_loss' in known else '; validation_data=(X, y) of fit brings val_loss and metrics'}"
            )
        return float(values[monitor])  # type: ignore[arg-type]


class Callback:
    """Base of callbacks, whose methods do nothing: override those that you need, and pass `Trainer(callbacks=[...])`.

    `self.trainer` is the trainer during a `fit`: its model, history and settings may be read, settings changed for the
    next epoch on (`self.trainer.rate_factor`), and `self.trainer.stop()` ends the training after the epoch under way.

    An exception raised in a method ends the training; the model keeps what it has learned. Any object with some of
    these methods will do as well; it is not given the attribute `trainer`.
    """

    trainer: Any = None
    # Whether during a training it leaves parameters and data as they are. It holds for this class alone, not for those derived
    # from it: fastdl then makes fewer snapshots of the last good epoch.
    _only_watches = False
    # Whether it is called behind all others, since it looks at what they have done.
    _comes_last = False

    def on_train_begin(self, epochs: int, rows: int) -> None:
        """The training is about to start: how many epochs of how many rows (0: data that come in chunks do not say)."""

    def on_progress(self, epoch: int, rows_done: int) -> None:
        """Within epoch `epoch` (from 1), `rows_done` rows have been learned from. Called several times a second at most."""

    def on_epoch_end(self, result: EpochResult) -> None:
        """An epoch has ended, with finite loss, validation loss and parameters."""

    def on_train_end(self) -> None:
        """The training has come to its end: after the last epoch, or because somebody stopped it; not after an exception."""

    def __getstate__(self) -> dict[str, Any]:
        """A copy of a callback is not inside of a training."""
        return {name: value for name, value in vars(self).items() if name != "trainer"}


def agreed(trainer: Any, value: bool) -> bool:
    """The same on all ranks of a trainer: rank 0's. What depends on a clock, as nothing else may, is decided so."""
    return bool(trainer.agreed(value)) if hasattr(trainer, "agreed") else value


class Hooks:
    """The callbacks of one `fit`, each hook as one function; what a callback does not have costs nothing.

    Parameters
    ----------
    trainer : what `Callback.trainer` is set to, until `close`
    callbacks : in the order in which they are called, but for those that come last
    """

    def __init__(self, trainer: object, callbacks: Iterable[object]) -> None:
        self._callbacks = sorted(callbacks, key=lambda callback: getattr(callback, "_comes_last", False) is True)
        self._methods = {name: list(self._find(name)) for name in HOOKS}
        for callback in self._callbacks:
            if isinstance(callback, Callback):
                callback.trainer = trainer

    @property
    def may_change_model(self) -> bool:
        """Whether there is a callback that fastdl does not know to leave parameters and data alone."""
        return not all(vars(type(callback)).get("_only_watches", False) for callback in self._callbacks)

    @property
    def callbacks(self) -> list[Any]:
        """The callbacks in the order in which they are called."""
        return self._callbacks

    def _find(self, name: str) -> Iterable[Callable[..., None]]:
        for callback in self._callbacks:
            method = getattr(callback, name, None)
            if method is None or getattr(type(callback), name, None) is getattr(Callback, name):
                continue
            if not callable(method):
                raise InputError(f"callbacks: expected {name} of a {type(callback).__name__} to be a method")
            yield method

    def call(self, name: str, *arguments: object) -> None:
        """Call this hook of all callbacks."""
        for method in self._methods[name]:
            method(*arguments)

    def close(self) -> None:
        """The training is over: callbacks hold no trainer any more."""
        for callback in self._callbacks:
            if isinstance(callback, Callback):
                callback.trainer = None


def check_callbacks(callbacks: object) -> list[Any]:
    """A list of objects of which each has at least one hook."""
    if not isinstance(callbacks, (list, tuple)):
        raise InputError(f"callbacks: expected a list of objects, got {type(callbacks).__name__}; use [callback]")
    for callback in callbacks:
        if isinstance(callback, type):
            raise InputError(
                f"callbacks: expected objects, got the class {callback.__name__}; use {callback.__name__}()"
            )
        if not any(hasattr(callback, name) for name in HOOKS):
            raise InputError(
                f"callbacks: expected objects with at least one of the methods {', '.join(HOOKS)}, "
                f"got {type(callback).__name__}; derive it from fastdl.Callback"
            )
    return list(callbacks)
