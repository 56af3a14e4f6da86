"""What bad input gets on the command line: one clear sentence, the right exit code, no traceback, no file left over."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fastdl
from fastdl import __main__ as entry
from fastdl import cli
from fastdl.cli import commands, runs

FAST = ["--hidden", "4", "--epochs", "2", "--threads", "1"]


@pytest.fixture
def fails(capsys, monkeypatch, tmp_path):
    """Run a command that must fail with `code`; its one sentence must hold all `words`. No file may come or go."""
    monkeypatch.chdir(tmp_path)

    def run_command(code, args, *words):
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        capsys.readouterr()
        found = cli.main([str(arg) for arg in args])
        captured = capsys.readouterr()
        *progress, message = captured.err.splitlines()
        assert found == code, captured.err
        assert captured.out == ""
        assert message.startswith("fastdl: ")
        assert not any("fastdl: " in line or "Traceback" in line for line in progress)
        for word in words:
            assert word in message
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
        return captured.err

    return run_command


@pytest.fixture
def table(write):
    """A CSV file to train on: 40 rows of x, z, colour and y."""
    lines = [f"{i / 7:.3f},{i % 5},{'red' if i % 3 else 'blue'},{i / 3:.3f}" for i in range(40)]
    return write("table.csv", "\n".join(["x,z,colour,y", *lines]) + "\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lr", "-0.1"], ["--lr", "above 0", "got -0.1"]),
        (["--lr", "nan"], ["--lr", "got nan"]),
        (["--lr", "fast"], ["--lr", "valid"]),
        (["--l2", "-1"], ["--l2", "0 or more", "got -1"]),
        (["--l2", "inf"], ["--l2", "got inf"]),
        (["--epochs", "0"], ["--epochs", "at least 1", "got 0"]),
        (["--epochs", "1.5"], ["--epochs"]),
        (["--batch-size", "0"], ["--batch-size", "at least 1", "got 0"]),
        (["--batch-size", "1439"], ["--batch-size", "1,438 training rows", "got 1439", "--batch-size 1438"]),
        (["--seed", "-3"], ["--seed", "at least 0", "got -3"]),
        (["--threads", "0"], ["--threads", "auto", "got '0'"]),
        (["--threads", "many"], ["--threads", "got 'many'"]),
        (["--validation", "1"], ["--validation", "[0, 1)", "got 1"]),
        (["--hidden", "64,x"], ["--hidden", "none", "got '64,x'"]),
        (["--hidden", "64,-1"], ["--hidden", "got '64,-1'"]),
        (["--activation", "rleu"], ["--activation", "leaky_relu", "did you mean 'relu'?"]),
        (["--activation", "relu,tanh"], ["--activation", "3 hidden layers", "got 2"]),
        (["--leaky-alpha", "0.1"], ["--leaky-alpha", "--activation leaky_relu"]),
        (["--activation", "leaky_relu", "--leaky-alpha", "2"], ["--leaky-alpha", "[0, 1)", "got 2"]),
        (["--optimizer", "adm"], ["--optimizer", "rmsprop", "did you mean 'adam'?"]),
        (["--optimizer", "adam", "--weight-decay", "0.1"], ["--weight-decay", "--optimizer adamw", "got 'adam'"]),
        (["--optimizer", "adamw", "--weight-decay", "-1"], ["--weight-decay", "0 or more", "got -1"]),
        (["--nesterov"], ["--nesterov", "--optimizer momentum", "got 'adamw'"]),
        (["--schedule", "cosin"], ["--schedule", "exponential", "did you mean 'cosine'?"]),
        (["--schedule", "step"], ["--schedule", "step:1000,0.5", "got 'step'"]),
        (["--schedule", "step:10,x"], ["--schedule", "got 'step:10,x'"]),
        (["--schedule", "step:0,0.5"], ["--schedule", "at least 1", "got 0"]),
        (["--schedule", "exponential:10,0"], ["--schedule", "factor above 0"]),
        (["--schedule", "cosine:10"], ["--schedule", "cosine alone"]),
        (["--warmup", "-1"], ["--warmup", "at least 0", "got -1"]),
        (["--clip-norm", "0"], ["--clip-norm", "above 0", "got 0"]),
        (["--clip-norm", "nan"], ["--clip-norm", "got nan"]),
        (["--dropout", "half"], ["--dropout", "0.2,0.5", "got 'half'"]),
        (["--dropout", "1"], ["--dropout", "[0, 1)", "got '1'"]),
        (["--dropout", "0.1,0.2"], ["--dropout", "3 hidden layers", "got '0.1,0.2'"]),
        (["--hidden", "none", "--dropout", "0.1"], ["--dropout", "hidden layers"]),
        (["--early-stopping", "-1"], ["--early-stopping", "at least 0", "got -1"]),
        (["--recipe", "real"], ["--recipe", "auto, realmlp, plain", "got 'real'"]),
        (["--set", "embedding"], ["--set", "NAME=VALUE", "got 'embedding'"]),
        (["--set", "embeding=pbld"], ["--set", "did you mean 'embedding'?"]),
        (["--set", "embedding=plr"], ["--set", "pbld or none", "got 'plr'"]),
        (["--set", "scaling=3"], ["--set", "standard or robust", "got 3"]),
        (["--set", "ntk=1"], ["--set", "true or false", "got 1"]),
        (["--set", "clip=0"], ["--set clip", "above 0", "got 0"]),
        (["--set", "init=lecum"], ["init", "lecun", "got 'lecum'"]),
        (["--set", "beta2=2"], ["beta2", "got 2"]),
        (["--optimizer", "sgd", "--set", "beta2=0.9"], ["--set", "beta2", "got sgd"]),
        (["--set", "decay_schedule=cosin"], ["--set decay_schedule", "did you mean 'cosine'?"]),
        (["--set", "group_rates=bias:0.1"], ["group_rates", "'biases'"]),
        (["--set", "group_rates=biases"], ["--set group_rates", "biases:0.1"]),
        (["--set", "decay_schedule=0.5"], ["decay_schedule", "0.5"]),
        (["--early-stopping", "3", "--validation", "0"], ["--early-stopping", "--validation 0"]),
        (["--dtype", "float16"], ["--dtype", "float32, float64", "got 'float16'"]),
        (["--task", "regresion"], ["--task", "multilabel", "did you mean 'regression'?"]),
        (["--target", "y"], ["--target", "expected a table", "digits"]),
        (["--epoch", "3"], ["--epoch", "see fastdl train --help"]),
        (["more", "files"], ["expected digits alone", "got 3"]),
    ],
)
def test_bad_options(fails, options, words):
    fails(2, ["train", "digits", *options], *words)


def test_wrong_commands(fails):
    fails(2, ["trian", "digits"], "trian", "see fastdl --help")
    fails(2, ["train"], "DATA", "see fastdl train --help")
    fails(2, ["evaluate", "m.fastdl"], "DATA")


def test_bad_columns(fails, table):
    fails(2, ["train", table], "--target", "x, z, colour, y")
    fails(2, ["train", table, "--target", "yy"], "table.csv", "'yy'", "did you mean 'y'?")
    fails(2, ["train", table, "--target", "y", "--ignore", "color"], "--ignore", "did you mean 'colour'?")
    fails(2, ["train", table, "--target", "y", "--ignore", "color", "--date", "zz"], "--ignore", "--date", "'zz'")
    fails(1, ["train", table, "--target", "y", "--numeric", "colour"], "--numeric", "--categorical colour",
          "--ignore colour")  # fmt: skip
    fails(2, ["train", table, "--target", "y", "--group", "z", "--time", "x"], "--time", "--group and --time")
    fails(2, ["train", table, "--target", "y", "--class-weight", "balanced"], "--class-weight", "classes to balance")
    fails(2, ["train", table, "--target", "y", "--decimal", ";"], "--decimal", "point or a comma")
    fails(2, ["train", table, "--target", "y", "--separator", "::"], "--separator", "one character")
    fails(2, ["train", table, "--target", "y", "--encoding", "utf9"], "--encoding", "cp1252")


def test_bad_cells(fails, write):
    """Files of all kinds are covered in test_tables.py and test_data.py; here, what reaches the terminal."""
    for cell, words in [("inf", "finite"), ("abc", "expected a number")]:
        path = write("a.csv", f"x,y\n1,0.5\n2,1.5\n5,2\n3,{cell}\n")
        fails(1, ["train", path, "--target", "y"], "a.csv, row 5, column 'y'", words)
    path = write("a.csv", "x,y\n1,0.5\n2,1.5,7\n5,2\n3,4,5\n")
    fails(1, ["train", path, "--target", "y"], "a.csv, row 3", "got 3", "a.csv, row 5")


def test_bad_files(fails, write, tmp_path):
    fails(1, ["train", "missing.csv"], "missing.csv", "found nothing there")
    write("mnist.npz", "x")
    fails(1, ["train", "mnst.npz"], "did you mean 'mnist.npz'?")
    fails(1, ["train", tmp_path], "got a folder")
    fails(1, ["train", write("empty.csv", ""), "--target", "y"], "empty.csv", "empty file")
    fails(1, ["train", write("header.csv", "x,y\n"), "--target", "y"], "header.csv", "at least one row")
    fails(1, ["train", write("cut.npz", b"PK\x03\x04 and no more")], "cut.npz", "NPZ")
    fails(1, ["train", write("a.xlsx", b"\xd0\xcf\x11\xe0\0\0")], "a.xlsx", "another kind")


def test_bad_arrays(fails, tmp_path):
    def npz(X, y):
        np.savez(tmp_path / "a.npz", X=X, y=y)
        return ["train", "a.npz"]

    X, y = np.eye(6), np.array([0, 1, 2] * 2)
    fails(1, npz(X * [1, 1, 1, 1, 1, np.nan], y), "a.npz: X", "finite")
    fails(1, npz(X, np.where(y == 2, np.inf, y)), "a.npz: y", "finite", "row 2")
    fails(1, npz(X, y[:4]), "a.npz: y", "6 rows of X, got 4")
    fails(1, npz(X[0], y), "a.npz: X", "(rows, features)")
    fails(1, npz(X[:0], y[:0]), "a.npz: X", "at least one row")
    fails(1, npz(X.astype(str), y), "a.npz: X", "numbers")
    fails(1, npz(X, np.zeros(6)), "'y'", "at least two classes")
    fails(1, [*npz(X[:1], y[:1] + 0.5), "--validation", "0.5"], "at least 2 rows", "--validation 0")


def test_labels_out_of_range(fails, tmp_path):
    """Labels that a model was not trained on."""
    fastdl.MLP([6, 3]).save("three.fastdl")
    np.savez(tmp_path / "a.npz", X=np.eye(6), y=[0, 1, 2, 3, 1, 0])
    fails(1, ["evaluate", "three.fastdl", "a.npz"], "a.npz: y, row 3", "0, 1, 2", "got 3")
    np.savez(tmp_path / "a.npz", X=np.eye(6), y=[0, 1, -1, 2, 1, 0])
    fails(1, ["evaluate", "three.fastdl", "a.npz"], "a.npz: y, row 2", "got -1")
    np.savez(tmp_path / "a.npz", X=np.eye(5), y=[0, 1, 2, 2, 1])
    fails(1, ["evaluate", "three.fastdl", "a.npz"], "expected 6 features", "got 5")


def test_bad_model_files(fails, write, tmp_path):
    fastdl.MLP([64, 10]).save("good.fastdl")
    good = Path("good.fastdl").read_bytes()
    with zipfile.ZipFile(tmp_path / "other.fastdl", "w") as archive:
        archive.writestr("a.txt", "hello")
    for command in (["inspect"], ["predict", "digits"], ["evaluate", "digits"]):
        name, data = command[0], command[1:]
        fails(1, [name, "none.fastdl", *data], "none.fastdl", "nothing there")
        fails(1, [name, ".", *data], "a folder")
        fails(1, [name, write("cut.fastdl", good[:-100]), *data], "cut.fastdl", "truncated or altered")
        fails(1, [name, write("text.fastdl", "hello"), *data], "text.fastdl", "another kind")
        fails(1, [name, "other.fastdl", *data], "other.fastdl", "another kind")
        altered = good.replace(b'"softmax"', b'"sigmoid"', 1)
        assert altered != good
        fails(1, [name, write("altered.fastdl", altered), *data], "altered.fastdl")


def test_divergence_leaves_nothing(fails):
    message = fails(1, ["train", "digits", *FAST, "--optimizer", "sgd", "--lr", "1e30"], "epoch 1", "learning rate")
    assert "batch" in message


def test_prediction_to_a_place_that_cannot_be_written(fails):
    fastdl.MLP([64, 10]).save("m.fastdl")
    fails(1, ["predict", "m.fastdl", "digits", "--out", "no/such/folder/p.csv"], "no/such/folder")


def test_out_that_is_no_folder(fails, write):
    write("file", "x")
    fails(2, ["train", "digits", *FAST, "--out", "file"], "--out", "file")
    fails(2, ["train", "digits", *FAST, "--out", "file/run"], "--out", "file")


def test_a_failed_write_loses_nothing(capsys, monkeypatch, tmp_path):
    """The disk is full when the model is saved: the checkpoint is there."""

    def full(*_):
        raise fastdl.InputError("disk full")

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(fastdl.MLP, "save", full)
        assert cli.main(["train", "digits", *FAST]) == 1
    assert "disk full; nothing of the training is lost: fastdl resume runs/digits-1" in capsys.readouterr().err
    assert [p.name for p in Path("runs/digits-1").iterdir()] == ["checkpoint.fastdl"]
    assert cli.main(["resume", "runs/digits-1"]) == 0
    assert cli.main(["train", "digits", *FAST]) == 0
    again, whole = (Path(f"runs/digits-{n}/model.fastdl").read_bytes() for n in (1, 2))
    assert again == whole


def test_no_room_for_the_first_checkpoint_leaves_no_folder(fails, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    fails(1, ["train", "digits", *FAST], "No space left on device", "make room")


# Missing packages, and errors that nobody thought of


def test_missing_polars(fails, table, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    fails(1, ["train", table, "--target", "y"], "polars", 'pip install "fastdl[cli]"')


def test_a_picture_that_fails_costs_nothing_else(capsys, monkeypatch, tmp_path):
    def broken(*_):
        raise RuntimeError("no fonts")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands.svg, "picture", broken)
    assert cli.main(["train", "digits", *FAST, "--out", "r"]) == 0
    assert "the learning curves are not drawn (RuntimeError: no fonts)" in capsys.readouterr().err
    assert sorted(p.name for p in Path("r").iterdir()) == sorted({*runs.FILES} - {runs.CURVES})


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_missing_command_line_packages(capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert entry.main() == 1
    captured = capsys.readouterr()
    assert captured.err == (
        f'fastdl: the command line needs {package}, which is not installed: pip install "fastdl[cli]"\n'
    )


def test_unexpected_errors_and_debug(fails, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("oops [bold]")

    monkeypatch.setattr(commands, "load", broken)
    fails(1, ["inspect", "x"], "unexpected ZeroDivisionError: oops [bold]", "--debug")
    for args in (["inspect", "x", "--debug"], ["--debug", "inspect", "x"]):
        with pytest.raises(ZeroDivisionError):
            cli.main(args)


def test_too_large_for_the_memory(fails, monkeypatch):
    def huge(*_):
        raise MemoryError("Unable to allocate 9 PiB")

    monkeypatch.setattr(commands, "load", huge)
    fails(1, ["inspect", "x"], "not enough memory (Unable to allocate 9 PiB)")


def test_no_arguments_and_version(capsys):
    assert cli.main([]) == 2
    assert "train" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastdl {fastdl.__version__}\n"
    assert cli.main(["train", "--help"]) == 0
    assert "--categorical" in capsys.readouterr().out
