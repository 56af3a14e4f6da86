"""The options of `fastdl train` beyond the usual ones: what they do, and what a run's config.json says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fastdl
from fastdl import cli


@pytest.fixture
def train(capsys, monkeypatch, tmp_path):
    """Train on the digits with some options; gives (the record in config.json, what was printed)."""
    monkeypatch.chdir(tmp_path)

    def run(*options, hidden="8,6", epochs=2):
        line = ["train", "digits", "--recipe", "plain", "--hidden", hidden, "--epochs", epochs, "--threads", 1]
        line += ["--out", "r", "--force"]
        code = cli.main([str(word) for word in (*line, *options)])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return json.loads(Path("r/config.json").read_text())["training"], printed

    return run


def test_every_option_is_recorded(train):
    training, printed = train(
        "--optimizer", "adamw", "--weight-decay", 0.05, "--schedule", "cosine", "--warmup", 10, "--clip-norm", 1.5,
        "--dropout", "0.1,0.2", "--early-stopping", 7,
    )  # fmt: skip
    assert training["optimizer"] == {**fastdl.AdamW(weight_decay=0.05).hyperparameters(), "name": "adamw"}
    assert training["schedule"] == fastdl.schedules.Warmup(10, fastdl.schedules.Cosine()).describe()
    assert (training["clip_norm"], training["dropout"]) == (1.5, [0.1, 0.2])
    assert training["early_stopping"] == {
        "patience": 7, "monitor": "val_loss", "min_delta": 0.0, "mode": "auto", "restore_best": True,
    }  # fmt: skip
    assert training["best_epoch"] == 2
    for words in ("cosine schedule", "warm-up of 10 steps", "clipped at 1.5", "dropout 0.1, 0.2", "after 7 epochs"):
        assert words in printed.err
    assert "parameters of epoch 2, the best one" in printed.err


def test_the_usual_training_has_none_of_it(train):
    training, printed = train()
    assert (training["clip_norm"], training["dropout"], training["early_stopping"], training["best_epoch"]) == (
        None, [], None, None,
    )  # fmt: skip
    assert training["schedule"] == {"name": "constant"}
    assert "schedule" not in printed.err


def test_nesterov_and_its_name_in_inspect(train, capsys):
    training, _ = train("--optimizer", "momentum", "--nesterov", "--schedule", "step:20,0.5")
    assert training["optimizer"] == {"name": "momentum", "lr": 0.1, "beta": 0.9, "nesterov": True}
    assert training["schedule"] == {"name": "step", "every": 20, "factor": 0.5}
    assert cli.main(["inspect", "r"]) == 0
    assert "momentum, lr 0.1, beta 0.9, nesterov," in capsys.readouterr().out
    train("--optimizer", "momentum")
    assert cli.main(["inspect", "r"]) == 0
    assert "nesterov" not in capsys.readouterr().out


def test_options_change_the_training(train):
    """Each of them ends in other parameters than none."""
    train()
    plain, before = Path("r/model.fastdl").read_bytes(), fastdl.load("r/model.fastdl").parameters.copy()
    for options in (("--schedule", "exponential:9,0.5"), ("--warmup", 5), ("--clip-norm", 0.1), ("--dropout", 0.3)):
        train(*options)
        assert (fastdl.load("r/model.fastdl").parameters != before).any(), options
    train()
    assert Path("r/model.fastdl").read_bytes() == plain


def test_early_stopping_ends_the_training_and_keeps_the_best(train):
    training, printed = train("--early-stopping", 1, "--optimizer", "sgd", "--lr", 0.9, epochs=200)
    assert training["epochs_done"] < 200
    assert training["best_epoch"] == training["epochs_done"] - 1
    assert f"parameters of epoch {training['best_epoch']}" in printed.err
    history = Path("r/history.csv").read_text().splitlines()
    assert len(history) == 1 + training["epochs_done"]


def test_explain(train):
    _, printed = train("--explain")
    for words in ("threads  1: as asked", "tiles", "GFLOP/s", "forward"):
        assert words in printed.err
