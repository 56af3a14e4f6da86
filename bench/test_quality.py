"""The quality benchmark: its tables, and what it writes into README.md."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastdl_bench import quality

pytest.importorskip("sklearn")
pytest.importorskip("pandas")


def results_of(**errors):
    """One split for each peer of some tables: name -> {peer: error}."""
    return {
        name: {peer: [{"error": error, "seconds": 1.0}] for peer, error in by_peer.items()}
        for name, by_peer in errors.items()
    }


RESULTS = results_of(
    titanic={"fastdl": 0.45, "lightgbm": 0.5, "linear": 0.46},
    diamonds={"fastdl": 540.4, "lightgbm": 540.4, "linear": 1130.0},
    iris={"fastdl": 0.1, "lightgbm": 0.2, "linear": 0.1},
)


def test_the_table_and_its_means():
    lines = quality.markdown(RESULTS, ["titanic", "diamonds", "houses"]).splitlines()
    assert lines[0] == "| error on rows held out | `fastdl train` | LightGBM | linear model |"
    assert lines[2] == "| titanic, log loss | 0.450 | 0.500 | 0.460 |"
    assert lines[3] == "| diamonds, RMSE | 540 | 540 | 1,130 |"
    assert lines[4].startswith("| 2 tables by which defaults were chosen, of LightGBM's error | 0.95× | 1.00× |")
    assert lines[5] == "| 1 tables that were kept aside, of LightGBM's error | 0.50× | 1.00× | 0.50× |"


def test_publish_replaces_both_blocks_and_keeps_older_results(tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "quality.json").write_text(
        json.dumps(results_of(wine={"fastdl": 1, "lightgbm": 2, "linear": 3}))
    )
    text = "<!-- bench:first -->\nold\n<!-- /bench:first -->\nkept\n<!-- bench:quality -->\n<!-- /bench:quality -->\n"
    (tmp_path / "README.md").write_text(text)
    quality.publish(RESULTS, tmp_path)
    written = (tmp_path / "README.md").read_text()
    assert "old" not in written
    assert "kept" in written
    assert written.count("| titanic, log loss |") == 2
    assert written.count("| wine, log loss |") == 1
    assert set(json.loads((tmp_path / "bench" / "quality.json").read_text())) == {*RESULTS, "wine"}


@pytest.mark.parametrize("name", [n for n, t in {**quality.TABLES, **quality.KEPT_ASIDE}.items() if callable(t.load)])
def test_tables_can_be_split(name):
    table = {**quality.TABLES, **quality.KEPT_ASIDE}[name]
    frame = table.load()
    train, test = quality.split(frame, table, 0)
    assert len(train) + len(test) <= len(frame)
    assert len(test) == pytest.approx(0.25 * (len(train) + len(test)), abs=1)
    assert np.isin(test[table.target], train[table.target]).all() or not table.classes


def test_a_peer_is_scored_in_a_process_of_its_own(capsys):
    pytest.importorskip("lightgbm")
    assert quality.main(["--peers", "lightgbm,linear", "--tables", "iris", "--splits", "1"]) == 0
    out = capsys.readouterr().out
    assert "| iris |" in out
    assert "lightgbm: 1.000 of lightgbm's error over 1 splits" in out
