"""The comparison with pytabkit's RealMLP: each way is measured in a process, and what is missing is said."""

from __future__ import annotations

import math

import pytest

from fastdl_bench import realmlp

pytest.importorskip("sklearn")
pytest.importorskip("pandas")


def test_ways_that_are_installed_are_measured(capsys):
    assert (
        realmlp.main(["--tables", "iris", "--epochs", "2", "--threads", "1", "--ways", "RealMLP-TD;fastdl, realmlp"])
        == 0
    )
    captured = capsys.readouterr()
    line = captured.out.splitlines()[-1]
    assert line.startswith("| iris | ")
    if "| failed |" in line:
        assert "RealMLP-TD failed: ModuleNotFoundError: No module named 'pytabkit'" in captured.err
        assert line.endswith(" s |")  # ours, without a ratio
    else:
        assert " s (" in line


def test_a_row_has_ratios_to_the_reference():
    found = {
        realmlp.REFERENCE: [{"error": e, "seconds": 10.0, "cpu": 18.0} for e in (1.0, 2.0)],
        "fastdl": [{"error": e, "seconds": 1.0, "cpu": 2.0} for e in (1.1, 2.2)],
    }
    assert (
        realmlp.row("t", found)
        == "| t | 1.5 in 10 s | 1.65 in 1 s (1.100 of the error, 10.0 times as fast, 9.0 by CPU time) |"
    )
    found[realmlp.REFERENCE][0] = dict.fromkeys(("error", "seconds", "cpu"), math.nan)
    assert realmlp.row("t", found) == "| t | failed | 1.65 in 1 s |"


def test_unknown_ways_are_refused(capsys):
    with pytest.raises(SystemExit):
        realmlp.main(["--ways", "RealMLP"])
    assert "expected some of RealMLP-TD" in capsys.readouterr().err
