"""Categories of many values: what a row becomes, and that a training row does not see its own target."""

from __future__ import annotations

import json

import numpy as np
import polars as pl

import fastdl
from fastdl.tables import data
from fastdl.tables.kinds import Findings, LargeCategoryColumn, column_from_json
from fastdl.tables.preprocessor import Preprocessor
from fastdl.tables.table import Table


def rides(n=3000, seed=0):
    """Zones with an effect of their own."""
    rng = np.random.default_rng(seed)
    zone = rng.integers(0, 60, n)
    effect = np.random.default_rng(9).standard_normal(60)
    return pl.DataFrame({"zone": [f"zone {z}" for z in zone], "x": rng.standard_normal(n), "y": effect[zone]})


def test_frequency_and_mean_by_hand():
    values = pl.Series("z", ["a", "b", "a", None])
    column = LargeCategoryColumn.learn("z", values, ("y",), np.array([[1.0], [2], [4], [9]]))
    assert column.feature_names == ["z: frequency", "z: mean of y"]
    findings = Findings()
    frequency, mean = column.encode(pl.Series(["b", "new", None, "a"]), findings)
    np.testing.assert_allclose(frequency, np.log([2, 1, 2, 3]))
    prior = 4.0
    np.testing.assert_allclose(mean, [(2 + 20 * prior) / 21, prior, (9 + 20 * prior) / 21, (5 + 20 * prior) / 22])
    assert findings.unseen == {"z": 1}
    kept = json.loads(json.dumps(column.to_json()))
    assert column_from_json(kept) == column


def test_a_training_row_does_not_see_its_own_target():
    """A target of noise: plain means of categories of four rows would tell it, those of the other folds do not."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"zone": [f"z{i % 200}" for i in range(2400)], "y": rng.standard_normal(2400)})
    loaded = data.prepare(Table(frame, "X"), data.Options(target="y", validation=0))
    seen = loaded.preprocessor.transform(frame)[:, 1]
    learnt = loaded.X[:, 1]
    assert np.corrcoef(seen, frame["y"])[0, 1] > 0.2
    assert abs(np.corrcoef(learnt, frame["y"])[0, 1]) < 0.06


def test_validation_rows_and_new_rows_get_what_training_showed():
    frame = rides()
    loaded = data.prepare(Table(frame, "X"), data.Options(target="y"))
    fresh = loaded.preprocessor.transform(frame, dtype=np.float64)
    np.testing.assert_array_equal(loaded.X[loaded.validation], fresh[loaded.validation])
    assert (loaded.X[loaded.train] != fresh[loaded.train]).any()
    rows = np.flatnonzero(np.isin(np.arange(3000), loaded.train))
    zone, y = frame["zone"].to_numpy()[rows], frame["y"].to_numpy()[rows]
    row = int(loaded.validation[0])
    same = zone == frame["zone"][row]
    np.testing.assert_allclose(fresh[row, 1], (y[same].sum() + 20 * y.mean()) / (same.sum() + 20))


def test_zones_are_learnt():
    frame = rides()
    model = fastdl.TabularRegressor(hidden=(32,), epochs=10, threads=1, settings={"category_size": 0}).fit(
        frame.drop("y"), frame["y"]
    )
    assert [column.kind for column in model.preprocessor_.columns] == ["large category", "number"]
    new = rides(seed=1)
    assert model.score(new.drop("y"), new["y"].to_numpy()) > 0.9


def test_classes_have_a_mean_each():
    frame = rides(900)
    labels = np.array(["low", "mid", "high"])[np.digitize(frame["y"], [-0.5, 0.5])]
    model = fastdl.TabularClassifier(hidden=(16,), epochs=10, threads=1, settings={"category_size": 0}).fit(
        frame.drop("y"), labels
    )
    assert model.model_.feature_names == [
        "zone: frequency", "zone: mean of y=high", "zone: mean of y=low", "zone: mean of y=mid", "x"
    ]  # fmt: skip
    assert model.score(frame.drop("y"), labels) > 0.9
    kept = json.loads(json.dumps(model.preprocessor_.to_json()))
    assert Preprocessor.from_json(kept) == model.preprocessor_
