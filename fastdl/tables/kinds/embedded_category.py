"""Categories that a model embeds: one feature, the code of a row's category, by which rows of numbers are looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastdl.files.portable import LookupInput
from fastdl.tables.encoded import Part
from fastdl.tables.kinds.category import as_categories, codes_of
from fastdl.tables.kinds.column import Column, Findings, missing_words
from fastdl.tables.text import canonical, polars

if TYPE_CHECKING:
    import polars as pl

FEWEST = 9
"""A column of no more values than this is one-hot (Holzmüller, Grinsztajn and Steinwart, 2024)."""


@dataclass(frozen=True)
class EmbeddedCategoryColumn(Column):
    """A column of categories for `fastdl.CategoryEmbedding`.

    Codes are 1, 2, ... for the categories in their order, then one for missing values, if there were any in training. Code 0 is
    for all others: those that training has in a single row, which teach what an unknown one is like, those that it has not, and
    missing values if there were none.

    categories : those with a code
    missing : whether a value was missing in training
    """

    kind: ClassVar[str] = "embedded category"
    categories: tuple[str, ...] = ()
    missing: bool = False

    @classmethod
    def learn(cls, name: str, values: pl.Series) -> EmbeddedCategoryColumn:
        """The column that the training rows `values` show."""
        counts: dict[str, int] = {}
        found = as_categories(values).drop_nulls().rename("cell").value_counts(name="rows")
        for cell, rows in zip(canonical(found["cell"].cast(polars().String)), found["rows"]):
            counts[cell] = counts.get(cell, 0) + rows
        known = sorted(category for category, rows in counts.items() if rows > 1)
        return cls(name, tuple(known or sorted(counts)), values.has_nulls())

    @property
    def feature_names(self) -> list[str]:
        return [f"{self.name} (code)"]

    @property
    def is_text(self) -> bool:
        return True

    @property
    def count(self) -> int:
        """How many codes there are, besides 0."""
        return len(self.categories) + int(self.missing)

    @property
    def names(self) -> list[str]:
        """What each code stands for, from 0 on."""
        return ["another", *self.categories, *(["missing"] if self.missing else [])]

    def _codes(self) -> tuple[dict[str, int], int, int]:
        """The code of each known category, that of all others, and that of a missing one."""
        return {category: k for k, category in enumerate(self.categories, 1)}, 0, self.count if self.missing else 0

    def codes(self, values: pl.Series, findings: Findings | None = None) -> NDArray[np.int32]:
        """The code of each row's category."""
        return codes_of(self.name, as_categories(values), *self._codes(), np.dtype(np.int32), findings)

    def portable(self) -> LookupInput:
        known, other, missing = self._codes()
        rows = np.arange(self.count + 1, dtype=np.float64)[:, None]
        return LookupInput(self.name, known, rows, unseen=other, missing=missing)

    def encode(self, values: pl.Series, findings: Findings) -> list[Part]:
        return [self.codes(values, findings)]

    def describe(self) -> str:
        return f"{len(self.categories):,} values, embedded{missing_words(self.missing)}"
