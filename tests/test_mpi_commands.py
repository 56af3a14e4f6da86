"""`mpirun fastdl train ...`: rank 0 prints and writes, one model on all ranks or many spread over them."""

from __future__ import annotations

import ast
import json

import numpy as np
import pytest
from launching import PROGRAMS, run

import fastdl
from fastdl import cli

ARGUMENTS = ("digits", "--recipe", "plain", "--hidden", "16", "--epochs", "3", "--seed", "1", "--no-report")


def command(ranks, folder, *arguments, code=0):
    return run(ranks, "-m", "fastdl", *arguments, code=code, cwd=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a run of one process, `alone`."""
    path = tmp_path_factory.mktemp("runs")
    assert cli.main(["train", *ARGUMENTS, "--out", str(path / "alone")]) == 0
    return path


def test_a_run_on_three_ranks(folder):
    out, err = command(3, folder, "train", *ARGUMENTS, "--out", "many", "--health")
    assert err.count("3 ranks on 1 node: each batch is spread over them") == 1
    assert err.count("epoch 3/3") == 1
    assert out.count("saved in") == 1
    assert "ranks       3 ranks on 1 node, computing" in out
    assert sorted(path.name for path in folder.iterdir()) == ["alone", "many"]
    many, alone = fastdl.load(folder / "many"), fastdl.load(folder / "alone")
    largest = np.abs(alone.parameters).max()
    np.testing.assert_allclose(many.parameters, alone.parameters, rtol=0, atol=1e-5 * largest)
    heads = [(folder / name / "history.csv").read_text().splitlines()[0] for name in ("many", "alone")]
    assert heads[0] == heads[1]


def test_a_run_goes_on_with_other_ranks(folder):
    command(2, folder, "train", *ARGUMENTS, "--out", "short")
    out, err = command(4, folder, "resume", "short", "--epochs", "5")
    assert "going on after 3 epochs" in err
    assert "for 5 epochs" in out
    assert cli.main(["resume", str(folder / "alone"), "--epochs", "5"]) == 0
    one, other = fastdl.load(folder / "short").parameters, fastdl.load(folder / "alone").parameters
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("option", [("--ensemble", "3"), ("--folds", "3")])
def test_models_are_spread_over_ranks(folder, option, tmp_path):
    """They have the bits that they have on one rank."""
    name = option[0].strip("-")
    _, err = command(3, folder, "train", *ARGUMENTS, *option, "--out", name)
    assert err.count("3 ranks on 1 node: each trains some of the models") == 1
    assert cli.main(["train", *ARGUMENTS, *option, "--out", str(tmp_path / name)]) == 0
    many, alone = fastdl.load(folder / name), fastdl.load(tmp_path / name)
    for one, other in zip(many.members, alone.members, strict=True):
        assert one.parameters.tobytes() == other.parameters.tobytes()
    results = [json.loads((place / name / "config.json").read_text())["result"] for place in (folder, tmp_path)]
    assert results[0]["validation"] == results[1]["validation"]


def test_trials_are_spread_over_ranks(folder):
    out, _ = command(2, folder, "tune", *ARGUMENTS[:-1], "--trials", "3", "--out", "tuned", "--no-report")
    assert out.count("saved in") == 1
    assert len((folder / "tuned" / "trials.csv").read_text().splitlines()) == 4


def test_one_sentence_for_what_is_wrong(folder):
    _, err = command(3, folder, "train", "nowhere.csv", code=1)
    assert err.splitlines()[0] == "fastdl: nowhere.csv: expected a file of data, found nothing there"
    assert err.count("fastdl:") == 1


def test_what_one_rank_makes_the_others_find(tmp_path):
    out, _ = run(3, PROGRAMS / "mpi_turns.py", tmp_path)
    found = "found what rank 0 made"
    assert ast.literal_eval(out) == [(0, 3, "made", 0), (1, 3, found, 0), (2, 3, found, 0)]


def test_ranks_share_one_store_of_a_table(tmp_path):
    """It is mapped by all, and they learn what one process learns from it."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((600, 3))
    lines = [f"{a},{b},{c},{'yes' if a + b > 0 else 'no'}" for a, b, c in rows.round(4)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,c,wanted", *lines]) + "\n")
    options = ("--target", "wanted", "--mapped", "--recipe", "plain", "--epochs", "3", "--seed", "1", "--no-report")
    _, err = command(2, tmp_path, "train", "table.csv", *options, "--out", "many")
    assert err.count("making table.csv.store") == 1
    assert cli.main(["train", str(tmp_path / "table.csv"), *options, "--out", str(tmp_path / "alone")]) == 0
    many, alone = fastdl.load(tmp_path / "many").parameters, fastdl.load(tmp_path / "alone").parameters
    np.testing.assert_allclose(many, alone, rtol=0, atol=1e-5 * np.abs(alone).max())


def test_a_store_that_cannot_be_made_ends_all(tmp_path):
    (tmp_path / "table.csv").write_text("a,wanted\n1,2\n3,4\n")
    out, err = command(2, tmp_path, "train", "table.csv", "--target", "other", "--mapped", code=None)
    assert out == ""
    assert err.count("other") == 1
    assert "Traceback" not in err
