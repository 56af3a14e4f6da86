"""The ways out of a model: files of other formats, and objects of other libraries."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any

from numpy.typing import NDArray

from fastdl.files import exports, sklearn_estimator, torch_module
from fastdl.files.portable import Portable, TableInputs


class Exports(ABC):
    """What `MLP` has of them."""

    parameters: NDArray[Any]

    @abstractmethod
    def _description(self) -> dict[str, Any]:
        """All but the parameters, as plain JSON values."""

    def _table_inputs(self) -> TableInputs | None:
        """What raw columns become, for a model of tables."""
        return None

    def _portable(self) -> Portable:
        return Portable.of(self._description(), self.parameters, self._table_inputs())

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write the model for use without fastdl: .onnx, .safetensors or .py (NumPy alone), as the file's name says.

        ONNX files and Python modules take raw inputs, of a table its raw columns, and give labels and probabilities, or
        numbers in their units; see README.md, "In and out". An existing file is replaced only when all is written.

        Raises
        ------
        InputError : another ending, or the model has what the format has nothing for
        MissingExtraError : the format's package is not installed
        """
        exports.write(path, self._description(), self.parameters, self._table_inputs())

    def to_torch(self, dtype: str | None = None) -> Any:
        """A `torch.nn.Sequential` from raw inputs [N, I] to raw outputs [N, O], as `forward` gives them.

        Standardisation is folded into the first Linear: W / scale, and b - (mean / scale) W. Where inputs are clipped or
        embedded, a module `inputs` in front of it does all of this, with what is learnt as its parameters. Raw outputs are
        logits, log rates, or targets as they are standardised: `model.scaling.untargets` gives them their units back. In
        float32 an input loses the digits that its mean has in front of its deviation; `dtype="float64"` keeps them. A model of
        tables takes features, `model.encode(frame).matrix()`. The module has copies of the parameters.

        Raises
        ------
        MissingExtraError : torch is not installed
        """
        return torch_module.to_torch(self._portable(), dtype)

    def to_sklearn(self) -> Any:
        """A fitted `MLPClassifier` or `MLPRegressor` of scikit-learn itself, with copies of the parameters.

        Standardisation of inputs and targets is folded in, so that it predicts labels and numbers from raw inputs [N, I] (of a
        model of tables, from features).

        Raises
        ------
        InputError : scikit-learn has no such network: other activations, or several of them, inputs that are clipped or embedded,
            or classes of several types
        MissingExtraError : scikit-learn is not installed
        """
        return sklearn_estimator.to_sklearn(self._portable())
