"""Array files: NPZ, NPY, and IDX as MNIST ships it. All are read without executing anything (no pickle)."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastdl import checks
from fastdl.datasets import load_digits
from fastdl.errors import InputError, OptionError
from fastdl.suggest import did_you_mean
from fastdl.tables.streams import read_bytes
from fastdl.tables.tasks import TargetColumn
from fastdl.tables.text import listed

NPY_MAGIC = b"\x93NUMPY"
# The third byte of an IDX file says what its numbers are, the fourth how many dimensions follow (big-endian counts).
_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


@dataclass(frozen=True)
class ArrayData:
    """Features X [N, I] and, where they came along, targets y [N] or [N, O].

    pixels : the features are pixels, which share one unit
    labels : y is a file of labels, so that its numbers are classes, however many
    """

    files: tuple[Path, ...]
    X: NDArray
    y: NDArray | None
    y_name: str
    pixels: bool
    labels: bool = False

    def __len__(self) -> int:
        return len(self.X)

    def targets(self) -> list[TargetColumn]:
        """The columns of y, checked."""
        if self.y is None:
            raise InputError(f"{self.files[0]}: expected targets beside the features, got none")
        y = self.y[:, None] if self.y.ndim == 1 else self.y
        if y.ndim != 2 or y.shape[1] == 0:
            raise InputError(f"{self.y_name}: expected targets of shape (rows,) or (rows, targets), got {self.y.shape}")
        if len(y) != len(self.X):
            raise InputError(
                f"{self.y_name}: expected one target for each of the {len(self.X)} rows of X, got {len(y)}"
            )
        name = self.y_name
        if y.dtype.kind == "S":
            y = np.char.decode(y, "utf-8", "replace")
        if y.dtype.kind != "U":
            if y.dtype.kind not in "fiub":
                raise InputError(f"{name}: expected numbers or text, got dtype {y.dtype}; convert them first")
            checks.finite(y, name)
        boolean = y.dtype.kind == "b"
        return [
            TargetColumn(
                f"y{j}" if y.shape[1] > 1 else "y",
                y[:, j] if y.dtype.kind == "U" else y[:, j].astype(np.float64),
                lambda row: f"{name}, row {row} (counted from 0)",
                boolean,
            )
            for j in range(y.shape[1])
        ]


def digits() -> ArrayData:
    """The handwritten digits that ship with fastdl."""
    X, y = load_digits()
    return ArrayData((Path("digits"),), X, y, "digits", pixels=True, labels=True)


def is_idx(head: bytes) -> bool:
    """Whether a file that starts with two zeros is one of IDX."""
    return head[2] in _IDX_DTYPES


def read_npz(path: Path, with_targets: bool) -> ArrayData:
    """X and y of an NPZ file."""
    try:
        # The file is opened here: np.load leaves it open when it is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = list(archive.files)
            wanted = ["X", "y"] if with_targets else ["X"]
            for name in wanted:
                if name not in names:
                    raise InputError(
                        f"{path}: expected arrays named X and y, got {listed(names) or 'none'}; "
                        f"save it with numpy.savez(path, X=..., y=...)"
                    )
            arrays = {name: archive[name] for name in wanted}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, InputError):
            raise
        raise _unreadable(path, "an NPZ file of plain arrays", error) from error
    return of_arrays((path,), arrays["X"], arrays.get("y"), f"{path}: X", f"{path}: y")


def read_npy(paths: tuple[Path, ...], with_targets: bool) -> ArrayData:
    """X and y, an NPY file each; y.npy beside X.npy (y_train.npy beside X_train.npy) is found by its name."""
    y_path = paths[1] if len(paths) > 1 else None
    if with_targets and y_path is None:
        y_path = paths[0].with_name("y" + paths[0].name[1:])
        if paths[0].name[0] not in "Xx" or not y_path.is_file():
            raise OptionError(
                f"{paths[0]}: expected a second file with the targets, got one; name both: fastdl train X.npy y.npy"
            )
    X = _load_npy(paths[0])
    y = _load_npy(y_path) if with_targets and y_path else None
    files = (paths[0],) if y_path is None else (paths[0], y_path)
    return of_arrays(files, X, y, str(paths[0]), str(y_path))


def read_idx(paths: tuple[Path, ...], with_targets: bool) -> ArrayData:
    """Images and labels, an IDX or IDX.gz file each; the labels of MNIST's names are found beside the images."""
    X = _load_idx(paths[0])
    if X.ndim < 2:
        raise InputError(
            f"{paths[0]}: expected images (an IDX file of 2 or more dimensions) as the first file, "
            f"got {X.ndim} dimension; name the images first and the labels second"
        )
    if not with_targets:
        return of_arrays(paths, X, None, str(paths[0]), "")
    labels = paths[1] if len(paths) > 1 else _labels_beside(paths[0])
    return of_arrays((paths[0], labels), X, _load_idx(labels), str(paths[0]), str(labels), labels=True)


def of_arrays(
    files: tuple[Path, ...], X: NDArray, y: NDArray | None, x_name: str, y_name: str, labels: bool = False
) -> ArrayData:
    """Features and targets that were read, checked."""
    if X.ndim < 2:
        hint = "; one feature is X[:, None]" if X.ndim == 1 else ""
        raise InputError(f"{x_name}: expected features of shape (rows, features), got {X.shape}{hint}")
    if len(X) == 0:
        raise InputError(f"{x_name}: expected at least one row, got an empty array of shape {X.shape}")
    # Images come as bytes or with rows and columns of their own.
    pixels = X.ndim > 2 or X.dtype == np.uint8
    width = math.prod(X.shape[1:])
    X = checks.features(X.reshape(len(X), width), width, x_name, keep_half=True)
    return ArrayData(files, X, y, y_name, pixels, labels)


MAPPED_BYTES = 1 << 30
"""NPY files larger than this are not read but mapped: rows come from the disk when they are needed."""


def _load_npy(path: Path) -> NDArray:
    try:
        if path.stat().st_size > MAPPED_BYTES and _starts_as_npy(path):
            return np.load(path, mmap_mode="r", allow_pickle=False)
        data = read_bytes(path)
        if not data.startswith(NPY_MAGIC):
            raise InputError(f"{path}: expected an NPY file, got one of another kind")
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise _unreadable(path, "an NPY file of a plain array", error) from error
    return np.asarray(array)


def _starts_as_npy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(NPY_MAGIC)) == NPY_MAGIC


def _load_idx(path: Path) -> NDArray:
    data = read_bytes(path)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_DTYPES:
        raise InputError(f"{path}: expected an IDX file as MNIST ships it, got one of another kind")
    n_dims, start = data[3], 4 + 4 * data[3]
    dtype = np.dtype(_IDX_DTYPES[data[2]])
    shape = tuple(np.frombuffer(data[4:start], dtype=">u4").tolist()) if len(data) >= start else ()
    wanted = start + math.prod(shape) * dtype.itemsize
    if len(shape) != n_dims or len(data) != wanted:
        raise InputError(
            f"{path}: expected {wanted:,} bytes for an IDX file of shape {shape}, got {len(data):,}; "
            f"it is truncated or altered: fetch it again"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _labels_beside(images: Path) -> Path:
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    plain = name.removesuffix(".gz")
    found = [images.with_name(n) for n in (name, plain, f"{plain}.gz") if n != images.name]
    for candidate in found:
        if candidate.is_file():
            return candidate
    wanted = f"{found[0].name} beside it or a second file" if name != images.name else "a second file"
    raise OptionError(f"{images}: expected the labels in {wanted}, got neither; name both: fastdl train IMAGES LABELS")


def _unreadable(path: Path, expected: str, error: Exception) -> InputError:
    reason = "Python objects are not read, as that could execute code" if "allow_pickle" in str(error) else str(error)
    return InputError(f"{path}: expected {expected}, got one that cannot be read ({reason}); save it again")


def no_such_file(path: Path) -> InputError:
    """The error for a file that is not there, with the nearest name beside it."""
    if path.is_dir():
        return InputError(f"{path}: expected a file of data, got a folder")
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except OSError:
        return InputError(f"{path}: expected a file of data, found no folder {path.parent}")
    close = did_you_mean(path.name, [*beside, *(["digits"] if path.parent == Path(".") else [])])
    return InputError(f"{path}: expected a file of data, found nothing there{close}")
