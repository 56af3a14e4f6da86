"""What `scripts/bench` runs, every part once on small shapes. The benchmarks of pytest-benchmark are in test_speed.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fastdl_kernels
from fastdl_bench import __main__ as command
from fastdl_bench import accuracy, compare, kernels, latency, memory, model, schema, statistics, tables, training
from fastdl_bench.cases import KERNEL_CASES, OPERATIONS, SMALL_KERNELS, WORKLOADS, KernelCase, Workload
from fastdl_bench.guard import Plan
from fastdl_bench.peers import kernels_fastdl, kernels_numpy
from fastdl_bench.problems import error, expected, inputs
from fastdl_bench.protocol import Peer, PeerError, closing_all
from fastdl_bench.statistics import ratio, share
from fastdl_bench.training import Effort
from fastdl_bench.versions import UsageError
from fastdl_kernels.kernel import Kernel

ROOT = Path(__file__).resolve().parent.parent
TINY = Effort(rounds=2, seconds=0.001, check_steps=2, epoch_flop=0)
# Compilers of other libraries take their time: one workload has them all, the others those that start at once.
LIGHT = ["fastdl", *(name for name in ("sklearn", "numpy") if training.LIBRARIES[name].available)]
ALL = [n for n, library in training.LIBRARIES.items() if library.available and n != "torch-compiled"]


@pytest.fixture(scope="module")
def training_peers():
    with closing_all({}) as peers:
        yield peers


@pytest.fixture(scope="module")
def kernel_peers():
    with closing_all({}) as peers:
        yield peers


@pytest.mark.parametrize(("name", "names"), [("tiny", LIGHT), ("digits", ALL), ("matrix", LIGHT)])
def test_training_of_all_peers(training_peers: dict[str, Peer], name: str, names: list[str]) -> None:
    result = training.measure(WORKLOADS[name], names, training_peers, 1, TINY, print)
    assert result["left_out"] == {}
    assert list(result["results"]) == names
    for measured in result["results"].values():
        assert measured["seconds_per_step"]["min"] > 0
        assert measured["version"]


@pytest.mark.parametrize("name", SMALL_KERNELS)
def test_kernel_of_all_peers(kernel_peers: dict[str, Peer], name: str) -> None:
    names = kernels.available(list(kernels.LIBRARIES))
    result = kernels.measure(KernelCase.of(name), names, kernel_peers, 1, TINY)
    assert result["left_out"] == {}
    assert list(result["results"]) == names
    assert result["flop_per_second"]["max"] > 0


def test_every_public_kernel_is_measured() -> None:
    public = {name for name in fastdl_kernels.__all__ if isinstance(getattr(fastdl_kernels, name), Kernel)}
    assert public == set(OPERATIONS) == set(kernels_fastdl.OPERATIONS) == set(kernels_numpy.OPERATIONS)
    assert {case.op for case in KERNEL_CASES.values()} == public


def test_a_whole_run_is_as_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    """Every part once, through the command: tables, pictures, JSON against bench/SCHEMA.md, and reading it again."""
    short = command.Level((), TINY, TINY, 1, 1, Plan())
    monkeypatch.setitem(command.LEVELS, "quick", short)
    small = {"training": ["tiny"], "kernels": ["linear_forward/7x30x17"], "accuracy": ["digits"], "latency": ["row"],
             "memory": ["tiny"], "startup": ["forward"], "estimators": ["row-regression"]}  # fmt: skip
    monkeypatch.setattr(command, "PARTS", small)
    monkeypatch.setattr(command, "QUICK_KERNELS", small["kernels"])
    monkeypatch.setattr(tables, "results_folder", lambda: tmp_path)
    peers = ",".join(LIGHT[1:]) or "none"
    assert command.main(["--quick", "--threads", "1", "--peers", peers]) == 0
    shown = capsys.readouterr().out
    for word in ("time to accuracy", "prediction", "of roofline", "first time ever"):
        assert word in shown, word
    (path,) = tmp_path.glob("*.json")
    result = schema.read(path)
    assert schema.problems(result) == []
    assert {*small, "roofline"} - {"memory", "estimators"} <= set(result)
    assert {p.name for p in tmp_path.iterdir()} >= {"training.png", "roofline.png", "roofline.svg"}
    digits = result["accuracy"][0]["results"]["fastdl"]
    assert digits["accuracy"] >= 0.97
    assert digits["epochs"] <= accuracy.MOST_EPOCHS
    assert tables.newest("latency")["date"] == result["date"]

    assert command.main(["--from-results"]) == 0
    assert "linear_forward 7x30x17" in capsys.readouterr().out

    path.unlink()
    assert command.main(["--quick", "--only", "memory", "--threads", "1", "--peers", "none"]) == 0
    assert "peak memory" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.json")
    needed = schema.read(path)["memory"][0]["results"]["fastdl"]
    assert needed["peak_bytes"] >= needed["imported_bytes"] > 0


def test_the_schema_is_documented_and_versioned(tmp_path: Path) -> None:
    text = (ROOT / "bench" / "SCHEMA.md").read_text()
    assert schema.markdown() in text, "python -m fastdl_bench.schema prints the tables of bench/SCHEMA.md"
    baseline = schema.read(ROOT / "bench" / "baseline.json")
    path = tmp_path / "x.json"
    for change, message in (
        ({"schema": 1}, "expected schema 3, got 1; it was written by another version"),
        ({"kind": "guard"}, "expected a result of kind benchmark, got 'guard'"),
        ({"threads": "two"}, "threads is 'two', not integer"),
        ({"machine": {}}, "machine.cpu is missing"),
    ):
        path.write_text(json.dumps({**baseline, **change}))
        with pytest.raises(schema.SchemaError, match=message):
            schema.read(path)
    path.write_text(json.dumps({**baseline, "of_the_future": 1}))
    assert schema.read(path)["of_the_future"] == 1
    assert schema.problems(schema.read(path)) == ["of_the_future is not described"]
    path.write_text("{")
    with pytest.raises(schema.SchemaError, match="cannot read it"):
        schema.read(path)


@pytest.mark.parametrize(
    ("sizes", "batch", "activation", "message"),
    [
        ("784", 128, "relu", "--model: expected sizes of layers"),
        ("784-x-10", 128, "relu", "--model: expected sizes of layers"),
        ("784-0-10", 128, "relu", "--model: expected sizes of layers"),
        ("", 128, "relu", "--model: expected sizes of layers"),
        ("99999-99999-2", 128, "relu", "at most 250 million parameters"),
        ("784-10", 0, "relu", "--batch: expected the rows of a step"),
        ("784-10", 1, "swish", "--activation: expected one of relu, tanh"),
    ],
)
def test_models_that_are_none(sizes: str, batch: int, activation: str, message: str, capsys) -> None:
    with pytest.raises(UsageError, match=message):
        model.workload_of(sizes, batch, activation)
    assert command.main(["--model", sizes, "--batch", str(batch), "--activation", activation]) == 2
    assert message in capsys.readouterr().err


def test_models() -> None:
    one = model.workload_of("784-256-10", 128)
    assert (one.layers, one.batch, one.output, one.rows % 128) == ((784, 256, 10), 128, "softmax", 0)
    assert one.parameters == 785 * 256 + 257 * 10
    assert model.workload_of("3-1").output == "linear"
    wide = model.workload_of("1000-1000", 1)  # every class occurs
    assert wide.rows >= 1000
    for bad in ({"threads": 0}, {"threads": 10**6}):
        with pytest.raises(UsageError, match="--threads: expected"):
            model.check_threads(**bad)
    with pytest.raises(UsageError, match="--peers: expected some of"):
        model.libraries("tensorflow", print)


def test_fastdl_bench_answers(tmp_path: Path, capsys) -> None:
    from fastdl import cli

    path = tmp_path / "result.json"
    arguments = ["bench", "--model", "12-9-3", "--batch", "16", "--peers", "numpy", "--threads", "1", "--quick"]
    assert cli.main([*arguments, "--json", str(path)]) == 0
    captured = capsys.readouterr()
    assert "model 12-9-3, 16" in captured.out
    assert "NumPy takes" in captured.out
    assert schema.problems(schema.read(path)) == []
    assert cli.main(["bench", "--model", "12-"]) == 2
    assert capsys.readouterr().err.startswith("fastdl: --model: expected sizes of layers")


def test_epochs_needed_by_bisection() -> None:
    class Learner:
        def request(self, do: str, timeout: float, epochs: int, accuracy: bool) -> dict[str, float]:
            return {"accuracy": 1 - 1 / epochs}

    for target, wanted in ((0.0, 1), (0.5, 2), (0.9, 10), (0.95, 20)):
        assert accuracy.epochs_needed(Learner(), 1, target - 1e-9)[0] == wanted  # type: ignore[arg-type]
    with pytest.raises(PeerError, match="below 99"):
        accuracy.epochs_needed(Learner(), 1, 0.99)  # type: ignore[arg-type]


def test_latency_of_all_that_is_installed() -> None:
    names = [name for name in latency.PREDICTORS if training.LIBRARIES[name].available]
    items = latency.run(["rows", "wide"], names, 1, TINY, print)
    assert [item["flop"] for item in items] == [1000 * 18_944, 10_000 * 2 * (784 * 512 + 512 * 512 + 5120)]
    for item in items:
        assert item["left_out"] == {}
        assert list(item["results"]) == names
        assert 0 < item["results"]["fastdl"]["share_of_peak"] < 1.1


def test_other_classes_have_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Liar:
        """Answers like fastdl's process, with two of 1,000 classes changed by any other."""

        def __init__(self, module: str, threads: int, arguments: tuple[str, ...] = ()) -> None:
            self.wrong = 2 if arguments == ("torch",) else 0

        def request(self, do: str, timeout: float, **values: int) -> dict:
            classes = [1] * self.wrong + [0] * (1000 - self.wrong)
            return {"classes": classes, "seconds": 0.01 * values.get("calls", 1), "flop_per_second": 1e12}

        def close(self) -> None:
            pass

    monkeypatch.setattr(latency, "Peer", Liar)
    monkeypatch.setattr(kernels, "Peer", Liar)
    (item,) = latency.run(["rows"], ["fastdl", "sklearn", "torch"], 1, TINY, print)
    assert list(item["results"]) == ["fastdl", "sklearn"]
    assert item["left_out"] == {"torch": "it predicts another class than fastdl for 2 of 1,000 rows"}
    assert item["results"]["fastdl"]["share_of_peak"] == pytest.approx(18_944_000 / 0.01 / 1e12)


def test_memory_sizes() -> None:
    one = Workload("w", (3, 4, 5), 2, 6)
    assert memory.data_bytes(one) == 6 * (12 + 8)
    assert one.parameters == 4 * 4 + 5 * 5


def test_roof_is_the_lower_of_two() -> None:
    case = KernelCase("sgd_step", (1000,))  # 2 operations and 12 bytes for each parameter
    assert kernels.roof(case, 100.0, 60.0) == 10.0
    assert kernels.roof(case, 5.0, 60.0) == 5.0


def test_names_of_the_guard() -> None:
    names = compare.targets()
    assert {name.partition("/")[0] for name in names} == {"training", "kernels"}
    assert len(names) == len(WORKLOADS) + len(KERNEL_CASES)


def test_a_wrong_result_has_no_time() -> None:
    case = KernelCase.of(SMALL_KERNELS[0])
    right = expected(case, inputs(case))
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


def test_flop_of_a_step() -> None:
    # Two products of 2*3*4 in the first layer (no d_x), three of 2*4*5 in the second, 2 operations each.
    assert Workload("w", (3, 4, 5), 2, 2).flop == 2 * (2 * 2 * 3 * 4 + 3 * 2 * 4 * 5)


def test_the_baseline_can_be_read_in_a_diff() -> None:
    """A line for each result: no samples, and what is written is what is read."""
    text = (ROOT / "bench" / "baseline.json").read_text()
    baseline = json.loads(text)
    assert schema.problems(baseline) == []
    assert schema.text(schema.compact(baseline)) == text
    assert "samples" not in text
    cases = [item for section in baseline.values() if isinstance(section, list) for item in section]
    results = sum(len(case.get("results", ())) for case in cases)
    assert len(text.splitlines()) <= results + len(cases) + 50
    for item in baseline["kernels"]:
        for name, result in item["results"].items():
            (line,) = [line for line in text.splitlines() if f'"{name}": {json.dumps(result)}' in line]
            assert line.startswith("    ")


def test_compact_results() -> None:
    """Samples go, intervals stay, and numbers have six digits."""
    result = {
        "a": [{"seconds": statistics.summary([1.0, 2.0, 1 / 3]), "results": {}}],
        "n": 12345678,
        "t": "x",
        "no": None,
    }
    found = schema.compact(result)
    assert found == {
        "a": [{"seconds": {"median": 1.0, "low": 0.333333, "high": 2.0, "min": 0.333333}, "results": {}}],
        "n": 12345678, "t": "x", "no": None,
    }  # fmt: skip
    assert json.loads(schema.text(found)) == found


@pytest.mark.parametrize("change", [{"low": None}, {"samples": "many"}, {"of_the_future": 1}])
def test_times_that_are_not_as_described(change: dict) -> None:
    result = schema.read(ROOT / "bench" / "baseline.json")
    times = result["training"][0]["results"]["fastdl"]["seconds_per_step"]
    times |= {"samples": [1.0, 2.0]}
    assert schema.problems(result) == []
    times |= change
    (problem,) = schema.problems(result)
    assert problem.startswith("training[0].results.fastdl.seconds_per_step is ")


def test_interval_of_samples() -> None:
    """The median's 95 % bootstrap interval: 1.96 x 1.2533 sigma / sqrt(n) for normal samples."""
    found = statistics.interval(np.random.default_rng(0).normal(5, 1, 400))
    assert found["low"] < found["median"] < found["high"]
    assert (found["high"] - found["low"]) / 2 == pytest.approx(1.96 * 1.2533 / 20, rel=0.35)
    assert (
        statistics.summary([3.0, 1.0, 2.0]).items() >= {"median": 2.0, "min": 1.0, "samples": [3.0, 1.0, 2.0]}.items()
    )
    assert statistics.rates([3.0, 1.0, 2.0])["max"] == 3.0


def test_ratio_of_paired_rounds() -> None:
    result = ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert result == {"median": 2.0, "low": 2.0, "high": 2.0}


def test_share_of_a_limit_that_stood_still() -> None:
    assert share([8.0, 9.0, 7.0], [10.0, 10.0, 10.0]) == 0.8
    assert share([8.0, 9.0, 7.0, 8.0, 8.0], [10.0, 10.0, 10.0, 0.5, 4.9]) == 0.8  # 16 and 1.63 would be the others
    assert share([8.0, 3.0], [10.0, 5.0]) == pytest.approx(0.7)  # half of the greatest: a slower clock, which counts


def test_only_picks_by_name() -> None:
    assert command.chosen("training/digits")["training"] == ["digits"]
    picked = {part: names for part, names in command.chosen("kernels/adam*").items() if names}
    assert picked == {"kernels": [name for name in KERNEL_CASES if name.startswith("adam")]}
    assert not any(command.chosen("nothing-like-that").values())


def test_tables_between_markers(tmp_path: Path) -> None:
    measured = statistics.summary([2e-5])
    against = {"median": 1.0, "low": 1.0, "high": 1.0}
    result = {"label": "fastdl", "seconds_per_step": measured, "gflops": 1.0, "against_fastdl": against}
    result |= {"epochs_per_round": 1, "loss_difference": 0.0}
    against = {"median": 5.0, "low": 4.0, "high": 6.0}
    run = {
        "schema": schema.VERSION,
        "date": "2026-01-01T00:00:00+00:00",
        "threads": 2,
        "effort": "quick",
        "machine": {
            "cpu": "Some CPU",
            "usable_cores": 2,
            "isa": "avx2",
            "physical_cores": 2,
            "system": "x",
            "load_before": None,
        },
        "versions": {"fastdl": "1", "python": "3", "numba": "0.6", "jax": "9"},
        "training": [
            {
                "title": "tiny",
                "workload": WORKLOADS["tiny"].as_dict(),
                "threads": 2,
                "steps_per_epoch": 512,
                "flop_per_step": 1,
                "left_out": {},
                "results": {
                    "fastdl": result,
                    "jax": {**result, "label": "JAX", "version": "9", "against_fastdl": against},
                },
            }
        ],
    }
    (tmp_path / "2026.json").write_text(json.dumps(run))
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench:training -->\nold\n<!-- /bench:training -->\nafter\n")
    assert tables.update(readme, tables.newest("training", tmp_path)) == ["training"]
    text = readme.read_text()
    assert "| tiny | 2 | 20.0 us | 1 | 5.00× (4.00 to 6.00) |" in text
    assert "JAX 9" in text
    assert "Some CPU" in text
    assert (text[:7], text[-6:]) == ("before\n", "after\n")
    assert "old" not in text
    tables.update(readme, run)
    assert readme.read_text() == text


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
