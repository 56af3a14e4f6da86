"""The benchmark of mapped data, on few: every way is measured, and all that shuffle alike train the same."""

from __future__ import annotations

import time

import numpy as np

from fastdl import stored
from fastdl.training import read_ahead
from fastdl_bench import larger


def test_every_way_is_measured(capsys, tmp_path):
    line = ["--megabytes", "1", "--epochs", "1", "--rounds", "1", "--threads", "1", "--folder", str(tmp_path)]
    assert larger.main([*line, "--cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(larger.NETWORKS) * (1 + len(larger.WAYS))
    assert [line[:28].strip() for line in lines[1 : 1 + len(larger.WAYS)]] == list(larger.WAYS)
    assert "1.00 x" in lines[1]


def test_the_ways_train_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "CONVERTED_BYTES", 0)
    monkeypatch.setattr(stored, "NARROW_BYTES", 0)
    monkeypatch.setattr(read_ahead, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(read_ahead, "WINDOW", 2)
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (600, 32), np.uint8), rng.integers(0, 2, 600)
    forms = larger.forms_of(X, tmp_path)
    found = {
        way: larger.trained(way, data, y, "tabular", 2, 1, time.perf_counter)[1].parameters
        for way, data in forms.items()
    }
    exact = found.pop("float32, in memory")
    for way in ("float32, mapped", "uint8, in memory"):
        np.testing.assert_array_equal(found[way], exact)
    for way in ("float32, mapped, in blocks", "uint8, mapped, in blocks"):
        assert (found[way] != exact).any()
        np.testing.assert_allclose(found[way], exact, atol=0.05)
