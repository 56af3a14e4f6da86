"""Embeddings of numbers: what a model makes of its inputs before the first layer, learnt with the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastdl import checks
from fastdl.categories import CategoryEmbedding
from fastdl.errors import InputError
from fastdl.network import InputStage, StageViews, Terms


class Embedding:
    """An embedding of numbers: each column x becomes e = V t(x) + a, linear maps of some functions t of it.

    name : in files, settings and the registry
    terms : which functions
    least : the fewest numbers that a column may become
    is_fitted : whether there is something that `fit` takes from data
    """

    name: ClassVar[str]
    terms: ClassVar[Terms]
    least: ClassVar[int] = 1
    is_fitted: ClassVar[bool] = False
    size: int
    columns: Sequence[int] | None

    @property
    def count(self) -> int:
        """How many frequencies or pieces a column has."""
        raise NotImplementedError

    def _check(self) -> None:
        """Refuse a size or columns that cannot be."""
        checks.count(self.size, f"{self._who}: size", self.least, "the numbers that a column becomes")
        if self.columns is None:
            return
        name = f"{self._who}: columns"
        if (
            isinstance(self.columns, str)
            or not isinstance(self.columns, (Sequence, np.ndarray))
            or len(self.columns) == 0
        ):
            raise InputError(f"{name}: expected None or a list of at least one column's number, got {self.columns!r}")
        columns = tuple(checks.count(c, name, 0, "the number of a column") for c in self.columns)
        if len(set(columns)) < len(columns):
            raise InputError(f"{name}: expected each column once, got {list(columns)}")
        object.__setattr__(self, "columns", columns)

    @property
    def _who(self) -> str:
        return type(self).__name__

    def fill(self, views: StageViews, rng: np.random.Generator) -> None:
        """Overwrite an embedding's parameters with initial ones, drawn in float64 for every dtype."""
        self._fill_terms(views, rng)
        bound = 1 / math.sqrt(views.weights.shape[2])
        views.weights[...] = rng.uniform(-bound, bound, views.weights.shape)
        views.biases[...] = rng.uniform(-bound, bound, views.biases.shape)

    def _fill_terms(self, views: StageViews, rng: np.random.Generator) -> None:
        """What the functions themselves have of numbers."""

    def fit(self, views: StageViews, columns: NDArray[np.floating]) -> None:
        """Take what is not learnt from standardised rows of the embedded columns [N, E]."""

    def for_all_columns(self) -> Embedding:
        """The same of all columns, however many."""
        return replace(self, columns=None)  # type: ignore[type-var]

    def to_json(self) -> dict[str, Any]:
        """Name and numbers, as they stand in a model file."""
        columns = None if self.columns is None else list(self.columns)
        values: dict[str, Any] = asdict(self)  # type: ignore[call-overload]
        return {"name": self.name, **values, "columns": columns}


@dataclass(frozen=True)
class _OfWaves(Embedding):
    """What embeddings of cosines have in common."""

    size: int = 4
    frequencies: int = 16
    sigma: float = 0.1
    columns: Sequence[int] | None = None

    def __post_init__(self) -> None:
        checks.count(self.frequencies, f"{self._who}: frequencies", 1, "the cosines of a column")
        checks.positive(self.sigma, f"{self._who}: sigma", "the deviation of the initial frequencies")
        self._check()

    @property
    def count(self) -> int:
        return self.frequencies

    def _fill_terms(self, views: StageViews, rng: np.random.Generator) -> None:
        views.frequencies[...] = self.sigma * rng.standard_normal(views.frequencies.shape)
        views.phases[...] = rng.uniform(-math.pi, math.pi, views.phases.shape)


@dataclass(frozen=True)
class PBLD(_OfWaves):
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

    name: ClassVar[str] = "pbld"
    terms: ClassVar[Terms] = Terms.COSINES
    least: ClassVar[int] = 2


@dataclass(frozen=True)
class Periodic(_OfWaves):
    """Each number x becomes `size` linear maps of J cosines and J sines of it: "PL" of Gorishniy, Rubachev and Babenko (2022).

    e[k] = Σ_j (v[k, j] cos(2π w[j] x) + v[k, J + j] sin(2π w[j] x)) + a[k] for k < size. Every column has w, v and a of its own:
    w ~ N(0, sigma²) at first, v and a ~ U(-1, 1) / sqrt(2 J). Unlike `PBLD` it has no phases, and x itself is not passed on.

    Cost, with E columns and B rows: about B E 2J (16 + size) multiply-adds forward, and twice as many for the gradient.

    Parameters
    ----------
    size : numbers that each embedded column becomes, 1 or more
    frequencies : J, how many; each has a cosine and a sine
    sigma : deviation of the initial frequencies: the larger, the sharper the functions that are learnt
    columns : as those of `PBLD`

    Raises
    ------
    InputError : a value is not as above
    """

    name: ClassVar[str] = "periodic"
    terms: ClassVar[Terms] = Terms.WAVES


@dataclass(frozen=True)
class PiecewiseLinear(Embedding):
    """Each number x becomes `size` piecewise linear functions of it with T pieces, whose ends are quantiles of the column.

    With edges q[0] <= ... <= q[T], t[j] = (x - q[j]) / (q[j + 1] - q[j]), which is at least 0 but for the first piece, and at
    most 1 but for the last; e[k] = Σ_j v[k, j] t[j] + a[k] for k < size. A piece of no width is 0. v and a start as
    U(-1, 1) / sqrt(T) and are learnt, for each column its own; the edges are not. `MLP.standardize` takes them from its rows,
    as quantiles of the standardised column; without it they are those of a normal distribution of unit scale. (The encoding of
    Gorishniy, Rubachev and Babenko, 2022, behind a linear map for each column.)

    Cost, with E columns and B rows: about B E T (3 + size) multiply-adds forward, and twice as many for the gradient.

    Parameters
    ----------
    size : numbers that each embedded column becomes, 1 or more
    pieces : T, how many
    columns : as those of `PBLD`

    Raises
    ------
    InputError : a value is not as above
    """

    name: ClassVar[str] = "piecewise"
    terms: ClassVar[Terms] = Terms.PIECES
    is_fitted: ClassVar[bool] = True
    size: int = 4
    pieces: int = 16
    columns: Sequence[int] | None = None

    def __post_init__(self) -> None:
        checks.count(self.pieces, f"{self._who}: pieces", 1, "the pieces of a column")
        self._check()

    @property
    def count(self) -> int:
        return self.pieces

    def _fill_terms(self, views: StageViews, rng: np.random.Generator) -> None:
        shares = (np.arange(self.pieces + 1) + 0.5) / (self.pieces + 1)
        views.edges[...] = [NormalDist().inv_cdf(share) for share in shares]

    def fit(self, views: StageViews, columns: NDArray[np.floating]) -> None:
        for edges, values in zip(views.edges, columns.T, strict=True):
            found = np.unique(np.quantile(values, np.linspace(0, 1, self.pieces + 1)).astype(edges.dtype))
            # Equal quantiles make pieces of no width. They come before the last piece, which goes on to infinity.
            edges[:] = [*found[:-1], *[found[max(len(found) - 2, 0)]] * (len(edges) - len(found)), found[-1]]


EMBEDDINGS: dict[str, Callable[..., Embedding]] = {kind.name: kind for kind in (PBLD, Periodic, PiecewiseLinear)}
"""Registry: files, settings and tests iterate over it."""


def from_json(told: dict[str, Any] | None) -> Embedding | None:
    """The embedding that `to_json` described."""
    if told is None:
        return None
    kind = EMBEDDINGS.get(told["name"])
    if kind is None:
        raise ValueError(f"unknown embedding {told['name']!r}")
    return kind(**{name: value for name, value in told.items() if name != "name"})


def named(name: str, columns: Sequence[int] | None = None) -> Embedding:
    """The embedding of a name in `EMBEDDINGS`, with its usual numbers."""
    return EMBEDDINGS[name](columns=columns)


def stage_of(embedding: object, scales: object, n_inputs: int, categories: object = None) -> InputStage | None:
    """What stands between so many inputs and the first layer; None: nothing.

    Raises
    ------
    InputError : not an embedding, a column that there is not or that is a category and a number, or `scales` is not True or False
    """
    if not isinstance(scales, (bool, np.bool_)):
        raise InputError(f"scale_inputs: expected True or False, got {scales!r}")
    if categories is not None and not isinstance(categories, CategoryEmbedding):
        raise InputError(
            f"categories: expected an instance such as fastdl.CategoryEmbedding({{3: 120}}), or None, got {categories!r}"
        )
    tables = () if categories is None else categories.tables
    codes = [column for column, _ in tables]
    if codes and codes[-1] >= n_inputs:
        raise InputError(
            f"CategoryEmbedding: counts: expected columns 0 to {n_inputs - 1} of the model's inputs, got {codes[-1]}"
        )
    size = 0 if categories is None else categories.size
    if embedding is None:
        return InputStage((), 0, 1, bool(scales), categories=tables, category_size=size) if scales or tables else None
    if not isinstance(embedding, Embedding):
        raise InputError(f"embedding: expected an instance such as fastdl.PBLD(), or None, got {embedding!r}")
    others = tuple(column for column in range(n_inputs) if column not in codes)
    columns = others if embedding.columns is None else tuple(embedding.columns)
    both = sorted(set(columns) & set(codes))
    if both:
        raise InputError(
            f"{type(embedding).__name__}: columns: expected columns of numbers, got {both[0]}, which holds categories"
        )
    if max(columns, default=0) >= n_inputs:
        raise InputError(
            f"{type(embedding).__name__}: columns: expected columns 0 to {n_inputs - 1} of the model's inputs, got {max(columns)}"
        )
    return InputStage(columns, embedding.count, embedding.size, bool(scales), embedding.terms, tables, size)
