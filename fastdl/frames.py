"""Data frames of pandas, polars and Arrow as features: their names, and their columns in the order that a model knows.

None of these packages is imported: a frame is known by its attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastdl.errors import InputError
from fastdl.suggest import did_you_mean

_SHOWN = 5  # names in a message


def names_of(X: Any) -> list[str] | None:
    """The names of a frame's columns, where all of them are text; None for what has no names."""
    names = getattr(X, "column_names", None)  # Arrow
    if names is None and hasattr(X, "columns") and (hasattr(X, "dtypes") or hasattr(X, "schema")):
        names = X.columns  # pandas, polars
    if names is None or callable(names):
        return None
    names = list(names)
    return names if names and all(isinstance(name, str) for name in names) else None


def in_order(X: Any, names: Sequence[str] | None, what: str = "X") -> Any:
    """The frame X with its columns in the order of `names`; what has no names, or no order to be put in, as it is.

    Raises
    ------
    InputError : a name is missing, or there is one that is not in `names`
    """
    given = names_of(X)
    if given is None or names is None or given == list(names):
        return _plain(X) if given is not None else X
    known, present = set(names), set(given)
    missing = [name for name in names if name not in present]
    new = [name for name in given if name not in known]
    if missing or new or len(given) != len(names):
        told = [f"lacks {_listed(missing)}"] * bool(missing) + [f"has {_listed(new)} besides"] * bool(new)
        close = did_you_mean(missing[0], new) if missing and new else ""
        raise InputError(
            f"{what}: expected the {len(names)} columns that the model was trained with, got a frame that "
            f"{' and '.join(told) or 'has a column twice'}{close}"
        )
    if hasattr(X, "column_names"):
        return _plain(X.select(list(names)))
    return _plain(X[list(names)])


def _plain(X: Any) -> Any:
    """An Arrow table as an array; frames of pandas and polars become arrays by themselves."""
    if hasattr(X, "column_names") and not hasattr(X, "dtypes"):
        return np.column_stack([np.asarray(X.column(i)) for i in range(len(X.column_names))])
    return X


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
