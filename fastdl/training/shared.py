"""Data that many models learn from: prepared once for all models that take it in the same form."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from fastdl import stored
from fastdl.errors import InputError
from fastdl.model import MLP
from fastdl.stored import Inputs
from fastdl.tables.encoded import EncodedRows
from fastdl.tables.model import TableModel

Prepared = tuple[Inputs, NDArray]


@dataclass
class _Entry:
    """Inputs in one form, while there are models that will want them."""

    users: int = 0
    inputs: Inputs | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class SharedData:
    """X and y, and what models make of them: inputs by standardisation and dtype, targets by output unit.

    Parameters
    ----------
    X, y : as `Trainer.fit` takes them
    models : that will ask; inputs are let go after the last one of those that take them in the same form
    prefix : before their names in errors, such as "validation "
    """

    def __init__(self, X: Any, y: Any, models: list[MLP], prefix: str = "") -> None:
        self._X, self._name = X, f"{prefix}X"
        self._targets: dict[Hashable, NDArray] = {}
        self._entries: dict[Hashable, _Entry] = {}
        # As it is now: a model that learns the names of X's columns meanwhile takes the same inputs as before.
        self._forms = {id(model): _form_of_inputs(model) for model in models}
        for model in models:
            self._entries.setdefault(self._forms[id(model)], _Entry()).users += 1
        if isinstance(X, EncodedRows):  # it has been looked at when it was encoded
            self.n_rows = len(X)
        else:  # it is looked at here, so that bad data are known before anything is trained
            first = self._entries[self._forms[id(models[0])]]
            first.inputs = models[0].prepare_inputs(X, self._name)
            self.n_rows = len(first.inputs)
        if self.n_rows == 0:
            raise InputError(f"{self._name}: expected at least one row, got an empty array")
        y = stored.targets_of(X, y, f"{prefix}y")
        for model in models:
            form = _form_of_targets(model)
            if form not in self._targets:
                self._targets[form] = model.prepare_targets(y, self.n_rows, f"{prefix}y")

    def targets(self, model: MLP) -> NDArray:
        """The targets of all rows as the model takes them."""
        return self._targets[_form_of_targets(model)]

    @contextlib.contextmanager
    def lent(self, model: MLP) -> Iterator[Prepared]:
        """The inputs and targets of all rows as the model takes them, while the body runs."""
        entry = self._entries[self._forms[id(model)]]
        with entry.lock:
            if entry.inputs is None:
                entry.inputs = model.prepare_inputs(self._X, self._name)
            inputs = entry.inputs
        try:
            yield (inputs, self.targets(model))
        finally:
            with entry.lock:
                entry.users -= 1
                if entry.users <= 0:
                    entry.inputs = None


def _form_of_inputs(model: MLP) -> Hashable:
    """Models for which this is the same make the same inputs of X."""
    scaling = model.scaling
    return (
        model.layers[0],
        model.dtype,
        None if scaling is None else (scaling.mean.tobytes(), scaling.scale.tobytes(), scaling.clip),
        None if model.feature_names is None else tuple(model.feature_names),
        id(model.preprocessor) if isinstance(model, TableModel) else None,
    )


def _form_of_targets(model: MLP) -> Hashable:
    """Models for which this is the same make the same targets of y."""
    scaling = model.scaling
    units = None if scaling is None or scaling.y_mean is None else (scaling.y_mean.tobytes(), scaling.y_scale.tobytes())  # type: ignore[union-attr]
    return (model.layers[-1], model.output, model.loss, model.dtype, units)
