"""Any frame of mixed columns trains, is saved, loaded, and predicts the same on the command line and in Python; clean files
give the model that plain arrays give."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets

import fastdl
from fastdl import cli
from fastdl.scaling import Scaling
from fastdl.tables import data, encoded
from fastdl.tables.encoded import Encoded, OneHot
from fastdl.tables.preprocessor import Preprocessor
from fastdl.tables.table import Table
from fastdl.training.fitting import Blueprint

N = 24
WORDS = st.sampled_from(["red", "blue", "sea green", "a,b", 'say "hi"', "Köln", "x\ny"])


def column(values):
    return st.lists(st.none() | values, min_size=N, max_size=N)


def columns():
    """A column of one kind, with missing cells."""
    return st.one_of(
        column(st.floats(-1e6, 1e6, width=32)),
        column(st.integers(-(10**6), 10**6)),
        column(WORDS),
        column(st.booleans()),
        column(st.dates(min_value=datetime.date(1900, 1, 1), max_value=datetime.date(2100, 1, 1))),
        st.just([None] * N),
        st.just([7] * N),
        st.just(list(range(N))),
    )


@settings(max_examples=15)
@given(st.lists(columns(), min_size=1, max_size=5), st.sampled_from(["numbers", "words"]), st.integers(0, 3))
def test_any_frame_from_the_file_to_the_prediction(parts, kind, seed):
    frame = pl.DataFrame({f"c{i}": pl.Series(values, strict=False) for i, values in enumerate(parts)})
    rng = np.random.default_rng(seed)
    target = rng.standard_normal(N) if kind == "numbers" else np.array(["no", "maybe", "yes"])[np.arange(N) % 3]
    frame = frame.with_columns(pl.Series("z", rng.standard_normal(N)), pl.Series("target", target))
    with tempfile.TemporaryDirectory() as folder:
        path, run, out = (str(Path(folder) / name) for name in ("a.csv", "run", "p.csv"))
        frame.write_csv(path)
        assert cli.main(["train", path, "--target", "target", "--hidden", "4", "--epochs", "1", "--threads", "1",
                         "--validation", "0.25", "--out", run]) == 0  # fmt: skip
        assert cli.main(["predict", run, path, "--out", out]) == 0
        said = list(csv.DictReader(io.StringIO(Path(out).read_text())))
        model = fastdl.load(run)
        read = pl.read_csv(path, infer_schema_length=None)
        assert len(said) == N
        predicted = model.predict(read)
        if kind == "words":
            assert [row["prediction"] for row in said] == predicted.tolist()
        else:
            np.testing.assert_array_equal([float(row["prediction"]) for row in said], predicted)
        kept = json.loads(json.dumps(model.preprocessor.to_json()))
        assert Preprocessor.from_json(kept) == model.preprocessor


# What stands between table and matrix


def test_encoded_rows_give_the_matrix_and_its_statistics(rng, monkeypatch):
    """As if the whole matrix were there, to the last bit, also over several blocks."""
    n = 1000
    parts = [rng.standard_normal(n), OneHot(rng.integers(0, 4, n).astype(np.uint8), 3), rng.integers(0, 2, n).astype(np.uint8),
             np.full(n, 3.0), 1e15 + np.arange(n), rng.standard_normal(n) * 1e-200]  # fmt: skip
    table = Encoded(n, parts)
    index = rng.permutation(n)[:900]
    naive = np.column_stack([parts[0], *(parts[1].codes == k for k in range(3)), *parts[2:]])[index]
    expected = Scaling.of(naive)
    for block, cores in ((7, 1), (128, 2), (128, 8), (4096, 3)):
        monkeypatch.setattr(encoded, "BLOCK", block)
        monkeypatch.setattr(encoded.os, "cpu_count", lambda cores=cores: cores)
        rows = table.rows(index)
        np.testing.assert_array_equal(rows.matrix(), naive)
        found = rows.statistics()
        np.testing.assert_array_equal(found.mean[:5], expected.mean[:5])
        np.testing.assert_array_equal(found.scale[:5], expected.scale[:5])
        np.testing.assert_allclose(found.scale, expected.scale)
        np.testing.assert_array_equal(rows.matrix(expected, np.float32), expected.inputs(naive, np.dtype(np.float32)))
        robust = dataclasses.replace(Scaling.robust(naive), clip=3.0)
        found = rows.robust_statistics()
        np.testing.assert_allclose([found.mean, found.scale], [robust.mean, robust.scale])
        np.testing.assert_array_equal(rows.matrix(robust, np.float32), robust.inputs(naive, np.dtype(np.float32)))


# What worked before


@pytest.mark.parametrize("kind", ["numbers", "categories"])
def test_clean_files_give_the_model_of_plain_arrays(tmp_path, capsys, kind):
    """The same bits as standardised arrays of numbers and one-hot categories, which was all there was at first."""
    rng = np.random.default_rng(1)
    X = np.round(rng.standard_normal((300, 3)), 4)
    colour = rng.integers(0, 4, 300)
    y = np.round(X[:, 0] + colour, 3)
    names = np.array(["blue", "green", "red", "teal"])[colour]
    lines = [
        f"{a},{b},{n if kind == 'categories' else c},{t}" for (a, b, c), n, t in zip(X.tolist(), names, y.tolist())
    ]
    path = tmp_path / "a.csv"
    path.write_text("a,b,c,y\n" + "\n".join(lines) + "\n")
    options = ["--categorical", "c"] if kind == "categories" else []
    command = ["train", str(path), "--target", "y", "--hidden", "8", "--epochs", "3", "--threads", "1"]
    command += ["--recipe", "plain"]
    assert cli.main([*command, *options, "--out", str(tmp_path / "r")]) == 0
    plain = np.column_stack([X[:, :2], np.eye(4)[colour]]) if kind == "categories" else X
    train, held_out = data.split(300, 0.2, 0)
    model = fastdl.MLP([plain.shape[1], 8, 1], output="linear", seed=0)
    model.standardize(plain[train], y[train, None])
    fastdl.Trainer(model, batch_size=32, epochs=3, l2=1e-3, seed=0, n_threads=1).fit(
        plain[train], y[train, None], validation_data=(plain[held_out], y[held_out, None])
    )
    np.testing.assert_array_equal(fastdl.load(tmp_path / "r").parameters, model.parameters)


# Tables of others


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes", "digits", "linnerud"])
def test_tables_of_scikit_learn_with_quirks(name):
    """Names with spaces, brackets and percent signs, missing cells, a counter in front, decimal commas: all columns are
    kept, and a model learns something."""
    bunch = getattr(datasets, f"load_{name}")()
    X, y = bunch.data, bunch.target if bunch.target.ndim == 1 else bunch.target[:, 0]
    rng = np.random.default_rng(0)
    names = [str(n) for n in getattr(bunch, "feature_names", range(X.shape[1]))]
    words = getattr(bunch, "target_names", None)
    classes = len(np.unique(y)) <= 10
    target = [str(words[v]) for v in y] if classes and words is not None else y.tolist()
    cells = np.array([[repr(v).replace(".", ",") for v in row] for row in X.tolist()])
    cells[rng.random(cells.shape) < 0.03] = "NA"
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";")
    writer.writerow(["", *names, "the target (%)"])
    writer.writerows([i, *row, t] for i, (row, t) in enumerate(zip(cells.tolist(), target)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_text(text.getvalue(), encoding="cp1252")
        loaded = data.load_training([str(path)], target="the target (%)", validation=0)
    kinds = {column.name: column.kind for column in loaded.preprocessor.columns}
    varying = {n for n, c in zip(names, cells.T) if len(set(c)) > 1}
    assert {n for n, kind in kinds.items() if kind == "number"} == varying
    assert loaded.targets.task == ("binary" if name == "breast_cancer" else "multiclass" if classes else "regression")
    model = Blueprint([16], "relu", 0, "float32").model(loaded)
    history = fastdl.Trainer(model, batch_size=min(32, len(X)), epochs=20, seed=0, n_threads=1).fit(
        *loaded.training_pair()
    )
    assert history.loss[-1] < 0.8 * history.loss[0]


def test_a_table_of_nothing_but_missing_values():
    frame = pl.DataFrame({"x": pl.Series([None, None, None], dtype=pl.Float64), "y": [1.5, 2.5, 3.5]})
    with pytest.raises(fastdl.InputError, match="at least one feature column that varies"):
        data.prepare(Table(frame, "X"), data.Options(target="y", validation=0))
