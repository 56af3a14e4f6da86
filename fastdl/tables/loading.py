"""Model files of every kind: one model, one that knows its table, or several that answer as one."""

from __future__ import annotations

import os
from pathlib import Path

from fastdl.files import native, safetensors_file
from fastdl.model import MLP, MODEL_FILE
from fastdl.tables.ensemble import Ensemble
from fastdl.tables.model import model_of


def load(path: str | os.PathLike[str]) -> MLP | Ensemble:
    """Read a model that `save`, `fastdl train` or `export` wrote: a model file, the folder of a run, or safetensors.

    A model that was trained on a table is a `TableModel`: it takes data frames as they are. Several models in one file are an
    `Ensemble`.

    Raises
    ------
    ModelFileError : the file is missing, of another kind, truncated or altered
    MissingExtraError : it is a safetensors file, and that package is not installed
    """
    path = Path(path)
    if (path / MODEL_FILE).is_file():
        path /= MODEL_FILE
    reader = safetensors_file if safetensors_file.is_meant(path) else native
    description, parameters = reader.read(path)
    try:
        if "ensemble" in description:
            return Ensemble._of_description(description, parameters)
        return model_of(description, parameters)
    except native.UNUSABLE as error:
        raise native.unusable(path, error) from error
