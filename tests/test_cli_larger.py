"""`fastdl train` on files that are read as they are needed: nothing of what it does on other files is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastdl import cli, stored
from fastdl.tables import arrays, memory, split
from fastdl.training import read_ahead

PROGRAM = Path(__file__).parent / "programs" / "larger_table.py"


@pytest.fixture(autouse=True)
def small_limits(monkeypatch, tmp_path):
    """What is done with files of gigabytes is done with those of kilobytes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stored, "CONVERTED_BYTES", 0)
    monkeypatch.setattr(stored, "NARROW_BYTES", 0)
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


@pytest.fixture
def table(rng):
    """A CSV file of 1,200 rows: a number, a category, and a target of both."""
    size, colour = rng.normal(size=1200).round(4), rng.choice(["red", "green", "blue"], 1200)
    price = (3 * size + 2 * (colour == "red") + 10).round(4)
    rows = [f"{a},{b},{c}" for a, b, c in zip(size, colour, price)]
    Path("t.csv").write_text("size,colour,price\n" + "\n".join(rows) + "\n")
    return "t.csv"


def test_a_table_that_memory_is_short_for_trains_from_a_store(train, table, monkeypatch):
    """It is said, the page has all that pages of tables have, and with enough memory the table is read as ever."""
    monkeypatch.setattr(memory, "free_bytes", lambda: 10_000.0)
    monkeypatch.setattr(memory, "LEAST", 1000)
    config, printed = train(table, "--target", "price", "--health", "--interval", 0.9)
    assert "making t.csv.store" in printed.err
    assert Path("t.csv.store").is_file()
    assert "not made" not in printed.err
    page = json.loads(Path("r/report.json").read_text())
    assert [entry["name"] for entry in page["columns"]["shown"]] == ["size", "colour"]
    assert sorted(page["columns"]["shown"][1]["histogram"]["names"]) == ["blue", "green", "red"]
    again, printed = train(table, "--target", "price", "--interval", 0.9)
    assert "making" not in printed.err
    assert "stands for the table" in printed.err
    assert again["result"]["validation"] == config["result"]["validation"]
    monkeypatch.setattr(memory, "free_bytes", lambda: 1e12)
    assert "store" not in train(table, "--target", "price")[1].err


def test_a_run_on_a_store_is_resumed_on_it(train, table, capsys):
    """Also when there is memory enough by then."""
    train(table, "--target", "price", "--mapped")
    assert cli.main(["resume", "r", "--epochs", "3"]) == 0
    assert "stands for the table" in capsys.readouterr().err
    assert len(Path("r/history.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["train", "t.csv", "--target", "price", "--mapped", "--folds", 3], "--folds: expected data in memory"),
        (["tune", "t.csv", "--target", "price", "--mapped"], "tune: expected data in memory"),
        (["train", "X.npy", "y.npy", "--folds", 3], "--folds: expected data in memory"),
        (["train", "a.npz", "--mapped"], "--mapped: expected a table, or NPY files"),
        (["train", "t.csv", "--target", "colours", "--mapped"], "did you mean 'colour'"),
    ],
    ids=str,
)
def test_what_cannot_be_with_mapped_data_is_said(table, capsys, line, words):
    np.save("X.npy", np.eye(60))
    np.save("y.npy", np.arange(60) % 2)
    np.savez("a.npz", X=np.eye(60), y=np.arange(60) % 2)
    assert cli.main([str(word) for word in line]) == 2
    assert words in capsys.readouterr().err


def test_npy_files_are_mapped_or_not_as_asked(train, rng):
    np.save("X.npy", rng.normal(size=(2000, 8)).astype(np.float32))
    np.save("y.npy", np.arange(2000) % 2)
    assert "read as it is needed" in train("X.npy", "y.npy")[1].err
    assert "read as it is needed" not in train("X.npy", "y.npy", "--no-mapped")[1].err


# --- memory ---


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's accounting of memory")
@pytest.mark.parametrize("more", [[], ["--no-mapped"]], ids=["from a store", "the limit has teeth"])
def test_a_table_trains_in_less_memory_than_its_size(tmp_path, more):
    """80 MB of CSV in a process whose own memory may grow by 100 MB once everything is loaded: read whole it takes more."""
    told = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), "80", "100", *more], capture_output=True, text=True, timeout=300
    )
    assert (told.returncode == 0) == (not more), told.stderr
    assert told.stdout.count("saved in") == (1 if more else 2)
