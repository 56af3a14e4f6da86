"""Model files: a zip archive of `model.json` and `parameters.npy` that loads without executing anything.

`model.json` describes the model and carries the SHA-256 of the parameters and of the description itself, so that a
truncated or altered file is refused. Writing goes to a temporary file beside the target, which then replaces it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastdl.activations import Activation, LeakyReLU
from fastdl.errors import InputError, ModelFileError
from fastdl.model import MLP
from fastdl.scaling import Scaling

FORMAT = "fastdl-model"
VERSION = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed time stamp: the same model gives the same bytes


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` only when the block ends without an error."""
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target}: expected the name of a file to write, found a folder there")
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise InputError(
            f"{target}: cannot write there ({error.strerror}); name a folder that exists and is writable"
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def save(model: MLP, path: str | os.PathLike[str]) -> None:
    """Write `model` to `path` (see `MLP.save`)."""
    parameters = io.BytesIO()
    np.save(parameters, model.parameters, allow_pickle=False)
    description = {
        "format": FORMAT,
        "version": VERSION,
        "layers": list(model.layers),
        "activations": [{"name": a.name, "alpha": a.alpha} for a in model.activations],
        "output": model.output,
        "dtype": model.dtype.name,
        "seed": model.seed,
        "scaling": _scaling_to_json(model.scaling),
        "feature_names": model.feature_names,
        "target_names": model.target_names,
        "classes": model.classes,
        "metadata": model.metadata,
        "parameters_sha256": hashlib.sha256(parameters.getvalue()).hexdigest(),
    }
    text = json.dumps({**description, "sha256": _digest(description)}, indent=1)
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("model.json", _EPOCH), text)
        archive.writestr(zipfile.ZipInfo("parameters.npy", _EPOCH), parameters.getvalue())


def load(path: str | os.PathLike[str]) -> MLP:
    """Read a model that `MLP.save` wrote.

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
            text, parameters = archive.read("model.json"), archive.read("parameters.npy")
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelFileError(
            f"{path}: expected a fastdl model file, got one of another kind, truncated or altered ({error}); "
            f"save the model again or restore a copy"
        ) from error
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        description = json.loads(text)
        if not isinstance(description, dict) or description.get("format") != FORMAT:
            raise ModelFileError(f"{path}: expected a fastdl model file, got a zip archive of another kind")
        if description.get("version") != VERSION:
            raise ModelFileError(
                f"{path}: expected model file version {VERSION}, got {description.get('version')!r}; "
                f"it was written by another version of fastdl"
            )
        stated = description.pop("sha256", None)
        if stated != _digest(description) or hashlib.sha256(parameters).hexdigest() != description["parameters_sha256"]:
            raise ModelFileError(f"{path}: the checksum does not match, so the file was altered; restore a copy")
        return _rebuild(description, parameters)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path}: the model description cannot be used ({error}); restore a copy") from error


def _rebuild(description: dict[str, Any], parameters: bytes) -> MLP:
    model = MLP(
        description["layers"],
        [
            LeakyReLU(a["alpha"]) if a["name"] == "leaky_relu" else Activation(a["name"], a["alpha"])
            for a in description["activations"]
        ],
        description["output"],
        description["seed"],
        description["dtype"],
    )
    values = np.load(io.BytesIO(parameters), allow_pickle=False)
    if values.shape != model.parameters.shape or values.dtype != model.dtype:
        raise InputError(
            f"expected {model.n_parameters} parameters of {model.dtype}, got {values.dtype} of shape {values.shape}"
        )
    model.parameters[:] = values
    model.scaling = _scaling_from_json(description["scaling"])
    model.feature_names = description["feature_names"]
    model.target_names = description["target_names"]
    model.classes = description["classes"]
    model.metadata = description["metadata"]
    return model


def _scaling_to_json(scaling: Scaling | None) -> dict[str, list[float] | None] | None:
    if scaling is None:
        return None
    return {name: None if values is None else values.tolist() for name, values in vars(scaling).items()}


def _scaling_from_json(values: dict[str, list[float] | None] | None) -> Scaling | None:
    if values is None:
        return None
    arrays = {name: None if v is None else np.array(v, dtype=np.float64) for name, v in values.items()}
    return Scaling(**arrays)  # type: ignore[arg-type]


def _digest(description: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
