"""Validation data: checked and prepared once, assessed after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl import checks, metrics, stored
from fastdl.errors import InputError
from fastdl.model import MLP


class Validation:
    """Rows that a training does not learn from.

    Parameters
    ----------
    model : whose inputs and targets they are
    data : (X, y) or (X, y, weights), as `Trainer.fit` takes them
    own : name -> function(y, predictions) of metrics besides fastdl's; y as it was given, predictions as `model.predict`
        gives them
    """

    def __init__(self, model: MLP, data: Any, own: Mapping[str, Callable[..., float]]) -> None:
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            got = f"{len(data)} things" if isinstance(data, (tuple, list)) else type(data).__name__
            raise InputError(f"validation_data: expected a pair (X, y), or (X, y, weights), got {got}")
        self._model, self._own = model, own
        self.inputs = model.prepare_inputs(data[0], "validation X")
        if len(self.inputs) == 0:
            raise InputError("validation X: expected at least one row, got an empty array")
        y = stored.targets_of(data[0], data[1], "validation y")
        self.targets = model.prepare_targets(y, len(self.inputs), "validation y")
        self.weight: NDArray | None = None
        if len(data) == 3 and data[2] is not None:
            weight = checks.weights(data[2], len(self.inputs), "validation weights")
            self.weight = (weight / weight.mean()).astype(model.dtype)
        self._y = np.asarray(y)

    def assess(self, n_threads: int | str) -> tuple[float, dict[str, float]]:
        """(mean loss, metrics) of the model as it is now; both weighted where there are weights."""
        engine = self._model.engine
        raw = engine.forward(self.inputs, n_threads)
        loss = engine.mean_loss(raw, self.targets, self.weight)
        values = metrics.evaluate(self._model, raw, self.targets, self.weight)
        if self._own:
            predictions = self._model.decode(raw)
            for name, function in self._own.items():
                try:
                    values[name] = float(function(self._y, predictions))
                except (TypeError, ValueError) as error:
                    raise InputError(
                        f"metrics[{name!r}]: expected a function of (y, predictions) that gives a number ({error})"
                    ) from error
        return loss, values
