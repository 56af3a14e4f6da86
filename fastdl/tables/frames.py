"""Tables that are in memory already: pandas, polars, Arrow and NumPy, as polars frames. Nothing but polars is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdl.errors import InputError
from fastdl.tables.table import unique_names
from fastdl.tables.text import polars

if TYPE_CHECKING:
    import polars as pl


def is_frame(values: object) -> bool:
    """Whether an object has named columns: a frame of polars, pandas or Arrow, or a dictionary of columns."""
    return (
        isinstance(values, Mapping)
        or hasattr(values, "__arrow_c_stream__")
        or (hasattr(values, "columns") and hasattr(values, "dtypes"))
        or (isinstance(values, np.ndarray) and values.dtype.names is not None)
    )


def to_polars(values: Any, name: str = "X") -> pl.DataFrame:
    """A frame of any kind as a polars frame; arrays [N, I] get the columns column_1, column_2, and so on.

    Masked cells, NaN, None, NaT and pandas' NA are missing. Names of columns become text.

    Raises
    ------
    InputError : it is no table
    """
    pl = polars()
    if isinstance(values, pl.DataFrame):
        return values
    if isinstance(values, pl.LazyFrame):
        return values.collect()
    if isinstance(values, np.ndarray) and values.dtype.names is not None:
        return _frame({column: values[column] for column in values.dtype.names}, name)
    if hasattr(values, "columns") and hasattr(values, "iloc"):  # pandas
        names, _ = unique_names([str(column) for column in values.columns])
        return _frame({column: values.iloc[:, i] for i, column in enumerate(names)}, name)
    if hasattr(values, "__arrow_c_stream__"):
        return pl.DataFrame(values)
    if isinstance(values, Mapping):
        return _frame({str(key): column for key, column in values.items()}, name)
    array = values if isinstance(values, np.ma.MaskedArray) else _array(values, name)
    if array.ndim != 2:
        hint = "; one column is X[:, None], one row X[None, :]" if array.ndim == 1 else ""
        raise InputError(f"{name}: expected a table of rows and columns, got an array of shape {array.shape}{hint}")
    return _frame({f"column_{j + 1}": array[:, j] for j in range(array.shape[1])}, name)


def to_series(values: Any, name: str = "y") -> pl.Series:
    """One column of any kind: a list, an array, a series of polars, pandas or Arrow.

    Raises
    ------
    InputError : it is none
    """
    pl = polars()
    if isinstance(values, pl.Series):
        return values
    if isinstance(values, np.ma.MaskedArray):
        filled = [None if masked else v for v, masked in zip(values.tolist(), np.ma.getmaskarray(values))]
        if values.dtype.kind in "fiu":
            array = np.where(np.ma.getmaskarray(values), np.nan, values.data.astype(np.float64))
            return pl.Series(name, array).fill_nan(None)
        return pl.Series(name, filled)
    if hasattr(values, "iloc"):  # a series of pandas
        return _of_pandas(values, name)
    if hasattr(values, "__arrow_c_array__") or hasattr(values, "__arrow_c_stream__"):
        return pl.Series(name, values)
    array = _array(values, name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InputError(f"{name}: expected one value for each row, got an array of shape {array.shape}")
    return _of_numpy(array, name)


def _frame(columns: Mapping[str, Any], name: str) -> pl.DataFrame:
    pl = polars()
    series = {column: to_series(values, column).alias(column) for column, values in columns.items()}
    lengths = {len(values) for values in series.values()}
    if len(lengths) > 1:
        raise InputError(f"{name}: expected columns of one length, got {sorted(lengths)}")
    return pl.DataFrame(list(series.values()))


def _array(values: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name}: expected rows of one length, got rows of different lengths") from error
    # NumPy makes text of numbers beside text: the values as they are, then.
    if array.dtype.kind == "U" and isinstance(values, Sequence) and not isinstance(values, str):
        array = np.array(values, dtype=object)
    return array


def _of_pandas(values: Any, name: str) -> pl.Series:
    pl = polars()
    dtype = values.dtype
    kind = getattr(dtype, "kind", "O")
    if isinstance(dtype, np.dtype) and kind in "fiubmM":
        return _of_numpy(values.to_numpy(), name)
    missing = np.asarray(values.isna())
    if kind in "fiub" and hasattr(dtype, "na_value"):  # pandas' own types with missing values
        number = "float64" if kind == "f" or (missing.any() and kind != "b") else {"b": "bool"}.get(kind, "int64")
        filled = values.fillna(0 if kind != "b" else False).to_numpy(dtype=number)
        return pl.Series(name, filled).zip_with(
            pl.Series(~missing),
            pl.Series(name, [None], dtype=pl.Series(filled[:0]).dtype).extend_constant(None, max(0, len(filled) - 1)),
        )
    if kind == "M":  # with a time zone
        moments = values.dt.tz_convert("UTC").dt.tz_localize(None)
        return _of_numpy(moments.to_numpy(dtype="datetime64[us]"), name)
    objects = values.astype(object).to_numpy()
    return _of_objects([None if gone else v for v, gone in zip(objects.tolist(), missing)], name)


def _of_numpy(array: np.ndarray, name: str) -> pl.Series:
    pl = polars()
    kind = array.dtype.kind
    if kind == "c":
        raise InputError(f"{name}: expected real numbers, got dtype {array.dtype}")
    if kind == "f":
        return pl.Series(name, array.astype(np.float64) if array.dtype.itemsize not in (4, 8) else array).fill_nan(None)
    if kind == "S":
        return pl.Series(name, np.char.decode(array, "utf-8", "replace").tolist())
    if kind == "U":
        return pl.Series(name, array.tolist(), dtype=pl.String)
    if kind == "M":
        return pl.Series(name, array.astype("datetime64[us]"))
    if kind == "m":
        return pl.Series(name, array.astype("timedelta64[us]"))
    if kind == "O":
        return _of_objects(array.tolist(), name)
    return pl.Series(name, array)


def _of_objects(values: list[Any], name: str) -> pl.Series:
    """Python objects: a column of one type where they are of one, else numbers, else text."""
    pl = polars()
    values = [None if v is None or v is np.ma.masked or (isinstance(v, float) and v != v) else v for v in values]
    values = [v.item() if isinstance(v, np.generic) else v for v in values]
    try:
        return pl.Series(name, values, strict=True)
    except (TypeError, pl.exceptions.PolarsError, OverflowError):
        pass
    if all(v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in values):
        return pl.Series(name, [None if v is None else float(v) for v in values])
    return pl.Series(name, [None if v is None else str(v) for v in values], dtype=pl.String)
