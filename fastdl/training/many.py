"""`fit_many`: any number of trainers on the same data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl import checks, stored
from fastdl.errors import InputError
from fastdl.training import elsewhere
from fastdl.training import validation as validating
from fastdl.training.callbacks import Callback
from fastdl.training.pool import Data, FitResult, Job, ManyProgress
from fastdl.training.rows import TrainingRows
from fastdl.training.shared import SharedData
from fastdl.training.trainer import Trainer
from fastdl.training.validation import Validation

RowsOfEach = Sequence["ArrayLike | None"]


def fit_many(
    trainers: Sequence[Trainer],
    X: Any,
    y: ArrayLike,
    rows: RowsOfEach | None = None,
    validation_rows: RowsOfEach | None = None,
    validation_data: tuple[ArrayLike, ...] | None = None,
    sample_weight: ArrayLike | None = None,
    *,
    progress: bool | Callable[[ManyProgress], None] = False,
    executor: Any = None,
) -> list[FitResult]:
    """Train many models on X [N, I] and y at once, each as `trainer.fit` alone would: with the same bits.

    Small networks are trained one for each core, without waiting for each other, large ones one after the other with all cores.
    X and y are shared: they are prepared once for all models of one dtype and standardisation, and never copied for `rows`.

    Parameters
    ----------
    trainers : with models, settings, callbacks and early stopping of their own; a second call goes on where the first ended
    X, y, sample_weight : as `Trainer.fit` takes them; the weights weight `validation_rows` as well
    rows : for each trainer the numbers of the rows that it learns from, as `fit(X[rows], y[rows])` would, or a mask [N];
        None for all rows
    validation_rows : for each trainer the numbers of the rows that it is validated on, or a mask, or None for none
    validation_data : (X, y) or (X, y, weights) that all are validated on instead
    progress : True shows on stderr how far the trainings are (it needs rich, `fastdl[cli]`); or a function that is called with
        a `ManyProgress`
    executor : what runs the trainings elsewhere: an object with `submit(function, *arguments)` that returns a future, as those of
        `concurrent.futures`, `mpi4py.futures`, Dask and loky have, or a `joblib.Parallel`. Each training travels with its rows,
        and comes back with the bits that it has here; callbacks of your own see it there. None: here

    Returns
    -------
    A `FitResult` for each trainer, in their order. What ends one training, such as `DivergedError`, is the `error` of its result
    and does not touch the others.

    Raises
    ------
    InputError : what was given does not fit together; nothing has been trained then

    Ctrl-C ends all trainings between two batches and is raised; the models are usable and each `trainer.history` holds
    the finished epochs.

    Cost: one copy of X for each form in which models take it, none where that is X itself; validation rows are copied.
    """
    jobs = jobs_on(trainers, X, y, rows, validation_rows, validation_data, sample_weight)
    if progress is True:
        from fastdl.training.display import Display

        with Display() as display:
            return elsewhere.run(jobs, display, executor)
    return elsewhere.run(jobs, progress or None, executor)


def jobs_on(
    trainers: Sequence[Trainer],
    X: Any,
    y: Any,
    rows: RowsOfEach | None = None,
    validation_rows: RowsOfEach | None = None,
    validation_data: tuple[Any, ...] | None = None,
    sample_weight: Any = None,
) -> list[Job]:
    """What `fit_many` has to do, all of it checked; the arguments are its own."""
    trainers = _checked(trainers)
    if not trainers:
        return []
    if validation_rows is not None and validation_data is not None:
        raise InputError("validation_rows: expected them or validation_data, got both; leave one out")
    for i, trainer in enumerate(trainers):
        with _about(i):
            trainer.check_again()
            trainer.model.check_writable()
    models = [trainer.model for trainer in trainers]
    data = SharedData(X, y, models)
    learned = _rows_of_each(rows, "rows", len(trainers), data.n_rows)
    judged = _rows_of_each(validation_rows, "validation_rows", len(trainers), data.n_rows)
    weight = None
    if sample_weight is not None:
        checks.weights(sample_weight, data.n_rows)
        weight = np.asarray(sample_weight).reshape(-1)
    held_out: SharedData | None = None
    held_out_y: Any = None
    held_out_weight: Any = None
    if validation_data is not None:
        held_out_X, held_out_y, held_out_weight = validating.parts_of(validation_data)
        held_out_y = stored.targets_of(held_out_X, held_out_y, "validation y")
        held_out = SharedData(held_out_X, held_out_y, models, "validation ")
    plain_y = np.asarray(stored.targets_of(X, y))

    def job(i: int, trainer: Trainer) -> Job:
        own, seen, model = learned[i], judged[i], trainer.model

        @contextlib.contextmanager
        def lend() -> Iterator[Data]:
            with contextlib.ExitStack() as stack:
                prepared = stack.enter_context(data.lent(model))
                own_weight = weight if weight is None or own is None else weight[own]
                training = TrainingRows.of(model, prepared, own_weight, trainer.class_weight, own)
                validation = None
                if seen is not None:
                    part = prepared[0][seen], prepared[1][seen]
                    validation = Validation(
                        model, part, plain_y[seen], trainer.metrics, None if weight is None else weight[seen]
                    )
                elif held_out is not None:
                    given = stack.enter_context(held_out.lent(model))
                    validation = Validation(model, given, held_out_y, trainer.metrics, held_out_weight)
                yield training, validation

        n_rows = data.n_rows if own is None else len(own)
        with _about(i):
            trainer.check_batch_size(n_rows)
            trainer.check_watched(seen is not None or held_out is not None)
        targets = data.targets(model)
        validating.warn_of_large_targets(model, targets if own is None else targets[own])
        model.note_names(X)
        return Job(trainer, lend, n_rows)

    return [job(i, trainer) for i, trainer in enumerate(trainers)]


@contextlib.contextmanager
def _about(i: int) -> Iterator[None]:
    """An `InputError` in the block is about this trainer."""
    try:
        yield
    except InputError as error:
        raise InputError(f"trainers[{i}]: {error}") from error


def _checked(trainers: Sequence[Trainer]) -> list[Trainer]:
    """The trainers as a list; none shares with another what a training changes."""
    found = list(trainers)
    owners: dict[int, int] = {}
    for i, trainer in enumerate(found):
        if not isinstance(trainer, Trainer):
            raise InputError(f"trainers[{i}]: expected a fastdl.Trainer, got {type(trainer).__name__}")
        if trainer.ranks is not None:
            raise InputError(
                f"trainers[{i}]: expected no communicator, since whole models are spread over processes here, got one of "
                f"{trainer.ranks.size} ranks; use executor=mpi4py.futures.MPICommExecutor(...)"
            )
        own: list[tuple[str, object]] = [("trainer", trainer), ("model", trainer.model)]
        own += [("callback", c) for c in trainer.callbacks if isinstance(c, Callback)]
        own += [("EarlyStopping", trainer.early_stopping)] if trainer.early_stopping is not None else []
        for what, thing in own:
            other = owners.setdefault(id(thing), i)
            if other != i:
                raise InputError(
                    f"trainers[{i}]: expected a {what} of its own, got that of trainers[{other}]; they are trained at the same "
                    f"time, so make one for each"
                )
    return found


def _rows_of_each(
    given: RowsOfEach | None, name: str, count: int, n_rows: int
) -> list[NDArray[np.int64] | None]:  # fmt: skip
    """For each trainer the numbers of its rows, or None."""
    if given is None:
        return [None] * count
    if len(given) != count:
        raise InputError(f"{name}: expected one list of rows, or None, for each of {count} trainers, got {len(given)}")
    return [None if rows is None else _row_numbers(rows, f"{name}[{i}]", n_rows) for i, rows in enumerate(given)]


def _row_numbers(rows: ArrayLike, name: str, n_rows: int) -> NDArray[np.int64]:
    array = np.asarray(rows)
    if array.ndim != 1 or array.dtype.kind not in "iub" or (array.dtype.kind == "b" and len(array) != n_rows):
        raise InputError(
            f"{name}: expected whole numbers of rows, or a mask of the {n_rows} rows of X, got {array.dtype} of shape "
            f"{array.shape}"
        )
    found = np.flatnonzero(array) if array.dtype.kind == "b" else array
    if len(found) == 0:
        raise InputError(f"{name}: expected at least one row, got none")
    bad = (found < 0) | (found >= n_rows)
    if bad.any():
        raise InputError(f"{name}: expected rows from 0 to {n_rows - 1}, got {found[bad][0]}")
    return np.ascontiguousarray(found, np.int64)
