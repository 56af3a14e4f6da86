"""The preprocessing of a table as one fitted object: frames in, features out, plain JSON to keep it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import InputError, ModelFileError
from fastdl.files.portable import TableInputs
from fastdl.scaling import Scaling
from fastdl.suggest import did_you_mean
from fastdl.tables.encoded import Encoded, OneHot
from fastdl.tables.kinds import (
    KINDS,
    CategoryColumn,
    Column,
    ConstantColumn,
    EmbeddedCategoryColumn,
    Findings,
    LargeCategoryColumn,
    NumberColumn,
    column_from_json,
)
from fastdl.tables.kinds.category import MOST_OWN
from fastdl.tables.kinds.embedded_category import FEWEST
from fastdl.tables.recognise import Choices, Kind, kind_of
from fastdl.tables.text import MISSING, listed, polars, tidied

if TYPE_CHECKING:
    import polars as pl


class Outcomes(NamedTuple):
    """What is to be learnt, as numbers: y [N, outputs] of the training rows, and a name for each output."""

    names: tuple[str, ...]
    y: NDArray[np.float64]


NO_OUTCOMES = Outcomes((), np.zeros((0, 0)))
FEW_CELLS = 100_000
"""Of fewer, columns are learnt one after the other: threads would wait for the interpreter's lock most of the time."""
_LEFT_OUT = ("constant", "identifier", "ignored")


@dataclass(frozen=True)
class Preprocessor:
    """How the columns of a table become the features of a network.

    columns : all columns of the table but the targets, in its order, with what the training rows showed
    na_values : words for missing values, besides the usual ones

    `fit` learns it, `transform` applies it; the command line and the estimators use the same object, and a model file
    keeps it as JSON.
    """

    columns: tuple[Column, ...]
    na_values: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        frame: pl.DataFrame,
        rows: NDArray[np.int64] | None = None,
        choices: Choices = Choices(),  # noqa: B008
        targets: Sequence[str] = (),
        na_values: Sequence[str] = (),
    ) -> Preprocessor:
        """Recognise the columns of `frame` but the targets, and learn them from its training rows.

        Kinds are recognised by all rows, what is learnt (medians, categories, words) comes from `rows` alone.

        Raises
        ------
        InputError : columns are not what `choices` says; all of them are named
        """
        return cls.fit_tidy(tidied(frame, na_values), rows, choices, targets, na_values)[0]

    @classmethod
    def fit_tidy(
        cls,
        frame: pl.DataFrame,
        rows: NDArray[np.int64] | None = None,
        choices: Choices = Choices(),  # noqa: B008
        targets: Sequence[str] = (),
        na_values: Sequence[str] = (),
        findings: Findings | None = None,
        outcomes: Outcomes = NO_OUTCOMES,
        kinds: dict[str, Kind] | None = None,
    ) -> tuple[Preprocessor, pl.DataFrame]:
        """The same for a frame that is tidy (see `text.tidied`); it comes back with text read as what it is, so that
        `encode` need not read it again. `outcomes` are the targets of the training rows. `kinds` are those of columns of this
        frame that were recognised before, and get those that were not: that takes longer than to learn them."""
        kinds = {} if kinds is None else kinds
        findings = Findings() if findings is None else findings

        def learn(name: str) -> tuple[Column, pl.Series] | InputError:
            values = frame[name]
            try:
                kind = kinds[name] if name in kinds else kind_of(name, values, choices, findings)
            except InputError as error:
                return error
            kinds[name] = kind
            values = values if kind.converted is None else kind.converted.alias(name)
            shown = values if rows is None else values.gather(rows)
            column = kind.learn(name, shown)
            if choices.embeds and isinstance(column, CategoryColumn) and column.n_values > FEWEST:
                column = EmbeddedCategoryColumn.learn(name, shown)
            elif isinstance(column, CategoryColumn) and len(column.categories) > MOST_OWN:
                y = outcomes.y if len(outcomes.y) == len(shown) else np.zeros((len(shown), 0))
                column = LargeCategoryColumn.learn(name, shown, outcomes.names, y)
            return column, values

        names = [name for name in frame.columns if name not in targets]
        learnt: list[tuple[Column, pl.Series] | InputError]
        if frame.height * len(names) < FEW_CELLS:
            learnt = list(map(learn, names))
        else:
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # polars works without the interpreter's lock
                learnt = list(pool.map(learn, names))
        problems = [str(found) for found in learnt if isinstance(found, InputError)]
        if problems:
            raise InputError("; ".join(problems))
        pairs = [found for found in learnt if not isinstance(found, InputError)]
        fitted = cls(tuple(column for column, _ in pairs), tuple(na_values))
        # A table of nothing but a counter, or of nothing else that varies, has that as its feature.
        if not fitted.feature_names:
            columns = [_revived(column, values, rows) for column, values in pairs]
            fitted = cls(tuple(columns), tuple(na_values))
        return fitted, frame.with_columns([values for _, values in pairs])

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that features are made of."""
        return tuple(column for column in self.columns if column.feature_names)

    @property
    def feature_names(self) -> list[str]:
        """One name for each feature."""
        return [name for column in self.columns for name in column.feature_names]

    @property
    def text_columns(self) -> list[str]:
        """The columns whose cells are needed as they were written."""
        return [column.name for column in self.columns if column.is_text]

    def encode(self, frame: pl.DataFrame, findings: Findings | None = None, name: str = "the table") -> Encoded:
        """The features of a tidy frame in their compact form; its columns are found by their names.

        Raises
        ------
        InputError : columns are missing; all of them are named
        """
        missing = [column.name for column in self.features if column.name not in frame.columns]
        if missing:
            close = "".join(did_you_mean(missing[0], frame.columns)) if len(missing) == 1 else ""
            raise InputError(
                f"{name}: expected the column{'s' if len(missing) > 1 else ''} {listed([repr(m) for m in missing], 10)}, "
                f"as in training, found none of {'these names' if len(missing) > 1 else 'this name'}"
                f"{close or f'; the columns are {listed(frame.columns)}'}"
            )
        findings = Findings() if findings is None else findings
        parts = [part for column in self.features for part in column.encode(frame[column.name], findings)]
        return Encoded(frame.height, parts)

    def cross_fitted(
        self, encoded: Encoded, frame: pl.DataFrame, rows: NDArray[np.int64], outcomes: Outcomes, seed: int
    ) -> Encoded:
        """The features of a frame in which those of the training rows do not know the rows' own targets."""
        parts, at = list(encoded.parts), 0
        for column in self.features:
            if isinstance(column, LargeCategoryColumn) and column.outputs:
                fitted = column.cross_fitted(frame[column.name].gather(rows), outcomes.y, seed)
                for k, values in enumerate(fitted, start=at + 1):
                    part = parts[k]
                    assert not isinstance(part, OneHot)
                    part[rows] = values
            at += column.n_parts
        return Encoded(encoded.n_rows, parts)

    def tidied(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A frame as `encode` takes it: see `text.tidied`."""
        return tidied(frame, self.na_values, [column.name for column in self.features])

    def transform(
        self,
        frame: pl.DataFrame,
        scaling: Scaling | None = None,
        dtype: np.dtype | type = np.float32,
        findings: Findings | None = None,
    ) -> NDArray[Any]:
        """The features of a frame [N, I] in `dtype`; with `scaling` they are standardised in float64 before.

        `findings` collects what training had not shown.
        """
        return self.encode(self.tidied(frame), findings).rows().matrix(scaling, dtype)

    def portable(self) -> TableInputs:
        """What each raw column becomes, as exporters see it."""
        inputs = [column.portable() for column in self.features]
        return TableInputs(tuple(given for given in inputs if given is not None), (*MISSING, *self.na_values))

    def to_json(self) -> dict[str, Any]:
        """The object as plain JSON values."""
        return {
            "version": 1,
            "na_values": list(self.na_values),
            "columns": [column.to_json() for column in self.columns],
        }

    @classmethod
    def from_json(cls, values: Any) -> Preprocessor:
        """What `to_json` gave.

        Raises
        ------
        ModelFileError : the values are no preprocessor
        """
        if not isinstance(values, dict) or values.get("version") != 1 or not isinstance(values.get("columns"), list):
            raise ModelFileError(f"the model's preprocessor: expected version 1 with a list of columns, got {values!r}")
        return cls(tuple(column_from_json(entry) for entry in values["columns"]), tuple(values.get("na_values", ())))

    @classmethod
    def from_old_columns(cls, entries: Any, means: NDArray[np.float64] | None) -> Preprocessor:
        """The columns of model files before version 0.2: names, with categories where there are any.

        A missing number gets the mean of training, as these files keep no median.
        """
        columns: list[Column] = []
        at = 0
        try:
            for entry in entries:
                if "categories" in entry:
                    columns.append(CategoryColumn(str(entry["name"]), tuple(entry["categories"])))
                else:
                    columns.append(NumberColumn(str(entry["name"]), 0.0 if means is None else float(means[at])))
                at += len(columns[-1].feature_names)
        except (TypeError, KeyError, IndexError) as error:
            raise ModelFileError(
                f"the model's metadata: expected a list of feature columns, got {entries!r}"
            ) from error
        return cls(tuple(columns))

    def left_out(self) -> list[Column]:
        """The columns that no features are made of, but those that the user left out."""
        return [column for column in self.columns if not column.feature_names and column.kind != "ignored"]

    def kinds(self) -> dict[str, int]:
        """How many columns there are of each kind, in the order of the registry."""
        counts = {kind: sum(column.kind == kind for column in self.columns) for kind in KINDS}
        return {kind: count for kind, count in counts.items() if count}


def _revived(column: Column, values: pl.Series, rows: NDArray[np.int64] | None) -> Column:
    """A column that was left out as one of numbers, unless the user left it out or it never varies."""
    if column.kind not in _LEFT_OUT or column.kind == "ignored" or isinstance(column, ConstantColumn):
        return column
    if values.dtype == polars().String:
        return column
    return NumberColumn.learn(column.name, values if rows is None else values.gather(rows), NumberColumn("").style)
