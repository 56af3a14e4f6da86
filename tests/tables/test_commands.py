"""Tables on the command line: several files, streams of predictions, splits, metrics beside the naive answer, leaks."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import fastdl
from fastdl.cli import prediction
from fastdl.tables import csv_file, data

FAST = ["--hidden", "8", "--epochs", "2", "--threads", "1"]


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def people(n=120, seed=0):
    """A table with a column of each kind, missing cells, and a target in words."""
    rng = np.random.default_rng(seed)
    height = rng.normal(170, 10, n)
    return pl.DataFrame(
        {
            "id": np.arange(1, n + 1),
            "height": [None if i % 11 == 0 else round(h, 1) for i, h in enumerate(height)],
            "town, state": rng.choice(["Ulm", "Rom", "Bonn", ""], n),
            "member": rng.choice(["yes", "no"], n),
            "since": [f"20{10 + i % 9}-0{1 + i % 9}-1{i % 10}" for i in range(n)],
            "tall": ["tall" if h > 170 else "small" for h in height],
        }
    )


@pytest.fixture
def trained(run):
    people().write_csv("people.csv")
    code, out, err = run("train", "people.csv", "--target", "tall", *FAST, "--epochs", 60, "--lr", 0.02, "--out", "r")
    assert code == 0, err
    return out, err


def test_all_kinds_of_columns_train_with_a_target_alone(run, trained):
    out, err = trained
    for words in ("id           identifier  left out: counts the rows from 1", "height       number      some missing",
                  "town, state  category    3 values, some missing", "member       boolean     yes or no",
                  "since        date        year-month-day: days, year"):  # fmt: skip
        assert words in err
    assert "baseline    accuracy" in out
    assert "(always the most frequent class)" in out
    columns = json.loads(Path("r/config.json").read_text())["data"]["columns"]
    assert [c["kind"] for c in columns] == ["identifier", "number", "category", "boolean", "date"]
    _, shown, _ = run("inspect", "r")
    assert "town, state  category" in shown
    assert "left out: counts the rows from 1" in shown


def test_predictions_of_tomorrows_rows(run, trained, write):
    new = write(
        "new.csv",
        'since,member,"town, state",height,note\n2031-05-31,NO,Oslo,190,x\n,,,,\n?,yes,Rom,tall,\n,no,Ulm,1e2,\n',
    )
    code, out, err = run("predict", "r", new, "--id", "note,height", "--only", "prediction")
    assert code == 0
    predicted = rows(out)
    assert list(predicted[0]) == ["note", "height", "prediction"]
    assert [row["height"] for row in predicted] == ["190", "tall", "1e2"]  # copied as they were written; no blank rows
    assert predicted[0]["prediction"] == "tall"
    assert "note: categories that training did not show: 1 in 'town, state' (such as 'Oslo')" in err
    assert "note: cells taken as missing: 1 in 'height' (such as 'tall')" in err


def test_rows_that_cannot_be_read_get_no_prediction_and_are_named(run, trained, write):
    new = write(
        "new.csv",
        'since,member,"town, state",height\n2020-01-01,no,Ulm,150\n1,2,3,4,5\n2020-01-01,no,Ulm,191\n7,7,7,7,7,7\n',
    )
    code, out, err = run("predict", "r", new)
    assert code == 0
    assert [row["prediction"] for row in rows(out)] == ["small", "", "tall", ""]
    assert "no prediction for 2 rows" in err
    assert "row 3: expected 4 cells as in the line of names, got 5" in err
    assert "row 5" in err


def test_predictions_come_in_parts(run, trained, monkeypatch, tmp_path):
    """Blocks of 700 bytes instead of 32 MB: the same predictions, to the last digit, whatever the format."""
    frame = people(300, seed=1)
    frame.write_csv("new.csv")
    frame.write_parquet("new.parquet")
    whole = run("predict", "r", "new.csv", "--id", "id")[1]
    parts = []
    writes = prediction._predicted
    monkeypatch.setattr(prediction, "_predicted", lambda *args: parts.append(1) or writes(*args))
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", 700)
    monkeypatch.setattr("fastdl.tables.formats.SLICE_ROWS", 70)
    assert run("predict", "r", "new.csv", "--id", "id")[1] == whole
    assert len(parts) > 10
    parts.clear()
    assert run("predict", "r", "new.parquet", "--id", "id")[1] == whole
    assert len(parts) == 5
    assert run("predict", "r", "new.csv", "--id", "id", "--out", "p.parquet")[1] == ""
    written = pl.read_parquet("p.parquet").with_columns(pl.col("id").cast(pl.Int64))
    assert written.equals(pl.read_csv(whole.encode(), schema_overrides={"p_tall": pl.Float32}))
    assert run("predict", "r", "new.csv", "--id", "id", "--out", "p.csv")[1] == ""
    assert Path("p.csv").read_text() == whole


def test_how_the_files_of_a_model_are_written_can_be_said(run, trained):
    """Where it cannot be found out: the same predictions and metrics as of the plain file."""
    frame = people(40, seed=1)
    frame.write_csv("plain.csv")
    names = frame.columns
    lines = ["|".join("absent" if cell is None else str(cell) for cell in row) for row in frame.rows()]
    Path("odd.csv").write_bytes("\n".join(["|".join(names), *lines, ""]).encode("utf-16"))
    how = ["--separator", "|", "--encoding", "utf-16", "--na-values", "absent", "--header"]
    assert run("predict", "r", "odd.csv", *how) == run("predict", "r", "plain.csv")
    assert run("evaluate", "r", "odd.csv", *how) == run("evaluate", "r", "plain.csv")
    code, _, err = run("predict", "r", "odd.csv", "--separator", "ab")
    assert code == 2
    assert "--separator: expected one character" in err


def test_a_column_that_turns_to_text_late(monkeypatch, write):
    """The first blocks hold numbers only: they are read again as text, leading zeros and all."""
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", 300)
    cells = [f"{i:05d}" for i in range(200)] + ["x1"] * 3
    path = write("a.csv", "code,y\n" + "".join(f"{c},{i}.5\n" for i, c in enumerate(cells)))
    table = data.open_data([path])
    assert table.frame["code"].to_list() == cells
    assert table.where(202, "code") == f"{path}, row 204, column 'code'"


def test_options_for_predictions_that_do_not_exist(run, trained):
    code, _, err = run("predict", "r", "people.csv", "--id", "nme")
    assert (code, "--id" in err) == (2, True)
    code, _, err = run("predict", "r", "people.csv", "--only", "predicton")
    assert (code, "did you mean 'prediction'?" in err) == (2, True)


def test_the_python_side_takes_the_same_rows(run, trained):
    frame = people(60, seed=2)
    frame.write_csv("new.csv")
    model = fastdl.load("r")
    predicted = rows(run("predict", "r", "new.csv")[1])
    shuffled = frame.select(frame.columns[::-1])
    assert [row["prediction"] for row in predicted] == model.predict(shuffled).tolist()
    chances = np.array([float(row["p_tall"]) for row in predicted], np.float32)
    np.testing.assert_array_equal(chances, model.predict_proba(frame)[:, 0])


def test_several_files_are_one_table(run):
    frame = people()
    frame[:70].write_csv("part-1.csv")
    frame[70:].select(frame.columns[::-1]).write_parquet("part-2.parquet")
    frame.write_csv("whole.csv")
    for out, files in (("a", ["part-1.csv", "part-2.parquet"]), ("b", ["part-*"]), ("c", ["whole.csv"])):
        code, _, err = run("train", *files, "--target", "tall", *FAST, "--out", out)
        assert code == 0, err
    a, b, c = (fastdl.load(out).parameters for out in "abc")
    np.testing.assert_array_equal(a, c)
    np.testing.assert_array_equal(b, c)
    code, _, err = run("train", "nothing-*.csv", "--target", "tall")
    assert (code, "found none" in err) == (1, True)


def test_groups_stay_together_and_time_runs_forward(write):
    path = write(
        "a.csv", "g,t,x,y\n" + "".join(f"p{i % 7},2024-01-{1 + i % 28:02d},{i % 5},{i}.5\n" for i in range(56))
    )
    loaded = data.load_training([path], target="y", group="g", validation=0.3)
    groups = [set(np.array(loaded.rows)[rows] % 7) for rows in (loaded.train, loaded.validation)]
    assert groups[0].isdisjoint(groups[1])
    assert len(groups[1]) >= 2
    assert "g" not in [column.name for column in loaded.columns]
    loaded = data.load_training([path], target="y", time="t", validation=0.25)
    assert max(loaded.train % 28) < min(loaded.validation % 28)
    assert len(loaded.validation) == 14


def test_validation_data_of_its_own(run):
    people(150).write_csv("a.csv")
    people(40, seed=3).write_csv("b.csv")
    code, _, err = run("train", "a.csv", "--target", "tall", "--validation-data", "b.csv", *FAST, "--out", "r")
    assert code == 0, err
    assert "150 to train, 40 to validate" in err
    record = json.loads(Path("r/config.json").read_text())["result"]
    shown = dict(line.split("  ", 1) for line in run("evaluate", "r", "b.csv")[1].splitlines())
    assert shown["accuracy"].strip() == f"{100 * record['validation']['accuracy']:.2f} %"


def test_small_sets_are_cross_validated(run):
    people(30).write_csv("a.csv")
    code, out, err = run("train", "a.csv", "--target", "tall", *FAST, "--out", "r")
    assert code == 0, err
    assert "30 to train, 0 to validate" in err
    assert "5-fold cross-validation says how good the model is" in err
    assert "(5-fold cross-validation)" in out
    assert json.loads(Path("r/config.json").read_text())["result"]["cross_validation"] == 5
    people(3).write_csv("b.csv")
    code, out, err = run("train", "b.csv", "--target", "height", *FAST)
    assert (code, "too few to validate" in err) == (0, True)


def test_cross_validation_predicts_rows_that_were_not_learnt(run, write):
    """A target of noise: the folds see it, while the training's own rows are learnt by heart."""
    rng = np.random.default_rng(0)
    path = write(
        "a.csv", "x,z,y\n" + "".join("{:.4f},{:.4f},{:.4f}\n".format(*r) for r in rng.standard_normal((40, 3)))
    )
    run("train", path, "--target", "y", "--epochs", 400, "--l2", 0, "--threads", 1, "--out", "r")
    result = json.loads(Path("r/config.json").read_text())["result"]
    assert result["validation"]["r2"] < 0.3
    assert float(rows(Path("r/history.csv").read_text())[-1]["loss"]) < 0.4


def test_the_target_in_other_words_is_reported(run, write):
    lines = [f"{i % 7},{'no' if i % 3 else 'yes'},{3 * i % 11},{int(i % 3 == 0)}" for i in range(90)]
    path = write("a.csv", "x,alive (y/n),z,survived\n" + "\n".join(lines) + "\n")
    _, _, err = run("train", path, "--target", "survived", *FAST)
    assert "'alive (y/n)' alone predicts the target" in err
    assert "--ignore 'alive (y/n)'" in err
    _, _, err = run("train", path, "--target", "survived", *FAST, "--ignore", "alive (y/n)")
    assert "alone predicts" not in err
    path = write("b.csv", "x,euro,price\n" + "".join(f"{i * i % 7},{i * 1.1:.2f},{i}.5\n" for i in range(90)))
    assert "'euro' alone predicts the target" in run("train", path, "--target", "price", *FAST)[2]


def test_balanced_classes_count_alike(run, write):
    """5 % of the rows are of one class, which overlaps the other: without weights it is hardly ever said."""
    rng = np.random.default_rng(0)
    y = np.arange(1000) % 20 == 0
    path = write("a.csv", "x,y\n" + "".join(f"{v:.4f},{int(t)}\n" for v, t in zip(rng.standard_normal(1000) + y, y)))
    found = {}
    for out, options in (("a", []), ("b", ["--class-weight", "balanced"])):
        code, _, err = run("train", path, "--target", "y", "--epochs", 10, "--threads", 1, "--out", out, *options)
        assert code == 0, err
        found[out] = json.loads(Path(out, "config.json").read_text())["result"]["validation"]
    assert found["a"]["accuracy"] >= 0.9
    assert found["b"]["balanced_accuracy"] > found["a"]["balanced_accuracy"] + 0.05


def test_a_wide_table_has_a_short_list_of_kinds(run, write):
    names = [*(f"n{i}" for i in range(78)), *(f"c{i}" for i in range(20)), "y"]
    lines = [
        ",".join([*(f"{i * j % 13}" for j in range(78)), *(f"v{i * j % 3}" for j in range(20)), f"{i}.5"])
        for i in range(60)
    ]
    path = write("a.csv", "\n".join([",".join(names), *lines]))
    code, _, err = run("train", path, "--target", "y", *FAST)
    assert code == 0, err
    table = err.split("\n\n")[1].splitlines()
    assert len(table) == 11
    assert table[-1] == "and 88 more: 72 numbers, 11 categories, 5 constants"


def test_model_files_of_before_still_predict(run, write):
    """Columns without a preprocessor: numbers, and categories with their values."""
    model = fastdl.MLP([3, 4, 1], output="linear", seed=1)
    model.standardize(np.array([[1.0, 0, 5], [0, 1, 7]]), [1.0, 2.0])
    model.feature_names, model.target_names = ["c=a", "c=b", "x"], ["y"]
    model.metadata["columns"] = [{"name": "c", "categories": ["a", "b"]}, {"name": "x"}]
    model.save("old.fastdl")
    path = write("a.csv", "x,c\n5,a\n7,b\n,b\n6,z\n")
    predicted = [float(row["prediction"]) for row in rows(run("predict", "old.fastdl", path)[1])]
    features = np.array([[1.0, 0, 5], [0, 1, 7], [0, 1, 6], [0, 0, 6]])  # a missing number is the mean of training
    np.testing.assert_allclose(predicted, model.predict(features), rtol=1e-6)
