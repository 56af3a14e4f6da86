"""Model files of every kind: one model, one that knows its table, or several that answer as one."""

from __future__ import annotations

import os
from pathlib import Path

from fastdl.errors import ModelFileError
from fastdl.files import native
from fastdl.model import MLP, MODEL_FILE
from fastdl.tables.ensemble import Ensemble
from fastdl.tables.model import model_of


def load(path: str | os.PathLike[str]) -> MLP | Ensemble:
    """Read a model that `save` or `fastdl train` wrote: a model file, or the folder of a run.

    A model that was trained on a table is a `TableModel`: it takes data frames as they are. Several models in one file are an
    `Ensemble`.

    Raises
    ------
    ModelFileError : the file is missing, of another kind, truncated or altered
    """
    path = Path(path)
    if (path / MODEL_FILE).is_file():
        path /= MODEL_FILE
    description, parameters = native.read(path)
    try:
        if "ensemble" in description:
            return Ensemble._of_description(description, parameters)
        return model_of(description, parameters)
    except ModelFileError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise native.unusable(path, error) from error
