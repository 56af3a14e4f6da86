"""Free text: a 0/1 feature for each of its most frequent words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fastdl.files.portable import WordsInput
from fastdl.tables.encoded import Part
from fastdl.tables.kinds.column import Column, Findings
from fastdl.tables.text import as_text, listed, polars

if TYPE_CHECKING:
    import polars as pl

MOST_WORDS = 32


@dataclass(frozen=True)
class TextColumn(Column):
    """A column of free text.

    words : the most frequent ones of the training rows, in lower case; each is a feature that says whether a cell has it
    """

    kind: ClassVar[str] = "text"
    words: tuple[str, ...] = ()

    @classmethod
    def learn(cls, name: str, values: pl.Series) -> TextColumn:
        """The column that the training rows `values` show: words in 1 % to 90 % of the rows, and in 5 rows at least."""
        least, most = max(5, len(values) // 100), 0.9 * len(values)
        counts = _words(as_text(values)).list.unique().explode().drop_nulls().rename("word")
        table = counts.value_counts(name="rows")
        found = sorted(
            ((-rows, word) for word, rows in zip(table["word"], table["rows"]) if least <= rows <= most and word)
        )
        return cls(name, tuple(word for _, word in found[:MOST_WORDS]))

    @property
    def feature_names(self) -> list[str]:
        return [f"{self.name} has {word!r}" for word in self.words]

    @property
    def is_text(self) -> bool:
        return True

    def encode(self, values: pl.Series, findings: Findings) -> list[Part]:
        cells = _words(as_text(values))
        return [cells.list.contains(word).fill_null(False).to_numpy().astype(np.uint8) for word in self.words]

    def portable(self) -> WordsInput:
        return WordsInput(self.name, self.words)

    def describe(self) -> str:
        if not self.words:
            return "free text without frequent words: left out"
        return f"free text: whether it has {listed([repr(word) for word in self.words], 4)}"


def _words(cells: pl.Series) -> pl.Series:
    return cells.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+").cast(polars().List(polars().String))
