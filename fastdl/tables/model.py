"""A model that takes raw tables: an `MLP` with the preprocessing that was fitted for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl.errors import InputError
from fastdl.files.portable import TableInputs
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

    def standardize(
        self, X: Any, y: ArrayLike | None = None, robust: bool = False, clip: float | None = None
    ) -> TableModel:
        """As that of `MLP`, of a table's rows too."""
        if not isinstance(X, EncodedRows):
            super().standardize(X, y, robust, clip)
            return self
        scaling = replace(X.robust_statistics() if robust else X.statistics(), clip=clip)
        if y is not None:
            of_targets = Scaling.of(np.asarray(y, dtype=np.float64).reshape(len(X), -1))
            scaling = replace(scaling, y_mean=of_targets.mean, y_scale=of_targets.scale)
        self.scaling = scaling
        return self

    def _inputs(self, X: Any, name: str = "X") -> tuple[Inputs, str]:
        if not isinstance(X, EncodedRows) and is_frame(X):
            X = self.encode(X, name=name)
        if isinstance(X, EncodedRows):
            return X.matrix(self.scaling, self.dtype), f"{name} as {self.dtype}"
        return super()._inputs(X, name)

    def _table_inputs(self) -> TableInputs | None:
        return self.preprocessor.portable()

    def predict(self, X: Any) -> NDArray[Any]:
        """For a data frame the target's classes or numbers [N], or [N, O] for several; for arrays as that of `MLP`."""
        found = super().predict(X)
        return labels_of(self, found) if is_frame(X) else found

    def encode(self, frame: Any, findings: Findings | None = None, name: str = "X") -> EncodedRows:
        """The features of a data frame in a compact form that all methods take; `findings` says what was new in it."""
        preprocessor = self.preprocessor
        return preprocessor.encode(preprocessor.tidied(to_polars(frame, name)), findings, name).rows()


def labels_of(model: Any, found: NDArray[Any]) -> NDArray[Any]:
    """Predicted class indices as the classes that the model (or ensemble) knows; other predictions as they are."""
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


def model_of(description: dict[str, Any], parameters: NDArray) -> MLP:
    """The model that a file describes: a `TableModel` where it holds what turns a table into its inputs."""
    metadata = description["metadata"]
    if metadata.get("preprocessor") is None and not metadata.get("columns"):
        return MLP._of_description(description, parameters)
    model = TableModel._of_description(description, parameters)
    assert isinstance(model, TableModel)
    width = len(model.preprocessor.feature_names)  # a file that holds none that can be used is refused here
    if width != model.layers[0]:
        raise InputError(f"expected a preprocessor of {model.layers[0]} features, got one of {width}")
    return model
