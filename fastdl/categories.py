"""Embeddings of categories: a row of numbers for each, looked up before the first layer and learnt with the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastdl import checks
from fastdl.errors import InputError
from fastdl.network import StageViews

MOST = 1 << 24
"""Codes beyond this are no whole numbers of their own in float32."""


@dataclass(frozen=True)
class CategoryEmbedding:
    """Columns of X that hold codes of categories, each of which becomes `size` numbers that are learnt.

    A column of K categories has codes 1 to K, and a table with K + 1 rows; row 0 is for a category that is missing or unknown: it
    is taken for 0 and for any number that is no code. All rows start as N(0, 1), and row 0 as zeros, the mean of the others. The
    rows are looked up, and stand behind all other inputs; no 0/1 features are made. Codes are neither standardised nor clipped.

    The gradient goes to the rows that a batch has. An update moves all rows, as those of dense gradients do: momentum goes on
    for rows that the batch does not have, and decoupled weight decay, which tables have only if `group_decays` says so, shrinks
    them too. So a step costs a pass over all tables, beside the rows of the batch: 0.3 ns for a number with Adam, on one core.

    Parameters
    ----------
    counts : K of each column, by the column's number
    size : numbers that a category becomes

    Raises
    ------
    InputError : a value is not as above
    """

    counts: Mapping[int, int] = field(hash=False)
    size: int = 8

    def __post_init__(self) -> None:
        if not isinstance(self.counts, Mapping) or not self.counts:
            raise InputError(
                f"CategoryEmbedding: counts: expected a dictionary such as {{3: 120}} (column: categories), got {self.counts!r}"
            )
        counts = {}
        for column, count in self.counts.items():
            column = checks.count(column, "CategoryEmbedding: counts", 0, "the number of a column")
            counts[column] = checks.count(
                count, f"CategoryEmbedding: counts[{column}]", 1, "how many categories there are"
            )
            if counts[column] > MOST:
                raise InputError(
                    f"CategoryEmbedding: counts[{column}]: expected at most {MOST:,} categories, got {count:,}"
                )
        object.__setattr__(self, "counts", dict(sorted(counts.items())))
        checks.count(self.size, "CategoryEmbedding: size", 1, "the numbers that a category becomes")

    @property
    def tables(self) -> tuple[tuple[int, int], ...]:
        """(column, rows of its table) of each, in the order of the columns."""
        return tuple((column, count + 1) for column, count in self.counts.items())

    def fill(self, views: StageViews, rng: np.random.Generator) -> None:
        """Overwrite the tables with initial numbers, drawn in float64 for every dtype."""
        views.tables[...] = rng.standard_normal(views.tables.shape)
        first = 0
        for _, rows in self.tables:
            views.tables[first] = 0
            first += rows

    def to_json(self) -> dict[str, Any]:
        """Its numbers, as they stand in a model file."""
        return {"counts": [[column, count] for column, count in self.counts.items()], "size": self.size}


def from_json(told: dict[str, Any] | None) -> CategoryEmbedding | None:
    """What `to_json` described."""
    return None if told is None else CategoryEmbedding(dict(told["counts"]), told["size"])
