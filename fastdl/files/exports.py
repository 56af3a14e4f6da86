"""The formats that a model can be exported to, by the ending of the file's name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fastdl.errors import InputError
from fastdl.files import numpy_module, onnx_model, safetensors_file
from fastdl.files.portable import Portable, TableInputs

Path_ = str | os.PathLike[str]


@dataclass(frozen=True)
class Export:
    """A format: the ending of its files, what they are, and what writes one: (path, description, parameters, table)."""

    suffix: str
    what: str
    write: Callable[[Path_, dict[str, Any], NDArray[Any], TableInputs | None], None]


EXPORTS: dict[str, Export] = {
    export.suffix: export
    for export in (
        Export(".onnx", "ONNX, the preprocessing inside", lambda path, *model: onnx_model.write(path, Portable.of(*model))),
        Export(".safetensors", "the parameters for PyTorch, and for fastdl.load",
               lambda path, description, parameters, _: safetensors_file.write(path, description, parameters)),
        Export(".py", "a Python module that needs NumPy alone",
               lambda path, *model: numpy_module.write(path, Portable.of(*model))),
    )
}  # fmt: skip
"""Registry: the command line and the tests iterate over it."""


def write(path: Path_, description: dict[str, Any], parameters: NDArray[Any], table: TableInputs | None = None) -> None:
    """Write a model in the format that the file's name asks for.

    Raises
    ------
    InputError : there is no such format, or the model has what the format has nothing for
    MissingExtraError : the format's package is not installed
    """
    suffix = Path(path).suffix.lower()
    if suffix not in EXPORTS:
        known = ", ".join(f"{export.suffix} ({export.what})" for export in EXPORTS.values())
        raise InputError(
            f"{path}: expected a file name that ends with one of {known}, got {repr(suffix) if suffix else 'none'}"
        )
    EXPORTS[suffix].write(path, description, parameters, table)
