"""Pages of all kinds of trainings: of the default recipe, of several models, of cross-validations, of resumed runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from paging import FAST, people, read

import fastdl
from fastdl.cli import commands, progress
from fastdl.report import answers, data
from fastdl.training.ensembles import Members

SHORT = ["--epochs", "2", "--threads", "1"]


def kept_of(folder="r"):
    """What the page of a run shows, as plain values."""
    return json.loads(Path(folder, "report.json").read_text())


def words_of(folder="r"):
    """The text of the page of a run."""
    return "".join(read(Path(folder, "report.html"))[1].text)


def table(name="tall", rows=300):
    frame = people(rows).drop("weight" if name == "tall" else "tall")
    frame.write_csv("people.csv")
    return frame


def test_a_run_of_the_default_recipe(run):
    """Some inputs are embedded, so the first layer has more of them than there are features."""
    frame = table(rows=1300)
    result = run("train", "people.csv", "--target", "tall", *SHORT, "--health", "--out", "r")
    assert (result.code, "not made" in result.err) == (0, False), result.err
    model, kept = fastdl.load("r"), kept_of()
    assert len(model.weights[0]) > model.layers[0]
    assert kept["importance"]["columns"][0]["name"] == "height"
    assert [layer["name"].split(" (")[0] for layer in kept["health"]["layers"]] == [
        "hidden 1", "hidden 2", "hidden 3", "output",
    ]  # fmt: skip
    assert {"health-gradient_norm", "health-update_ratio", "rate"} <= set(read("r/report.html")[2])
    # The confusion matrix is that of the calibrated model as it was written.
    counts = np.array(kept["classes"]["confusion"]["counts"])
    accuracy = json.loads(Path("r/config.json").read_text())["result"]["validation"]["accuracy"]
    assert counts.trace() / counts.sum() == pytest.approx(accuracy)
    for mistake in kept["classes"]["mistakes"]:
        row = frame[mistake["row"] - 1]
        chance = float(model.predict_proba(row.drop("tall"))[0, 0])
        assert mistake["chance"] == pytest.approx(max(chance, 1 - chance), rel=1e-4)


@pytest.mark.parametrize("embedding", [None, fastdl.PBLD(columns=[4, 1]), fastdl.PBLD()])
@pytest.mark.parametrize("scaled", [False, True])
def test_weights_that_an_input_meets(embedding, scaled, rng):
    model = fastdl.MLP([5, 7, 2], embedding=embedding, scale_inputs=scaled)
    columns = [] if embedding is None else list(range(5)) if embedding.columns is None else [4, 1]
    if scaled:
        model.input_stage.scale[:] = rng.normal(size=model.input_stage.scale.shape)
    met = [i for i in columns for _ in range(embedding.size)] + [i for i in range(5) if i not in columns]
    expected = np.zeros(5)
    for k, i in enumerate(met):
        scale = abs(model.input_stage.scale[k]) if scaled else 1
        expected[i] += np.abs(model.weights[0][k]).sum() * scale
    np.testing.assert_allclose(answers.input_sizes(model), expected, rtol=1e-5)


def test_an_ensemble(run):
    frame = table("weight")
    result = run("train", "people.csv", "--target", "weight", *FAST, "--ensemble", 3, "--interval", 0.8, "--out", "r")
    assert (result.code, "not made" in result.err) == (0, False), result.err
    assert "report.html, report.json" in result.out
    ensemble, kept = fastdl.load("r"), kept_of()
    worst = kept["numbers"][0]["largest"][0]
    row = frame[worst["row"] - 1]
    assert worst["actual"] == pytest.approx(row["weight"][0], rel=1e-5)
    assert worst["predicted"] == pytest.approx(float(ensemble.predict(row.drop("weight"))[0]), rel=1e-4)
    assert kept["rows"] == {"of": "validation", "count": 60, "all": 60}
    assert kept["importance"]["columns"][0]["name"] == "height"
    shown = words_of()
    assert "Curves are means over the 3 models" in shown
    assert "3 models: network" in shown
    assert "--ensemble 3" in shown
    assert "3 models, temperature 1" in ensemble._repr_html_()


@pytest.mark.parametrize("name", ["tall", "weight"])
def test_a_cross_validation(run, monkeypatch, name):
    found = []
    of_fold = Members.out_of_fold

    def remembered(self):
        found.append(of_fold(self))
        return found[-1]

    monkeypatch.setattr(Members, "out_of_fold", remembered)
    frame = table(name)
    result = run("train", "people.csv", "--target", name, *FAST, "--folds", 3, "--out", "r")
    assert (result.code, "not made" in result.err) == (0, False), result.err
    kept, shown = kept_of(), words_of()
    assert kept["rows"] == {"of": "held-out", "count": 300, "all": 300}
    assert "On 300 held-out rows." in shown
    assert "Measured by 3-fold cross-validation: each row by the models that have not learnt from it; over the" in shown
    assert "They are those of one fold" in shown
    result = json.loads(Path("r/config.json").read_text())["result"]["validation"]
    if name == "tall":
        counts = np.array(kept["classes"]["confusion"]["counts"])
        assert counts.sum() == 300
        assert counts.trace() / 300 == pytest.approx(result["accuracy"])
        entries = kept["classes"]["mistakes"]
    else:
        entries = kept["numbers"][0]["largest"]
        (out,) = found
        place = list(out.rows).index(entries[0]["row"] - 1)
        assert entries[0]["predicted"] == pytest.approx(out.averaged[place, 0], rel=1e-5)
    for entry in entries:
        cells = dict(entry["cells"])
        assert cells["town"] == frame["town"][entry["row"] - 1]


def test_few_rows_are_shown_as_they_were_held_out(run):
    """All of them are learnt from, and a cross-validation says what the model is worth: the page shows what that found."""
    table(rows=30)
    assert run("train", "people.csv", "--target", "tall", *FAST, "--out", "r").code == 0
    kept, shown = kept_of(), words_of()
    assert kept["rows"] == {"of": "held-out", "count": 30, "all": 30}
    assert np.sum(kept["classes"]["confusion"]["counts"]) == 30
    assert "the model has learnt from all rows" in shown
    assert "which the model has seen" not in shown


def test_a_resumed_run(run, monkeypatch):
    """Its page has the epochs of before, and the command of the whole training."""

    class Interrupt(progress.Progress):
        def on_epoch_end(self, result):
            super().on_epoch_end(result)
            if result.epoch == 2:
                raise KeyboardInterrupt

    table()
    options = ["people.csv", "--target", "tall", "--hidden", "8", "--threads", "1", "--epochs", "4", "--out", "r"]
    with monkeypatch.context() as patched:
        patched.setattr(commands, "Progress", Interrupt)
        assert run("train", *options, "--health").code == 130
    assert "The training was interrupted" in words_of()
    assert kept_of()["history"]["epoch"] == [1, 2]
    result = run("resume", "r")
    assert (result.code, "not made" in result.err) == (0, False), result.err
    kept = kept_of()
    assert kept["history"]["epoch"] == [1, 2, 3, 4]
    assert kept["health"]["epochs"][-1] == 4
    assert "The training was interrupted" not in words_of()
    assert (
        "fastdl train people.csv --target tall --no-mapped --hidden 8 --epochs 4 --threads 1 --health --out r"
        in words_of()
    )
    assert kept["rate"]["step"][-1] == 4 * -(
        -240 // json.loads(Path("r/config.json").read_text())["training"]["batch_size"]
    )
    assert run("resume", "r", "--epochs", 6).code == 0
    assert kept_of()["rate"] == {}  # the first epochs had another schedule
    assert "--epochs 6" in words_of()


def test_how_it_runs_on_this_machine(run):
    assert run("train", "digits", *FAST, "--explain", "--out", "r").code == 0
    assert [name for name, _ in kept_of()["machine"]] == ["threads", "tiles", "step", "time"]
    assert "How it runs on this machine" in words_of()
    assert "columns of float32" in words_of()


def test_slow_models_are_asked_about_fewer_rows(monkeypatch):
    """With a clock of our own, by which a row takes 0.2 ms: in 2 s there is time for 10,000."""
    now = [0.0]

    class Slow(fastdl.MLP):
        def forward(self, X):
            now[0] += len(X) * 2e-4
            return super().forward(X)

    monkeypatch.setattr(data.time, "perf_counter", lambda: now[0])
    model, X = Slow([2, 3]), np.zeros((50_000, 2), np.float32)
    assert data._most_rows(model, X, 50_000) == pytest.approx(10_000, abs=1)
    assert data._most_rows(model, X, 1999) == 1999
    monkeypatch.setattr(data, "SECONDS", 0.0)
    assert data._most_rows(model, X, 50_000) == data.FEWEST_ROWS


def test_a_tuned_run_repeats_its_training(run):
    table()
    result = run("tune", "people.csv", "--target", "tall", *SHORT, "--trials", 2, "--out", "r")
    assert (result.code, "not made" in result.err) == (0, False), result.err
    command = kept_of()["command"]
    assert command.startswith("fastdl train people.csv --target tall ")
    assert "--hidden" in command
    assert "--set blend_linear=true" in command  # which layers that are named would leave out
    assert "trials" not in command


@pytest.mark.parametrize("option", ["--health", "--watch"])
@pytest.mark.parametrize("several", [("--folds", 3), ("--ensemble", 2)])
def test_one_training_is_watched(run, option, several):
    result = run("train", "digits", option, *several)
    assert result.code == 2
    assert f"{option}: expected a training of one model" in result.err


def test_an_ensemble_is_inspected_as_a_page(run):
    table()
    assert run("train", "people.csv", "--target", "tall", *FAST, "--ensemble", 2, "--no-report", "--out", "r").code == 0
    assert run("inspect", "r", "--html", "model.html").code == 0
    text = Path("model.html").read_text(encoding="utf-8")
    assert "2 models, the mean of their probabilities" in text
    assert "height" in text
