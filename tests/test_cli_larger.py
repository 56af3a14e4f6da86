"""`fastdl train` on files that are read as they are needed: nothing of what it does on other files is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastdl import cli, stored
from fastdl.tables import arrays, split
from fastdl.training import read_ahead


@pytest.fixture(autouse=True)
def small_limits(monkeypatch, tmp_path):
    """What is done with files of gigabytes is done with those of kilobytes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stored, "CONVERTED_BYTES", 0)
    monkeypatch.setattr(read_ahead, "MAPPED_BYTES", 1000)
    monkeypatch.setattr(read_ahead, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(arrays, "MAPPED_BYTES", 1000)
    monkeypatch.setattr(split, "BLOCK_BYTES", 4096)


@pytest.fixture
def train(capsys):
    """Train with some options; gives (config.json, what was printed)."""

    def run(*options):
        line = ["train", *options, "--hidden", "8", "--epochs", "2", "--threads", "1", "--out", "r", "--force"]
        code = cli.main([str(word) for word in line])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return json.loads(Path("r/config.json").read_text()), printed

    return run


@pytest.mark.parametrize("recipe", ["auto", "plain"])
def test_a_mapped_npy_file_trains_to_the_end(train, rng, recipe):
    """Early stopping, calibration, the look at the layers and the page of the run included."""
    X = rng.integers(0, 200, (4000, 30)).astype(np.float32)
    np.save("X.npy", X)
    np.save("y.npy", (X[:, 0] > 100).astype(np.int64))
    config, printed = train("X.npy", "y.npy", "--recipe", recipe, "--health", "--early-stopping", 5)
    assert "read as it is needed" in printed.err
    assert "not made" not in printed.err
    assert config["result"]["validation"]["accuracy"] > 0.65
    page = json.loads(Path("r/report.json").read_text())
    assert page["health"]
    assert page["importance"]["columns"][0]["name"] == "feature 0"
    assert len(page["columns"]["shown"]) == 30
