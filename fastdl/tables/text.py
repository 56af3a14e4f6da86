"""Cells as text: which of them are missing, and how names are listed in messages."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fastdl.errors import MissingExtraError

if TYPE_CHECKING:
    import polars as pl

MISSING = (
    "", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "NaT", "null", "NULL", "Null", "None",
    "?", "-", ".",
)  # fmt: skip
"""How people write that a value is missing; `--na-values` adds to it."""
TRUE_WORDS = {"true": "false", "yes": "no", "t": "f", "y": "n"}
"""Words for true and the word for false that belongs to each, in any case."""


def polars() -> Any:
    """The polars module, or one sentence on how to get it."""
    try:
        import polars as pl
    except ImportError as error:
        raise MissingExtraError(
            'reading tables needs polars, which is not installed: pip install "fastdl[cli]"'
        ) from error
    return pl


LONGEST_MISSING = max(map(len, MISSING))


def cleaned(cells: pl.Series, na_values: Sequence[str] = ()) -> pl.Series:
    """Cells without the spaces around them; null where a value is missing. Beside `+`, `-` is a value."""
    cells = cells.str.strip_chars()
    longest = max(LONGEST_MISSING, *(len(word.encode()) for word in na_values)) if na_values else LONGEST_MISSING
    if not (cells.str.len_bytes() <= longest).any():
        return cells
    missing = cells.is_in([*MISSING, *na_values])
    if missing.any() and (cells == "+").any():
        missing &= cells != "-"
    return without(cells, missing)


def tidied(frame: pl.DataFrame, na_values: Sequence[str] = (), columns: Collection[str] | None = None) -> pl.DataFrame:
    """A frame in which all that is missing is null and text has no spaces around it; `columns` are those that matter.

    All other modules of this package take frames to be so.
    """
    pl = polars()
    numbers = [float(word) for word in na_values if _is_number(word)]
    changed = []
    for values in frame.get_columns():
        if columns is not None and values.name not in columns:
            continue
        dtype = values.dtype
        if dtype == pl.String or dtype in (pl.Categorical, pl.Enum):
            changed.append(cleaned(values.cast(pl.String), na_values))
        elif dtype.is_numeric():
            tidy = values.fill_nan(None) if dtype.is_float() else values
            if numbers:
                tidy = without(tidy, tidy.cast(pl.Float64).is_in(numbers))
            changed.append(tidy)
    return frame.with_columns(changed) if changed else frame


def _is_number(word: str) -> bool:
    try:
        return float(word) == float(word)
    except ValueError:
        return False


def share(mask: Any) -> float:
    """Which share of a column of truth values is true; missing ones do not count."""
    value = mask.mean()
    return 0.0 if value is None else float(value)


def without(values: pl.Series, mask: pl.Series) -> pl.Series:
    """The values with null where the mask is true."""
    pl = polars()
    return values if not mask.any() else pl.select(pl.when(~mask).then(values)).to_series().alias(values.name)


def as_text(values: pl.Series) -> pl.Series:
    """A column of any kind as text: whole numbers without a fraction, booleans as `True` and `False`."""
    pl = polars()
    dtype = values.dtype
    if dtype == pl.String:
        return values
    if dtype == pl.Boolean:
        return values.replace_strict([True, False], ["True", "False"], default=None, return_dtype=pl.String)
    if dtype.is_float() and values.null_count() < len(values):
        whole = bool((values.floor() == values).all() and (values.abs() < 2**53).all())
        if whole:
            return values.cast(pl.Int64).cast(pl.String)
        return canonical(values.cast(pl.String).str.replace(r"^-0\.0$", "0"))
    return values.cast(pl.String)


def canonical(cells: pl.Series) -> pl.Series:
    """Whole numbers written with a fraction of zeros lose it, so that `1.0` is the category `1`."""
    return cells.str.replace(r"^([+-]?\d+)\.0*$", "$1")


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names for a message, the middle left out when there are many."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 2])}, … ({len(names) - most + 1} more), {names[-1]}"


def option(name: str, columns: Iterable[str]) -> str:
    """An option with names of columns, quoted for the shell: `--ignore 'CO(GT)'`.

    Names with commas get an option each, as others are separated by commas.
    """
    columns = list(columns)
    plain = [column for column in columns if "," not in column]
    groups = ([",".join(plain)] if plain else []) + [column for column in columns if "," in column]
    return " ".join(f"{name} {shlex.quote(group)}" for group in groups)


def shown(cell: object) -> str:
    """A cell for a message, cut where it is long."""
    text = str(cell)
    return repr(text if len(text) <= 40 else text[:39] + "…")
