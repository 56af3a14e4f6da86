"""Categories: a 0/1 feature for each that is frequent enough, one for the others together, one for missing values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastdl.files.portable import LookupInput, one_hot_rows
from fastdl.tables.encoded import OneHot, Part
from fastdl.tables.kinds.column import Column, Findings, missing_words
from fastdl.tables.text import as_text, canonical, polars

if TYPE_CHECKING:
    import polars as pl

MOST_OWN = 32
"""A column of more categories that are not rare is a `LargeCategoryColumn`."""


@dataclass(frozen=True)
class CategoryColumn(Column):
    """A column of categories.

    categories : those with a feature of their own, in the order of the features
    grouped : those that share a feature, as they are rare or too many: values that training has not shown go to it as
        well; without it they have no 1 in any feature
    missing : whether a value was missing in training: that is a category of its own
    """

    kind: ClassVar[str] = "category"
    categories: tuple[str, ...] = ()
    grouped: tuple[str, ...] = ()
    missing: bool = False

    @classmethod
    def learn(cls, name: str, values: pl.Series) -> CategoryColumn:
        """The column that the training rows `values` show.

        A category is rare where it has fewer than 10 rows and fewer than 1 row in 200.
        """
        counts: dict[str, int] = {}
        found = as_categories(values).drop_nulls().rename("cell").value_counts(name="rows")
        for cell, rows in zip(canonical(found["cell"].cast(polars().String)), found["rows"]):
            counts[cell] = counts.get(cell, 0) + rows
        least = min(10, len(values) // 200)
        order = sorted(counts, key=lambda category: (-counts[category], category))
        own = [category for category in order if counts[category] >= least]
        kept = set(own)
        grouped = tuple(sorted(category for category in order if category not in kept))
        if len(grouped) == 1:
            own, grouped = [*own, *grouped], ()
        return cls(name, tuple(sorted(own)), grouped, values.has_nulls())

    @property
    def feature_names(self) -> list[str]:
        names = [f"{self.name}={category}" for category in self.categories]
        names += [f"{self.name} is another"] if self.grouped else []
        return [*names, f"{self.name} is missing"] if self.missing else names

    @property
    def n_values(self) -> int:
        """How many different values training showed, a missing one included."""
        return len(self.categories) + len(self.grouped) + int(self.missing)

    @property
    def n_parts(self) -> int:
        return 1

    @property
    def is_text(self) -> bool:
        return True

    def codes(self, values: pl.Series, findings: Findings | None = None) -> NDArray[np.integer]:
        """The feature of each row's category, counted from 0; the number of features where it has none."""
        width = len(self.feature_names)
        dtype = np.dtype(np.uint8 if width < 256 else np.int32)
        return codes_of(self.name, as_categories(values), *self._codes(), dtype, findings)

    def _codes(self) -> tuple[dict[str, int], int, int]:
        """The feature of each known category, that of all others, and that of a missing one."""
        width = len(self.feature_names)
        other = len(self.categories) if self.grouped else width
        known = {category: code for code, category in enumerate(self.categories)}
        known |= dict.fromkeys(self.grouped, other)
        return known, other, width - 1 if self.missing else width

    def portable(self) -> LookupInput:
        known, other, missing = self._codes()
        return LookupInput(self.name, known, one_hot_rows(len(self.feature_names)), unseen=other, missing=missing)

    def encode(self, values: pl.Series, findings: Findings) -> list[Part]:
        return [OneHot(self.codes(values, findings), len(self.feature_names))]

    def describe(self) -> str:
        count = len(self.categories) + len(self.grouped)
        text = f"{count:,} value{'' if count == 1 else 's'}"
        if self.grouped:
            text += f", {len(self.grouped):,} of them together"
        return text + missing_words(self.missing)


def codes_of(
    name: str,
    cells: pl.Series,
    known: dict[str, int],
    other: int,
    missing: int,
    dtype: np.dtype,
    findings: Findings | None,
) -> NDArray[Any]:
    """The code of each cell of a Categorical column: by its category, `other` for an unknown one, which is a finding."""
    # Each category is looked up once: the rows hold its number.
    distinct = cells.unique().drop_nulls()
    numbers = distinct.to_physical().to_numpy()
    code_of = [known.get(category, -1) for category in canonical(distinct.cast(polars().String))]
    table = np.full(int(numbers.max()) + 1 if len(numbers) else 1, missing, dtype)
    table[numbers] = [other if code == -1 else code for code in code_of]
    if findings is not None and -1 in code_of:
        findings.add("unseen", name, of_numbers(cells, numbers[np.array(code_of) == -1]))
    rows = cells.to_physical()
    codes = table[rows.fill_null(0).to_numpy()]
    if rows.has_nulls():
        codes[rows.is_null().to_numpy()] = missing
    return codes


def of_numbers(cells: pl.Series, numbers: NDArray[np.integer]) -> pl.Series:
    """The cells of a Categorical column, as text, whose physical numbers are among `numbers`."""
    rows = np.flatnonzero(
        np.isin(cells.to_physical().fill_null(0).to_numpy(), numbers) & cells.is_not_null().to_numpy()
    )
    return cells.gather(rows).cast(polars().String)


def as_categories(values: pl.Series) -> pl.Series:
    """A column of any kind as polars' Categorical: text, each different one kept once."""
    pl = polars()
    return values if values.dtype == pl.Categorical else as_text(values).cast(pl.Categorical)
