"""The inputs of an estimator: arrays, lists and data frames become a finite float array; names of columns are compared.

`ready` is the short way, for arrays that need nothing done: half a microsecond. The errors are worded as scikit-learn words
them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from fastdl import frames, sparse
from fastdl.sparse import SparseRows

SPARSE = ("csr", "csc", "coo")
_FLOATS = (np.float64, np.float32)
_SHOWN = 5


def ready(X: Any, n_features: int, dtype: np.dtype) -> bool:
    """Whether X is an array as the engine takes it; its numbers are not looked at."""
    return (
        type(X) is np.ndarray
        and X.dtype == dtype
        and X.ndim == 2
        and X.shape[1] == n_features
        and X.shape[0] > 0
        and X.flags.carray
    )


def for_prediction(estimator: Any, X: Any, dtype: np.dtype) -> NDArray[np.floating] | SparseRows:
    """X of a fitted estimator, checked, as a C-contiguous array of `dtype`, or as sparse rows."""
    array = matching(estimator, X)
    if sparse.is_sparse(array):
        return sparse.rows_of(array, array.shape[1], dtype)
    with np.errstate(over="ignore"):
        converted = np.require(array, dtype, ["C", "A", "W"])
    if converted is not array and not np.isfinite(converted).all():
        raise ValueError(
            f"Input X contains a value too large for dtype({dtype.name!r}), in which this "
            f"{type(estimator).__name__} computes; fit with float64 data or dtype='float64'."
        )
    return converted


def matching(estimator: Any, X: Any) -> NDArray[np.floating]:
    """X as a float array, with the columns that the estimator was fitted with, in their order."""
    X = match_names(estimator, X)
    array: NDArray[np.floating] = check_array(
        X, dtype=_FLOATS, accept_sparse=SPARSE, estimator=estimator, input_name="X"
    )
    check_width(estimator, array)
    return array


def learn_columns(estimator: Any, X: Any, array: NDArray) -> None:
    """Remember how many columns X has, and their names if they have some."""
    names = names_of(X)
    estimator.n_features_in_ = array.shape[1]
    if names is not None:
        estimator.feature_names_in_ = names
    elif hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_


def check_width(estimator: Any, array: NDArray) -> None:
    """ValueError unless the array has as many columns as there were in fit."""
    expected = getattr(estimator, "n_features_in_", array.shape[1])
    if array.shape[1] != expected:
        raise ValueError(
            f"X has {array.shape[1]} features, but {type(estimator).__name__} is expecting {expected} features as input."
        )


def names_of(X: Any) -> NDArray[np.object_] | None:
    """The names of the columns of a data frame (pandas, polars) or of an Arrow table; None if there are none of text.

    TypeError, as in scikit-learn, if only some of them are text.
    """
    names = frames.names_of(X)
    if names is None and hasattr(X, "columns") and hasattr(X, "dtypes"):
        kinds = sorted({type(name).__qualname__ for name in X.columns})
        if "str" in kinds and len(kinds) > 1:
            raise TypeError(
                "Feature names are only supported if all input features have string names, but your input has "
                f"{kinds} as feature name / column name types. If you want feature names to be stored and validated, you "
                "must convert them all to strings, by using X.columns = X.columns.astype(str) for example. Otherwise you "
                "can remove feature / column names from your input data, or convert them all to a non-string data type."
            )
    return None if names is None else np.asarray(names, dtype=object)


def match_names(estimator: Any, X: Any) -> Any:
    """X with its columns in the order of those in fit, if they have names: others are an error, none a warning."""
    fitted = getattr(estimator, "feature_names_in_", None)
    names = names_of(X)
    kind = type(estimator).__name__
    if fitted is None and names is not None:
        warnings.warn(f"X has feature names, but {kind} was fitted without feature names", UserWarning, stacklevel=4)
    if fitted is not None and names is None:
        warnings.warn(
            f"X does not have valid feature names, but {kind} was fitted with feature names", UserWarning, stacklevel=4
        )
    if fitted is None or names is None:
        return plain(X)
    unexpected, missing = sorted(set(names) - set(fitted)), sorted(set(fitted) - set(names))
    if unexpected or missing or len(names) != len(fitted):
        message = "The feature names should match those that were passed during fit.\n"
        if unexpected:
            message += "Feature names unseen at fit time:\n" + _listed(unexpected)
        if missing:
            message += "Feature names seen at fit time, yet now missing:\n" + _listed(missing)
        if not unexpected and not missing:
            message += "Feature names that come more than once:\n" + _listed(
                sorted({name for name in names if list(names).count(name) > 1})
            )
        raise ValueError(message)
    return frames.in_order(X, list(fitted))


def plain(X: Any) -> Any:
    """An Arrow table as an array, all else as it is."""
    return frames.in_order(X, None)


def _listed(names: Sequence[str]) -> str:
    text = "".join(f"- {name}\n" for name in names[:_SHOWN])
    return text + ("- ...\n" if len(names) > _SHOWN else "")
