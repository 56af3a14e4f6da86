"""Trainings in other processes or on other machines, by whatever starts functions there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from fastdl.errors import InputError
from fastdl.training.history import History
from fastdl.training.pool import SECONDS_PER_LOOK, FitResult, Job, ManyProgress, Pool
from fastdl.training.rows import TrainingRows
from fastdl.training.trainer import Trainer
from fastdl.training.validation import Validation

Progress = Callable[[ManyProgress], None]


def run(
    jobs: Sequence[Job], progress: Progress | None = None, executor: Any = None, own_share: int = 0
) -> list[FitResult]:
    """Run jobs here, or where an `executor` runs them, and give a `FitResult` for each, in their order.

    Parameters
    ----------
    executor : None; or an object with `submit(function, *arguments)` that returns a future, as those of `concurrent.futures`,
        `mpi4py.futures`, Dask (`Client`) or loky have; or a `joblib.Parallel` of any backend. Trainers and their rows are
        pickled. Results have the bits of trainings here
    own_share : one of so many jobs is run here, by a process that would otherwise only wait; 0: none

    Raises
    ------
    InputError : `executor` is neither
    """
    if executor is None:
        return Pool(jobs, progress).run()
    if not hasattr(executor, "submit") and not (callable(executor) and hasattr(executor, "n_jobs")):
        raise InputError(
            f"executor: expected an object with a method submit, as those of concurrent.futures, or a joblib.Parallel, got "
            f"{type(executor).__name__}"
        )
    here = set(range(0, len(jobs), own_share)) if own_share else set()
    away = [i for i in range(len(jobs)) if i not in here]
    start = time.perf_counter()
    results: dict[int, FitResult] = {}

    def tell() -> None:
        if progress is not None:
            costs = [max(1.0, job.cost) for job in jobs]
            done = sum(costs[i] for i in results) / sum(costs)
            failed = sum(result.error is not None for result in results.values())
            progress(ManyProgress(len(jobs), len(results), failed, done, time.perf_counter() - start))

    if not hasattr(executor, "submit"):  # what joblib.delayed makes of a call
        for i, outcome in zip(away, executor([(fit_there, packed(jobs[i]), {}) for i in away])):
            results[i] = taken(jobs[i], outcome)
        tell()
        return [results[i] for i in range(len(jobs))]
    futures = {i: executor.submit(fit_there, *packed(jobs[i])) for i in away}
    try:
        for i, result in zip(sorted(here), Pool([jobs[i] for i in sorted(here)]).run()):
            results[i] = result
        while futures:
            for i in [i for i, future in futures.items() if future.done()]:
                results[i] = taken(jobs[i], futures.pop(i).result())
                tell()
            time.sleep(SECONDS_PER_LOOK / 10 if futures else 0.0)
    except BaseException:  # those that have not begun never will
        for future in futures.values():
            with contextlib.suppress(Exception):
                future.cancel()
        raise
    return [results[i] for i in range(len(jobs))]


def packed(job: Job) -> tuple[Trainer, TrainingRows, Validation | None]:
    """What a training needs elsewhere: its own rows alone."""
    with job.lend() as (rows, validation):
        return job.trainer, rows.alone, validation


def fit_there(
    trainer: Trainer, rows: TrainingRows, validation: Validation | None
) -> tuple[Trainer, Exception | None, float]:
    """Train a copy: (the trainer, what ended it before its time, seconds)."""
    start, error = time.perf_counter(), None
    trainer.history = History()  # not that of an earlier fit
    try:
        trainer.fit_prepared(rows, validation)
    except Exception as caught:
        error = caught
    return trainer, error, time.perf_counter() - start


def taken(job: Job, outcome: tuple[Trainer, Exception | None, float]) -> FitResult:
    """The job's own trainer and model, as far as the copy has come."""
    trained, error, seconds = outcome
    own, kept = job.trainer, trained._keep()
    own.model.parameters[:] = trained.model.parameters
    own.history, own.rate_factor = trained.history, trained.rate_factor
    own._epochs_done, own._stopped = trained._epochs_done, trained._stopped
    own._session, own._kept = None, None if kept is None else kept._replace(model=own.model)
    if own.early_stopping is not None and trained.early_stopping is not None:
        vars(own.early_stopping).update(vars(trained.early_stopping))
    return FitResult(own, own.history, error, seconds)
