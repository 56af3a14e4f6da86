"""TabularClassifier and TabularRegressor: frames as they are in, labels as they were out."""

from __future__ import annotations

import datetime

import numpy as np
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

import fastdl
import fastdl.tables.frames
from fastdl import InputError, TabularClassifier, TabularRegressor, cli
from fastdl.tables.frames import to_polars, to_series

QUICK = {"hidden": (16,), "epochs": 5, "threads": 1}


def mixed(n=80):
    """A frame with a column of each type."""
    rng = np.random.default_rng(0)
    start = datetime.datetime(2024, 1, 1)
    return pl.DataFrame(
        {
            "number": [None if i % 9 == 0 else v for i, v in enumerate(rng.standard_normal(n))],
            "whole": rng.integers(0, 50, n),
            "text": rng.choice(["a", "b", "c"], n).tolist(),
            "kind": pl.Series(rng.choice(["u", "v"], n).tolist(), dtype=pl.Categorical),
            "truth": [None if i % 13 == 0 else bool(i % 3) for i in range(n)],
            "moment": [start + datetime.timedelta(hours=int(h)) for h in rng.integers(0, 9000, n)],
            "day": [start.date() + datetime.timedelta(days=int(h)) for h in rng.integers(0, 900, n)],
            "code": pl.Series(rng.integers(0, 4, n), dtype=pl.Int8),
        }
    )


@pytest.mark.parametrize(
    "labels",
    [
        [1, 2], [-1, 1], [0, 1, 2], ["no", "yes"], ["b", "a", "c"], [True, False], [1.0, 2.0], [3, 7, 11],
    ],
    ids=str,
)  # fmt: skip
def test_labels_come_back_as_they_were(labels):
    frame = mixed()
    y = [labels[i % len(labels)] for i in range(len(frame))]
    model = TabularClassifier(categorical=["code"], **QUICK).fit(frame, y)
    assert sorted(model.classes_.tolist()) == sorted(set(y))
    predicted = model.predict(frame)
    assert set(predicted.tolist()) <= set(y)
    assert type(predicted.tolist()[0]) is type(y[0]) or isinstance(y[0], float)
    chances = model.predict_proba(frame)
    assert chances.shape == (len(frame), len(labels))
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(model.classes_[chances.argmax(axis=1)], predicted)
    assert model.score(frame, np.array(y)) == np.mean(predicted == np.array(y))


def test_classes_as_columns():
    y = np.eye(3, dtype=int)[np.arange(80) % 3]
    model = TabularClassifier(**QUICK).fit(mixed(), y)
    assert model.predict_proba(mixed()).shape == (80, 3)


def test_every_type_of_column_is_read():
    model = TabularRegressor(categorical=["code"], **QUICK).fit(mixed(), np.arange(80.0))
    kinds = {column.name: column.kind for column in model.preprocessor_.columns}
    assert kinds == {"number": "number", "whole": "number", "text": "category", "kind": "category", "truth": "boolean",
                     "moment": "date", "day": "date", "code": "category"}  # fmt: skip
    names = model.model_.feature_names
    for name in ("number is missing", "text=b", "kind=u", "truth is missing", "moment: hour", "day: month", "code=3"):
        assert name in names
    assert model.n_features_in_ == 8
    assert len(model.history_) == 5


def test_columns_are_found_by_name_and_others_do_not_matter():
    frame = mixed()
    model = TabularRegressor(**QUICK).fit(frame, np.arange(80.0))
    expected = model.predict(frame)
    np.testing.assert_array_equal(model.predict(frame.select(frame.columns[::-1])), expected)
    np.testing.assert_array_equal(model.predict(frame.with_columns(new=pl.lit("x"))), expected)
    with pytest.raises(InputError, match="expected the columns 'text', 'day'"):
        model.predict(frame.drop("text", "day"))


def test_the_file_and_fastdl_load_give_the_same(tmp_path):
    frame = mixed()
    y = ["yes" if i % 3 else "no" for i in range(80)]
    model = TabularClassifier(**QUICK).fit(frame, y)
    model.save(tmp_path / "m.fastdl")
    loaded = fastdl.load(tmp_path / "m.fastdl")
    assert isinstance(loaded, fastdl.TableModel)
    assert loaded.predict(frame).tolist() == model.predict(frame).tolist()
    np.testing.assert_array_equal(loaded.predict_proba(frame)[:, 0], model.predict_proba(frame)[:, 1])
    assert loaded.preprocessor == model.preprocessor_
    encoded = loaded.preprocessor.transform(frame)
    np.testing.assert_allclose(loaded.predict_proba(encoded), loaded.predict_proba(frame), rtol=1e-4)


def test_the_command_line_learns_the_same(tmp_path, monkeypatch, capsys):
    """The same bits from a frame in Python and from its file, with the same settings."""
    monkeypatch.chdir(tmp_path)
    frame = mixed(100).drop("code").with_columns(pl.Series("y", [f"{i % 4}.5" for i in range(100)]).cast(float))
    frame.with_columns(pl.col("moment").dt.strftime("%Y-%m-%d %H:%M:%S")).write_csv("a.csv")
    command = "train a.csv --target y --task regression --hidden 16 --epochs 5 --threads 1 --out r"
    assert cli.main(command.split()) == 0
    model = TabularRegressor(validation=0.2, **QUICK).fit(frame.drop("y"), frame["y"])
    np.testing.assert_array_equal(model.model_.parameters, fastdl.load("r").parameters)
    capsys.readouterr()
    assert cli.main(["predict", "r", "a.csv"]) == 0
    predicted = [float(line) for line in capsys.readouterr().out.splitlines()[1:]]
    np.testing.assert_array_equal(np.array(predicted), model.predict(frame))


def test_missing_targets_and_weights():
    frame, y = mixed(), np.arange(80.0)
    y[::10] = np.nan
    model = TabularRegressor(**QUICK).fit(frame, y)
    kept = ~np.isnan(y)
    alone = TabularRegressor(**QUICK).fit(frame.filter(pl.Series(kept)), y[kept])
    np.testing.assert_array_equal(model.model_.parameters, alone.model_.parameters)
    weighted = TabularRegressor(**QUICK).fit(frame, y, sample_weight=np.arange(80) + 1.0)
    assert (weighted.model_.parameters != model.model_.parameters).any()


def test_masked_cells_and_targets_are_missing():
    X = np.ma.masked_array(np.arange(40.0).reshape(20, 2) % 7, mask=np.arange(40).reshape(20, 2) % 5 == 0)
    y = np.ma.masked_array(np.arange(20.0), mask=np.arange(20) == 3)
    model = TabularRegressor(**QUICK).fit(X, y)
    assert model.model_.feature_names == ["column_1", "column_1 is missing", "column_2", "column_2 is missing"]
    assert np.isfinite(model.predict(X)).all()


def test_scikit_learns_tools_work():
    X, y = load_iris(return_X_y=True)
    assert cross_val_score(TabularClassifier(threads=1), X, y, cv=3).mean() > 0.9
    search = GridSearchCV(TabularClassifier(**QUICK), {"l2": [0.0, 0.1]}, cv=2).fit(X, y)
    assert search.best_params_["l2"] in (0.0, 0.1)
    model = clone(TabularRegressor(lr=0.5, categorical=["a"]))
    assert model.get_params()["lr"] == 0.5
    with pytest.raises(NotFittedError):
        TabularRegressor().predict(X)


def test_a_real_task_is_learnt():
    X, y = load_breast_cancer(return_X_y=True)
    words = np.array(["malignant", "benign"])[y]
    model = TabularClassifier(epochs=10, early_stopping=3, threads=1, class_weight="balanced").fit(X[::2], words[::2])
    assert model.score(X[1::2], words[1::2]) > 0.93


@pytest.mark.parametrize(
    ("settings", "X", "y", "words"),
    [
        ({}, np.eye(4), None, "a target for each row, got None"),
        ({}, np.eye(4), [1, 2, 1], "each of the 4 rows of X, got 3"),
        ({}, np.zeros((0, 2)), [], "at least one row"),
        ({}, np.arange(4.0), [1, 2, 1, 2], "rows and columns"),
        ({"optimizer": "adm"}, np.eye(4), [1, 2, 1, 2], "expected one of"),
        ({"ignore": ["z"]}, np.eye(4), [1, 2, 1, 2], "'z'"),
        ({"class_weight": "fair"}, np.eye(4), [1, 2, 1, 2], "balanced or none"),
    ],
)
def test_bad_input_gets_a_sentence(settings, X, y, words):
    with pytest.raises(InputError, match=words):
        TabularClassifier(**QUICK, **settings).fit(X, y)


class PandasSeries:
    """As much of a series of pandas as is looked at: pandas itself need not be installed for the tests."""

    def __init__(self, values, dtype):
        self.values, self.dtype, self.iloc = values, dtype, None

    def isna(self):
        return np.array([v is None or v != v for v in self.values])

    def astype(self, dtype):
        return PandasSeries(np.array(self.values, dtype=dtype), np.dtype(dtype))

    def to_numpy(self):
        return np.asarray(self.values)


class PandasFrame:
    """As much of a frame of pandas as is looked at."""

    def __init__(self, columns):
        self._columns = list(columns.values())
        self.columns, self.dtypes = list(columns), [c.dtype for c in self._columns]

    class _Positions:
        def __init__(self, columns):
            self._columns = columns

        def __getitem__(self, key):
            return self._columns[key[1]]

    @property
    def iloc(self):
        return self._Positions(self._columns)


def test_frames_of_pandas_are_read_by_their_attributes():
    frame = PandasFrame(
        {
            "x": PandasSeries(np.array([1.0, np.nan, 3]), np.dtype(float)),
            1: PandasSeries(np.array(["a", None, "b"], dtype=object), np.dtype(object)),
            "when": PandasSeries(np.array(["2024-01-01", "NaT", "2024-01-02"], "datetime64[ns]"), np.dtype("M8[ns]")),
        }
    )
    read = to_polars(frame)
    assert read.to_dict(as_series=False) == {
        "x": [1, None, 3], "1": ["a", None, "b"],
        "when": [datetime.datetime(2024, 1, 1), None, datetime.datetime(2024, 1, 2)],
    }  # fmt: skip
    assert fastdl.tables.frames.is_frame(frame)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None, 3], [1, None, 3]),
        (np.array([1, "a", None, float("nan")], dtype=object), ["1", "a", None, None]),
        (np.array([1, 2.5, None], dtype=object), [1, 2.5, None]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([b"a", b"b"]), ["a", "b"]),
        ([[1], [2]], [1, 2]),
        ([True, None], [True, None]),
    ],
    ids=str,
)
def test_lists_and_arrays_as_columns(values, expected):
    assert to_series(values).to_list() == expected


def test_structured_arrays_and_dictionaries():
    array = np.array([(1, "a"), (2, "b")], dtype=[("n", int), ("t", "U3")])
    assert to_polars(array).to_dict(as_series=False) == {"n": [1, 2], "t": ["a", "b"]}
    assert to_polars({"n": [1, 2], "t": ["a", None]}).to_dict(as_series=False) == {"n": [1, 2], "t": ["a", None]}
    with pytest.raises(InputError, match="one length"):
        to_polars({"n": [1, 2], "t": ["a"]})
