"""Whole commands beside LightGBM's: both run, and a row has what was measured."""

from __future__ import annotations

import pytest

from fastdl_bench import commands

pytest.importorskip("sklearn")
pytest.importorskip("lightgbm")


def test_both_processes_run(monkeypatch, capsys):
    monkeypatch.setattr(commands, "HOUSES", 300)
    assert commands.main(["--tables", "houses", "--rounds", "1", "--threads", "1"]) == 0
    cells = capsys.readouterr().out.splitlines()[-1].strip("| ").split(" | ")
    assert cells[0] == "houses"
    ours, target, theirs, against = map(float, cells[1:])
    assert target == 10
    assert against == pytest.approx(theirs / ours, abs=0.05)


def test_a_row():
    line = commands.row("titanic", {"fastdl": [1.0, 2.0, 4.0], "lightgbm": [3.0, 3.0, 3.0]})
    assert line == "| titanic | 2.00 | 1 | 3.00 | 1.50 |"


def test_what_is_missing_is_said(tmp_path, capsys):
    with pytest.raises(SystemExit):
        commands.main(["--tables", "iris"])
    assert "expected some of titanic, houses, diamonds, got iris" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        commands.main(["--tables", "titanic", "--data", str(tmp_path)])
    assert "expected a folder with titanic.csv" in capsys.readouterr().err
