"""Models as safetensors files: weights under the names and in the shapes of PyTorch's `nn.Sequential`, the rest as JSON.

Layer l, counted from 0, is `{2 l}.weight` [outputs, inputs] and `{2 l}.bias` [outputs], as each activation is a module of its
own; the units' own numbers of a parametric activation are `{2 l + 1}.weight`. What an input stage learns is `inputs.embedding`, a
row for each embedded input, `inputs.scale`, and `inputs.categories`, all tables of categories one below the other;
`inputs.edges` has the ends of pieces. The numbers are those that were trained:
inputs are standardised before the first layer, where the model does so.
The file's metadata hold all else as JSON under "fastdl", with a checksum of it and of the parameters.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import MissingExtraError, ModelFileError
from fastdl.files import native
from fastdl.files.atomic import atomic_write
from fastdl.files.portable import Portable

SUFFIX = ".safetensors"
KEY = "fastdl"
EMBEDDING, SCALE, TABLES, EDGES = "inputs.embedding", "inputs.scale", "inputs.categories", "inputs.edges"


def _library() -> Any:
    """safetensors.numpy, or one sentence on how to get it."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError(
            'safetensors files need safetensors, which is not installed: pip install "fastdl[export]"'
        ) from error
    return safetensors


def is_meant(path: Path) -> bool:
    """Whether a path names a safetensors file, and not one of fastdl's own (a zip archive) under such a name."""
    if path.suffix.lower() != SUFFIX:
        return False
    try:
        with open(path, "rb") as file:
            return file.read(2) != b"PK"
    except OSError:
        return True  # `read` says what is the matter


def write(path: str | os.PathLike[str], description: dict[str, Any], parameters: NDArray[Any]) -> None:
    """Write a model's description and its parameters [P] to `path`, which is replaced in one go.

    Raises
    ------
    InputError : the folder cannot be written to, or the description holds what JSON has no word for
    MissingExtraError : safetensors is not installed
    """
    library = _library()
    model = Portable.of(description, parameters)
    tensors = {}
    for layer, (weight, bias) in enumerate(zip(model.weights, model.biases)):
        tensors[f"{2 * layer}.weight"] = np.ascontiguousarray(weight.T)
        tensors[f"{2 * layer}.bias"] = np.ascontiguousarray(bias)
    for layer, alphas in enumerate(model.unit_alphas):
        if alphas.size:
            tensors[_of_units(layer)] = alphas.copy()
    stage = model.stage
    if stage is not None:
        n, numbers = len(stage.embedded), stage.numbers
        rows = np.concatenate([part.reshape(n, -1) if n else part.ravel() for part in numbers[:4]], axis=-1)
        tensors |= {EMBEDDING: rows, SCALE: numbers.scale.copy()}
        tensors |= {TABLES: numbers.tables.copy()} if numbers.tables.size else {}
        tensors |= {EDGES: numbers.edges.copy()} if numbers.edges.size else {}
    sealed = native.seal(path, description, parameters.tobytes())
    content = library.numpy.save(tensors, {"format": "pt", KEY: json.dumps(sealed)})
    with atomic_write(path) as file:
        file.write(content)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], NDArray[Any]]:
    """The description and the parameters in a file that `write` made.

    Raises
    ------
    ModelFileError : the file is missing, of another kind, truncated or altered
    MissingExtraError : safetensors is not installed
    """
    path = Path(path)
    library = _library()
    if not path.is_file():
        raise ModelFileError(
            f"{path}: expected a safetensors file, found {'a folder' if path.is_dir() else 'nothing'} there"
        )
    try:
        with library.safe_open(os.fspath(path), "numpy") as file:
            text = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()} if text is not None else {}  # noqa: SIM118
    except (library.SafetensorError, OSError, ValueError, TypeError) as error:
        raise ModelFileError(
            f"{path}: expected a safetensors file, got one of another kind, truncated or altered ({error}); "
            f"save the model again or restore a copy"
        ) from error
    if text is None:
        raise ModelFileError(
            f"{path}: expected a safetensors file that fastdl wrote, got one without its description; load it into an "
            f"nn.Sequential of PyTorch and use fastdl.from_torch(module)"
        )
    try:
        sealed = json.loads(text)
        parameters = _flat(sealed["layers"], tensors)
        return native.unseal(path, sealed, parameters.tobytes()), parameters
    except ModelFileError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise native.unusable(path, error) from error


def _of_units(layer: int) -> str:
    """The name of what the units of a parametric activation have: that of PyTorch's PReLU in the same place."""
    return f"{2 * layer + 1}.weight"


def _flat(layers: list[int], tensors: dict[str, NDArray[Any]]) -> NDArray[Any]:
    parts = []
    for layer in range(len(layers) - 1):
        parts += [tensors[f"{2 * layer}.weight"].T.ravel(), tensors[f"{2 * layer}.bias"]]
    parts += [tensors[_of_units(layer)] for layer in range(len(layers) - 2) if _of_units(layer) in tensors]
    parts += [tensors[name].ravel() for name in (EMBEDDING, SCALE, TABLES, EDGES) if name in tensors]
    if len(tensors) != len(parts):
        raise ValueError(f"expected {len(parts)} tensors, got {len(tensors)}")
    return np.concatenate(parts)
