"""The benchmark of the estimators, on its smallest case."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sklearn")

from fastdl_bench import __main__ as command
from fastdl_bench import estimators, schema, tables
from fastdl_bench.protocol import PeerError


def test_a_run_through_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(tables, "results_folder", lambda: tmp_path)
    assert command.main(["--quick", "--only", "estimators/row-regression", "--threads", "1", "--peers", "none"]) == 0
    assert "predict 1 row, 30-100-1" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.json")
    result = schema.read(path)
    assert schema.problems(result) == []
    assert set(result["estimators"][0]["results"]) == set(estimators.PEERS)


def test_losses_that_differ_stop_it() -> None:
    estimators._compare(1.0, 1.001)
    with pytest.raises(PeerError, match="fastdl's estimator ends with the loss"):
        estimators._compare(1.0, 1.1)
    with pytest.raises(PeerError):
        estimators._compare(float("nan"), 1.0)
