"""Kinds of columns: how each is learnt, encoded, described and kept, one file a kind."""

from __future__ import annotations

from typing import Any

from fastdl.errors import ModelFileError
from fastdl.tables.kinds.boolean import BooleanColumn
from fastdl.tables.kinds.category import CategoryColumn
from fastdl.tables.kinds.column import Column, Findings
from fastdl.tables.kinds.date import DateColumn
from fastdl.tables.kinds.embedded_category import EmbeddedCategoryColumn
from fastdl.tables.kinds.large_category import LargeCategoryColumn
from fastdl.tables.kinds.left_out import ConstantColumn, IdentifierColumn, IgnoredColumn
from fastdl.tables.kinds.number import NumberColumn
from fastdl.tables.kinds.words import TextColumn

KINDS: dict[str, type[Column]] = {
    kind.kind: kind
    for kind in (
        NumberColumn,
        CategoryColumn,
        LargeCategoryColumn,
        EmbeddedCategoryColumn,
        BooleanColumn,
        DateColumn,
        TextColumn,
        ConstantColumn,
        IdentifierColumn,
        IgnoredColumn,
    )
}
"""Registry: the preprocessor, the model file and the tests iterate over it."""

__all__ = [
    "KINDS",
    "BooleanColumn",
    "CategoryColumn",
    "Column",
    "ConstantColumn",
    "DateColumn",
    "EmbeddedCategoryColumn",
    "Findings",
    "IdentifierColumn",
    "IgnoredColumn",
    "LargeCategoryColumn",
    "NumberColumn",
    "TextColumn",
    "column_from_json",
]


def column_from_json(entry: Any) -> Column:
    """The column that `Column.to_json` gave."""
    try:
        values = dict(entry)
        return KINDS[values.pop("kind")].from_json(values)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ModelFileError(f"the model's preprocessor: expected a column of a known kind, got {entry!r}") from error
