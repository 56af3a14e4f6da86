"""Tables in files that are larger than memory, part by part."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from fastdl.errors import InputError
from fastdl.model import MLP
from fastdl.tables.arrays import ArrayData
from fastdl.tables.dialect import Wishes
from fastdl.tables.known import labelled, texts_of, wishes_of
from fastdl.tables.names import Names
from fastdl.tables.sources import parts, paths_of


class FileChunks:
    """The rows of tables as they lie in their files, in chunks (X, y) for `Trainer.fit`, which reads them anew in each epoch.

    CSV files come in blocks of 16 MB, Parquet and Arrow files in slices of 200,000 rows; two of them are in memory at a time.
    Other kinds come whole. Nothing is known of rows to come, so the model has to know the table already: one that was trained on
    a part of it, or one that takes columns of numbers, by their names (`feature_names`) or in their order.

    >>> model = fastdl.load("runs/on-a-part")  # doctest: +SKIP
    >>> fastdl.Trainer(model, epochs=3).fit(fastdl.FileChunks("whole-*.parquet", model))  # doctest: +SKIP

    Parameters
    ----------
    files : name or names, patterns such as "part-*.csv" among them; all have the same columns
    model : that will learn from them
    target : the column, or columns, to predict; None: as in the model's training

    Raises
    ------
    InputError : a file is not there; when it is read, cells or columns are not as the model needs them
    """

    def __init__(
        self, files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], model: MLP, target: Names | None = None
    ) -> None:
        names = [files] if isinstance(files, (str, os.PathLike)) else list(files)
        self._files = [str(path) for path in paths_of([os.fspath(name) for name in names])]
        if not self._files:
            raise InputError("files: expected at least one file, got none")
        self._model, self._target = model, target

    def __iter__(self) -> Iterator[tuple[Any, NDArray[Any]]]:
        model = self._model
        for part in parts(self._files, wishes_of(model, Wishes()), texts_of(model)):
            if isinstance(part, ArrayData):
                raise InputError(
                    f"{self._files[0]}: expected a table, got arrays; fit takes numpy.load(..., mmap_mode='r')"
                )
            X, y, _ = labelled(part, model, self._target)
            yield X, y
