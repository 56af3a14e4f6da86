"""A model that takes raw tables: an `MLP` with the preprocessing that was fitted for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl import model as models
from fastdl.errors import InputError
from fastdl.model import MLP
from fastdl.scaling import Scaling
from fastdl.stored import Inputs
from fastdl.tables.encoded import EncodedRows
from fastdl.tables.frames import is_frame, to_polars
from fastdl.tables.kinds import Findings
from fastdl.tables.preprocessor import Preprocessor


class TableModel(MLP):
    """An `MLP` that knows how the columns of a table become its inputs.

    A data frame (pandas, polars, Arrow, a dictionary of columns) is taken as it is: columns are found by their names in any
    order, texts, dates and missing values are encoded as in training, and `predict` answers in the words of the target. An
    array [N, I] is taken as features that are encoded already, and `predict` answers as that of `MLP` does.

    Made by `fastdl train` and the tabular estimators; `fastdl.load` gives one where the file holds a preprocessor.
    """

    _preprocessor: Preprocessor | None = None

    @property
    def preprocessor(self) -> Preprocessor:
        """What turns a table into features; it travels as JSON in `metadata`."""
        if self._preprocessor is None:
            kept, old = self.metadata.get("preprocessor"), self.metadata.get("columns")
            if kept is None and old is None:
                raise InputError("preprocessor: expected a model that was trained on a table, got one without columns")
            means = None if self.scaling is None else self.scaling.mean
            self._preprocessor = (
                Preprocessor.from_json(kept) if kept is not None else Preprocessor.from_old_columns(old, means)
            )
        return self._preprocessor

    @preprocessor.setter
    def preprocessor(self, value: Preprocessor) -> None:
        self._preprocessor = value
        self.metadata["preprocessor"] = value.to_json()
        self.feature_names = value.feature_names

    def standardize(self, X: Any, y: ArrayLike | None = None) -> TableModel:
        """As that of `MLP`, of a table's rows too."""
        if not isinstance(X, EncodedRows):
            super().standardize(X, y)
            return self
        scaling = X.statistics()
        if y is not None:
            of_targets = Scaling.of(np.asarray(y, dtype=np.float64).reshape(len(X), -1))
            scaling = Scaling(scaling.mean, scaling.scale, of_targets.mean, of_targets.scale)
        self.scaling = scaling
        return self

    def _inputs(self, X: Any, name: str = "X") -> tuple[Inputs, str]:
        if not isinstance(X, EncodedRows) and is_frame(X):
            X = self.encode(X, name=name)
        if isinstance(X, EncodedRows):
            return X.matrix(self.scaling, self.dtype), f"{name} as {self.dtype}"
        return super()._inputs(X, name)

    def predict(self, X: Any) -> NDArray[Any]:
        """For a data frame the target's classes or numbers [N], or [N, O] for several; for arrays as that of `MLP`."""
        found = super().predict(X)
        return labels_of(self, found) if is_frame(X) else found

    def encode(self, frame: Any, findings: Findings | None = None, name: str = "X") -> EncodedRows:
        """The features of a data frame in a compact form that all methods take; `findings` says what was new in it."""
        preprocessor = self.preprocessor
        return preprocessor.encode(preprocessor.tidied(to_polars(frame, name)), findings, name).rows()


def labels_of(model: MLP, found: NDArray[Any]) -> NDArray[Any]:
    """Predicted class indices as the classes that the model knows; other predictions as they are."""
    if model.classes is None or model.output == "linear" or found.ndim > 1:
        return found
    return as_array(model.classes)[found]


def as_array(classes: Sequence[Any]) -> NDArray[Any]:
    """Classes as an array of one type: text, booleans, whole numbers or numbers."""
    array = np.array(list(classes))
    return (
        array
        if array.dtype.kind in "biufU" and len({type(c) for c in classes}) == 1
        else np.array(classes, dtype=object)
    )


def load(path: str | os.PathLike[str]) -> MLP:
    """Read a model that `MLP.save` or `fastdl train` wrote: a model file, or the folder of a run.

    A model that was trained on a table is a `TableModel`: it takes data frames as they are.

    Raises
    ------
    ModelFileError : the file is missing, of another kind, truncated or altered
    """
    model = models.load(path)
    if model.metadata.get("preprocessor") is None and not model.metadata.get("columns"):
        return model
    table_model = TableModel._of_description(model._description(), model.parameters)
    assert isinstance(table_model, TableModel)
    _ = table_model.preprocessor  # a file that holds none that can be used is refused here
    return table_model
