"""Several models that answer as one: the mean of their probabilities, or of their numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdl import checks, described, html
from fastdl.errors import InputError
from fastdl.files import native
from fastdl.losses import Loss
from fastdl.model import MLP
from fastdl.scaling import Scaling
from fastdl.tables.encoded import Encoded, EncodedRows
from fastdl.tables.frames import is_frame, to_polars
from fastdl.tables.kinds import Column, Findings
from fastdl.tables.model import TableModel, labels_of, model_of
from fastdl.tables.preprocessor import Preprocessor
from fastdl.wording import plural

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class EncodedForEach:
    """A table as each member of an ensemble encodes it; members with one preprocessor share what it made."""

    parts: tuple[Encoded, ...]

    def rows(self, rows: NDArray[np.int64] | None = None) -> RowsForEach:
        """Some of the rows, in this order, or all."""
        return RowsForEach(tuple(part.rows(rows) for part in self.parts))


@dataclass(frozen=True)
class RowsForEach:
    """Rows of a table as each member of an ensemble encodes them."""

    parts: tuple[EncodedRows, ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    @property
    def encoded(self) -> EncodedForEach:
        """The table that the rows are of."""
        return EncodedForEach(tuple(part.encoded for part in self.parts))


@dataclass(frozen=True)
class Preprocessors:
    """The preprocessors of an ensemble's members, as one: models of different rows have learnt different things."""

    each: tuple[Preprocessor, ...]

    def encode(self, frame: pl.DataFrame, findings: Findings | None = None, name: str = "the table") -> EncodedForEach:
        """The features of a tidy frame for each member; `findings` are those of the first."""
        made: dict[int, Encoded] = {}
        for preprocessor in self.each:
            if id(preprocessor) not in made:
                made[id(preprocessor)] = preprocessor.encode(frame, Findings() if made else findings, name)
        return EncodedForEach(tuple(made[id(preprocessor)] for preprocessor in self.each))

    def tidied(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A frame as `encode` takes it."""
        return self.each[0].tidied(frame)

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns as the first member learnt them."""
        return self.each[0].columns

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that the first member's features are made of."""
        return self.each[0].features

    @property
    def na_values(self) -> tuple[str, ...]:
        """Words for missing values, besides the usual ones."""
        return self.each[0].na_values

    @property
    def text_columns(self) -> list[str]:
        """The columns whose cells are needed as they were written."""
        return list(dict.fromkeys(name for preprocessor in self.each for name in preprocessor.text_columns))


class Ensemble:
    """Models of the same targets that answer as one: p = mean over m of softmax(z_m / T), or the mean of their numbers.

    Parameters
    ----------
    members : at least one model; all have the same output unit, loss, number of outputs and dtype
    temperature : T, which raw outputs z of classes and labels are divided by: above 1 probabilities are less certain
        (Guo et al., 2017)

    `predict`, `predict_proba` and `forward` are those of `MLP`, and take data frames as `TableModel` does where the members know
    their table. `save` writes one file, which `fastdl.load` reads.

    Attributes
    ----------
    head : a model of the same output unit and loss, and of the targets' units, for what is made of raw outputs: it learns nothing
    target_names, classes : those of the members
    metadata : what travels with the file besides

    Raises
    ------
    InputError : the members do not fit together
    """

    def __init__(self, members: Sequence[MLP], temperature: float = 1.0) -> None:
        self.members = list(members)
        if not self.members or not all(isinstance(member, MLP) for member in self.members):
            raise InputError(
                f"members: expected at least one fastdl.MLP, got {[type(m).__name__ for m in self.members]}"
            )
        first = self.members[0]
        for i, member in enumerate(self.members):
            for name in ("output", "loss", "dtype", "classes", "target_names"):
                if getattr(member, name) != getattr(first, name):
                    raise InputError(
                        f"members[{i}]: expected {name} {getattr(first, name)} as of the first one, got {getattr(member, name)}"
                    )
            if member.layers[-1] != first.layers[-1]:
                raise InputError(f"members[{i}]: expected {first.layers[-1]} outputs, got {member.layers[-1]}")
            if isinstance(member, TableModel) != isinstance(first, TableModel):
                raise InputError(f"members[{i}]: expected models of tables, or none, got both")
        self.temperature = checks.positive(temperature, "temperature", "what raw outputs are divided by")
        self.metadata: dict[str, Any] = {}
        self.head = MLP([1, first.layers[-1]], output=first.output, dtype=first.dtype.name, loss=first.loss)
        scaling = first.scaling
        if scaling is not None and scaling.y_mean is not None:
            self.head.scaling = Scaling(np.zeros(1), np.ones(1), scaling.y_mean, scaling.y_scale)

    # --- what it has in common with its members ---

    @property
    def output(self) -> str:
        """The output unit."""
        return self.members[0].output

    @property
    def loss(self) -> Loss:
        """What the members were trained for."""
        return self.members[0].loss

    @property
    def layers(self) -> tuple[int, ...]:
        """The sizes of the first member's layers."""
        return self.members[0].layers

    @property
    def dtype(self) -> np.dtype:
        """Of the members' arithmetic."""
        return self.members[0].dtype

    @property
    def classes(self) -> list[Any] | None:
        """The classes in the order of the probabilities."""
        return self.members[0].classes

    @property
    def target_names(self) -> list[str] | None:
        """The names of the targets."""
        return self.members[0].target_names

    @property
    def feature_names(self) -> list[str] | None:
        """The names of the first member's features."""
        return self.members[0].feature_names

    @property
    def n_parameters(self) -> int:
        """How many numbers all members have learnt."""
        return sum(member.n_parameters for member in self.members)

    @property
    def reads_tables(self) -> bool:
        """Whether the members know how the columns of a table become their inputs."""
        return isinstance(self.members[0], TableModel)

    @property
    def preprocessor(self) -> Preprocessors:
        """What turns a table into the features of each member."""
        each = [member.preprocessor for member in self.members if isinstance(member, TableModel)]
        if not each:
            raise InputError("preprocessor: expected models that were trained on a table, got ones without columns")
        return Preprocessors(tuple(each))

    # --- prediction ---

    def encode(self, frame: Any, findings: Findings | None = None, name: str = "X") -> RowsForEach:
        """The features of a data frame for each member, in a compact form that all methods take."""
        preprocessor = self.preprocessor
        return preprocessor.encode(preprocessor.tidied(to_polars(frame, name)), findings, name).rows()

    def raw_of_each(self, X: Any) -> list[NDArray[np.floating]]:
        """The raw outputs [N, O] of each member."""
        if self.reads_tables and is_frame(X):
            X = self.encode(X)
        inputs = X.parts if isinstance(X, RowsForEach) else [X] * len(self.members)
        return [member.forward(part) for member, part in zip(self.members, inputs, strict=True)]

    def averaged(self, raws: Sequence[NDArray[np.floating]], temperature: float | None = None) -> NDArray[np.float64]:
        """The mean of the members' answers to their raw outputs [N, O], in float64.

        The logarithms of mean probabilities for softmax, their logits for sigmoid; for linear output the mean of the
        members' predictions in the units of the targets.
        """
        temperature = self.temperature if temperature is None else temperature
        if self.output == "linear":
            return np.mean([self._numbers(member, raw) for member, raw in zip(self.members, raws)], axis=0)
        z = np.stack(raws).astype(np.float64) / temperature
        if self.output == "softmax":
            mean: NDArray[np.float64] = _log_mean_exp(z - _log_sum_exp(z, 2))
            return mean
        return _log_mean_exp(-np.logaddexp(0, -z)) - _log_mean_exp(-np.logaddexp(0, z))

    def _numbers(self, member: MLP, raw: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(member.decode(raw), dtype=np.float64).reshape(len(raw), -1)

    def as_raw(self, averaged: NDArray[np.float64]) -> NDArray[np.floating]:
        """What `averaged` gave as raw outputs of `head`, in the members' dtype."""
        raw: NDArray[np.floating] = averaged
        if self.output == "linear":
            if self.loss.is_log_link:
                raw = np.log(np.maximum(averaged, np.finfo(np.float64).tiny))
            elif self.head.scaling is not None:
                raw = self.head.scaling.targets(averaged, np.dtype(np.float64))
        return raw.astype(self.dtype)

    def forward(self, X: Any) -> NDArray[np.floating]:
        """Raw outputs [N, O] of `head` that stand for the mean answer."""
        return self.as_raw(self.averaged(self.raw_of_each(X)))

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Mean probabilities [N, O]: of each class (rows sum to 1) for softmax, of each label for sigmoid."""
        if self.output == "linear":
            raise InputError(
                "predict_proba: expected a model with softmax or sigmoid output, got 'linear'; use predict"
            )
        return self.head.engine.probabilities(self.forward(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """As `MLP.predict`; for a data frame the target's classes, as `TableModel.predict`."""
        found = self.decode(self.averaged(self.raw_of_each(X)))
        return labels_of(self.members[0], found) if self.reads_tables and is_frame(X) else found

    def decode(self, averaged: NDArray[np.float64]) -> NDArray[Any]:
        """What `predict` makes of the mean answer [N, O] that `averaged` gives."""
        if self.output == "softmax":
            return averaged.argmax(axis=1)
        found: NDArray[Any] = (averaged > 0).astype(np.int64) if self.output == "sigmoid" else averaged
        return found[:, 0] if found.shape[1] == 1 else found

    def prepare_targets(self, y: ArrayLike, n_rows: int, name: str = "y") -> NDArray[Any]:
        """y checked and as the loss of `head` takes it."""
        return self.head.prepare_targets(y, n_rows, name)

    # --- files ---

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all members to one file that `fastdl.load` reads; an existing file is replaced only when all is written."""
        members = [member._description() for member in self.members]
        kept: list[Any] = []  # a preprocessor that several members share is written once
        for member in members:
            metadata = dict(member["metadata"])
            if "preprocessor" in metadata:
                if metadata["preprocessor"] not in kept:
                    kept.append(metadata["preprocessor"])
                metadata["preprocessor"] = kept.index(metadata["preprocessor"])
            member["metadata"] = metadata
        description = {
            "ensemble": {"temperature": self.temperature, "preprocessors": kept, "members": members},
            "metadata": self.metadata,
        }
        native.write(path, description, np.concatenate([member.parameters for member in self.members]))

    @classmethod
    def _of_description(cls, description: dict[str, Any], parameters: NDArray) -> Ensemble:
        """The ensemble that `save` described."""
        told = description["ensemble"]
        shared = [Preprocessor.from_json(values) for values in told["preprocessors"]]
        members, start = [], 0
        for member in told["members"]:
            metadata = dict(member["metadata"])
            place = metadata.get("preprocessor")
            if place is not None:
                metadata["preprocessor"] = told["preprocessors"][place]
            stop = start + described.count(member)
            model = model_of({**member, "metadata": metadata}, parameters[start:stop])
            if place is not None and isinstance(model, TableModel):
                model.preprocessor = shared[place]
            members.append(model)
            start = stop
        if start != parameters.size:
            raise InputError(f"expected {start} parameters of all members, got {parameters.size}")
        ensemble = cls(members, told["temperature"])
        ensemble.metadata = description["metadata"]
        return ensemble

    def _repr_html_(self) -> str:
        """What a notebook shows: how many models there are, and the layers of the first one."""
        count = plural(len(self.members), "model")
        return html.pairs({"ensemble": f"{count}, temperature {self.temperature:.3g}"}) + self.members[0]._repr_html_()

    def __repr__(self) -> str:
        return f"Ensemble({len(self.members)} of {self.members[0]!r})"


class _ReadsTables(Protocol):
    preprocessor: Any

    def forward(self, X: Any) -> NDArray[np.floating]: ...


def reads_tables(model: MLP | Ensemble) -> TypeGuard[_ReadsTables]:
    """Whether a model knows how the columns of a table become its inputs."""
    return isinstance(model, TableModel) or (isinstance(model, Ensemble) and model.reads_tables)


def _log_sum_exp(z: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    top = z.max(axis=axis, keepdims=True)
    total: NDArray[np.float64] = top + np.log(np.exp(z - top).sum(axis=axis, keepdims=True))
    return total


def _log_mean_exp(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(mean(exp(z))) over the first axis."""
    total: NDArray[np.float64] = _log_sum_exp(z, 0)[0] - np.log(len(z))
    return total
