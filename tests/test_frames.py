"""Frames of pandas, polars and Arrow: columns are found by their names, whatever order they come in."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import fastdl
from fastdl import frames

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ["age", "height", "City, State"]


class PandasLike:
    """What a pandas frame shows: columns, dtypes, selection by a list of names, and an array of itself."""

    def __init__(self, columns):
        self._columns = columns
        self.columns, self.dtypes = list(columns), [v.dtype for v in columns.values()]

    def __getitem__(self, names):
        return PandasLike({name: self._columns[name] for name in names})

    def __array__(self, dtype=None, copy=None):
        return np.stack(list(self._columns.values()), axis=1)


class ArrowLike:
    """What an Arrow table shows."""

    def __init__(self, columns):
        self._columns = columns
        self.column_names = list(columns)

    def select(self, names):
        return ArrowLike({name: self._columns[name] for name in names})

    def column(self, i):
        return self._columns[self.column_names[i]]


KINDS = {"polars": pl.DataFrame, "pandas": PandasLike, "arrow": ArrowLike}


@pytest.fixture
def table(rng):
    X = rng.normal(size=(30, 3)).astype(np.float64) * [1, 10, 100]
    return X, rng.integers(0, 2, 30)


@pytest.fixture(params=KINDS)
def frame_of(request):
    kind = KINDS[request.param]
    return lambda X, names=NAMES: kind({name: np.ascontiguousarray(X[:, i]) for i, name in enumerate(names)})


def test_columns_are_put_in_order(table, frame_of):
    X, y = table
    model = fastdl.MLP([3, 5, 2])
    model.standardize(frame_of(X))
    assert model.feature_names == NAMES
    fastdl.Trainer(model, batch_size=10, epochs=2).fit(frame_of(X), y)
    want = model.forward(X)
    np.testing.assert_array_equal(model.forward(frame_of(X)), want)
    turned = frame_of(X[:, ::-1], NAMES[::-1])
    np.testing.assert_array_equal(model.forward(turned), want)
    np.testing.assert_array_equal(model.predict(turned), want.argmax(axis=1))
    np.testing.assert_array_equal(model.predict_proba(turned), model.predict_proba(X))
    assert model.loss_and_gradient(turned, y)[0] == model.loss_and_gradient(X, y)[0]
    history = fastdl.Trainer(model, batch_size=10, epochs=1).fit(turned, y, validation_data=(turned, y))
    assert history.val_loss[0] == pytest.approx(model.loss_and_gradient(X, y)[0], rel=1e-6)


def test_fit_remembers_names(table, frame_of):
    X, y = table
    model = fastdl.MLP([3, 5, 2])
    fastdl.Trainer(model, batch_size=10, epochs=1).fit(frame_of(X), y)
    assert model.feature_names == NAMES


def test_missing_and_new_names(table, frame_of):
    X, _ = table
    model = fastdl.MLP([3, 5, 2]).standardize(frame_of(X))
    with pytest.raises(
        fastdl.InputError, match=r"X: expected the 3 columns .* lacks 'height' and has 'hight' besides; did you mean"
    ):
        model.predict(frame_of(X, ["age", "hight", "City, State"]))
    with pytest.raises(fastdl.InputError, match=r"lacks 'City, State'"):
        model.predict(frame_of(X[:, :2], NAMES[:2]))
    with pytest.raises(fastdl.InputError, match=r"has 'more' besides"):
        model.predict(frame_of(np.c_[X, X[:, 0]], [*NAMES, "more"]))
    with pytest.raises(fastdl.InputError, match=r"validation X: expected the 3 columns"):
        fastdl.Trainer(model, batch_size=10, epochs=1).fit(
            X, table[1], validation_data=(frame_of(X, list("abc")), table[1])
        )


def test_names_do_not_matter_without_names(table, frame_of):
    """A model of arrays takes frames as they stand, and a model with names takes arrays."""
    X, _ = table
    model = fastdl.MLP([3, 5, 2])
    np.testing.assert_array_equal(model.forward(frame_of(X, list("cab"))), model.forward(X))
    model.feature_names = np.array(NAMES)
    assert model.feature_names == NAMES
    np.testing.assert_array_equal(model.forward(X.tolist()), model.forward(X))


@pytest.mark.parametrize("X", [np.ones((2, 3)), [[1, 2, 3]], None, 3, "text", {"a": 1}])
def test_what_has_no_names(X):
    assert frames.names_of(X) is None
    assert frames.in_order(X, NAMES) is X


def test_names_that_are_no_text():
    assert frames.names_of(PandasLike({0: np.ones(2), 1: np.ones(2)})) is None
