"""What all kinds of columns have in common."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastdl.files.portable import Input
from fastdl.tables.encoded import Part
from fastdl.tables.text import listed, polars, shown

if TYPE_CHECKING:
    import polars as pl


@dataclass
class Findings:
    """What was met while columns were encoded: values that training had not shown, and cells that could not be read."""

    unseen: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, column: str, cells: pl.Series) -> None:
        """Count the cells of a column, all of one kind of finding."""
        if len(cells):
            getattr(self, kind)[column] += len(cells)
            self.examples.setdefault(column, shown(cells[0]))

    def merge(self, other: Findings) -> None:
        """Take over what another one has counted."""
        self.unseen += other.unseen
        self.unreadable += other.unreadable
        self.examples = {**other.examples, **self.examples}

    def sentences(self) -> list[str]:
        """One sentence for each kind of finding, with counts for each column."""
        told = {"unseen": "categories that training did not show", "unreadable": "cells taken as missing"}
        return [
            f"{text}: "
            + listed([f"{count:,} in {name!r} (such as {self.examples[name]})" for name, count in counter.items()], 10)
            for kind, text in told.items()
            if (counter := getattr(self, kind))
        ]


@dataclass(frozen=True)
class Column:
    """A column of a table, with all that training learnt of it.

    Every kind is a frozen dataclass of plain JSON values: `to_json` and `from_json` are the same for all.
    """

    kind: ClassVar[str]
    name: str

    @property
    def feature_names(self) -> list[str]:
        """The names of the features that the column becomes; none for one that is left out."""
        return []

    @property
    def n_parts(self) -> int:
        """How many parts `encode` gives: one for each feature, or one for all of a one-hot group."""
        return len(self.feature_names)

    @property
    def is_text(self) -> bool:
        """Whether the cells are needed as they were written, also where they look like numbers."""
        return False

    def encode(self, values: pl.Series, findings: Findings) -> list[Part]:
        """The column's features, for values of any type that a table can have."""
        return []

    def portable(self) -> Input | None:
        """The column as exporters see it; None for one that is left out."""
        return None

    def describe(self) -> str:
        """What is known of the column, in a few words."""
        return ""

    def to_json(self) -> dict[str, Any]:
        """The column as it is kept in a model file."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Column:
        """What `to_json` gave, without the kind."""
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)


def with_indicator(values: pl.Series, fill: float, indicator: bool) -> list[Part]:
    """Numbers with `fill` where they are missing, and a 0/1 feature that says where, if the column has one."""
    missing = values.is_null()
    numbers: NDArray[np.float64] = values.fill_null(fill).cast(polars().Float64).to_numpy()
    return [numbers, missing.to_numpy().astype(np.uint8)] if indicator else [numbers]


def missing_words(missing: bool) -> str:
    """How a description says that values were missing in training."""
    return ", some missing" if missing else ""
