"""A store: a table's features as one file that is mapped into memory, with its targets and what they were made from.

0       a mark, and where the description starts (int64, little-endian) and how long it is
4096    X [N, I], float32 or float64, row by row
        y, and the numbers of the rows, as NPY files
        the description, as JSON
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import InputError
from fastdl.files.atomic import atomic_write

MARK, START = b"fastdl store 1\n\0", 4096
_PLACE = struct.Struct("<qq")


@dataclass(frozen=True)
class StoreFile:
    """What a store holds; X is mapped."""

    X: NDArray[Any]
    y: NDArray[Any]
    rows: NDArray[np.int64]
    description: dict[str, Any]


class Writer:
    """Writes the rows of X anywhere, in a file that is being made."""

    def __init__(self, file: Any, shape: tuple[int, int], dtype: np.dtype) -> None:
        self._file, self.shape, self.dtype = file, shape, dtype

    def put(self, first: int, rows: NDArray[Any]) -> None:
        """Neighbouring rows, from number `first` on."""
        self._file.seek(START + first * self.shape[1] * self.dtype.itemsize)
        self._file.write(np.ascontiguousarray(rows, self.dtype).data)

    def scatter(self, places: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Rows at ascending places, those that are neighbours at once."""
        starts = np.flatnonzero(np.r_[True, np.diff(places) != 1]) if len(places) else places
        for start, end in zip(starts, np.r_[starts[1:], len(places)]):
            self.put(int(places[start]), rows[start:end])

    def finish(self, y: NDArray[Any], rows: NDArray[np.int64], description: dict[str, Any]) -> None:
        """What stands behind the rows."""
        more = {"shape": list(self.shape), "dtype": self.dtype.name}
        self._file.seek(START + self.shape[0] * self.shape[1] * self.dtype.itemsize)
        np.save(self._file, y, allow_pickle=False)
        np.save(self._file, rows, allow_pickle=False)
        place, text = self._file.tell(), json.dumps({**description, "X": more}).encode()
        self._file.write(text)
        self._file.seek(0)
        self._file.write(MARK + _PLACE.pack(place, len(text)))


@contextmanager
def written(path: Path, shape: tuple[int, int], dtype: np.dtype) -> Iterator[Writer]:
    """A store that takes the place of `path` when the block ends; an old one goes first, to make room.

    Raises
    ------
    InputError : the folder cannot be written to, or has no room
    """
    path.unlink(missing_ok=True)
    size = shape[0] * shape[1] * dtype.itemsize
    room = os.statvfs(path.parent) if hasattr(os, "statvfs") else None
    if room is not None and size > room.f_bavail * room.f_frsize:
        raise InputError(
            f"{path}: expected {size / 1e9:.3g} GB of room for the table's features, found "
            f"{room.f_bavail * room.f_frsize / 1e9:.3g} GB; make room, move the file to a larger disk, or use --no-mapped"
        )
    with atomic_write(path) as file:
        yield Writer(file, shape, dtype)


def read(path: Path) -> StoreFile | None:
    """A store, or None if there is none, or one that was altered."""
    try:
        with path.open("rb") as file:
            head = file.read(len(MARK) + _PLACE.size)
            if not head.startswith(MARK) or len(head) < len(MARK) + _PLACE.size:
                return None
            place, length = _PLACE.unpack(head[len(MARK) :])
            if place < START or place + length != path.stat().st_size:
                return None
            file.seek(place)
            description = json.loads(file.read(length))
            shape, dtype = tuple(description["X"]["shape"]), np.dtype(description["X"]["dtype"])
            if dtype.name not in ("float32", "float64") or len(shape) != 2:
                return None
            file.seek(START + shape[0] * shape[1] * dtype.itemsize)
            rest = io.BytesIO(file.read(place - file.tell()))
        y, rows = np.load(rest, allow_pickle=False), np.load(rest, allow_pickle=False)
        if len(y) != shape[0] or len(rows) != shape[0]:
            return None
        X = np.memmap(path, dtype, "r", START, shape)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return StoreFile(np.asarray(X), y, rows, description)


def same(before: Sequence[Any] | dict[str, Any], now: Sequence[Any] | dict[str, Any]) -> bool:
    """Whether two descriptions say the same, as JSON."""
    return bool(json.dumps(before, sort_keys=True, default=str) == json.dumps(now, sort_keys=True, default=str))
