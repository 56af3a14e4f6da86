"""`fastdl resume`: interrupted, killed and finished runs go on as if nothing had happened."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from crashing import ARGUMENTS, RUN, end, start, until, whole_model

import fastdl
from fastdl.cli import checkpoints, commands, progress
from fastdl.engine import session
from fastdl.files.lock import locked
from fastdl.training import checkpoint_file

FAST = ["--hidden", "8", "--epochs", "4", "--threads", "1"]


class Interrupt(progress.Progress):
    """Ctrl-C within an epoch: in its first call of compiled code that ends before the epoch does."""

    at = 3

    def on_progress(self, epoch, rows_done):
        super().on_progress(epoch, rows_done)
        if epoch == self.at:
            raise KeyboardInterrupt


@pytest.fixture
def interrupted(run, monkeypatch):
    """Train with these options, interrupted in the middle of the third epoch, into `r`; and whole, into `whole`."""

    def train(*options, data="digits", **kwargs):
        with monkeypatch.context() as patched:
            patched.setattr(session, "SECONDS_PER_CALL", 0.0)
            patched.setattr("fastdl.engine.thread_tuner.SECONDS_PER_CALL", 1e-6)
            patched.setattr(commands, "Progress", Interrupt)
            result = run("train", data, *FAST, *options, "--out", "r")
        assert result.code == 130
        assert "fastdl resume r goes on from here" in result.err
        assert run("train", data, *FAST, *options, "--out", "whole").code == 0
        assert Path("r/model.fastdl").read_bytes() != Path("whole/model.fastdl").read_bytes()

    return train


def same_run(a="r", b="whole"):
    """Bitwise the same model file, and the same history but for times."""
    assert Path(a, "model.fastdl").read_bytes() == Path(b, "model.fastdl").read_bytes()
    tables = [list(csv.DictReader(Path(folder, "history.csv").read_text().splitlines())) for folder in (a, b)]
    for table in tables:
        for row in table:
            del row["seconds"]
    assert tables[0] == tables[1]


OPTIONS = {
    "plain": [],
    "schedule": [
        "--schedule",
        "cosine",
        "--warmup",
        "20",
        "--optimizer",
        "adamw",
        "--dropout",
        "0.2",
        "--clip-norm",
        "1",
    ],
    "stopping": ["--early-stopping", "2", "--optimizer", "sgd", "--lr", "0.9"],
    "no-validation": ["--validation", "0", "--class-weight", "balanced"],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_interrupted_run_goes_on_to_the_same_bits(run, interrupted, name):
    interrupted(*OPTIONS[name])
    batches = checkpoints.read(Path("r")).batches
    assert batches > 0
    result = run("resume", "r", "--threads", 2)
    assert result.code == 0
    assert f"going on after 2 epochs and {batches} batch" in result.err
    same_run()
    assert not json.loads(Path("r/config.json").read_text())["training"]["interrupted"]


def test_a_finished_run_says_so_and_goes_on_further(run):
    run("train", "digits", *FAST, "--recipe", "plain", "--out", "r")
    before = {p.name: p.read_bytes() for p in Path("r").iterdir()}
    result = run("resume", "r")
    assert (result.code, result.out) == (
        0,
        "r: finished, 4 of 4 epochs; fastdl resume r --epochs COUNT goes on further\n",
    )
    assert {p.name: p.read_bytes() for p in Path("r").iterdir()} == before
    result = run("resume", "r", "--epochs", 3)
    assert result.code == 2
    assert "--epochs: expected at least the 4 epochs that are done, got 3" in result.err
    assert run("resume", "r", "--epochs", 7).code == 0
    run("train", "digits", "--recipe", "plain", "--hidden", "8", "--threads", "1", "--epochs", "7", "--out", "whole")
    same_run()
    assert run("resume", "r").out.startswith("r: finished, 7 of 7 epochs")


def test_a_run_that_early_stopping_ended(run):
    options = ["--early-stopping", 1, "--optimizer", "sgd", "--lr", 0.9, "--hidden", "8", "--epochs", 200]
    assert run("train", "digits", *options, "--out", "r").code == 0
    result = run("resume", "r", "--epochs", 300)
    assert result.code == 0
    assert "early stopping has ended it" in result.out


def test_killed_before_the_results_were_written(run):
    """The checkpoint of the last epoch is all there is: the best parameters and the files come back."""
    options = ["--early-stopping", 1, "--optimizer", "sgd", "--lr", 0.9, "--hidden", "8", "--epochs", 200]
    for out in ("r", "whole"):
        run("train", "digits", *options, "--out", out)
    for name in ("model.fastdl", "history.csv", "config.json", "curves.svg"):
        Path("r", name).unlink()
    assert run("resume", "r").code == 0
    same_run()


@pytest.fixture
def table(write):
    """A CSV file of 60 rows of x, z, colour and y; `change` alters the lines."""

    def make(change=lambda lines: lines):
        lines = [f"{i / 7:.3f},{i % 5},{'red' if i % 3 else 'blue'},{i / 3:.3f}" for i in range(60)]
        return write("table.csv", "\n".join(change(["x,z,colour,y", *lines])) + "\n")

    return make


def test_data_that_changed_are_refused(run, interrupted, table):
    def cell(lines):
        return [*lines[:7], lines[7].replace("0.857", "0.858"), *lines[8:]]

    path = table()
    interrupted("--target", "y", "--batch-size", "4", data=path)
    before = {p.name: p.read_bytes() for p in Path("r").iterdir()}
    for change, words in {
        (lambda lines: lines[:-1]): "59 rows instead of 60",
        (lambda lines: [line.replace("red", "green") for line in lines]): "without",
        (lambda lines: [lines[0].replace("z", "zz"), *lines[1:]]): "the features new zz and without z",
        cell: "X in column 'x'",
    }.items():
        table(change)
        result = run("resume", "r")
        assert result.code == 1, words
        assert words in result.err
        assert "this run began with" in result.err or "this training began with" in result.err
        assert {p.name: p.read_bytes() for p in Path("r").iterdir()} == before
    Path(path).unlink()
    assert "found nothing there" in run("resume", "r").err
    table()
    assert run("resume", "r").code == 0
    same_run()


def test_from_another_folder(run, interrupted, table, monkeypatch):
    """Data files are found where they were typed."""
    table()
    interrupted("--target", "y", "--batch-size", "4", data="table.csv")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    monkeypatch.setattr("fastdl.cli.commands.Path", Path)
    from fastdl import cli

    assert cli.main(["resume", "../r"]) == 0
    monkeypatch.chdir("..")
    same_run()


def test_what_is_no_run(run, tmp_path):
    Path("empty").mkdir()
    Path("file").write_text("")
    fastdl.MLP([3, 2]).save("empty/model.fastdl")
    for name, words in (("nothing", "found nothing"), ("file", "found a file"), ("empty", "found none; train it anew")):
        result = run("resume", name)
        assert result.code == 1
        assert words in result.err
    fastdl.Trainer(fastdl.MLP([3, 2])).save_checkpoint("empty/checkpoint.fastdl")
    assert "one that Python wrote" in run("resume", "empty").err
    Path("empty/checkpoint.fastdl").write_bytes(b"PK")
    assert "truncated or altered" in run("resume", "empty").err


def test_one_process_at_a_time(run):
    """A run's folder belongs to the process that trains there."""
    run("train", "digits", *FAST, "--out", "r")
    with locked(Path("r")):
        for command in (["resume", "r", "--epochs", 9], ["train", "digits", *FAST, "--out", "r", "--force"]):
            result = run(*command)
            assert result.code == 1
            assert "r: another process is training there" in result.err
    assert run("resume", "r", "--epochs", 5).code == 0


def test_what_a_killed_process_left_is_removed(run, interrupted):
    interrupted()
    for name in ("checkpoint", "model"):
        Path(f"r/.{name}.fastdl.abcd1234").write_bytes(b"half")
    Path("r/.mine").write_text("stays")
    assert run("resume", "r").code == 0
    assert [p.name for p in Path("r").iterdir() if p.name.startswith(".")] == [".mine"]


def test_a_pause_is_a_multiple_of_a_write(tmp_path):
    keeper = checkpoints.Keeper(tmp_path / "c", None, {}, print)
    keeper._cost = 0.01
    assert keeper.pause() == pytest.approx(0.49)
    keeper._cost = 5.0
    assert keeper.pause() == 30.0


# Processes


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_signals_save_what_was_learned(tmp_path, name):
    """The process ends with the signal's code, has written its results, and goes on from exactly there."""
    number = getattr(signal, name)
    longer = "--epochs", "1500", "--early-stopping", "1500"  # so that the signal comes in time on a busy machine too
    process = start("train", *ARGUMENTS, *longer, folder=tmp_path)
    try:
        until(process, "epoch")
        process.send_signal(number)
        _, err = end(process, 128 + number)
    finally:
        process.kill()
    assert f"fastdl resume {RUN}" in err
    contents = checkpoint_file.read(tmp_path / RUN / "checkpoint.fastdl")
    epochs = len((tmp_path / RUN / "history.csv").read_text().splitlines()) - 1
    assert len(contents.history) == epochs  # of the last moment, not of the last pause
    end(start("resume", RUN, folder=tmp_path))
    assert (tmp_path / RUN / "model.fastdl").read_bytes() == whole_model(*longer)


def test_two_processes_on_one_folder(tmp_path):
    endless = ["digits", "--hidden", "8", "--epochs", 10**6, "--early-stopping", 0, "--threads", 1, "--out", RUN]
    first = start("train", *endless, folder=tmp_path)
    try:
        until(first, "epoch")
        for command in (["resume", RUN], ["train", *endless, "--force"]):
            _, err = end(start(*command, folder=tmp_path), 1)
            assert f"fastdl: {RUN}: another process is training there" in err
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    done = len(checkpoint_file.read(tmp_path / RUN / "checkpoint.fastdl").history)
    end(start("resume", RUN, "--epochs", done + 2, folder=tmp_path))
    assert np.isfinite(fastdl.load(tmp_path / RUN).parameters).all()
