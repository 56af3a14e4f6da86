"""Embeddings of numbers: what a model makes of its inputs before the first layer, learnt with the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastdl import checks
from fastdl.errors import InputError
from fastdl.network import InputStage, StageViews


@dataclass(frozen=True)
class PBLD:
    """Each number x becomes `size` numbers: x itself behind a linear map, with biases, of J cosines of x.

    c[j] = cos(2π w[j] x + b[j]), e[k] = Σ_j v[k, j] c[j] + a[k] for k < size - 1, and e[size - 1] = x. Every column of X has
    w, b, v and a of its own. They start as w ~ N(0, sigma²), b ~ U(-π, π), v and a ~ U(-1, 1) / sqrt(J). "PBLD" stands for
    periodic, bias, linear, and DenseNet, which passes x on (Holzmüller, Grinsztajn and Steinwart, 2024; after Gorishniy et al.,
    2022). It is meant for columns of about unit scale: see `MLP.standardize`.

    Cost, with E columns and B rows: about B E J (16 + size) multiply-adds forward, and twice as many for the gradient.

    Parameters
    ----------
    size : numbers that each embedded column becomes, 2 or more
    frequencies : J, how many cosines
    sigma : deviation of the initial frequencies
    columns : which columns of X are embedded (None: all); the others pass as they are, behind all embedded ones

    Raises
    ------
    InputError : a value is not as above
    """

    size: int = 4
    frequencies: int = 16
    sigma: float = 0.1
    columns: Sequence[int] | None = None

    def __post_init__(self) -> None:
        checks.count(self.size, "PBLD: size", 2, "the numbers that a column becomes")
        checks.count(self.frequencies, "PBLD: frequencies", 1, "the cosines of a column")
        checks.positive(self.sigma, "PBLD: sigma", "the deviation of the initial frequencies")
        if self.columns is None:
            return
        if (
            isinstance(self.columns, str)
            or not isinstance(self.columns, (Sequence, np.ndarray))
            or len(self.columns) == 0
        ):
            raise InputError(
                f"PBLD: columns: expected None or a list of at least one column's number, got {self.columns!r}"
            )
        columns = tuple(checks.count(c, "PBLD: columns", 0, "the number of a column") for c in self.columns)
        if len(set(columns)) < len(columns):
            raise InputError(f"PBLD: columns: expected each column once, got {list(columns)}")
        object.__setattr__(self, "columns", columns)

    def fill(self, views: StageViews, rng: np.random.Generator) -> None:
        """Overwrite an embedding's parameters with initial ones, drawn in float64 for every dtype."""
        views.frequencies[...] = self.sigma * rng.standard_normal(views.frequencies.shape)
        views.phases[...] = rng.uniform(-math.pi, math.pi, views.phases.shape)
        bound = 1 / math.sqrt(self.frequencies)
        views.weights[...] = rng.uniform(-bound, bound, views.weights.shape)
        views.biases[...] = rng.uniform(-bound, bound, views.biases.shape)

    def to_json(self) -> dict[str, Any]:
        """Name and numbers, as they stand in a model file."""
        columns = None if self.columns is None else list(self.columns)
        return {"name": "pbld", **asdict(self), "columns": columns}


def from_json(told: dict[str, Any] | None) -> PBLD | None:
    """The embedding that `to_json` described."""
    if told is None:
        return None
    if told["name"] != "pbld":
        raise ValueError(f"unknown embedding {told['name']!r}")
    return PBLD(**{name: value for name, value in told.items() if name != "name"})


def stage_of(embedding: object, scales: object, n_inputs: int) -> InputStage | None:
    """What stands between so many inputs and the first layer; None: nothing.

    Raises
    ------
    InputError : not an embedding, a column that there is not, or `scales` is not True or False
    """
    if not isinstance(scales, (bool, np.bool_)):
        raise InputError(f"scale_inputs: expected True or False, got {scales!r}")
    if embedding is None:
        return InputStage((), 0, 1, True) if scales else None
    if not isinstance(embedding, PBLD):
        raise InputError(f"embedding: expected an instance such as fastdl.PBLD(), or None, got {embedding!r}")
    columns = tuple(range(n_inputs)) if embedding.columns is None else tuple(embedding.columns)
    if max(columns) >= n_inputs:
        raise InputError(
            f"PBLD: columns: expected columns 0 to {n_inputs - 1} of the model's inputs, got {max(columns)}"
        )
    return InputStage(columns, embedding.frequencies, embedding.size, bool(scales))
