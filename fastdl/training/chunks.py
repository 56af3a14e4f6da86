"""Training on data that come in chunks (X, y), of which two are in memory at a time: one that is learned from, and the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from fastdl.engine import Session
from fastdl.engine.background import submit
from fastdl.engine.permutation import permutation
from fastdl.errors import InputError
from fastdl.training.rows import TrainingRows
from fastdl.training.settings import Settings
from fastdl.training.step_numbers import StepNumbers, check_schedules
from fastdl.training.validation import warn_of_large_targets

_END = object()


class Chunks:
    """An iterable of chunks, gone through once for each epoch; the next chunk is read by another thread meanwhile.

    The rows of a chunk are shuffled among themselves, by the seed, the epoch and the number of the chunk. Its last batch is a
    shorter one, where the rows are no multiple.

    Parameters
    ----------
    source : an iterable of (X, y) or (X, y, weights), or a function that gives one for each epoch
    settings : of the training
    sample_weight : None: weights come with their chunk

    Raises
    ------
    InputError : `source` is none of these, or an iterator, which is at its end after one epoch; or a setting needs to know
        all rows
    """

    def __init__(self, source: Any, settings: Settings, sample_weight: Any = None) -> None:
        epochs, class_weight = settings.epochs, settings.class_weight
        made_anew = callable(source) and not hasattr(source, "__iter__")
        if not made_anew and (hasattr(source, "shape") or isinstance(source, str) or not isinstance(source, Iterable)):
            raise InputError("y: expected targets beside X, got None; without them X is an iterable of chunks (X, y)")
        if not made_anew and isinstance(source, Iterator) and epochs > 1:
            raise InputError(
                f"X: expected chunks that can be gone through {epochs} times, once for each epoch, got a "
                f"{type(source).__name__}, which is at its end after one; pass the function that makes it"
            )
        self._make: Callable[[], Iterable[Any]] = source if made_anew else lambda: source
        if sample_weight is not None:
            raise InputError(
                "sample_weight: expected None beside chunks, which hold their own weights: (X, y, weights)"
            )
        if isinstance(class_weight, str):
            raise InputError(
                f"class_weight: expected a dictionary, as chunks do not say how many rows a class has, got {class_weight!r}"
            )
        check_schedules(settings)
        self._model, self._class_weight = settings.model, class_weight
        self._warned = False
        self.rows = 0
        """Of the last epoch."""

    def epoch(
        self,
        session: Session,
        key: tuple[int, int],
        numbers: StepNumbers,
        rate_factor: float,
        on_progress: Callable[[int], None],
    ) -> tuple[float, int]:
        """One pass: (mean loss, -1), or (the loss, batch) of the first that is not finite.

        key : seed and epoch, which the order of rows is drawn from. numbers : of the steps to come, and rate_factor, which their
        learning rates are multiplied by
        """
        size, total, batches, self.rows = session.settings.batch_size, 0.0, 0, 0
        drop = numbers.dropout_from_here()
        for number, chunk in enumerate(_read_ahead(iter(self._make()))):
            rows = self._prepared(*_checked(chunk, number))
            count, before = len(rows), self.rows
            order = permutation((*key, number), count)
            n_batches = -(-count // size)

            def progress(done: int, before: int = before) -> None:
                on_progress(before + done)

            steps = numbers.of_next(rate_factor, n_batches)
            arrays = rows.inputs, rows.targets, rows.weight
            loss, bad_batch = session.epoch(*arrays, order, steps, progress, dropout_factor=drop)
            if bad_batch >= 0:
                return loss, batches + bad_batch
            total += loss * count
            batches += n_batches
            self.rows += count
        if not self.rows:
            raise InputError("X: expected at least one chunk (X, y) in each epoch, got none")
        return total / self.rows, -1

    def _prepared(self, X: Any, y: Any, weight: Any) -> TrainingRows:
        """A chunk as the engine takes it; columns of the next ones go by the names of the first one's."""
        rows = TrainingRows.given(self._model, X, y, weight, self._class_weight)
        if not self._warned:
            self._warned = True
            warn_of_large_targets(self._model, rows.targets, stacklevel=7)
        self._model.note_names(X)
        return rows


def _checked(chunk: Any, number: int) -> tuple[Any, Any, Any]:
    if not isinstance(chunk, (tuple, list)) or len(chunk) not in (2, 3):
        got = f"{len(chunk)} things" if isinstance(chunk, (tuple, list)) else type(chunk).__name__
        raise InputError(f"X: expected chunks (X, y) or (X, y, weights), got {got} as chunk {number} (counted from 0)")
    return (*chunk, None) if len(chunk) == 2 else tuple(chunk)


def _read_ahead(chunks: Iterator[Any]) -> Iterator[Any]:
    """The same chunks; while one is in use, the next is fetched by another thread."""

    def fetch() -> Future[Any]:
        future: Future[Any] = Future()
        try:
            submit(future, lambda: next(chunks, _END))
        except RuntimeError:  # no thread can be started
            future.set_result(next(chunks, _END))
        return future

    coming = fetch()
    while (chunk := coming.result()) is not _END:
        coming = fetch()
        yield chunk
