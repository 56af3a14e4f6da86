"""The command line from end to end: train, predict, evaluate, inspect, and what lies in a run's folder."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastdl
from fastdl.cli import commands, progress, runs

ROOT = Path(__file__).resolve().parent.parent
FAST = ["--hidden", "8", "--epochs", "2", "--threads", "1"]


@pytest.fixture
def flowers(write):
    """300 flowers of three species that width and colour tell apart, as CSV."""
    rng = np.random.default_rng(5)
    species = rng.integers(0, 3, 300)
    width = np.round(species % 2 + 0.1 * rng.standard_normal(300), 4)
    colour = np.array(["blue", "red", "red"])[species]
    height = np.round(10 + 3 * width + 0.1 * rng.standard_normal(300), 4)
    names = np.array(["iris", "poppy", "rose"])[species]
    lines = [f"{w},{c},{h},{n}" for w, c, h, n in zip(width, colour, height, names, strict=True)]
    return write("flowers.csv", "\n".join(["width,colour,height,species", *lines]) + "\n")


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def environment():
    """The environment of a process that finds the same fastdl as this one."""
    path = [str(Path(module.__file__).parent.parent) for module in (fastdl, sys.modules["fastdl_kernels"])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "COLUMNS": "100"}


def start(*args, folder, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-m", "fastdl", *map(str, args)],
        cwd=folder,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **kwargs,
    )


# The defaults


@pytest.mark.parametrize("seed", [0, 2, 9])
def test_digits_by_default_are_learnt_to_97_percent(run, seed):
    result = run("train", "digits", "--seed", seed)
    assert result.code == 0
    accuracy = json.loads(Path("runs/digits-1/config.json").read_text())["result"]["validation"]["accuracy"]
    assert accuracy >= 0.97
    assert f"validation  accuracy {100 * accuracy:.2f} %" in result.out
    assert "97.00 %" not in result.out or accuracy == 0.97


def test_a_run_leaves_its_files_in_the_next_free_folder(run):
    for number in (1, 2):
        result = run("train", "digits", *FAST)
        assert result.code == 0
        folder = Path(f"runs/digits-{number}")
        assert sorted(p.name for p in folder.iterdir()) == sorted(runs.FILES)
        assert f"{folder}: model.fastdl, history.csv, config.json, curves.svg" in result.out
    (Path("runs/digits-1") / runs.MODEL).unlink()
    Path("runs/digits-1/config.json").unlink()
    run("train", "digits", *FAST)
    assert Path("runs/digits-3").is_dir()  # a number is not used again


def test_the_same_run_gives_the_same_model(run):
    for out in "ab":
        assert run("train", "digits", *FAST, "--seed", 3, "--out", out).code == 0
    run("train", "digits", *FAST, "--seed", 4, "--out", "c")
    a, b, c = (Path(out, runs.MODEL).read_bytes() for out in "abc")
    assert a == b
    assert a != c


def test_history_and_configuration(run):
    run("train", "digits", "--recipe", "plain",
        "--hidden", "8,6", "--activation", "leaky-relu,tanh", "--leaky-alpha", 0.2, "--epochs", 3,
        "--optimizer", "momentum", "--lr", 0.05, "--batch-size", 100, "--l2", 0.01, "--validation", 0.25, "--seed", 7,
        "--threads", 1, "--dtype", "float64", "--out", "r")  # fmt: skip
    history = rows(Path("r/history.csv").read_text())
    assert list(history[0]) == ["epoch", "loss", "val_loss", "accuracy", "seconds"]
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert float(history[2]["loss"]) < float(history[0]["loss"])
    config = json.loads(Path("r/config.json").read_text())
    assert config["model"] == {
        "layers": [64, 8, 6, 10],
        "activations": [{"name": "leaky_relu", "alpha": 0.2}, {"name": "tanh", "alpha": 0.0}],
        "output": "softmax",
        "dtype": "float64",
        "parameters": 65 * 8 + 9 * 6 + 7 * 10,
    }
    training = config["training"]
    assert training["optimizer"] == {"name": "momentum", "lr": 0.05, "beta": 0.9, "nesterov": False}
    assert (training["batch_size"], training["epochs_done"], training["l2"], training["seed"]) == (100, 3, 0.01, 7)
    assert (training["train_rows"], training["validation_rows"]) == (1348, 449)
    assert config["versions"]["fastdl"] == fastdl.__version__
    assert config["result"]["validation"]["accuracy"] == float(history[2]["accuracy"])
    model = fastdl.load("r/model.fastdl")
    assert model.dtype == np.float64
    assert [a.name for a in model.activations] == ["leaky_relu", "tanh"]


def test_out_keeps_a_run_unless_forced(run):
    assert run("train", "digits", *FAST, "--out", "r").code == 0
    before = {p: p.read_bytes() for p in Path("r").iterdir()}
    result = run("train", "digits", *FAST, "--out", "r", "--seed", 1)
    assert result.code == 2
    assert "--force" in result.err
    assert {p: p.read_bytes() for p in Path("r").iterdir()} == before
    assert run("train", "digits", *FAST, "--out", "r", "--seed", 1, "--force").code == 0
    assert Path("r/model.fastdl").read_bytes() != before[Path("r/model.fastdl")]


def test_small_data_needs_no_batch_size(run, write):
    path = write("a.csv", "x,y\n" + "".join(f"{i},{i / 2 + 0.25}\n" for i in range(10)))
    assert run("train", path, "--target", "y", *FAST, "--validation", 0.2, "--out", "r").code == 0
    assert json.loads(Path("r/config.json").read_text())["training"]["batch_size"] == 8


def test_no_validation_and_no_hidden_layer(run):
    result = run("train", "digits", "--hidden", "none", "--epochs", 2, "--validation", 0, "--out", "r")
    assert result.code == 0
    assert "training  loss" in result.out
    assert list(rows(Path("r/history.csv").read_text())[0]) == ["epoch", "loss", "seconds"]
    assert fastdl.load("r/model.fastdl").layers == (64, 10)
    assert Path("r/curves.svg").read_text().startswith("<svg ")


# Standardisation


def test_features_and_targets_are_standardised_with_the_training_rows(run, flowers):
    options = ["--target", "height", "--ignore", "species", "--categorical", "colour", "--set", "scaling=standard"]
    run("train", flowers, *options, *FAST, "--out", "r")
    from fastdl.tables import data

    loaded = data.load_training([flowers], target="height", ignore="species", categorical="colour")
    scaling = fastdl.load("r/model.fastdl").scaling
    X, y = loaded.X[loaded.train], loaded.targets.y[loaded.train]
    np.testing.assert_allclose(scaling.mean, X.mean(axis=0))
    np.testing.assert_allclose(scaling.scale, X.std(axis=0))
    np.testing.assert_allclose([scaling.y_mean, scaling.y_scale], [y.mean(axis=0), y.std(axis=0)])


def test_pixels_share_one_scale(run):
    run("train", "digits", *FAST, "--out", "r")
    scaling = fastdl.load("r/model.fastdl").scaling
    assert len(set(scaling.scale)) == 1
    X = fastdl.load_digits()[0]
    assert abs(scaling.scale[0] - np.sqrt(X.var(axis=0).mean())) < 0.1
    assert abs(scaling.mean - X.mean(axis=0)).max() < 1


# Predict, evaluate, inspect


def test_classes_from_train_to_predict(run, flowers, write):
    result = run("train", flowers, "--target", "species", "--categorical", "colour", "--out", "r", "--epochs", 30)
    assert "multiclass, as the target has 3 different texts" in result.err
    model = fastdl.load("r/model.fastdl")
    assert model.feature_names == ["width", "colour=blue", "colour=red", "height"]
    assert model.classes == ["iris", "poppy", "rose"]

    new = write("new.csv", "colour,height,note,width\nblue,10,hello,0\nred,13,,1\nred,10,,0\n")
    result = run("predict", "r", new)
    predicted = rows(result.out)
    assert [row["prediction"] for row in predicted] == ["iris", "poppy", "rose"]
    for row in predicted:
        chances = {name[2:]: float(value) for name, value in row.items() if name.startswith("p_")}
        assert max(chances, key=chances.get) == row["prediction"]
        assert abs(sum(chances.values()) - 1) < 1e-5
    assert run("predict", "r/model.fastdl", new, "--out", "p.csv").out == ""
    assert Path("p.csv").read_text() == result.out

    result = run("evaluate", "r", flowers)
    shown = dict(line.split("  ", 1) for line in result.out.splitlines())
    everything = rows(run("predict", "r", flowers).out)
    right = np.mean(
        [a["prediction"] == b["species"] for a, b in zip(everything, rows(Path(flowers).read_text()), strict=True)]
    )
    assert shown["accuracy"].strip() == f"{100 * right:.2f} %"
    assert right > 0.95
    assert shown["rows"].strip() == "300"

    shown = run("inspect", "r").out
    for words in (
        "multiclass",
        "colour=red",
        "iris, poppy, rose",
        "4 × 131",  # 128, and 3 of a linear model
        "scaled",
        " of 30 epochs",
        "flowers.csv",
        "adamw",
    ):
        assert words in shown
    assert f"{model.n_parameters:,}" in shown


def test_regression_from_train_to_predict(run, flowers):
    result = run(
        "train", flowers, "--target", "height", "--categorical", "colour,species", "--out", "r", "--epochs", 60
    )
    assert "regression, as the target has numbers with fractions" in result.err
    assert "RMSE" in result.out
    heights = np.array([float(row["height"]) for row in rows(Path(flowers).read_text())])
    predicted = np.array([float(row["prediction"]) for row in rows(run("predict", "r", flowers).out)])
    rmse = np.sqrt(np.mean((heights - predicted) ** 2))
    assert rmse < 0.3
    shown = dict(line.split("  ", 1) for line in run("evaluate", "r", flowers).out.splitlines())
    assert abs(float(shown["RMSE"]) - rmse) < 1e-3
    assert abs(float(shown["R²"]) - (1 - rmse**2 / heights.var())) < 1e-3
    assert abs(float(shown["loss"]) - (rmse / fastdl.load("r/model.fastdl").scaling.y_scale[0]) ** 2) < 1e-3


def test_binary_and_multilabel_predictions(run, write):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 2))
    lines = [f"{a},{b},{'yes' if a > 0 else 'no'},{int(a > 0)},{int(b > 0)}" for a, b in X]
    path = write("a.csv", "\n".join(["a,b,word,up,right", *lines]))
    fast = ["--hidden", "16", "--epochs", "30", "--lr", "0.01", "--threads", "1"]
    assert "binary" in run("train", path, "--target", "word", "--ignore", "up,right", *fast, "--out", "one").err
    predicted = rows(run("predict", "one", path).out)
    assert list(predicted[0]) == ["prediction", "p_yes"]
    assert np.mean([(row["prediction"] == "yes") == (a > 0) for row, (a, _) in zip(predicted, X, strict=True)]) > 0.95
    assert all((row["prediction"] == "yes") == (float(row["p_yes"]) > 0.5) for row in predicted)

    assert "multilabel" in run("train", path, "--target", "up,right", "--ignore", "word", *fast, "--out", "two").err
    predicted = rows(run("predict", "two", path).out)
    assert list(predicted[0]) == ["prediction_up", "p_up", "prediction_right", "p_right"]
    assert np.mean([int(row["prediction_right"]) == (b > 0) for row, (_, b) in zip(predicted, X, strict=True)]) > 0.95
    assert "accuracy" in run("evaluate", "two", path).out


def test_predictions_are_those_of_the_model(run):
    run("train", "digits", *FAST, "--out", "r")
    predicted = rows(run("predict", "r", "digits").out)
    model, (X, _) = fastdl.load("r/model.fastdl"), fastdl.load_digits()
    np.testing.assert_array_equal([int(row["prediction"]) for row in predicted], model.predict(X))
    table = np.array([[float(row[f"p_{c}"]) for c in range(10)] for row in predicted], np.float32)
    np.testing.assert_array_equal(table, model.predict_proba(X))


def test_a_model_made_in_python_can_be_used(run, tmp_path):
    """Without any metadata: classes are numbers, and inspect says what it does not know."""
    fastdl.MLP([64, 4, 10]).save("plain.fastdl")
    assert {int(row["prediction"]) for row in rows(run("predict", "plain.fastdl", "digits").out)} <= set(range(10))
    assert "accuracy" in run("evaluate", "plain.fastdl", "digits").out
    shown = run("inspect", "plain.fastdl").out
    assert "trained  not stated" in shown
    assert "64 × 4" in shown


# Interruption


class Interrupt(progress.Progress):
    """Ctrl-C at the end of an epoch."""

    at = 2

    def on_epoch_end(self, result):
        super().on_epoch_end(result)
        if result.epoch == self.at:
            raise KeyboardInterrupt


def test_interrupted_training_keeps_what_was_learned(run, monkeypatch):
    monkeypatch.setattr(commands, "Progress", Interrupt)
    result = run("train", "digits", "--hidden", "8", "--epochs", 50, "--threads", 1, "--out", "r")
    assert result.code == 130
    assert "interrupted" in result.err
    assert len(rows(Path("r/history.csv").read_text())) == 2
    assert fastdl.load("r/model.fastdl").metadata["training"]["interrupted"]
    assert "2 of 50 epochs (interrupted)" in run("inspect", "r").out
    assert sorted(p.name for p in Path("r").iterdir()) == sorted(runs.FILES)


def test_interrupted_before_the_first_epoch_ends(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(progress.Progress, "on_train_begin", interrupt)
    result = run("train", "digits", *FAST, "--out", "r")
    assert result.code == 130
    assert Path("r/history.csv").read_text() == "epoch,loss,seconds\n"
    assert fastdl.load("r/model.fastdl").n_parameters > 0
    assert not Path("r/curves.svg").exists()


def test_interrupted_elsewhere(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "load", interrupt)
    assert run("inspect", "x").code == 130


# Processes


def test_ctrl_c_in_a_process(tmp_path):
    process = start(
        "train", "digits", "--hidden", "8", "--epochs", 1000000, "--threads", 1, "--out", "r", folder=tmp_path
    )
    try:
        for line in process.stderr:
            if line.startswith("epoch"):
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert len(rows((tmp_path / "r/history.csv").read_text())) >= 1
    assert fastdl.load(tmp_path / "r/model.fastdl").predict(fastdl.load_digits()[0]).shape == (1797,)


def test_exit_codes_and_streams_of_a_process(tmp_path):
    process = start("train", "digits", *FAST, folder=tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith("validation  accuracy")
    assert "epoch 2/2" in err
    assert "\x1b" not in out + err  # no terminal, no colours
    process = start("evaluate", "nothing", "digits", folder=tmp_path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("fastdl: nothing: ")


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    fastdl.MLP([64, 10]).save(tmp_path / "m.fastdl")
    process = start("predict", "m.fastdl", "digits", folder=tmp_path)
    assert process.stdout.readline().startswith("prediction,p_0")
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0


def test_help_does_not_wait_for_numba(tmp_path):
    code = (
        "import sys; from fastdl import cli; cli.main(['train', '--help']); "
        "sys.exit(str([m for m in ('numba', 'numpy', 'polars', 'matplotlib') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    assert "--categorical" in done.stdout
