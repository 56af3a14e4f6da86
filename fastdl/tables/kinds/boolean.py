"""Booleans: 1 for true and 0 for false, in any of the words that people use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fastdl.files.portable import LookupInput
from fastdl.tables.encoded import Part
from fastdl.tables.kinds.column import Column, Findings, missing_words, with_indicator
from fastdl.tables.text import TRUE_WORDS, polars, share, without

if TYPE_CHECKING:
    import polars as pl

_VALUES = {word: value for true, false in TRUE_WORDS.items() for word, value in ((true, 1.0), (false, 0.0))}
_VALUES |= {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}


@dataclass(frozen=True)
class BooleanColumn(Column):
    """A column of truth values.

    share : of true among the training rows that have a value; it stands for a missing one
    missing : whether a value was missing in training: there is a feature that says where
    words : how true and false are written, for people
    """

    kind: ClassVar[str] = "boolean"
    share: float = 0.0
    missing: bool = False
    words: tuple[str, str] = ("true", "false")

    @classmethod
    def learn(cls, name: str, values: pl.Series, words: tuple[str, str]) -> BooleanColumn:
        """The column that the training rows `values` show."""
        truth = as_truth(values)
        return cls(name, share(truth), truth.has_nulls(), words)

    @property
    def feature_names(self) -> list[str]:
        return [self.name, f"{self.name} is missing"] if self.missing else [self.name]

    def encode(self, values: pl.Series, findings: Findings) -> list[Part]:
        return with_indicator(as_truth(values, self.name, findings), self.share, self.missing)

    def portable(self) -> LookupInput:
        rows = np.array([[0.0, 0.0], [1.0, 0.0], [self.share, 1.0]])[:, : len(self.feature_names)]
        codes = {word: int(value) for word, value in _VALUES.items()}
        return LookupInput(self.name, codes, rows, unseen=2, missing=2, lower=True)

    def describe(self) -> str:
        return f"{self.words[0]} or {self.words[1]}{missing_words(self.missing)}"


def as_truth(values: pl.Series, name: str = "", findings: Findings | None = None) -> pl.Series:
    """Values of any type as 1.0, 0.0 or null; cells that are none of the known words are noted."""
    pl = polars()
    if values.dtype == pl.Boolean or values.dtype == pl.Null:
        return values.cast(pl.Float64)
    if values.dtype.is_numeric():
        numbers = values.cast(pl.Float64).fill_nan(None)
        truth = without(numbers, ~numbers.is_in([0.0, 1.0]))
        cells = numbers
    else:
        cells = values.cast(pl.String)
        truth = cells.str.to_lowercase().replace_strict(_VALUES, default=None, return_dtype=pl.Float64)
    if findings is not None and truth.null_count() > cells.null_count():
        findings.add("unreadable", name, cells.filter(truth.is_null() & cells.is_not_null()))
    return truth


def words_of(cells: pl.Series) -> tuple[str, str] | None:
    """The words for true and false that a column of text consists of, or None where it holds anything else."""
    distinct = cells.drop_nulls().unique()
    if not 1 <= len(distinct) <= 6:  # each word in at most three cases
        return None
    for true, false in TRUE_WORDS.items():
        if set(distinct.str.to_lowercase()) == {true, false}:
            by_lower = dict(zip(distinct.str.to_lowercase(), distinct))
            return by_lower[true], by_lower[false]
    if set(distinct.str.to_lowercase()) in ({"true"}, {"false"}):  # with missing cells, as True alone
        return "true", "false"
    return None
