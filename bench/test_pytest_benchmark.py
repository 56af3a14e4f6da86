"""The options of pytest-benchmark on fastdl's benchmarks, as its documentation has them, and the JSON that other tools read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastdl_bench.protocol import search_path

ROOT = Path(__file__).resolve().parent.parent
CHOSEN = "adam_step or small-tiny or small-row"
NAMES = {
    "bench/test_speed.py::test_kernel[adam_step/1000]": "adam_step",
    "bench/test_speed.py::test_training[small-tiny]": "training, an epoch",
    "bench/test_speed.py::test_prediction[small-row]": "prediction, a call",
    "bench/test_speed.py::test_prediction[small-rows]": "prediction, a call",
}
SHORT = ("--cases=small", "--benchmark-min-rounds=2", "--benchmark-max-time=0.001")


def run(storage: Path, *arguments: str) -> tuple[int, str]:
    """(exit code, output) of pytest on three small cases, with results in a folder of the test's."""
    command = [
        sys.executable, "-m", "pytest", "bench/test_speed.py", "-k", CHOSEN, "-p", "no:cacheprovider",
        f"--benchmark-storage=file://{storage}", *SHORT, *arguments,
    ]  # fmt: skip
    paths = [*search_path(), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, str]:
    """(the saved run, the JSON for other tools, what was shown) of `--benchmark-only --benchmark-autosave`."""
    folder = tmp_path_factory.mktemp("benchmarks")
    path = folder / "output.json"
    code, shown = run(folder, "--benchmark-only", "--benchmark-autosave", f"--benchmark-json={path}")
    assert code == 0, shown
    (record,) = folder.glob("*/0001_*.json")
    return record, json.loads(path.read_text()), shown


def test_json_as_github_action_benchmark_reads_it(saved: tuple[Path, dict, str]) -> None:
    """fullname, and ops, stddev, mean and rounds of stats."""
    _, result, _ = saved
    assert {bench["fullname"]: bench["group"] for bench in result["benchmarks"]} == NAMES
    for bench in result["benchmarks"]:
        stats = bench["stats"]
        assert stats["ops"] == pytest.approx(1 / stats["mean"])
        assert stats["rounds"] >= 2
        assert stats["stddev"] >= 0
        assert stats["min"] <= stats["median"] <= stats["max"]
    assert {"isa", "usable_cores"} <= set(result["machine_info"])
    assert "hz_actual" not in result["machine_info"]["cpu"]


def test_extra_info(saved: tuple[Path, dict, str]) -> None:
    """Rates and shares belong to the median of the same benchmark, and the ratio has an interval around it."""
    _, result, shown = saved
    for bench in result["benchmarks"]:
        info, median = bench["extra_info"], bench["stats"]["median"]
        assert info["gflops"] == pytest.approx(info["flop"] / median / 1e9)
        assert info["share_of_peak"] == pytest.approx(info["gflops"] / info["peak_gflops"])
        assert 0 < info["numpy_ratio_low"] <= info["numpy_ratio"] <= info["numpy_ratio_high"]
        assert bench["name"] in shown.rpartition("GFLOP/s")[2]
    assert len({bench["extra_info"]["peak_gflops"] for bench in result["benchmarks"]}) == 1  # once for the session
    kernel = result["benchmarks"][0]["extra_info"]
    assert kernel["gbytes_per_second"] == pytest.approx(28_000 / result["benchmarks"][0]["stats"]["median"] / 1e9)
    assert kernel["share_of_roofline"] >= kernel["share_of_peak"]
    assert result["benchmarks"][1]["extra_info"]["rows"] == 32


def test_compare_and_fail(saved: tuple[Path, dict, str]) -> None:
    """A run is compared with the last one that was saved, and fails where it is too slow."""
    record, _, _ = saved
    storage = record.parent.parent
    text = record.read_text()
    code, shown = run(storage, "--benchmark-only", "--benchmark-compare", "--benchmark-compare-fail=min:100000%")
    assert code == 0, shown
    assert "test_kernel[adam_step/1000] (0001_" in shown
    assert "machine_info is different" not in shown
    fast = json.loads(text)
    for bench in fast["benchmarks"]:
        bench["stats"]["min"] /= 1000
    record.write_text(json.dumps(fast))
    code, shown = run(storage, "--benchmark-only", "--benchmark-compare=0001", "--benchmark-compare-fail=min:50%")
    record.write_text(text)
    assert code == 1, shown
    assert "Performance has regressed" in shown
    assert "test_kernel[adam_step/1000]" in shown.partition("Performance has regressed")[2]


def test_without_them_nothing_is_measured(tmp_path: Path) -> None:
    code, shown = run(tmp_path)
    assert (code, "GFLOP/s" in shown) == (0, False), shown
    assert f"{len(NAMES)} passed" in shown
