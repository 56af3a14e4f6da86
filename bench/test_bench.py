"""Every benchmark once, on small shapes: `pytest bench`. With `--benchmark-enable` the peers' times are shown as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastdl_bench import __main__ as command
from fastdl_bench import kernels, startup, tables, training
from fastdl_bench.cases import KERNEL_CASES, WORKLOADS, KernelCase, Workload
from fastdl_bench.problems import error, expected, inputs
from fastdl_bench.protocol import Peer, PeerError, closing_all
from fastdl_bench.statistics import ratio
from fastdl_bench.training import Effort

TINY = Effort(rounds=2, seconds=0.001)
SMALL_KERNELS = [
    KernelCase("linear_forward", (7, 30, 17)),
    KernelCase("linear_backward", (7, 30, 17)),
    KernelCase("softmax_cross_entropy", (32, 10)),
    KernelCase("adam_step", (1000,)),
]


@pytest.fixture(scope="module")
def training_peers():
    with closing_all({}) as peers:
        yield peers


@pytest.fixture(scope="module")
def kernel_peers():
    with closing_all({}) as peers:
        yield peers


@pytest.mark.parametrize("name", ["tiny", "digits", "matrix"])
def test_training(benchmark: Any, training_peers: dict[str, Peer], name: str) -> None:
    names = [n for n, library in training.LIBRARIES.items() if library.available and n != "torch-compiled"]
    small = WORKLOADS[name].small()
    result = benchmark.pedantic(training.measure, (small, names, training_peers, 1, TINY, print), rounds=1)
    assert result["left_out"] == {}
    assert list(result["results"]) == names
    for measured in result["results"].values():
        assert measured["seconds_per_step"]["min"] > 0
    benchmark.extra_info.update({n: r["seconds_per_step"]["median"] for n, r in result["results"].items()})


@pytest.mark.parametrize("case", SMALL_KERNELS, ids=lambda case: case.name)
def test_kernel(benchmark: Any, kernel_peers: dict[str, Peer], case: KernelCase) -> None:
    names = kernels.available(list(kernels.LIBRARIES))
    result = benchmark.pedantic(kernels.measure, (case, names, kernel_peers, 1, TINY), rounds=1)
    assert result["left_out"] == {}
    assert list(result["results"]) == names
    assert result["peak"]["min"] > 0


def test_a_wrong_result_has_no_time() -> None:
    arrays = inputs(SMALL_KERNELS[0])
    right = expected(SMALL_KERNELS[0], arrays)
    wrong = {"out": right["out"].copy()}
    wrong["out"][0, 0] += 1
    assert error(wrong, right) > 0.01
    wrong["out"][0, 0] = float("nan")
    assert error(wrong, right) == float("inf")


def test_curves_that_differ_are_noticed() -> None:
    jax, sklearn = training.LIBRARIES["jax"], training.LIBRARIES["sklearn"]
    assert training.disagreement(jax, [2.0, 1.1], [2.0, 1.0]) > jax.tolerance
    assert training.disagreement(jax, [2.0], [2.0, 1.0]) == float("inf")
    assert training.disagreement(sklearn, [3.0, 1.02], [2.0, 1.0]) < sklearn.tolerance
    assert training.disagreement(sklearn, [2.0, float("nan")], [2.0, 1.0]) == float("inf")


def test_a_peer_that_fails_says_so() -> None:
    peer = Peer("fastdl_bench.peers.fastdl", 1)
    try:
        with pytest.raises(PeerError, match="expected a successful setup"):
            peer.request("run", epochs=1)
    finally:
        peer.close()


def test_startup_programs_run() -> None:
    results = startup.run(["forward"], threads=1, rounds=1, cold=False, say=print)
    assert results[0]["results"]["fastdl"]["seconds"]["min"] > 0


def test_flop_of_a_step() -> None:
    # Two products of 2*3*4 in the first layer (no d_x), three of 2*4*5 in the second, 2 operations each.
    assert Workload("w", (3, 4, 5), 2, 2).flop == 2 * (2 * 2 * 3 * 4 + 3 * 2 * 4 * 5)


def test_ratio_of_paired_rounds() -> None:
    result = ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert result == {"median": 2.0, "low": 2.0, "high": 2.0}


def test_only_picks_by_name() -> None:
    assert command.chosen("digits")["training"] == ["digits"]
    assert command.chosen("kernels/adam*") == {"training": [], "kernels": [
        name for name in KERNEL_CASES if name.startswith("adam")], "startup": []}  # fmt: skip
    assert not any(command.chosen("nothing-like-that").values())


def test_tables_between_markers(tmp_path: Path) -> None:
    measured = {"median": 2e-5, "min": 2e-5, "samples": [2e-5]}
    against = {"median": 1.0, "low": 1.0, "high": 1.0}
    result = {"label": "fastdl", "seconds_per_step": measured, "gflops": 1.0, "against_fastdl": against}
    run = {
        "schema": 1,
        "date": "2026-01-01T00:00:00+00:00",
        "threads": 2,
        "machine": {"cpu": "Some CPU", "usable_cores": 2, "isa": "avx2"},
        "versions": {"fastdl": "1", "python": "3", "numba": "0.6", "jax": "9"},
        "training": [
            {
                "title": "tiny",
                "workload": WORKLOADS["tiny"].as_dict(),
                "results": {
                    "fastdl": result,
                    "jax": {**result, "label": "JAX", "against_fastdl": {"median": 5.0, "low": 4.0, "high": 6.0}},
                },
            }
        ],
    }
    (tmp_path / "2026.json").write_text(json.dumps(run))
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench:training -->\nold\n<!-- /bench:training -->\nafter\n")
    assert tables.update(readme, tables.newest("training", tmp_path)) == ["training"]
    text = readme.read_text()
    assert "| tiny | 20.0 us | 1 | 5.00× (4.00 to 6.00) |" in text
    assert "JAX 9" in text
    assert "Some CPU" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    once = text
    tables.update(readme, run)
    assert readme.read_text() == once


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from fastdl_bench.picture import draw

    against = {"against_fastdl": {"median": 3.0}, "label": "JAX"}
    item = {
        "workload": WORKLOADS["tiny"].as_dict(),
        "results": {"fastdl": {**against, "label": "fastdl"}, "jax": against},
    }
    draw({"training": [item], "machine": {"cpu": "Some CPU"}, "threads": 2, "date": "2026-01-01"}, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000
