"""fastdl's own model files: a zip archive of `model.json` and `parameters.npy` that loads without executing anything.

`model.json` describes the model and carries the SHA-256 of the parameters and of the description itself, so that a
truncated or altered file is refused. What the description says is the model's business (`fastdl.model`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import InputError, ModelFileError
from fastdl.files.atomic import atomic_write

FORMAT = "fastdl-model"
VERSIONS = (1, 2)
"""Versions of the description that can be read; the last one is written."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed time stamp: the same model gives the same bytes


def write(path: str | os.PathLike[str], description: dict[str, Any], parameters: NDArray) -> None:
    """Write a model's description (plain JSON values) and its parameters [P] to `path`, which is replaced in one go.

    Raises
    ------
    InputError : the folder cannot be written to, or the description holds what JSON has no word for
    """
    numbers = io.BytesIO()
    np.save(numbers, parameters, allow_pickle=False)
    text = json.dumps(seal(path, description, numbers.getvalue()), indent=1)
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("model.json", _EPOCH), text)
        archive.writestr(zipfile.ZipInfo("parameters.npy", _EPOCH), numbers.getvalue())


def seal(path: str | os.PathLike[str], description: dict[str, Any], numbers: bytes) -> dict[str, Any]:
    """A description as plain JSON values, with the format's name and version, and checksums of itself and of the numbers."""
    description = {"format": FORMAT, "version": VERSIONS[-1], **description}
    description["parameters_sha256"] = hashlib.sha256(numbers).hexdigest()
    try:
        description = json.loads(json.dumps(description, default=_plain))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected plain values (numbers, text, lists, dictionaries) in the model's metadata, classes and "
            f"names, got some that cannot be kept in a file ({error}); convert them first"
        ) from error
    return {**description, "sha256": _digest(description)}


def unseal(path: str | os.PathLike[str], description: Any, numbers: bytes) -> dict[str, Any]:
    """The description of `seal`, compared with its checksums.

    Raises
    ------
    ModelFileError : it is of another kind or version, or something was altered
    """
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ModelFileError(f"{path}: expected a fastdl model file, got one of another kind")
    if description.get("version") not in VERSIONS:
        raise ModelFileError(
            f"{path}: expected model file version {' or '.join(map(str, VERSIONS))}, "
            f"got {description.get('version')!r}; it was written by another version of fastdl"
        )
    stated = description.pop("sha256", None)
    if stated != _digest(description) or hashlib.sha256(numbers).hexdigest() != description["parameters_sha256"]:
        raise ModelFileError(f"{path}: the checksum does not match, so the file was altered; restore a copy")
    return description


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], NDArray]:
    """The description and the parameters in a file that `write` made.

    Raises
    ------
    ModelFileError : the file is missing, of another kind, truncated or altered
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(
            f"{path}: expected a fastdl model file, found {'a folder' if path.is_dir() else 'nothing'} there"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            if {"model.json", "parameters.npy"} - set(archive.namelist()):
                raise ModelFileError(f"{path}: expected a fastdl model file, got a zip archive of another kind")
            text, numbers = archive.read("model.json"), archive.read("parameters.npy")
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelFileError(
            f"{path}: expected a fastdl model file, got one of another kind, truncated or altered ({error}); "
            f"save the model again or restore a copy"
        ) from error
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        description = unseal(path, json.loads(text), numbers)
        return description, np.load(io.BytesIO(numbers), allow_pickle=False)
    except ModelFileError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise unusable(path, error) from error


def unusable(path: str | os.PathLike[str], error: Exception) -> ModelFileError:
    """The error for a file whose checksums hold but whose description makes no model."""
    return ModelFileError(f"{path}: the model description cannot be used ({error}); restore a copy")


def _plain(value: object) -> Any:
    """NumPy's numbers and arrays as JSON values."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {value!r}")


def _digest(description: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
