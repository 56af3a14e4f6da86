"""Columns that no features are made of, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastdl.tables.kinds.column import Column


@dataclass(frozen=True)
class _LeftOut(Column):
    reason: str = ""

    def describe(self) -> str:
        return self.reason


@dataclass(frozen=True)
class ConstantColumn(_LeftOut):
    """A column with one value, or none, in all rows."""

    kind: ClassVar[str] = "constant"


@dataclass(frozen=True)
class IdentifierColumn(_LeftOut):
    """A column whose values tell the rows apart and nothing else: numbers that count them, names, keys."""

    kind: ClassVar[str] = "identifier"


@dataclass(frozen=True)
class IgnoredColumn(_LeftOut):
    """A column that the user left out, that groups rows, or of a type that holds no single value."""

    kind: ClassVar[str] = "ignored"
