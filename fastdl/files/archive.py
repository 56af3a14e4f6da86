"""Zip archives of one JSON text and flat arrays of numbers, which load without executing anything.

The text carries the SHA-256 of each array and of itself, so that a truncated or altered file is refused. Members are stored, not
compressed: what a file unfolds to in memory is bounded by its own size.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import InputError, ModelFileError
from fastdl.files.atomic import atomic_write

_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed time stamp: the same content gives the same bytes
# What `numpy.save` writes in front of a flat array of numbers, behind magic, version 1.0 and the length of this text.
_HEADER = re.compile(rb"\{'descr': '([<>][fi][48])', 'fortran_order': False, 'shape': \((\d{1,18}),\), \} *\n")
_MAGIC = b"\x93NUMPY\x01\x00"
UNUSABLE = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError)
"""What it may raise to take a description at its word whose checksums hold, and that says something impossible."""


class Kind(NamedTuple):
    """A kind of archive: what a user calls it, what its text is called, the format that the text names, and its versions.

    The last version is the one that is written.
    """

    name: str
    text: str
    format: str
    versions: tuple[int, ...]


def write(
    path: str | os.PathLike[str], kind: Kind, description: Mapping[str, Any], arrays: Mapping[str, NDArray]
) -> None:
    """Write a description (plain JSON values) and flat arrays by name to `path`, which is replaced in one go.

    Raises
    ------
    InputError : the file cannot be written, or the description holds what JSON has no word for
    """
    members: dict[str, bytes] = {}
    for name, array in arrays.items():
        numbers = io.BytesIO()
        np.save(numbers, array, allow_pickle=False)
        members[f"{name}.npy"] = numbers.getvalue()
    text = json.dumps(seal(path, kind, description, members), indent=1)
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(kind.text, _EPOCH), text)
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)


def read(path: str | os.PathLike[str], kind: Kind) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """The description and the arrays, by name, of a file that `write` made; the arrays may not be written to.

    Raises
    ------
    ModelFileError : the file is missing, of another kind, truncated or altered
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(
            f"{path}: expected a {kind.name}, found {'a folder' if path.is_dir() else 'nothing'} there"
        )
    try:
        with path.open("rb") as file:
            members = _members(file)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    except MemoryError:
        raise
    except Exception as error:  # zipfile raises what it likes on what is no archive
        raise ModelFileError(
            f"{path}: expected a {kind.name}, got one of another kind, truncated or altered ({error}); "
            f"save it again or restore a copy"
        ) from error
    if kind.text not in members or len(members) < 2:
        raise ModelFileError(f"{path}: expected a {kind.name}, got a zip archive of another kind")
    try:
        description = unseal(path, kind, json.loads(members.pop(kind.text)), members)
        return description, {name.removesuffix(".npy"): _array(data) for name, data in members.items()}
    except ModelFileError:
        raise
    except UNUSABLE as error:
        raise unusable(path, error) from error


def seal(
    path: str | os.PathLike[str], kind: Kind, description: Mapping[str, Any], members: Mapping[str, bytes]
) -> dict[str, Any]:
    """A description as plain JSON values, with format, version, and checksums of the members by name and of itself.

    Raises
    ------
    InputError : it holds what JSON has no word for
    """
    described: dict[str, Any] = {"format": kind.format, "version": kind.versions[-1], **description}
    try:
        described = json.loads(json.dumps({**described, **_checksums(members)}, default=_plain))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: expected plain values (numbers, text, lists, dictionaries) in the model's metadata, classes and "
            f"names, got some that cannot be kept in a file ({error}); convert them first"
        ) from error
    return {**described, "sha256": _digest(described)}


def unseal(path: str | os.PathLike[str], kind: Kind, description: Any, members: Mapping[str, bytes]) -> dict[str, Any]:
    """The description of `seal`, whose checksums are right.

    Raises
    ------
    ModelFileError : it is of another kind or version, or something was altered
    """
    if not isinstance(description, dict) or description.get("format") != kind.format:
        raise ModelFileError(f"{path}: expected a {kind.name}, got one of another kind")
    if description.get("version") not in kind.versions:
        raise ModelFileError(
            f"{path}: expected {kind.name} version {' or '.join(map(str, kind.versions))}, "
            f"got {description.get('version')!r}; it was written by another version of fastdl"
        )
    stated = description.pop("sha256", None)
    kept = {key: value for key, value in description.items() if key.endswith("_sha256")}
    if stated != _digest(description) or kept != _checksums(members):
        raise ModelFileError(f"{path}: the checksum does not match, so the file was altered; restore a copy")
    return description


def unusable(path: str | os.PathLike[str], error: Exception) -> ModelFileError:
    """The error for a file whose checksums hold but whose description makes nothing."""
    said = str(error).split("\n", 1)[0]
    return ModelFileError(f"{path}: the description cannot be used ({said[:300]}); restore a copy")


def _members(file: IO[bytes]) -> dict[str, bytes]:
    """The contents of an archive by name; ValueError for one that would unfold to more than its own size."""
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members):
            raise ValueError("its members are compressed")
        if sum(m.file_size for m in members) > size:
            raise ValueError("its members are larger than the file")
        if 0 not in {m.header_offset for m in members}:  # zipfile reads what stands behind other bytes
            raise ValueError("it does not begin with a member")
        return {m.filename: archive.read(m) for m in members}


def _checksums(members: Mapping[str, bytes]) -> dict[str, str]:
    return {f"{name.removesuffix('.npy')}_sha256": hashlib.sha256(data).hexdigest() for name, data in members.items()}


def _array(data: bytes) -> NDArray:
    """The flat array that `numpy.save` made these bytes of; ValueError for any other array, or a pickle."""
    header = _HEADER.match(data, len(_MAGIC) + 2, len(_MAGIC) + 512)
    if not data.startswith(_MAGIC) or header is None:
        raise ValueError("expected a flat array of numbers, got something else")
    dtype, count = np.dtype(header[1].decode()), int(header[2])
    if len(data) != header.end() + count * dtype.itemsize:
        raise ValueError(f"expected {count} numbers, got {len(data) - header.end()} bytes")
    return np.frombuffer(data, dtype, offset=header.end()).astype(dtype.newbyteorder("="), copy=False)


def _plain(value: object) -> Any:
    """NumPy's numbers and arrays as JSON values."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {value!r}")


def _digest(description: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
