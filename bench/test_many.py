"""The benchmark of many networks, on few: every way is measured, and what it trains is the same."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import fastdl
from fastdl_bench import many


def test_every_way_is_measured(capsys):
    pytest.importorskip("sklearn")
    assert many.main(["--models", "2", "--epochs", "1", "--rounds", "1", "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    jax = ["JAX"] if importlib.util.find_spec("jax") else []
    assert [line.split(",")[0] for line in lines[1:]] == ["fastdl", "fastdl", "scikit-learn", *jax]
    assert "1.00 x" in lines[1]


def test_both_ways_of_fastdl_train_the_same():
    X, y = fastdl.load_digits()
    X = np.ascontiguousarray(X[:200], np.float32)
    first, second = many.trainers(2, 2), many.trainers(2, 2)
    fastdl.fit_many(first, X, y[:200])
    for a, b in zip(first, second):
        b.fit(X, y[:200])
        np.testing.assert_array_equal(a.model.parameters, b.model.parameters)


def test_folds_of_a_table_are_timed(tmp_path, capsys):
    pytest.importorskip("sklearn")
    path = tmp_path / "t.csv"
    path.write_text("a,b,y\n" + "".join(f"{i % 7},{i % 3},{'no' if i % 2 else 'yes'}\n" for i in range(60)))
    assert many.main(["--folds", str(path), "--target", "y", "--rounds", "1"]) == 0
    assert f"5 folds of {path}: " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        many.main(["--folds", str(path)])
