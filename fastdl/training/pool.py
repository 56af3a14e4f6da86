"""Trainings side by side: small networks one for each core, large ones one after the other with all cores."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from fastdl.engine import Session, keeps_all_cores_busy, most_threads
from fastdl.engine import Settings as StepSettings
from fastdl.training.callbacks import Callback, EpochResult
from fastdl.training.history import History
from fastdl.training.rows import TrainingRows
from fastdl.training.trainer import Trainer
from fastdl.training.validation import Validation

# How often the one who waits looks after progress and signals.
SECONDS_PER_LOOK = 0.1

Data = tuple[TrainingRows, "Validation | None"]


@dataclass(frozen=True)
class FitResult:
    """How one of many trainings went.

    trainer, history : the trainer, and the history of its finished epochs
    error : what ended the training before its time, such as a `DivergedError`; None if nothing did
    seconds : how long it took, beside the others
    """

    trainer: Trainer
    history: History
    error: Exception | None
    seconds: float


@dataclass(frozen=True)
class ManyProgress:
    """How far many trainings are.

    models, finished, failed : how many there are, have ended, and have ended with an error
    done : share of the work that is done, from 0 to 1
    seconds : since the beginning
    """

    models: int
    finished: int
    failed: int
    done: float
    seconds: float


@dataclass(frozen=True)
class Job:
    """One training to come.

    lend : a context manager that has its data ready while it is open
    n_rows : that it learns from
    """

    trainer: Trainer
    lend: Callable[[], AbstractContextManager[Data]]
    n_rows: int

    @property
    def cost(self) -> float:
        """Multiply-adds of the training, about."""
        return float(self.trainer.model.architecture.work_per_row) * self.n_rows * self.trainer.epochs


class _Stopped(BaseException):
    """A training beside the main thread's is to end; callbacks that catch every `Exception` do not catch it."""


class _Watch(Callback):
    """Tells the pool how far a training is, and ends it when the pool stops."""

    _only_watches = True

    def __init__(self, pool: Pool, place: int) -> None:
        self._pool, self._place, self._rows, self._epochs = pool, place, 1, 1
        self.begun = False

    def on_train_begin(self, epochs: int, rows: int) -> None:
        self._epochs, self._rows, self.begun = epochs, rows, True

    def on_progress(self, epoch: int, rows_done: int) -> None:
        self._pool.reached(self._place, (epoch - 1 + rows_done / self._rows) / self._epochs)

    def on_epoch_end(self, result: EpochResult) -> None:
        self._pool.reached(self._place, result.epoch / result.epochs)


class Pool:
    """Runs jobs, and gives a `FitResult` for each, in their order.

    A network whose step keeps all cores busy, or whose trainer asks for several threads, is trained alone; the others are
    trained one for each core, the longest first, without waiting for each other. Results do not depend on it: they have
    the bits of `Trainer.fit`. What ends one training, ends that one only; Ctrl-C, or an exception of `progress`, ends all
    of them between two batches and is raised when all have ended.
    """

    def __init__(self, jobs: Sequence[Job], progress: Callable[[ManyProgress], None] | None = None) -> None:
        self._jobs, self._progress = jobs, progress
        self._costs = [max(1.0, job.cost) for job in jobs]
        self._shares = [0.0] * len(jobs)
        self._results: list[FitResult | None] = [None] * len(jobs)
        self._stopped = False
        self._fault: BaseException | None = None
        self._owner = threading.get_ident()
        self._start = time.perf_counter()

    def run(self) -> list[FitResult]:
        """Train all."""
        beside = [i for i, job in enumerate(self._jobs) if self._is_small(job.trainer)]
        n_workers = min(most_threads(), len(beside))
        if n_workers < 2:
            beside = []
        for i in range(len(self._jobs)):
            if i not in beside:
                self._fit(i, None)
                self._raise_fault()
        if beside:
            self._get_ready(beside)
            self._run_beside(sorted(beside, key=lambda i: -self._costs[i]), n_workers)
            self._raise_fault()
        self._tell()
        return [result for result in self._results if result is not None]

    def reached(self, place: int, share: float) -> None:
        """A training has come so far; it goes on unless all are to stop."""
        self._shares[place] = share
        if self._stopped:
            raise _Stopped
        if threading.get_ident() == self._owner:
            try:
                self._tell()
            except Exception as error:  # the display's, not this training's
                self._fault = error
                raise _Stopped from error

    def _is_small(self, trainer: Trainer) -> bool:
        if isinstance(trainer.n_threads, int):
            return trainer.n_threads == 1
        return not keeps_all_cores_busy(trainer.model.architecture, trainer.batch_size)

    def _fit(self, place: int, n_threads: int | None) -> None:
        """One training, on so many threads (None: as its trainer says)."""
        job, error = self._jobs[place], None
        trainer, own = job.trainer, job.trainer.n_threads
        watch = _Watch(self, place)
        start = time.perf_counter()
        try:
            if n_threads is not None:
                trainer.n_threads = n_threads
            with job.lend() as (data, validation):
                trainer.fit_prepared(data, validation, [watch])
        except Exception as caught:
            error = caught
        except _Stopped:
            return
        finally:
            trainer.n_threads = own
        self._shares[place] = 1.0
        history = trainer.history if watch.begun else History()  # not that of an earlier fit
        self._results[place] = FitResult(trainer, history, error, time.perf_counter() - start)

    def _run_beside(self, places: list[int], n_workers: int) -> None:
        """Train these on threads of their own, while this one looks after progress and signals."""
        queue = deque(places)
        threads = [threading.Thread(target=self._work, args=(queue,), daemon=True) for _ in range(n_workers)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(SECONDS_PER_LOOK)
                    self._tell()
        except BaseException:
            self._stopped = True
            for thread in threads:
                while thread.is_alive():
                    with contextlib.suppress(BaseException):  # the first one is raised
                        thread.join(SECONDS_PER_LOOK)
            raise

    def _work(self, queue: deque[int]) -> None:
        """What each thread does: the next training, as long as there is one."""
        try:
            while not self._stopped:
                try:
                    place = queue.popleft()
                except IndexError:
                    return
                self._fit(place, 1)
        except BaseException as error:  # a callback's KeyboardInterrupt or SystemExit
            self._fault, self._stopped = error, True

    def _get_ready(self, places: list[int]) -> None:
        """Have compiled here, where Ctrl-C arrives, what the trainings call."""
        seen = set()
        for trainer in (self._jobs[i].trainer for i in places):
            architecture = trainer.model.architecture
            units = frozenset((unit.code, unit.parametric) for unit in architecture.hidden)
            kind = architecture.dtype, architecture.loss.code, units, architecture.stage is None
            if kind not in seen:
                seen.add(kind)
                Session(architecture, trainer.model.parameters, StepSettings(1, n_threads=1))
                trainer.model.engine.prepare()

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _tell(self) -> None:
        if self._progress is None:
            return
        results = [result for result in self._results if result is not None]
        done = sum(share * cost for share, cost in zip(self._shares, self._costs)) / sum(self._costs)
        failed = sum(result.error is not None for result in results)
        self._progress(ManyProgress(len(self._jobs), len(results), failed, done, time.perf_counter() - self._start))
