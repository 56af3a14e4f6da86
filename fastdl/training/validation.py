"""Validation data: checked and prepared once, assessed after every epoch; and a look at targets that nothing scales."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl import checks, metrics, stored
from fastdl.distributed.ranks import Ranks
from fastdl.errors import InputError
from fastdl.model import MLP
from fastdl.stored import Inputs

# Targets of a regression beyond this size (their median) get a warning if nothing scales them: a network's outputs start near 0.
LARGE_TARGETS = 1000.0


def warn_of_large_targets(model: MLP, targets: NDArray, stacklevel: int = 3) -> None:
    """Warn the caller of `fit` of targets that a network finds late or never, where nothing scales them."""
    scaling = model.scaling
    if model.output != "linear" or model.loss.is_log_link or (scaling is not None and scaling.y_mean is not None):
        return
    middle = float(np.median(np.abs(targets[:: max(1, len(targets) // 1000)])))
    if middle > LARGE_TARGETS:
        warnings.warn(
            f"y: the targets are around {middle:.3g} and nothing scales them, while a network starts near 0: "
            f"model.standardize(X, y) makes the training find them",
            UserWarning,
            stacklevel=stacklevel,
        )


class Validation:
    """Rows that a training does not learn from.

    Parameters
    ----------
    model : whose inputs and targets they are
    prepared : inputs and targets as the model takes them
    y : the targets as they were given, for metrics of one's own
    own : name -> function(y, predictions) of metrics besides fastdl's; predictions as `model.predict` gives them
    weight : of each row, or None
    """

    def __init__(
        self,
        model: MLP,
        prepared: tuple[Inputs, NDArray],
        y: ArrayLike,
        own: Mapping[str, Callable[..., float]],
        weight: ArrayLike | None = None,
    ) -> None:
        self._model, self._own = model, own
        self.inputs, self.targets = prepared
        self.weight: NDArray | None = None
        if weight is not None:
            weight = checks.weights(weight, len(self.inputs), "validation weights")
            self.weight = (weight / weight.mean()).astype(model.dtype)
        self._y = np.asarray(y)

    @classmethod
    def of(cls, model: MLP, data: Any, own: Mapping[str, Callable[..., float]]) -> Validation:
        """Of (X, y) or (X, y, weights), as `Trainer.fit` takes them."""
        X, y, weight = parts_of(data)
        y = stored.targets_of(X, y, "validation y")
        inputs = model.prepare_inputs(X, "validation X")
        if len(inputs) == 0:
            raise InputError("validation X: expected at least one row, got an empty array")
        return cls(model, (inputs, model.prepare_targets(y, len(inputs), "validation y")), y, own, weight)

    def assess(self, n_threads: int | str, ranks: Ranks | None = None) -> tuple[float, dict[str, float]]:
        """(mean loss, metrics) of the model as it is now; both weighted where there are weights.

        Each of several ranks predicts some of the rows, if they are an array; all have to ask.
        """
        engine = self._model.engine
        if ranks is None or not isinstance(self.inputs, np.ndarray) or len(self.inputs) < ranks.size:
            raw = engine.forward(self.inputs, n_threads)
        else:
            first, stop = (r * len(self.inputs) // ranks.size for r in (ranks.rank, ranks.rank + 1))
            raw = np.concatenate(ranks.all_of(engine.forward(self.inputs[first:stop], n_threads)))
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


def parts_of(data: Any) -> tuple[Any, Any, Any]:
    """X, y, and weights or None, of validation data.

    Raises
    ------
    InputError : they are no pair and no triple
    """
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        got = f"{len(data)} things" if isinstance(data, (tuple, list)) else type(data).__name__
        raise InputError(f"validation_data: expected a pair (X, y), or (X, y, weights), got {got}")
    return data[0], data[1], data[2] if len(data) == 3 else None
