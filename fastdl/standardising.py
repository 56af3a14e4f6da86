"""What a model takes from its data before it is trained: statistics of columns, their names, and edges of pieces."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl import checks, frames, sparse, stored
from fastdl.categories import CategoryEmbedding
from fastdl.embeddings import Embedding
from fastdl.errors import InputError
from fastdl.exporting import Exports
from fastdl.losses import Loss
from fastdl.network import Architecture, StageViews
from fastdl.scaling import Scaling

if TYPE_CHECKING:
    from typing_extensions import Self


MOST_ROWS = 1_000_000
"""Edges of pieces are quantiles of so many rows at the most, evenly taken."""


class Standardises(Exports):
    """What `MLP` has of it."""

    layers: tuple[int, ...]
    output: str
    loss: Loss
    scaling: Scaling | None
    feature_names: list[str] | None
    input_stage: StageViews | None
    embedding: Embedding | None = None
    categories: CategoryEmbedding | None = None

    @property
    @abstractmethod
    def architecture(self) -> Architecture:
        """What the engine must know of the model besides its parameters."""

    @abstractmethod
    def prepare_inputs(self, X: Any, name: str = "X") -> Any:
        """X as the engine reads it."""

    @abstractmethod
    def _numbers(self, y: ArrayLike, n_rows: int, name: str) -> NDArray[Any]:
        """y as numbers [N, O]."""

    def standardize(
        self, X: ArrayLike, y: ArrayLike | None = None, robust: bool = False, clip: float | None = None
    ) -> Self:
        """Carry the statistics of X (and of a regression's targets y): from now on every X is standardised with them.

        X is an array, which is gone through block by block, a list of arrays, whose rows follow each other, or a frame. `predict`
        returns regression targets in the units of y. With `robust`, features are centred by their medians and scaled by the
        distance of their quartiles, so that a few values far out do not squeeze the others; `clip` brings those smoothly nearer
        than that (see `fastdl.scaling.Scaling`). Returns the model itself.
        """
        if sparse.is_sparse(X):
            raise InputError(
                f"X: expected a dense array, got a sparse {type(X).__name__}, which centring would make dense; scale it with "
                f"sklearn.preprocessing.MaxAbsScaler, or leave standardize out"
            )
        rows = stored.parts_of(X, self.layers[0])
        if rows is None:
            rows = [checks.table(frames.in_order(X, self.feature_names), self.layers[0], keep_half=True)]
        stored.check_finite(rows)
        if sum(map(len, rows)) == 0:
            raise InputError("X: expected at least one row to take the statistics of, got an empty array")
        if y is not None:
            if self.output != "linear":
                raise InputError(f"y: only the targets of a regression are standardised, and output is {self.output!r}")
            if self.loss.is_log_link:
                raise InputError(
                    "y: expected no targets to standardise with loss='poisson', whose outputs are e^z; leave y out"
                )
            y = self._numbers(stored.targets_of(X, y), sum(map(len, rows)), "y")
        clip = None if clip is None else checks.positive(clip, "clip", "how far features get at the most")
        scaling = replace(Scaling.robust(rows, y) if robust else Scaling.of(rows, y), clip=clip)
        self.scaling = scaling.without(self._codes)
        self.note_names(X)
        self.fit_embedding(X)
        return self

    def fit_embedding(self, X: Any) -> Self:
        """Take what an embedding does not learn, edges of `PiecewiseLinear`, from rows X, as `standardize` does. Returns self."""
        if self.embedding is not None and self.embedding.is_fitted and self.input_stage is not None:
            rows = self.prepare_inputs(X)
            if len(rows) == 0:
                raise InputError("X: expected at least one row to take quantiles of, got an empty array")
            stage = self.architecture.stage
            assert stage is not None
            some = np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).astype(np.int64)
            self.embedding.fit(self.input_stage, rows[some][:, list(stage.embedded)])
        return self

    @property
    def _codes(self) -> tuple[int, ...]:
        """The columns that hold codes of categories."""
        return () if self.categories is None else tuple(self.categories.counts)

    def note_names(self, X: ArrayLike) -> None:
        """Remember the names of a frame's columns, unless the model has names already."""
        if self.feature_names is None and not isinstance(X, (np.ndarray, list, tuple)):
            self.feature_names = frames.names_of(X)
