"""A model as exporters see it: plain arrays and names, and, of a model of tables, what each raw column becomes.

Nothing here knows the tables themselves: kinds of columns say by one of these inputs how they are read (`Column.portable`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl import categories, embeddings, network
from fastdl.activations import Activation
from fastdl.errors import InputError
from fastdl.losses import Loss
from fastdl.network import Architecture, LossTerm, StageViews, Terms, Unit
from fastdl.scaling import Scaling


@dataclass(frozen=True)
class NumberInput:
    """A column of numbers: `fill` stands for one that is missing or infinite; with `marked` a second feature says where.

    decimal, grouped : how texts write numbers (see `fastdl.tables.numbers.Style`)
    """

    name: str
    fill: float
    marked: bool
    decimal: str = "."
    grouped: bool = False

    @property
    def width(self) -> int:
        """How many features it becomes."""
        return 1 + int(self.marked)


@dataclass(frozen=True)
class LookupInput:
    """A column of texts, each of which stands for a row of numbers: categories and truth values.

    codes : the row of each known text
    rows : [codes, width]
    unseen, missing : the rows of all other texts, and of a missing one
    lower : whether texts are known in any case; else whole numbers lose a fraction of zeros (`1.0` is `1`)
    """

    name: str
    codes: dict[str, int]
    rows: NDArray[np.float64] = field(compare=False)
    unseen: int
    missing: int
    lower: bool = False

    @property
    def width(self) -> int:
        """How many features it becomes."""
        return int(self.rows.shape[1])

    @property
    def is_one_hot(self) -> bool:
        """Whether row k has its only 1 at k, and the last one has none."""
        return np.array_equal(self.rows, one_hot_rows(self.width))


@dataclass(frozen=True)
class MomentInput:
    """A column of moments: numbers of calendar and clock, in this order, with those of `parts` where one is missing.

    parts : name of each (see `fastdl.tables.dates.PARTS`) and its number for a missing moment
    marked : whether one more feature says where
    pattern, prefix : how texts write moments (see `fastdl.tables.dates.DateFormat`)
    """

    name: str
    parts: dict[str, float]
    marked: bool
    pattern: str
    prefix: str = ""

    @property
    def width(self) -> int:
        """How many features it becomes."""
        return len(self.parts) + int(self.marked)


@dataclass(frozen=True)
class WordsInput:
    """A column of free text: for each of the words whether it occurs, in any case."""

    name: str
    words: tuple[str, ...]

    @property
    def width(self) -> int:
        """How many features it becomes."""
        return len(self.words)


Input = NumberInput | LookupInput | MomentInput | WordsInput


@dataclass(frozen=True)
class TableInputs:
    """The raw columns of a table, and the words that mean that a cell is missing."""

    columns: tuple[Input, ...]
    missing_words: tuple[str, ...] = ()

    @property
    def missing_numbers(self) -> tuple[float, ...]:
        """Those of the words that are numbers: columns of numbers hold them as such."""
        found = []
        for word in self.missing_words:
            try:
                found.append(float(word))
            except ValueError:
                continue
        return tuple(number for number in found if number == number)


@dataclass(frozen=True)
class Stage:
    """What stands before the first layer: some inputs become several numbers each, and all get a scale.

    embedded, others : which inputs are embedded and which pass as they are, behind them
    numbers : what is learnt (see `fastdl.network.StageViews`), and edges
    passes : whether an embedded input itself stands behind its linear maps
    codes, starts : which inputs are codes of categories, and where their tables start: see `StageViews.looked_up`
    """

    embedded: tuple[int, ...]
    others: tuple[int, ...]
    numbers: StageViews
    passes: bool
    codes: tuple[int, ...] = ()
    starts: tuple[int, ...] = (0,)

    @property
    def has_pieces(self) -> bool:
        """Whether the linear maps take pieces (`StageViews.pieces`), not cosines (`StageViews.cosines`)."""
        return self.numbers.edges.size > 0

    @property
    def term_arrays(self) -> tuple[NDArray, ...]:
        """What the functions have of numbers that the linear maps take."""
        return self.numbers.pieces() if self.has_pieces else self.numbers.cosines()

    @property
    def has_scale(self) -> bool:
        """Whether there are scales."""
        return self.numbers.scale.size > 0


@dataclass(frozen=True)
class Portable:
    """All of a model that its predictions depend on.

    description : the model's plain JSON values, as a model file holds them
    weights, biases : (in, out) and (out,) of each layer
    unit_alphas : (out,) of each hidden layer whose activation is parametric, else empty
    table : what raw columns become; None for a model of arrays
    stage : what stands before the first layer, or None
    """

    description: dict[str, Any]
    weights: tuple[NDArray[Any], ...]
    biases: tuple[NDArray[Any], ...]
    activations: tuple[Activation, ...]
    unit_alphas: tuple[NDArray[Any], ...]
    scaling: Scaling | None
    log_link: bool
    table: TableInputs | None = None
    stage: Stage | None = None

    @classmethod
    def of(cls, description: dict[str, Any], parameters: NDArray[Any], table: TableInputs | None = None) -> Portable:
        """The model of a description and its flat parameters [P]."""
        architecture = architecture_of(description)
        weights, biases = network.views(architecture.dense, parameters)
        units = tuple(Activation.from_json(entry) for entry in description["activations"])
        loss = Loss(description["loss"]["name"], _tuple(description["loss"]["parameter"]))
        scaling = Scaling.from_json(description["scaling"])
        alphas, stage = architecture.alpha_views(parameters), _stage(architecture, parameters)
        return cls(description, weights, biases, units, alphas, scaling, loss.is_log_link, table, stage)

    @property
    def layers(self) -> list[int]:
        """Sizes of all layers."""
        return list(self.description["layers"])

    @property
    def output(self) -> str:
        """The output unit."""
        return str(self.description["output"])

    @property
    def dtype(self) -> np.dtype:
        """Of parameters and arithmetic."""
        return np.dtype(self.description["dtype"])

    @property
    def units(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """(mean, scale) of standardised targets: predictions are raw * scale + mean; None where they are raw."""
        scaling = self.scaling
        if self.output != "linear" or scaling is None or scaling.y_mean is None or scaling.y_scale is None:
            return None
        return scaling.y_mean, scaling.y_scale

    @property
    def is_binary(self) -> bool:
        """Whether one output tells two classes apart."""
        return self.output == "sigmoid" and self.layers[-1] == 1

    @property
    def classes(self) -> list[Any] | None:
        """The label behind each column of probabilities; None for numbers and for several independent labels."""
        if self.output == "linear" or (self.output == "sigmoid" and not self.is_binary):
            return None
        known: Sequence[Any] | None = self.description["classes"]
        return list(range(max(2, self.layers[-1]))) if known is None else list(known)

    def class_array(self, who: str) -> NDArray[Any]:
        """The classes as an array of one type, for `who` knows no other.

        Raises
        ------
        InputError : they are of several types
        """
        classes = self.classes or []
        if not are_uniform(classes):
            kinds = sorted({type(c).__name__ for c in classes})
            raise InputError(
                f"{who}: expected classes of one type (text, whole numbers, numbers or booleans), got {', '.join(kinds)}; set "
                f"model.classes to texts"
            )
        return np.array(classes)


def are_uniform(classes: Sequence[Any]) -> bool:
    """Whether classes are all texts, all whole numbers, all numbers or all booleans."""
    return len({type(c) for c in classes}) == 1 and np.array(classes).dtype.kind in "biufU"


def one_hot_rows(width: int) -> NDArray[np.float64]:
    """The rows of `width` features of which one is 1, and one row where none is."""
    return np.eye(width + 1, width)


def architecture_of(description: dict[str, Any]) -> Architecture:
    """The shape of the network that a description is of, but for its loss."""
    n_in, *others = description["layers"]
    units = [Activation.from_json(entry) for entry in description["activations"]]
    embedding = embeddings.from_json(description.get("embedding"))
    of_categories = categories.from_json(description.get("categories"))
    stage = embeddings.stage_of(embedding, description.get("scale_inputs", False), n_in, of_categories)
    sizes = (n_in, *others) if stage is None else (n_in, stage.n_outputs(n_in), *others)
    hidden = tuple(Unit(a.code, a.alpha or 0.0, a.parametric) for a in units)
    return Architecture(sizes, hidden, LossTerm(0), np.dtype(description["dtype"]), stage)


def _stage(architecture: Architecture, parameters: NDArray[Any]) -> Stage | None:
    stage, numbers = architecture.stage, architecture.stage_views(parameters)
    if stage is None or numbers is None:
        return None
    codes = tuple(column for column, _ in stage.categories)
    order = stage.order(architecture.layers[0])
    rest = tuple(order[len(stage.embedded) : len(order) - len(codes)])
    return Stage(stage.embedded, rest, numbers, stage.terms == Terms.COSINES, codes, tuple(stage.starts))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def described(
    weights: Sequence[NDArray[Any]],
    biases: Sequence[NDArray[Any]],
    activations: Sequence[Activation],
    output: str,
    dtype: str,
    loss: str | None = None,
    **more: Any,
) -> tuple[dict[str, Any], NDArray[Any]]:
    """(description, flat parameters [P]) of a network that came from elsewhere: weights (in, out) and biases (out,).

    `more` may hold scaling, feature_names, target_names and classes, as plain JSON values.
    """
    layers = [int(weights[0].shape[0]), *(int(weight.shape[1]) for weight in weights)]
    description = {
        "layers": layers,
        "activations": [a.to_json() for a in activations],
        "output": output,
        "loss": None if loss is None else {"name": loss, "parameter": None},
        "dtype": dtype,
        "seed": 0,
        "scaling": None,
        "feature_names": None,
        "target_names": None,
        "classes": None,
        "metadata": {},
    }
    flat = [np.asarray(part, dtype).ravel() for pair in zip(weights, biases) for part in pair]
    return description | more, np.concatenate(flat)


def is_plain(model: Portable) -> bool:
    """Whether nothing but a standardisation stands before the first layer, which `folded` can take into it."""
    return model.stage is None and (model.scaling is None or model.scaling.clip is None)


def folded(model: Portable, fold_targets: bool = False) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Weights (in, out) and biases (out,) in float64 with the standardisation inside: the first layer takes raw inputs.

    ((x - mean) / scale) W + b = x (W / scale) + (b - (mean / scale) W); with `fold_targets` the last layer gives targets in their
    units as well.
    """
    weights = [np.array(weight, np.float64) for weight in model.weights]
    biases = [np.array(bias, np.float64) for bias in model.biases]
    if model.scaling is not None:
        biases[0] = biases[0] - (model.scaling.mean / model.scaling.scale) @ weights[0]
        weights[0] = weights[0] / model.scaling.scale[:, None]
    if fold_targets and model.units is not None:
        mean, scale = model.units
        weights[-1] = weights[-1] * scale
        biases[-1] = biases[-1] * scale + mean
    return weights, biases
