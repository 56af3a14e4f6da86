"""The page of a run: what stands in it, hostile names, sizes, and the commands that make it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from paging import FAST, Reader, people, read

import fastdl
from fastdl.cli import pages, runs
from fastdl.cli.train_options import TrainOptions
from fastdl.report import classes, data, fields, importance, page, values


def test_a_classification(run):
    people().drop("weight").write_csv("people.csv")
    code, out, err = run("train", "people.csv", "--target", "tall", *FAST, "--epochs", 20, "--out", "r")
    assert (code, "not made" in err) == (0, False), err
    assert "report.html" in out
    text, reader, drawn = read("r/report.html")
    assert {
        "loss",
        "metric-accuracy",
        "rate",
        "confusion",
        "roc",
        "precision-recall",
        "calibration",
        "importance",
    } <= set(drawn)
    shown = "".join(reader.text)
    assert "fastdl train people.csv --target tall --hidden 8 --epochs 20 --threads 1 --out r" in shown
    assert "always the most frequent class" in shown
    for words in ("height", "town", "some missing", "left out: counts the rows from 1", "yes or no", "2010"):
        assert words in shown
    config = json.loads(Path("r/config.json").read_text())
    assert f"{100 * config['result']['validation']['accuracy']:.2f} %" in shown
    # The matrix is that of the model on the validation rows.
    kept = json.loads(Path("r/report.json").read_text())
    counts = np.array(kept["classes"]["confusion"]["counts"])
    assert counts.sum() == 60 == kept["rows"]["count"]
    assert counts.trace() / 60 == pytest.approx(config["result"]["validation"]["accuracy"])
    height = next(c for c in kept["columns"]["shown"] if c["name"] == "height")
    assert 0 < height["missing"] < 0.2
    assert kept["importance"]["columns"][0]["name"] == "height"
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_mistakes_name_their_rows(run, rng):
    frame = people().drop("weight").with_columns(pl.Series("street", [f"s{k}" for k in rng.integers(0, 60, 300)]))
    frame.write_csv("people.csv")
    assert run("train", "people.csv", "--target", "tall", *FAST, "--out", "r").code == 0
    kept = json.loads(Path("r/report.json").read_text())["classes"]
    assert kept["mistakes"]
    for mistake in kept["mistakes"]:
        row = frame.row(mistake["row"] - 1, named=True)
        cells = dict(mistake["cells"])
        assert mistake["truth"] == row["tall"] != mistake["predicted"]
        assert (cells["town"], cells["member"], cells["since"]) == (row["town"], row["member"], row["since"])
        assert cells["street"] == row["street"]
        assert cells["height"] == ("missing" if row["height"] is None else f"{row['height']:.1f}")


def test_a_regression(run):
    people().drop("tall").write_csv("people.csv")
    assert run("train", "people.csv", "--target", "weight", *FAST, "--epochs", 30, "--out", "r").code == 0
    _, reader, drawn = read("r/report.html")
    assert {"predicted-0", "residuals-0", "errors-0", "metric-rmse", "metric-r2", "profile-0"} <= set(drawn)
    kept = json.loads(Path("r/report.json").read_text())["numbers"][0]
    frame, model = people(), fastdl.load("r")
    entry = kept["largest"][0]
    row = frame[entry["row"] - 1]
    assert entry["actual"] == pytest.approx(row["weight"][0], rel=1e-5)
    assert entry["predicted"] == pytest.approx(float(model.predict(row.drop("tall", "weight"))[0]), rel=1e-4)
    assert "always the mean" in "".join(reader.text)


def test_several_labels_and_arrays(run, rng):
    X = rng.normal(size=(200, 5))
    frame = pl.DataFrame({f"x{i}": X[:, i] for i in range(5)} | {"a": (X[:, 0] > 0) * 1, "b": (X[:, 1] > 0) * 1})
    frame.write_csv("labels.csv")
    assert run("train", "labels.csv", "--target", "a,b", *FAST, "--out", "r").code == 0
    assert "false alarms" in "".join(read("r/report.html")[1].text)
    assert run("train", "digits", *FAST, "--out", "d").code == 0
    drawn = read("d/report.html")[2]
    assert len(drawn["confusion"]["names"]) == 10
    assert len(drawn["importance"]["names"]) == importance.MOST_SHOWN


def test_rows_that_the_model_has_seen_are_said_to_be(run):
    people(30).drop("weight").write_csv("people.csv")
    assert run("train", "people.csv", "--target", "tall", *FAST, "--validation", 0, "--out", "r").code == 0
    assert "of the training rows, which the model has seen" in "".join(read("r/report.html")[1].text)


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\"'><svg onload=alert(3)>",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- é 😀 \u202e right",
    "x" * 10_000,
]


def test_hostile_names_and_values_are_inert(run, rng):
    columns = {name: rng.choice(HOSTILE, 120).tolist() for name in HOSTILE}
    frame = pl.DataFrame(columns | {"</title><script>t</script>": rng.choice(HOSTILE[:3], 120).tolist()})
    frame.write_csv("<b>evil<b>.csv")
    result = run("train", "<b>evil<b>.csv", "--target", frame.columns[-1], *FAST, "--out", "r")
    assert (result.code, "not made" in result.err) == (0, False), result.err
    text, reader, drawn = read("r/report.html")
    assert [tag for tag, _ in reader.tags].count("script") == 2
    assert not {"img", "iframe", "object"} & {tag for tag, _ in reader.tags}
    assert len([tag for tag, _ in reader.tags if tag == "title" and tag]) == text.count("<title>")
    assert not [a for _, a in reader.tags if any(name.startswith("on") for name in a)]
    assert "49" not in [cell.strip() for cell in reader.text]
    assert HOSTILE[0] in json.dumps(drawn, ensure_ascii=False).replace('\\"', '"')
    assert "\u202e" not in text
    assert len(text) < 400_000


def test_the_page_asks_for_nothing(run):
    assert run("train", "digits", *FAST, "--out", "r").code == 0
    text, reader, _ = read("r/report.html")
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    (policy,) = [a["content"] for tag, a in reader.tags if tag == "meta" and a.get("http-equiv")]
    assert policy.startswith("default-src 'none'")
    assert len(text) < 200_000


def test_large_data_make_a_small_page(rng):
    """500 columns and 200 classes: what is shown does not grow with them, nor with the rows."""
    truth = rng.integers(0, 200, 20_000)
    chances = rng.dirichlet(np.ones(200), 20_000)
    names = [f"{'long name ' * 50}{k}" for k in range(500)]
    bars = {"bars": list(range(11)), "names": ["some value of many words"] * 11}
    found = {
        "name": "large", "config": {}, "command": "x",
        "history": data.of_history(fastdl.History(list(rng.random(5000)), list(rng.random(5000)), {}, [1.0] * 5000)),
        "classes": classes.described(chances, truth, names[:200]),
        "columns": {"shown": [{"name": values.short(n), "kind": "category", "read_as": "", "missing": 0.1, "histogram": bars}
                              for n in names[: fields.MOST]], "count": 500, "kinds": {"category": 500}},
        "mistaken_columns": [],
    }  # fmt: skip
    for section in found["classes"]["mistakes"]:
        section |= {"row": 1, "cells": []}
    assert len(page.of_run(found)) < 700_000


def test_numbers_that_are_not_finite_are_left_out(run):
    assert run("train", "digits", *FAST, "--no-report", "--out", "r").code == 0
    config = json.loads(Path("r/config.json").read_text())
    config["result"]["baseline"] = {"accuracy": float("nan"), "log_loss": float("inf")}
    Path("r/config.json").write_text(json.dumps(config))
    Path("r/history.csv").write_text("epoch,loss,val_loss,seconds\n1,inf,nan,0.1\n2,0.5,0.25,0.1\n")
    assert run("report", "r").code == 0
    text, reader, drawn = read("r/report.html")
    assert [s["y"] for s in drawn["loss"]["series"]] == [[None, 0.25], [None, 0.5]]
    assert "NaN" not in text.split("<script")[1]
    assert "nan" not in "".join(reader.text)


# The commands


def test_the_page_can_be_made_again_and_runs_compared(run):
    for out, rate in (("a", 0.01), ("b", 0.001)):
        assert run("train", "digits", *FAST, "--lr", rate, "--out", out).code == 0
    before = Path("a/report.html").read_bytes()
    Path("a/report.html").unlink()
    result = run("report", "a")
    assert (result.code, result.out.strip()) == (0, str(Path("a/report.html")))
    assert Path("a/report.html").read_bytes() == before
    assert run("report", "a", "b").out == "comparison.html\n"
    _, reader, drawn = read("comparison.html")
    assert [s["name"] for s in drawn["loss"]["series"]] == [
        "a: validation", "a: training", "b: validation", "b: training",
    ]  # fmt: skip
    shown = "".join(reader.text)
    assert "lr 0.01" in shown
    assert "lr 0.001" in shown


def test_a_run_of_before_has_its_curves(run):
    assert run("train", "digits", *FAST, "--no-report", "--out", "r").code == 0
    assert not Path("r/report.html").exists()
    assert not Path("r/report.json").exists()
    assert run("report", "r", "--out", "page.html").code == 0
    drawn = read("page.html")[2]
    assert set(drawn) == {"loss", "metric-accuracy"}
    assert len(drawn["loss"]["series"][0]["x"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "expected the folder of a run, such as runs/digits-1, got nothing, which is no folder"),
        (["empty"], "which holds no config.json and history.csv"),
        (["broken"], "cannot be read"),
        (["old"], "written by another version"),
    ],
)
def test_folders_that_hold_no_run(run, arguments, words):
    for name, files in (("empty", {}), ("broken", {"report.json": "{"}), ("old", {"report.json": '{"version": 0}'})):
        Path(name).mkdir()
        for file, text in files.items():
            Path(name, file).write_text(text)
    result = run("report", *arguments)
    assert result.code == 1
    assert words in result.err
    assert result.err.count("\n") == 1


def test_the_same_run_twice(run):
    assert run("train", "digits", *FAST, "--out", "r").code == 0
    result = run("report", "r", "r")
    assert (result.code, "expected different runs" in result.err) == (2, True)


def test_a_page_that_fails_costs_nothing_else(run, monkeypatch):
    def broken(*_):
        raise RuntimeError("no paper")

    monkeypatch.setattr(pages.data, "collect", broken)
    result = run("train", "digits", *FAST, "--out", "r")
    assert result.code == 0
    assert result.err.count("the page of the run is not made (RuntimeError: no paper)") == 1
    assert sorted(p.name for p in Path("r").iterdir()) == sorted({*runs.FILES} - {runs.REPORT, data.DATA})


def test_missing_jinja_is_no_failure(run, monkeypatch):
    import sys

    page._template.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = run("train", "digits", *FAST, "--out", "r")
    assert result.code == 0
    assert result.err.count('pip install "fastdl[cli]"') == 1
    assert (Path("r") / runs.MODEL).exists()


def test_the_command_repeats_the_run(run):
    options = TrainOptions(["a b.csv"], target=["x'y"], lr=0.5, header=False, nesterov=True, na_values=["-9"])
    expected = "fastdl train 'a b.csv' --target 'x'\"'\"'y' --na-values=-9 --no-header --lr 0.5 --nesterov"
    assert options.command() == expected
    assert TrainOptions(["-x.csv"], epochs=3).command() == "fastdl train --epochs 3 -- -x.csv"
    assert run("train", "digits", *FAST, "--lr", 0.01, "--out", "r").code == 0
    line = json.loads(Path("r/report.json").read_text())["command"]
    before = Path("r/model.fastdl").read_bytes()
    assert run(*line.removeprefix("fastdl ").split(), "--force").code == 0
    assert Path("r/model.fastdl").read_bytes() == before


def test_inspect_as_a_page(run):
    frame = people().drop("weight").rename({"town": HOSTILE[1]})
    frame.write_csv("people.csv")
    assert run("train", "people.csv", "--target", "tall", *FAST, "--no-report", "--out", "r").code == 0
    result = run("inspect", "r", "--html", "model.html")
    assert (result.code, result.out) == (0, "")
    reader = Reader(Path("model.html").read_text(encoding="utf-8"))
    shown = "".join(reader.text)
    for words in (HOSTILE[1], "binary", "counts the rows from 1", "2 of 2 epochs", "height"):
        assert words in shown
    assert "img" not in {tag for tag, _ in reader.tags}
