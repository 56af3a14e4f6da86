"""The regression guard: its statistics on synthetic noise, and at work with real processes that have a clock of their own."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fastdl_bench import __main__ as command
from fastdl_bench import compare, guard, protocol, prove, saved, schema, versions
from fastdl_bench.compare import Run, Side, Target
from fastdl_bench.guard import Case, Plan
from fastdl_bench.peers.planted import slower
from fastdl_bench.versions import UsageError

LIMIT = 0.1
PLAN = Plan()
BENCHMARKS = 60  # of one run of the guard


def rounds(rng: np.random.Generator, factor: float, n: int, scatter: float = 0.05, bias: float = 0.02) -> list[float]:
    """Log ratios of a session: a layout that stays for the session, noise, outliers either way, and a drift that is left."""
    session = rng.normal(0, bias)
    noise = rng.normal(0, scatter, n) + 0.02 * np.sin(np.arange(n) / 5 + rng.uniform(0, 6))
    outliers = np.where(rng.random(n) < 0.12, rng.normal(0, 0.6, n), 0)
    return list(math.log(factor) + session + noise + outliers)


def judged(rng: np.random.Generator, factor: float, **noise: float) -> guard.Judgement:
    first = [rounds(rng, factor, PLAN.rounds, **noise) for _ in range(compare.FIRST)]
    return guard.judge(Case("x", lambda n: rounds(rng, factor, n, **noise), first), LIMIT, PLAN)


def test_the_same_code_stays_green_twenty_times() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        assert [judged(rng, 1.0).failed for _ in range(BENCHMARKS)].count(True) == 0


def test_a_slowdown_of_15_percent_is_found() -> None:
    rng = np.random.default_rng(2)
    # 15 % is 4.4 % above the limit, and sessions alone differ by 2 % here.
    assert [judged(rng, 1.15).failed for _ in range(100)].count(True) >= 95
    # ... and with the noise of a quieter machine all of them.
    assert all(judged(rng, 1.15, scatter=0.03, bias=0.005).failed for _ in range(100))


def test_a_machine_that_is_far_too_busy_decides_nothing() -> None:
    """As measured on two cores with a load of 4: rounds scatter by a factor of 3, and sessions by half."""
    rng = np.random.default_rng(4)
    assert [judged(rng, 1.0, scatter=1.0, bias=0.3).failed for _ in range(200)].count(True) <= 2


def test_larger_slowdowns_and_gains() -> None:
    rng = np.random.default_rng(3)
    assert all(judged(rng, 1.3).verdict == "slower" for _ in range(50))
    assert all(judged(rng, 0.5).verdict == "faster" for _ in range(50))
    assert not any(judged(rng, 1.05).failed for _ in range(50))


def test_the_first_session_picks_and_does_not_decide() -> None:
    calls = []

    def fine(n: int) -> list[float]:
        calls.append(n)
        return [0.0] * n

    found = guard.judge(Case("x", fine, [[0.4] * 10]), LIMIT, PLAN)
    assert (found.verdict, found.sessions, calls) == ("same", 3, [20, 20])
    assert guard.judge(Case("x", fine, [[0.0] * 10]), LIMIT, PLAN).sessions == 1


def test_a_lucky_first_session_passes_nothing_over() -> None:
    """A process with a better layout than the other's: all its rounds agree, and are wrong."""
    slow = [math.log(1.15)] * 20
    found = guard.judge(Case("x", lambda n: slow, [[0.0] * 6, slow[:6]]), LIMIT, PLAN)
    assert (found.verdict, found.sessions) == ("slower", 4)


def test_one_bad_session_is_no_regression() -> None:
    sessions = itertools.chain([[0.5] * 20], itertools.repeat([0.0] * 20))
    found = guard.judge(Case("x", lambda n: next(sessions), [[0.5] * 10]), LIMIT, PLAN)
    assert not found.failed


def test_interval_of_the_median() -> None:
    found = guard.change([[math.log(1.2)] * 9])
    assert (round(found.factor, 9), round(found.low, 9), round(found.high, 9)) == (1.2, 1.2, 1.2)
    found = guard.change([[0.1] * 9, [0.3] * 9])
    assert found.factor == pytest.approx(math.exp(0.2))
    values = np.random.default_rng(0).normal(0, 0.1, 400)
    found = guard.change([values])
    half = 1.96 * 1.2533 * 0.1 / 20  # the median's standard error is 1.2533 sigma / sqrt(n)
    assert math.log(found.high / found.low) / 2 == pytest.approx(half, rel=0.35)


def test_missing_and_renamed_benchmarks_fail() -> None:
    found = compare.missing(["kernels/adam_step/10000", "training/old", "training/tiny"], list(compare.targets()))
    assert [j.name for j in found] == ["training/old"]
    renamed = compare.missing(["kernels/adamstep/10000"], list(compare.targets()))
    assert renamed[0].failed
    assert "renamed to kernels/adam_step/10000?" in renamed[0].note


@pytest.mark.parametrize("text", ["10", "ten%", "-5%", "0%", "%", "1e9%"])
def test_limits_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected a percentage such as 10%"):
        compare.parse_limit(text)


def test_limits() -> None:
    assert compare.parse_limit("10%") == 0.1
    assert compare.parse_limit(" 2.5 %") == 0.025


# With real processes


def fake(factor: float | str, seed: int) -> dict[str, Side]:
    return {kind: Side("fake_peer", (str(factor), str(seed))) for kind in ("training", "kernels")}


def some(*names: str) -> list[Target]:
    return [compare.targets()[name] for name in names]


SHORT = Plan(8, 30, 2, 12)
SOME = ("training/digits", "kernels/adam_step/10000")


def test_processes_that_do_the_same_are_green_and_a_planted_slowdown_is_found() -> None:
    proof = prove.prove(some(*SOME), 1, 1, LIMIT, SHORT, print, fake(1.0, 1), fake(1.15, 2))
    assert proof.good, proof.lines
    assert len(proof.lines) == 2
    assert "2 of 2 green" in proof.lines[0]
    assert "2 of 2 found" in proof.lines[-1]
    blind = prove.prove(some(SOME[0]), 1, 1, 0.3, SHORT, print, fake(1.0, 1), fake(1.15, 2))
    assert not blind.good  # a limit of 30 % does not see 15 %, and the proof says so
    assert "not: training/digits same" in blind.lines[1]


def test_what_one_side_cannot_run_is_reported() -> None:
    target = some(SOME[1])
    (gone,) = Run(fake("broken", 0), fake(1.0, 0), 1, print).judge(target, LIMIT, PLAN)
    assert (gone.verdict, gone.failed) == ("missing", True)
    assert "no such kernel" in gone.note
    (new,) = Run(fake(1.0, 0), fake("broken", 0), 1, print).judge(target, LIMIT, PLAN)
    assert (new.verdict, new.failed) == ("new", False)


@pytest.mark.parametrize("request_", [{"calls": 1}, {"calls": 3}, {}])
def test_what_is_planted_takes_that_much_longer(request_: dict) -> None:
    """However few calls are asked for: 15 % more of one call would be one call."""
    seen = []

    def run(request: dict) -> dict:
        seen.append(request)
        return {"seconds": 0.02, "loss": 1.0}

    start = time.perf_counter()
    answer = slower(run, 1.5)(request_)
    assert time.perf_counter() - start >= 0.01
    assert answer == {"seconds": pytest.approx(0.03), "loss": 1.0}
    assert seen == [request_]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs the command with fake programs in place of fastdl's, and results in a folder of its own."""
    monkeypatch.setattr(command.tables, "results_folder", lambda: tmp_path)
    now: dict[str, float | str] = {"factor": 1.0, "base": 1.0}

    def sides(library: Path | None = None) -> dict[str, Side]:
        factor = now["factor" if library is None else "base"]
        return {k: Side(s.module, s.arguments, library) for k, s in fake(factor, 8 + (library is None)).items()}

    monkeypatch.setattr(compare, "fastdl_sides", sides)

    def run(*arguments: str, factor: float = 1.0, base: float | str = 1.0) -> int:
        now.update(factor=factor, base=base)
        return command.main([*arguments, "--threads", "1"])

    return run


def test_save_and_compare(cli, tmp_path: Path, capsys) -> None:
    assert cli("--save", "before", "--only", "digits") == 0
    assert cli("--compare", "before", "--only", "digits") == 0
    assert cli("--compare", "before", "--only", "digits", factor=1.2) == 1
    captured = capsys.readouterr()
    assert "FAILED: 1 benchmarks; 1 slower: training/digits" in captured.out
    folder = tmp_path / "saved" / "before"
    assert [p.name for p in folder.parent.iterdir()] == ["before"]  # nothing half-written beside it
    for name, place in saved.PLACES.items():  # the copy is complete: what is imported from it is itself
        found = subprocess.run(
            [sys.executable, "-c", f"import {name}; print({name}.__file__)"], cwd=folder, capture_output=True, text=True,
            env=protocol.environment_for(1, folder), check=True,
        )  # fmt: skip
        assert Path(found.stdout.strip()) == folder / place / "__init__.py"
    path = folder / saved.RECORD
    record = json.loads(path.read_text())
    assert schema.problems(record) == []
    record["benchmarks"]["training/digit"] = record["benchmarks"].pop("training/digits")
    path.write_text(json.dumps(record))
    assert cli("--compare", "before", "--only", "training/digit*") == 1
    assert "renamed to" in " ".join(capsys.readouterr().out.split())
    path.write_text(json.dumps({**record, "schema": 99}))
    assert cli("--compare", "before") == 2
    assert "expected schema 3, got 99; it was written by another version" in capsys.readouterr().err
    assert cli("--save", "before", "--only", "digits") == 0  # in place of what was there
    assert cli("--compare", "before", "--only", "digits") == 0
    shutil.rmtree(folder / "fastdl")
    assert cli("--compare", "before") == 2
    assert "expected a copy of the library" in capsys.readouterr().err


def test_what_does_not_run_is_not_saved(cli, tmp_path: Path, capsys) -> None:
    assert cli("--save", "x", "--only", "digits", base="broken") == 1
    assert "training/digits is not in it: fake_peer: " in capsys.readouterr().err
    assert json.loads((tmp_path / "saved" / "x" / saved.RECORD).read_text())["benchmarks"] == {}


def test_wrong_usage(cli, capsys) -> None:
    for arguments, message in (
        (["--compare", "nothing"], "expected the name of a saved version, got 'nothing'"),
        (["--save", "../x"], "expected a name of letters"),
        (["--base", "no-such-thing"], "expected a commit, branch or tag"),
        (["--base", "--help-me"], "expected"),
        (["--save", "x", "--fail-over", "lots"], "expected a percentage"),
        (["--save", "x", "--only", "nothing-like-it"], "nothing is called like"),
        (["--save", "x", "--only", "startup"], "no benchmark of the guard"),
        (["--prove-guard", "0"], "expected a number of at least 1"),
    ):
        try:
            code = cli(*arguments)
        except SystemExit as error:  # argparse found it
            code = error.code
        assert code == 2, arguments
        assert message in capsys.readouterr().err, arguments


def test_against_a_commit(cli, tmp_path: Path, monkeypatch, capsys) -> None:
    repository = tmp_path / "repository"
    own = repository / "bench" / "fastdl_bench"
    for folder in (repository / "fastdl", repository / "kernels" / "fastdl_kernels", own):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
    (own / "__main__.py").write_text("print('training/digits')\nprint('kernels/adam_stop/10000')\n")

    def git(*arguments: str) -> None:
        settings = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", repository, *settings, *arguments], check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    (own / "__main__.py").unlink()  # the tree is the commit's, whatever lies in the folder
    monkeypatch.setattr(command, "commit_of", lambda ref: versions.commit_of(ref, repository))
    monkeypatch.setattr(command, "tree_of", lambda commit: versions.tree_of(commit, repository))
    assert cli("--base", "HEAD", "--only", "training/digits") == 0
    assert "passed: 1 benchmarks" in capsys.readouterr().out
    assert cli("--base", "HEAD", "--only", "training/digits", factor=1.2) == 1
    assert "1 slower: training/digits" in capsys.readouterr().out
    assert cli("--base", "HEAD", "--only", "kernels/adam_st?p/10000") == 1
    assert "1 missing: kernels/adam_stop/10000" in capsys.readouterr().out
    with pytest.raises(UsageError, match="expected to run in a checkout"):
        versions.commit_of("HEAD", None)
