"""What is asked of a model, or of several that answer as one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.model import MLP
from fastdl.tables.ensemble import Ensemble


def head_of(model: MLP | Ensemble) -> MLP:
    """The model that knows what raw outputs mean."""
    return model.head if isinstance(model, Ensemble) else model


def first_of(model: MLP | Ensemble) -> MLP:
    """The model itself, or the first of several."""
    return model.members[0] if isinstance(model, Ensemble) else model


def raw_of(model: MLP | Ensemble, inputs: NDArray[Any]) -> NDArray[np.floating]:
    """Raw outputs of `head_of(model)` for rows as `MLP.prepare_inputs` of `first_of(model)` gives them; several models have
    the same scaling."""
    if not isinstance(model, Ensemble):
        return model.engine.forward(inputs)
    return model.as_raw(model.averaged([member.engine.forward(inputs) for member in model.members]))


def input_sizes(model: MLP | Ensemble) -> NDArray[np.floating]:
    """How large the weights are that each input meets first [I]: those of the first layer, summed over all that an embedding
    makes of the input."""
    first = first_of(model)
    sizes = np.abs(first.weights[0]).sum(axis=1)
    stage, learnt = first.architecture.stage, first.input_stage
    if stage is None or learnt is None:
        return sizes
    if stage.scaled:
        sizes = sizes * np.abs(learnt.scale)
    n_inputs, n_embedded, n_codes = first.layers[0], len(stage.embedded), len(stage.categories)
    widths = [stage.size] * n_embedded + [1] * (n_inputs - n_embedded - n_codes) + [stage.category_size] * n_codes
    starts = np.cumsum([0, *widths[:-1]])
    found = np.empty(n_inputs, sizes.dtype)
    found[stage.order(n_inputs)] = np.add.reduceat(sizes, starts)
    return found
