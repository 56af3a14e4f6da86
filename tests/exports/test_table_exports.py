"""Models of tables as ONNX files and NumPy modules: raw columns in, with missing cells and categories that training had not."""

from __future__ import annotations

import csv
import datetime
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from exporting import load_module, run_onnx
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdl
from fastdl.cli import prediction
from fastdl.tables.kinds import KINDS, TextColumn
from fastdl.tables.preprocessor import Preprocessor
from fastdl.tables.recognise import Choices

N = 400


def people(n=N, seed=0):
    """A column of each kind, with missing cells."""
    rng = np.random.default_rng(seed)

    def some(values, share=0.1):
        return [None if gone else value for value, gone in zip(values, rng.random(n) < share, strict=True)]

    day = [datetime.datetime(1995, 1, 1) + datetime.timedelta(minutes=int(m)) for m in rng.integers(0, 15_000_000, n)]
    return pl.DataFrame(
        {
            "id": np.arange(n),
            "height": some(np.round(rng.normal(170, 10, n), 1).tolist()),
            "label": rng.integers(0, 1000, n) * 1_000_003,  # called as an output is, and far from 0
            "town, state": some(rng.choice(["Ulm", "Rom", "sea green", "Köln", "x" * 30], n).tolist()),
            "floor": [str(value) for value in rng.integers(0, 5, n)],
            "zone": some([f"z{value}" for value in rng.integers(0, 60, n)], 0.02),
            "member": some(rng.choice(["Yes", "no"], n).tolist()),
            "since": some(day),
            "note": some(
                [f"{i}: the {word}, a Straße" for i, word in enumerate(rng.choice(["red", "green", "BLUE"], n))]
            ),
            "always": ["x"] * n,
        }
    )


CLASSES = np.array(["small", "tall", "middle"])
UNITS = {"labels": "sigmoid"}  # several labels


def trained(columns, seed=0, **settings):
    """A model of these columns of `people` with random parameters, its statistics those of the table."""
    frame = people().select(columns)
    output = settings.pop("output", "softmax")
    n_outputs = {"softmax": 3, "sigmoid": 1, "linear": 2, "labels": 3}[output]
    preprocessor = Preprocessor.fit(frame, choices=Choices(categorical=tuple({"floor"} & set(columns))))
    encoded = preprocessor.encode(preprocessor.tidied(frame)).rows()
    model = fastdl.TableModel(
        [len(preprocessor.feature_names), 16, n_outputs], "mish", UNITS.get(output, output), seed=seed, **settings
    )
    model.preprocessor = preprocessor
    y = 100 + 5 * np.random.default_rng(seed).normal(size=(N, n_outputs)) if output == "linear" else None
    model.standardize(encoded, y)
    for bias in model.biases:
        bias[:] = 0.2 * np.random.default_rng(seed).normal(size=bias.size)
    model.classes = {"softmax": CLASSES.tolist(), "sigmoid": [3, 7]}.get(output)
    return model


def tomorrow():
    """New rows: categories that training had not, odd numbers, and a row without anything."""
    frame = people(200, seed=1)
    odd = pl.DataFrame(
        {
            "id": [1, 2, 3, 4], "height": [np.inf, np.nan, None, 1e6], "label": [5, -5, 10**12, None],
            "town, state": ["Oslo", "?", None, "Rom "], "floor": ["1.0", "17", None, "2."],
            "zone": ["z1", "new", None, "NA"], "member": ["YES", "T", None, "perhaps"],
            "since": [*(datetime.datetime(*d) for d in ((1969, 12, 31, 23, 59), (2400, 2, 29), (1900, 3, 1, 4, 5, 6, 7))), None],
            "note": ["RED Green", "", None, "blue-red straße STRASSE"], "always": ["y"] * 4,
        },
        schema=frame.schema, strict=False,
    )  # fmt: skip
    return pl.concat([frame, odd])


PLAIN = ["id", "height", "label", "town, state", "floor", "zone", "member", "since", "note", "always"]


def onnx_inputs(model, frame):
    """The raw columns as README.md says that the file takes them."""
    inputs = {}
    for column in model.preprocessor.features:
        values = frame[column.name]
        if column.kind == "number":
            inputs[column.name] = values.cast(pl.Float64).to_numpy()
        elif column.kind == "date":
            inputs[column.name] = values.to_numpy().astype("datetime64[us]").astype("int64")
        else:
            inputs[column.name] = np.array([cell.strip() for cell in values.fill_null("")], dtype=object)
    return inputs


def close(actual, wanted):
    actual, wanted = np.asarray(actual), np.asarray(wanted)
    assert actual.shape == wanted.shape
    assert (np.abs(actual - wanted) <= 1e-5 * np.maximum(np.abs(wanted), 0.1 * np.abs(wanted).max())).all()


def check(model, frame, labels, chances):
    close(chances, both(model.predict_proba(frame)))
    assert np.asarray(labels).tolist() == model.predict(frame).tolist()


def both(chances):
    return np.hstack([1 - chances, chances]) if chances.shape[1] == 1 else chances


def test_the_table_has_columns_of_each_kind():
    kinds = {column.kind for column in trained(PLAIN).preprocessor.columns}
    assert kinds == set(KINDS) - {"ignored", "embedded category"}


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_onnx_takes_raw_columns(tmp_path, output):
    model, frame = trained(PLAIN, output=output), tomorrow()
    model.export(tmp_path / "m.onnx")
    found = run_onnx(tmp_path / "m.onnx", onnx_inputs(model, frame))
    check(model, frame, found["label_2"], found["probabilities"])  # `label` is a column


def test_onnx_gives_numbers_in_their_units(tmp_path):
    model, frame = trained(PLAIN, output="linear", dtype="float64"), tomorrow()
    model.export(tmp_path / "m.onnx")
    found = run_onnx(tmp_path / "m.onnx", onnx_inputs(model, frame))
    close(found["prediction"], model.predict(frame))


@pytest.mark.parametrize("column", PLAIN[1:-1])
def test_each_column_alone_in_onnx(tmp_path, column):
    """A mistake in one column cannot hide behind the others: its features are compared as the network sees them."""
    frame = tomorrow()
    model = trained([column], output="linear", dtype="float64")
    model.export(tmp_path / "m.onnx")
    wanted = model.predict(frame)
    close(run_onnx(tmp_path / "m.onnx", onnx_inputs(model, frame))["prediction"], wanted)
    assert len(np.unique(wanted[:, 0])) > 1


TEXTS = [
    "red", "RED dog", "reds", "Red_dog", "red'dog", "İred", "redİ", "rİ red", "a\nred\n", "éred", "", "NA", "red NA", "3 Kelvin",
    "Kelvin", "kelvinx", "²red", "red²", "mini", "MINİ", "miniİ", "MINİx", "x.y", "1.5 red", "R 2", "Straße", "STRASSE",
    "ΟΔΟΣ δρόμος",
]  # fmt: skip


def text_model(words):
    model = fastdl.TableModel([len(words)] * 2, output="linear", dtype="float64")
    model.preprocessor = Preprocessor((TextColumn("note", words),))
    model.weights[0][:] = np.eye(len(words))
    return model


def test_words_of_free_text(tmp_path):
    onnx = pytest.importorskip("onnx")
    model, frame = text_model(("red", "kelvin", "mini", "na", "5", "straße", "r")), pl.DataFrame({"note": TEXTS})
    for name in ("m.onnx", "m.py"):
        model.export(tmp_path / name)
    wanted = model.predict(frame)
    assert wanted.any(axis=0).all()
    np.testing.assert_array_equal(load_module(tmp_path / "m.py").predict(frame), wanted)
    np.testing.assert_array_equal(run_onnx(tmp_path / "m.onnx", onnx_inputs(model, frame))["prediction"], wanted)
    opsets = {entry.domain: entry.version for entry in onnx.load(tmp_path / "m.onnx").opset_import}
    assert opsets == {"": 20, "ai.onnx.ml": 3}


def test_words_whose_small_letters_depend_on_what_follows_are_refused(tmp_path):
    with pytest.raises(
        fastdl.InputError, match=r"end with a Greek sigma in the free text of 'note'; export to a .py file"
    ):
        text_model(("οδος", "red")).export(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    text_model(("οδος", "red")).export(tmp_path / "m.py")
    frame = pl.DataFrame({"note": TEXTS})
    np.testing.assert_array_equal(
        load_module(tmp_path / "m.py").predict(frame), text_model(("οδος", "red")).predict(frame)
    )


def test_a_date_of_each_day_in_onnx(tmp_path):
    """All numbers of the calendar, over leap years of each kind."""
    days = np.arange(np.datetime64("1896-01-01"), np.datetime64("2104-12-31"))
    frame = pl.DataFrame({"since": days.astype("datetime64[us]") + np.arange(len(days)) * np.timedelta64(97, "m")})
    preprocessor = Preprocessor.fit(frame)
    model = fastdl.TableModel([6, 6], output="linear", dtype="float64")
    model.preprocessor = preprocessor
    model.weights[0][:] = np.eye(6)
    model.export(tmp_path / "m.onnx")
    model.export(tmp_path / "m.py")
    wanted = preprocessor.transform(frame, dtype=np.float64)
    nearly(run_onnx(tmp_path / "m.onnx", onnx_inputs(model, frame))["prediction"], wanted)
    nearly(load_module(tmp_path / "m.py").predict(frame), wanted)


def nearly(actual, wanted):
    """Days with their fraction may differ in the last bit."""
    np.testing.assert_array_almost_equal_nulp(actual, wanted, 1)


# --- the NumPy module ---


@pytest.mark.parametrize("shape", ["polars", "pandas", "lists"])
@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_numpy_module_takes_frames_and_lists(tmp_path, output, shape):
    model, frame = trained(PLAIN, output=output), tomorrow()
    model.export(tmp_path / "m.py")
    module = load_module(tmp_path / "m.py")
    given = {"polars": lambda: frame, "pandas": frame.to_pandas, "lists": lambda: frame.to_dict(as_series=False)}[
        shape
    ]()
    check(model, frame, module.predict(given), module.predict_proba(given))
    with pytest.raises(ValueError, match=r"expected the columns \['height'\], as in training"):
        module.predict(frame.drop("height"))


@pytest.mark.parametrize("column", PLAIN[1:-1])
def test_each_column_alone_in_numpy(tmp_path, column):
    frame = tomorrow()
    model = trained([column], output="linear", dtype="float64")
    model.export(tmp_path / "m.py")
    close(load_module(tmp_path / "m.py").predict(frame), model.predict(frame))


CELLS = ["1,234.5", "$3", "1 000", "12 %", "(3.2)", "−7", "1e3", "1_000", "inf", "nan", "", "NA", "x", "+5", ".5", "5.",
         "1.234,5", "0x1", "12,34,567", "EUR 7", "1'000", "-", "  8 ", "3,5", "12.345", "1.234.567"]  # fmt: skip


@pytest.mark.parametrize("cells", [CELLS, ["1.234,5", "2.000,25", "3,5"] * 5 + CELLS], ids=["point", "comma"])
def test_numbers_as_people_write_them(tmp_path, cells):
    frame = pl.DataFrame({"a": cells})
    preprocessor = Preprocessor.fit(frame, choices=Choices(numeric=("a",)))
    model = fastdl.TableModel([2, 2], output="linear", dtype="float64")
    model.preprocessor = preprocessor
    model.weights[0][:] = np.eye(2)
    model.export(tmp_path / "m.py")
    wanted = preprocessor.transform(frame, dtype=np.float64)
    np.testing.assert_array_equal(load_module(tmp_path / "m.py").predict(frame), wanted)


DATES = {
    "%d.%m.%Y": ["31.12.2020", "1.2.2021", "29.02.2019", "x", ""],
    "%m/%d/%y": ["12/31/70", "01/02/69", "02/03/68", "03/04/99"],
    "%Y-%m-%d %H:%M:%S%.f": ["2020-01-02 03:04:05.123456789", "2020-01-02T03:04:05", "2021-05-06 07:08:09.5"],
    "%d %B %Y": ["1 March 2020", "12 Dec 2021", "3 may 1999"],
    "%Y-%m-%d %H:%M:%S%.f%#z": ["2020-01-02T03:04:05Z", "2020-01-02 23:04:05+02:00", "2021-01-02 03:04:05.25 -0330"],
}


@pytest.mark.parametrize("pattern", DATES)
def test_dates_as_people_write_them(tmp_path, pattern):
    cells = DATES[pattern] * 12
    frame = pl.DataFrame({"a": cells})
    preprocessor = Preprocessor.fit(frame, choices=Choices(date=("a",)))
    (column,) = preprocessor.columns
    assert column.format.pattern == pattern
    n = len(preprocessor.feature_names)
    model = fastdl.TableModel([n, n], output="linear", dtype="float64")
    model.preprocessor = preprocessor
    model.weights[0][:] = np.eye(n)
    model.export(tmp_path / "m.py")
    wanted = model.predict(frame)
    assert len(np.unique(wanted)) > 2
    nearly(load_module(tmp_path / "m.py").predict(frame), wanted)


@pytest.mark.parametrize(
    "values",
    [[1.5, 2.25, 1e-5, 1e-7, 1e20, 123456789.123, 3.0], [1.0, 2.0, 3.0], [0.0, -0.0, 0.5], [True, False]],
    ids=repr,
)
def test_categories_of_numbers(tmp_path, values):
    frame = pl.DataFrame({"a": values * 20, "b": range(20 * len(values))})
    preprocessor = Preprocessor.fit(frame, choices=Choices(categorical=("a",)))
    assert len(preprocessor.columns[0].categories) == len(set(values))
    model = fastdl.TableModel([len(preprocessor.feature_names)] * 2, output="linear", dtype="float64")
    model.preprocessor = preprocessor
    model.weights[0][:] = np.eye(model.layers[0])
    model.export(tmp_path / "m.py")
    np.testing.assert_array_equal(load_module(tmp_path / "m.py").predict(frame), model.predict(frame))


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "linear", "labels"])
def test_the_numpy_module_predicts_files_as_the_command_line_does(tmp_path, output):
    model = trained(PLAIN, output=output)
    model.export(tmp_path / "m.py")
    people(20, seed=3).with_columns(pl.col("since").dt.date()).write_csv(tmp_path / "new.csv")
    done = subprocess.run([sys.executable, "-I", "m.py", "new.csv"], cwd=tmp_path, capture_output=True, check=True)
    said = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    wanted = prediction.predictions(model, model.encode(pl.read_csv(tmp_path / "new.csv", infer_schema=False)))
    assert list(said[0]) == list(wanted)
    for name, values in wanted.items():
        found = [row[name] for row in said]
        if name.startswith("prediction") and output != "linear":
            assert found == [str(value) for value in values]
        else:
            close([float(cell) for cell in found], values)


def test_words_for_missing_values(tmp_path):
    frame = pl.DataFrame({"a": [1.0, -999.0, 3.0, 4.0] * 20, "b": ["x", "gone", "y", "-999"] * 20})
    preprocessor = Preprocessor.fit(frame, na_values=("gone", "-999"))
    model = fastdl.TableModel([len(preprocessor.feature_names)] * 2, output="linear", dtype="float64")
    model.preprocessor = preprocessor
    model.weights[0][:] = np.eye(model.layers[0])
    for name in ("m.py", "m.onnx"):
        model.export(tmp_path / name)
    wanted = model.predict(frame)
    np.testing.assert_array_equal(load_module(tmp_path / "m.py").predict(frame), wanted)
    np.testing.assert_array_equal(run_onnx(tmp_path / "m.onnx", onnx_inputs(model, frame))["prediction"], wanted)


ODD = [
    "red", "Red", "RED ", " blue", "sea green", "a,b", 'say "hi"', "x\ny", "1.0", "1", "01", "1.", "-3", "+3", "1e3", "1.5",
    "NA", "?", "-", ".", "", "  ", "None", "TRUE", "false", "yes", "No", "y", "T", "0", "0.0", "Straße", "ΣΑΣ", "²", "1_0",
    "$5", "€ 3,50", "1.234,5", "(4)", "−4", "inf", "nan", "0x10", "٣", "2020-01-02", "2020-02-30", "2020-01-02 03:04",
    "12.05.2021", "10:30", "1 March 2020", "the red dog", "The Red-Dog!", "the_red dog",
]  # fmt: skip


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(ODD), min_size=1, max_size=8), st.integers(0, 1000), st.sampled_from(["", "categorical"])
)
def test_any_text_is_read_as_fastdl_reads_it(pool, seed, said):
    """Whatever kind the column is taken for, and whatever comes later: bitwise the same features, but for days."""
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({"c": rng.choice(pool, 40).tolist()})
    try:
        preprocessor = Preprocessor.fit(frame, choices=Choices(categorical=("c",) if said else ()))
    except fastdl.InputError:
        return
    n = len(preprocessor.feature_names)
    if n == 0:
        return
    later = pl.concat([frame, pl.DataFrame({"c": ODD})])
    model = fastdl.TableModel([n, n], output="linear", dtype="float64")
    model.preprocessor = preprocessor
    model.weights[0][:] = np.eye(n)
    wanted = model.predict(later)
    with tempfile.TemporaryDirectory() as folder:
        model.export(Path(folder) / "m.py")
        nearly(load_module(Path(folder) / "m.py").predict(later), wanted)
        if preprocessor.features[0].kind in ("category", "boolean", "text"):
            model.export(Path(folder) / "m.onnx")
            found = run_onnx(Path(folder) / "m.onnx", onnx_inputs(model, later))["prediction"]
            np.testing.assert_array_equal(found, wanted)
