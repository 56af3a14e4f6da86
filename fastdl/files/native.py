"""fastdl's own model files: an archive (`archive.py`) of `model.json` and `parameters.npy`.

`model.json` describes the model. What the description says is the model's business (`fastdl.model`).
"""

from __future__ import annotations

import os
from typing import Any

from numpy.typing import NDArray

from fastdl.errors import ModelFileError
from fastdl.files import archive
from fastdl.files.archive import UNUSABLE, unusable

__all__ = ["MODEL", "UNUSABLE", "read", "seal", "unseal", "unusable", "write"]

MODEL = archive.Kind("fastdl model file", "model.json", "fastdl-model", (1, 2))


def write(path: str | os.PathLike[str], description: dict[str, Any], parameters: NDArray) -> None:
    """Write a model's description (plain JSON values) and its parameters [P] to `path`, which is replaced in one go.

    Raises
    ------
    InputError : the file cannot be written, or the description holds what JSON has no word for
    """
    archive.write(path, MODEL, description, {"parameters": parameters})


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], NDArray]:
    """The description and the parameters in a file that `write` made.

    Raises
    ------
    ModelFileError : the file is missing, of another kind, truncated or altered
    """
    description, arrays = archive.read(path, MODEL)
    if set(arrays) != {"parameters"}:
        raise ModelFileError(f"{path}: expected a fastdl model file, got a zip archive of another kind")
    return description, arrays["parameters"]


def seal(path: str | os.PathLike[str], description: dict[str, Any], numbers: bytes) -> dict[str, Any]:
    """A model's description as plain JSON values, with checksums of itself and of its numbers: for files of other kinds."""
    return archive.seal(path, MODEL, description, {"parameters": numbers})


def unseal(path: str | os.PathLike[str], description: Any, numbers: bytes) -> dict[str, Any]:
    """The description of `seal`, compared with its checksums; ModelFileError if something was altered."""
    return archive.unseal(path, MODEL, description, {"parameters": numbers})
