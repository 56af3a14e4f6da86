"""The search: which candidates there are, who goes on, and that validation rows take no part."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

import fastdl
from fastdl.tables import data
from fastdl.training import tuning
from fastdl.training.fitting import Blueprint
from fastdl.training.tuning import Candidate, Search, draw, rounds_of

FAST = ["--threads", "1", "--epochs", "9"]


def table(n=150):
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, n))
    lines = "".join(f"{a:.4f},{b:.4f},{i % 10},{3 * a + b * b:.4f}\n" for i, (a, b) in enumerate(zip(x, z)))
    return "x,z,who,y\n" + lines


def test_candidates():
    first = Candidate((256, 128), 1e-3, 0.0)
    found = draw(first, 200, 7)
    assert found[0] is first
    assert found == draw(first, 200, 7)
    assert found != draw(first, 200, 8)
    rates = np.log([c.lr for c in found[1:]])
    assert np.log(1e-4) <= rates.min() < np.log(2e-4)
    assert np.log(5e-3) < rates.max() <= np.log(1e-2)
    assert {len(c.hidden) for c in found} == {1, 2, 3, 4}
    assert {c.dropout for c in found} == {0.0, 0.1, 0.2, 0.3}
    assert all(32 <= size <= 512 for c in found for size in c.hidden)


def test_rounds():
    assert rounds_of(40) == [5, 14, 40]
    assert rounds_of(9) == [1, 3, 9]
    assert rounds_of(2) == [1, 2]
    assert rounds_of(1) == [1]


@pytest.fixture
def loaded(write):
    path = write("a.csv", table())
    options = data.Options(target="y", ignore="who", keeps_table=True)
    return data.load_training([path], options), options


def trainer_of(model, rows, candidate):
    return fastdl.Trainer(model, fastdl.Adam(candidate.lr), min(32, rows), dropout=candidate.dropout, n_threads=1)


def test_the_better_third_goes_on(loaded):
    """Each trial as if it had been trained alone, for as many epochs as its rank allows."""
    whole, options = loaded
    part = tuning.with_rows_to_choose_by(whole, options)
    candidates = [Candidate((8,), lr, 0.0) for lr in (1e-5, 1e-2, 1e-4, 3e-2, 1e-3, 3e-3, 1e-6)]
    recipe = Blueprint([8], "relu", 0, "float32")
    found = Search(part, recipe, trainer_of, candidates, 9).run()
    assert sorted(t.epochs for t in found) == [1, 1, 1, 1, 3, 3, 9]
    assert sorted(t.number for t in found) == list(range(1, 8))
    losses = {}
    for number, candidate in enumerate(candidates, 1):
        trainer = trainer_of(recipe.model(part), len(part.train), candidate)
        trainer.epochs = 9
        trainer.fit(*part.training_pair(), validation_data=part.validation_pair())
        losses[number] = trainer.history.val_loss
    order = sorted(losses, key=lambda n: losses[n][0])
    assert {t.number for t in found[:3]} == set(order[:3])
    second = sorted(order[:3], key=lambda n: losses[n][2])
    assert found[0].number == second[0]
    for trial in found:
        assert trial.loss == losses[trial.number][trial.epochs - 1]
        assert set(trial.metrics) == {"rmse", "r2"}


def test_a_trial_that_fails_comes_last(loaded):
    whole, options = loaded
    part = tuning.with_rows_to_choose_by(whole, options)

    def diverging(model, rows, candidate):
        return fastdl.Trainer(model, fastdl.SGD(candidate.lr), min(32, rows), n_threads=1)

    candidates = [Candidate((8,), lr, 0.0) for lr in (1e30, 1e-2)]
    found = Search(part, Blueprint([8], "relu", 0, "float32"), diverging, candidates, 4).run()
    assert [t.number for t in found] == [2, 1]
    assert "became" in found[1].error
    with pytest.raises(fastdl.InputError, match="tune: expected a trial that trains, got 1 that failed"):
        Search(part, Blueprint([8], "relu", 0, "float32"), diverging, candidates[:1], 4).run()


@pytest.mark.parametrize("group", [None, "who"])
def test_validation_rows_take_no_part(write, group):
    path = write("a.csv", table())
    options = data.Options(target="y", ignore="" if group else "who", group=group, keeps_table=True)
    whole = data.load_training([path], options)
    part = tuning.with_rows_to_choose_by(whole, options)
    sets = [set(part.train), set(part.validation), set(whole.validation)]
    assert set.union(*sets) == set(range(150))
    assert sum(map(len, sets)) == 150
    assert len(sets[1]) >= 20
    if group:
        who = np.arange(150) % 10
        assert not {who[i] for i in sets[0]} & {who[i] for i in sets[1]}


def test_tune_from_the_command_line(run, write):
    path = write("a.csv", table())
    code, out, err = run(
        "tune", path, "--target", "y", "--trials", 9, "--hidden", "8", *FAST, "--out", "r", "--interval", 0.8
    )
    assert code == 0, err
    assert "9 trials on 96 rows, compared on 24 others" in err
    assert "round 3 of 3: 1 of 1 trials trained" in err
    assert "120 to train, 30 to validate" in err
    assert "for 80 % of rows" in out
    trials = list(csv.DictReader(io.StringIO(Path("r/trials.csv").read_text())))
    assert len(trials) == 9
    assert sorted(int(t["trial"]) for t in trials) == list(range(1, 10))
    assert next(t for t in trials if t["trial"] == "1")["hidden"] == "8"
    best = trials[0]
    assert best["epochs"] == "9"
    model = fastdl.load("r")
    assert list(model.layers[1:-1]) == [int(n) for n in best["hidden"].split("-")]
    training = json.loads(Path("r/config.json").read_text())["training"]
    assert training["optimizer"]["lr"] == float(best["lr"])
    again = run("tune", path, "--target", "y", "--trials", 9, "--hidden", "8", *FAST, "--out", "s", "--interval", 0.8)
    assert again.code == 0
    assert "trials.csv" in again.out
    assert Path("r/model.fastdl").read_bytes() == Path("s/model.fastdl").read_bytes()
    assert run("train", path, "--target", "y", "--hidden", "8", *FAST, "--out", "s", "--force").code == 0
    assert not Path("s/trials.csv").exists()


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--trials", "0"], 2, "--trials: expected the settings to try"),
        (["--folds", "3"], 2, "--folds: expected fastdl train"),
        (["--time", "x"], 2, "--time: expected fastdl train"),
        (["--activation", "relu,tanh"], 2, "--activation: expected one name"),
        (["--validation", "0.8"], 1, "tune: expected at least 50 training rows"),
    ],
)
def test_what_a_search_cannot_use(run, write, options, code, sentence):
    found = run("tune", write("a.csv", table()), "--target", "y", *FAST, *options)
    assert found.code == code
    assert sentence in found.err
