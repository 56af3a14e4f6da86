"""The way back to the end of the last good epoch, when one goes wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.engine import Place, Session
from fastdl.errors import DivergedError

# A snapshot is made when the epochs since the last have taken so many times as long as that one did. After every epoch it took
# 10 % of the time of 1024-2048-2048-1000 with four steps to an epoch.
EPOCHS_PER_SNAPSHOT = 100.0


class Rollback:
    """A snapshot of parameters, optimizer state and counters, and how to train the epochs since then again.

    The same epoch from the same state gives the same bits, whatever the number of threads: so a snapshot after every epoch can
    be left out, if nothing but epochs changes what they work on.

    Parameters
    ----------
    session : whose present state is the first to go back to
    always : make a snapshot after every epoch, because something else may change the parameters or the data in between
    """

    def __init__(self, session: Session, always: bool) -> None:
        self._session = session
        self._always = always
        self._since: list[Callable[[], object]] = []
        self._snapshot()

    @property
    def missing(self) -> int:
        """How many good epochs `back` did not come to again, because it was interrupted."""
        return len(self._since)

    def good(self, epoch: Callable[[], object], seconds: float) -> None:
        """The epoch that has just ended, which took so long, is good; `epoch` would train it again from the state before it."""
        self._seconds += seconds
        if self._always or self._seconds >= EPOCHS_PER_SNAPSHOT * self._cost:
            self._snapshot()
        else:
            self._since.append(epoch)

    def keep(self) -> None:
        """The epoch that has just ended is good, and cannot be trained again."""
        self._snapshot()

    def back(self) -> None:
        """Go back to the state after the last good epoch."""
        self._session.restore()
        while self._since:
            self._since[0]()
            del self._since[0]

    def _snapshot(self) -> None:
        start = time.perf_counter()
        self._session.snapshot()
        self._cost = time.perf_counter() - start
        self._seconds = 0.0
        self._since.clear()


def diverged(what: str, epoch: int, lr: float) -> DivergedError:
    """The error for an epoch that went wrong."""
    return DivergedError(
        f"{what}; the model keeps the parameters of {f'epoch {epoch - 1}' if epoch > 1 else 'before the training'}: "
        f"lower the learning rate (now {lr:g}), or standardise the features"
    )


def train_again(
    session: Session,
    data: tuple[Any, Any, Any],
    order: Callable[[], NDArray[np.int64]],
    rates: NDArray[np.float64],
    where: tuple[Place, float, bool],
) -> None:
    """An epoch that was good, from the state before it, or from where it was when its training was taken up."""
    session.epoch(*data, order(), rates, None, *where)
