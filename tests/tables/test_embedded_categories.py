"""Categories that a model embeds: their codes, models of tables that look rows up by them, and files of these."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import fastdl
from fastdl import cli
from fastdl.report import fields, importance
from fastdl.tables import data
from fastdl.tables.kinds import EmbeddedCategoryColumn, Findings, column_from_json
from fastdl.tables.table import Table

sys.path.append(str(Path(__file__).parent.parent / "exports"))
EMBEDS = {"category_size": 4}


def rides(n=3000, seed=0, missing=0.02):
    """Zones with an effect of their own, some of them missing, and a column of three categories."""
    rng = np.random.default_rng(seed)
    zone = rng.integers(0, 60, n)
    effect = np.random.default_rng(9).standard_normal(60)
    words = [None if gone else f"zone {z}" for z, gone in zip(zone, rng.random(n) < missing, strict=True)]
    kind = rng.choice(["a", "b", "c"], n)
    x = rng.standard_normal(n)
    return pl.DataFrame({"zone": words, "x": x, "kind": kind, "y": effect[zone] * (1 + x) + (kind == "b")})


def test_codes_by_hand():
    """Single ones are what an unknown one is like; missing values have a code of their own where training has some."""
    values = pl.Series("z", ["b", "a", "b", None, "a", "rare"])
    column = EmbeddedCategoryColumn.learn("z", values)
    assert (column.categories, column.count, column.missing) == (("a", "b"), 3, True)
    findings = Findings()
    (codes,) = column.encode(pl.Series(["b", "new", None, "a", "rare", " "]), findings)
    np.testing.assert_array_equal(codes[:5], [2, 0, 3, 1, 0])
    assert findings.unseen["z"] >= 2
    assert column_from_json(json.loads(json.dumps(column.to_json()))) == column
    without = EmbeddedCategoryColumn.learn("z", values.drop_nulls())
    np.testing.assert_array_equal(without.codes(values), [2, 1, 2, 0, 1, 0])


@pytest.mark.parametrize("embeds", [False, True])
def test_more_than_nine_values_are_embedded_where_it_is_wanted(embeds):
    frame = rides().with_columns(
        nine=pl.Series([f"n{i % 9}" for i in range(3000)]), ten=pl.Series([f"n{i % 10}" for i in range(3000)])
    )
    loaded = data.prepare(Table(frame, "X"), data.Options(target="y", embeds=embeds))
    kinds = {column.name: column.kind for column in loaded.columns}
    assert kinds["nine"] == kinds["kind"] == "category"
    assert kinds["zone"] == ("embedded category" if embeds else "large category")
    assert kinds["ten"] == ("embedded category" if embeds else "category")


def test_a_table_model_embeds_them():
    frame = rides()
    settings = {**EMBEDS, "embedding": "pbld"}
    model = fastdl.TabularRegressor(hidden=(32,), epochs=16, settings=settings, threads=1).fit(
        frame.drop("y"), frame["y"]
    )
    inner = model.model_
    assert inner.categories == fastdl.CategoryEmbedding({0: 61}, 4)
    assert inner.embedding.columns == (1,)
    assert inner.scaling.codes == (0,)
    new = rides(seed=1, missing=0)
    assert model.score(new.drop("y"), new["y"].to_numpy()) > 0.85
    strange = new.drop("y").head(2).with_columns(zone=pl.Series(["nowhere", None]))
    assert np.isfinite(model.predict(strange)).all()


def test_the_command_trains_the_same_model_and_exports_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = rides(600)
    frame.write_csv("a.csv")
    line = ["train", "a.csv", "--target", "y", "--hidden", "16", "--epochs", "3", "--validation", "0.2"]
    assert cli.main([*line, "--set", "category_size=4", "--set", "parametric=true", "--out", "r"]) == 0
    settings = {**EMBEDS, "parametric": True}
    model = fastdl.TabularRegressor(hidden=(16,), epochs=3, validation=0.2, settings=settings).fit(
        frame.drop("y"), frame["y"]
    )
    again = fastdl.load("r")
    assert again.parameters.tobytes() == model.model_.parameters.tobytes()
    assert again.activations[0].parametric
    assert Path("r/report.html").exists()
    told = json.loads(Path("r/config.json").read_text())
    assert {"category_size=4", "parametric=true"} <= set(told["options"]["set"])
    check_exports(again, rides(50, seed=3).drop("y"), tmp_path)


def check_exports(model, frame, folder):
    from exporting import load_module, run_onnx

    wanted = model.predict(frame)
    model.export(folder / "m.py")
    columns = {name: frame[name].to_list() for name in frame.columns}
    np.testing.assert_allclose(load_module(folder / "m.py").predict(columns), wanted, rtol=1e-4, atol=1e-4)
    pytest.importorskip("onnxruntime")
    model.export(folder / "m.onnx")
    inputs = {"x": frame["x"].to_numpy()}
    inputs |= {name: np.array(frame[name].fill_null("").to_list(), dtype=object) for name in ("zone", "kind")}
    found = run_onnx(folder / "m.onnx", inputs)
    np.testing.assert_allclose(found["prediction"], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"ensemble": 2}, {"cross_validation": 3}])
def test_ensembles_and_folds(tmp_path, options):
    frame = rides(400)
    model = fastdl.TabularRegressor(hidden=(8,), epochs=2, settings=EMBEDS, threads=1, **options).fit(
        frame.drop("y"), frame["y"]
    )
    model.save(tmp_path / "m.fastdl")
    np.testing.assert_array_equal(
        fastdl.load(tmp_path / "m.fastdl").predict(frame.drop("y")), model.predict(frame.drop("y"))
    )


def test_a_report_knows_the_categories():
    frame = rides(500)
    loaded = data.prepare(Table(frame, "X"), data.Options(target="y", embeds=True))
    field = fields.fields_of(loaded)[0]
    column = field.column
    assert field.shown(np.array([1.0])) == column.categories[0]
    assert field.shown(np.array([float(column.count)])) == "missing"
    told = next(entry for entry in fields.described(loaded)["shown"] if entry["name"] == "zone")
    share = frame["zone"].to_numpy()[loaded.train]
    assert told["missing"] == pytest.approx(np.mean([cell is None for cell in share]))
    assert sum(told["histogram"]["bars"]) == len(loaded.train)
    model = fastdl.MLP([loaded.n_features, 1], output="linear", categories=fastdl.CategoryEmbedding({0: column.count}))
    profile = importance.partial_dependence(model, loaded.X[:50], field)
    assert set(profile["x"]) <= {*column.names}
    assert profile["kind"] == "category"


@pytest.mark.parametrize("size", [-1, 2.5, "many"])
def test_bad_sizes(size, run):
    with pytest.raises(fastdl.InputError, match="category_size: expected the numbers that a category becomes"):
        fastdl.TabularRegressor(settings={"category_size": size}).fit(rides(60).drop("y"), np.arange(60.0))
    done = run("train", "a.csv", "--target", "y", "--set", f"category_size={size}")
    assert done.code == 2
    assert "category_size" in done.err
