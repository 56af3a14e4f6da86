"""Ensembles and folds: means of models in one file, out-of-fold metrics, temperatures and intervals."""

from __future__ import annotations

import csv
import io
import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.base import clone

import fastdl
from fastdl import InputError, TabularClassifier, TabularRegressor
from fastdl.tables import split

QUICK = {"hidden": (8,), "epochs": 3, "threads": 1}
PLAIN = {**QUICK, "recipe": "plain"}
FAST = ["--hidden", "8", "--epochs", "3", "--threads", "1"]


def frame_of(n=120, seed=0):
    rng = np.random.default_rng(seed)
    x, kind = rng.standard_normal(n), rng.choice(["a", "b", "c"], n)
    y = 3 * x + (kind == "a") + 0.3 * rng.standard_normal(n)
    return pl.DataFrame({"x": x, "kind": kind, "who": rng.integers(0, 12, n)}), y


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# --- the class ---


def some_models(output, n_out, loss=None, count=3):
    models = [fastdl.MLP([4, 5, n_out], output=output, seed=s, loss=loss) for s in range(count)]
    X, y = np.random.default_rng(1).normal(2, 3, (50, 4)), np.random.default_rng(2).normal(100, 9, 50)
    for i, model in enumerate(models):
        scaled = y[i * 10 :] if output == "linear" and loss is None else None
        model.standardize(X[i * 10 :], scaled)
    return models, X


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_mean_of_probabilities(temperature):
    models, X = some_models("softmax", 3)
    ensemble = fastdl.Ensemble(models, temperature)
    wanted = np.mean([softmax(m.forward(X).astype(float) / temperature) for m in models], axis=0)
    np.testing.assert_allclose(ensemble.predict_proba(X), wanted, rtol=1e-5)
    np.testing.assert_array_equal(ensemble.predict(X), wanted.argmax(axis=1))
    models, X = some_models("sigmoid", 2)
    ensemble = fastdl.Ensemble(models, temperature)
    wanted = np.mean([1 / (1 + np.exp(-m.forward(X).astype(float) / temperature)) for m in models], axis=0)
    np.testing.assert_allclose(ensemble.predict_proba(X), wanted, rtol=1e-5)
    np.testing.assert_array_equal(ensemble.predict(X), wanted > 0.5)


@pytest.mark.parametrize("loss", [None, "poisson"])
def test_the_mean_of_numbers(loss):
    """In the units of the targets, whatever each member was standardised with."""
    models, X = some_models("linear", 1, loss)
    ensemble = fastdl.Ensemble(models)
    wanted = np.mean([m.predict(X) for m in models], axis=0)
    np.testing.assert_allclose(ensemble.predict(X), wanted, rtol=1e-6)
    np.testing.assert_allclose(ensemble.head.decode(ensemble.forward(X)), wanted, rtol=1e-5)
    with pytest.raises(InputError, match="predict_proba: expected"):
        ensemble.predict_proba(X)


def test_probabilities_of_nearly_nothing_stay_finite():
    models, X = some_models("softmax", 3)
    for model in models:
        model.parameters[:] *= 1e4
    raw = fastdl.Ensemble(models).forward(X)
    assert np.isfinite(raw).all()


def test_one_file_for_all(tmp_path):
    models, X = some_models("softmax", 3)
    for model in models:
        model.classes = ["u", "v", "w"]
    ensemble = fastdl.Ensemble(models, 1.7)
    ensemble.metadata["note"] = "mine"
    ensemble.save(tmp_path / "a.fastdl")
    loaded = fastdl.load(tmp_path / "a.fastdl")
    assert isinstance(loaded, fastdl.Ensemble)
    assert (loaded.temperature, loaded.metadata, loaded.classes) == (1.7, {"note": "mine"}, ["u", "v", "w"])
    np.testing.assert_array_equal(loaded.predict_proba(X), ensemble.predict_proba(X))
    loaded.save(tmp_path / "b.fastdl")
    assert (tmp_path / "a.fastdl").read_bytes() == (tmp_path / "b.fastdl").read_bytes()
    loaded.members[1].parameters[0] += 1
    assert not np.array_equal(loaded.predict_proba(X), ensemble.predict_proba(X))


def test_members_that_do_not_fit_together():
    models, _ = some_models("softmax", 3)
    with pytest.raises(InputError, match=r"members: expected at least one"):
        fastdl.Ensemble([])
    with pytest.raises(InputError, match=r"members\[1\]: expected output softmax"):
        fastdl.Ensemble([models[0], fastdl.MLP([4, 3], output="sigmoid")])
    with pytest.raises(InputError, match=r"members\[1\]: expected 3 outputs, got 2"):
        fastdl.Ensemble([models[0], fastdl.MLP([4, 2])])
    with pytest.raises(InputError, match="temperature: expected"):
        fastdl.Ensemble(models, 0)


# --- the estimators ---


def test_an_ensemble_is_the_mean_of_trainings_with_other_seeds():
    frame, y = frame_of()
    alone = [TabularRegressor(seed=s, **PLAIN).fit(frame, y).predict(frame) for s in (5, 6, 7)]
    model = TabularRegressor(seed=5, ensemble=3, **PLAIN).fit(frame, y)
    np.testing.assert_allclose(model.predict(frame), np.mean(alone, axis=0), rtol=1e-6)
    assert len(model.model_.members) == 3
    assert len(model.history_) == 3
    assert not hasattr(model, "out_of_fold_")


@pytest.mark.parametrize("size", [1, 2])
def test_out_of_fold_predictions_are_of_models_that_have_not_seen_the_row(size):
    """Each fold trained by hand on the other rows."""
    frame, y = frame_of()
    model = TabularRegressor(cross_validation=4, ensemble=size, **PLAIN).fit(frame, y)
    wanted = np.empty(len(y))
    for train, held_out in split.folds(len(y), 4, 0):
        single = TabularRegressor(ensemble=size, **PLAIN).fit(frame[train], y[train])
        wanted[held_out] = single.predict(frame[held_out])
    np.testing.assert_allclose(model.out_of_fold_, wanted, rtol=1e-4, atol=1e-5)
    found = model.cross_validation_
    assert found["metrics"]["rmse"] == pytest.approx(np.sqrt(np.mean((model.out_of_fold_ - y) ** 2)), rel=1e-6)
    each = [np.sqrt(np.mean((wanted[h] - y[h]) ** 2)) for _, h in split.folds(len(y), 4, 0)]
    assert found["spread"]["rmse"] == pytest.approx(np.std(each, ddof=1), rel=1e-3)
    assert len(model.model_.members) == 4 * size
    saved = model.predict(frame)
    np.testing.assert_allclose(saved, np.mean([m.predict(frame) for m in model.model_.members], axis=0), rtol=1e-6)


def test_classes_of_folds():
    frame, y = frame_of(150)
    labels = np.where(y > 1, "high", "low").astype(object)
    labels[7] = None
    model = TabularClassifier(cross_validation=5, **QUICK).fit(frame, labels)
    assert model.classes_.tolist() == ["high", "low"]
    chances = model.out_of_fold_
    assert np.isnan(chances[7]).all()
    known = np.arange(150) != 7
    np.testing.assert_allclose(chances[known].sum(axis=1), 1, rtol=1e-6)
    right = (model.classes_[chances[known].argmax(axis=1)] == labels[known]).mean()
    assert model.cross_validation_["metrics"]["accuracy"] == pytest.approx(right)
    truth = (labels[known] == "low").astype(int)
    log_loss = -np.log(chances[known][np.arange(149), truth]).mean()
    assert model.cross_validation_["metrics"]["log_loss"] == pytest.approx(log_loss, rel=1e-5)
    assert set(model.predict(frame)) == {"high", "low"}
    model.cross_validation = None
    model.fit(frame, labels)
    assert not hasattr(model, "out_of_fold_")


def test_fitted_estimators_are_copied_and_kept(tmp_path):
    frame, y = frame_of()
    model = TabularRegressor(cross_validation=3, early_stopping=2, **QUICK).fit(frame, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(frame), model.predict(frame))
    np.testing.assert_array_equal(again.out_of_fold_, model.out_of_fold_)
    model.save(tmp_path / "a.fastdl")
    np.testing.assert_array_equal(fastdl.load(tmp_path / "a.fastdl").predict(frame), model.predict(frame))
    assert clone(model).cross_validation == 3


def test_folds_keep_groups_together():
    groups = np.random.default_rng(0).integers(0, 12, 200)
    pairs = split.folds_by_group(groups, 4, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([h for _, h in pairs])), np.arange(200))
    for train, held_out in pairs:
        assert not set(groups[train]) & set(groups[held_out])
        assert 30 <= len(held_out) <= 70
    with pytest.raises(InputError, match="--group: expected at least 13 groups"):
        split.folds_by_group(groups, 13, 0)
    frame, y = frame_of()
    model = TabularRegressor(cross_validation=3, group="who", **QUICK).fit(frame, y)
    assert np.isfinite(model.out_of_fold_).all()


@pytest.fixture
def second_fails(monkeypatch):
    """The training of the second model diverges."""
    original = fastdl.Trainer.fit_prepared

    def failing(self, *arguments):
        if self.model.seed == 1:
            raise fastdl.DivergedError("the loss became nan")
        return original(self, *arguments)

    monkeypatch.setattr(fastdl.Trainer, "fit_prepared", failing)


def test_a_training_that_fails_is_left_out(monkeypatch, second_fails):
    frame, y = frame_of()
    with pytest.warns(UserWarning, match="1 of 3 models are left out, as their training failed: the loss became nan"):
        model = TabularRegressor(ensemble=3, **QUICK).fit(frame, y)
    assert [m.seed for m in model.model_.members] == [0, 2]
    monkeypatch.setattr(fastdl.Trainer, "fit_prepared", lambda *a: (_ for _ in ()).throw(fastdl.DivergedError("all")))
    with pytest.raises(fastdl.DivergedError, match="all"):
        TabularRegressor(ensemble=3, **QUICK).fit(frame, y)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ensemble": 0}, "ensemble: expected the models to train"),
        ({"cross_validation": 1}, "cross_validation: expected the parts"),
        ({"cross_validation": 500}, "folds: expected from 2 to 120"),
        ({"cross_validation": 3, "validation": 0.2}, "cross_validation: expected it without validation"),
        ({"interval": 1.5}, "interval: expected a share"),
        ({"interval": 0.99}, "interval: expected at least 99 validation rows for a share of 0.99, got 24"),
    ],
)
def test_bad_settings(given, sentence):
    frame, y = frame_of()
    with pytest.raises(InputError, match=sentence):
        TabularRegressor(**given, **QUICK).fit(frame, y)


def test_folds_find_a_temperature_for_certain_models():
    """A large model that has learnt noise by heart is too certain; the temperature makes it less so."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    y = (X[:, 0] + 2 * rng.normal(size=200) > 0).astype(int)
    settings = {"recipe": "plain", "hidden": (64,), "epochs": 60, "l2": 0, "threads": 1}
    model = TabularClassifier(cross_validation=4, **settings).fit(X, y)
    assert model.model_.temperature > 1.5
    untempered = fastdl.Ensemble(model.model_.members)
    assert np.abs(untempered.predict_proba(X) - 0.5).mean() > np.abs(model.model_.predict_proba(X) - 0.5).mean()


@pytest.mark.parametrize("folds", [None, 4])
def test_a_regressors_intervals(folds):
    frame, y = frame_of(400)
    model = TabularRegressor(interval=0.8, cross_validation=folds, hidden=(16,), epochs=20, threads=1).fit(frame, y)
    told = model.model_.metadata["interval"]
    assert told["rows"] == (400 if folds else 80)
    fresh, truth = frame_of(2000, seed=1)
    low, high = model.predict_interval(fresh)
    np.testing.assert_allclose((low + high) / 2, model.predict(fresh), rtol=1e-6)
    assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(0.8, abs=0.1)
    assert told["coverage"] == pytest.approx(0.8, abs=0.12)
    with pytest.raises(InputError, match="expected a fit with interval"):
        TabularRegressor(**QUICK).fit(frame, y).predict_interval(frame)


# --- the command line ---


@pytest.fixture
def table(write):
    frame, y = frame_of()
    return write("a.csv", frame.with_columns(pl.Series("y", y), pl.Series("tall", y > 1)).write_csv())


def test_train_folds_and_use_the_file(run, table):
    code, out, err = run(
        "train", table, "--target", "y", "--ignore", "tall", "--folds", 4, "--interval", 0.8, *FAST, "--out", "r"
    )
    assert code == 0, err
    assert "4 folds: 4 models" in err
    assert "(4-fold cross-validation, ± over the folds)" in out
    assert "RMSE" in out
    assert " ± " in out
    assert "of the other" in out
    config = json.loads(Path("r/config.json").read_text())
    assert config["training"]["models"] == 4
    assert set(config["training"]["spread"]) == {"rmse", "mae", "r2"}
    model = fastdl.load("r")
    assert len(model.members) == 4
    frame = pl.read_csv(table)
    found = rows(run("predict", "r", table)[1])
    np.testing.assert_allclose([float(r["prediction"]) for r in found], model.predict(frame), rtol=1e-6)
    width = model.metadata["interval"]["half_width"][0]
    np.testing.assert_allclose([float(r["prediction_high"]) - float(r["prediction_low"]) for r in found], 2 * width)
    shown = run("evaluate", "r", table)
    assert shown.code == 0, shown.err
    assert "of the intervals for 80 % hold the truth" in shown.out
    error = np.sqrt(np.mean((model.predict(frame) - frame["y"].to_numpy()) ** 2))
    assert f"RMSE      {error:.4f}"[:14] in shown.out
    shown = run("inspect", "r")
    assert "4 models, the mean of their numbers" in shown.out
    assert "for 80 % of rows" in shown.out
    assert "(120 rows)" in shown.out


def test_train_an_ensemble_of_classes(run, table):
    code, _, err = run("train", table, "--target", "tall", "--ignore", "y", "--ensemble", 3, *FAST, "--out", "r")
    assert code == 0, err
    assert "an ensemble of 3: 3 models" in err
    assert "96 to train, 24 to validate" in err
    found = rows(run("predict", "r", table)[1])
    chances = fastdl.load("r").predict_proba(pl.read_csv(table))[:, 0]
    np.testing.assert_allclose([float(r["p_True"]) for r in found], chances, rtol=1e-5)
    assert run("evaluate", "r", table).code == 0
    assert "3 models, the mean of their probabilities" in run("inspect", "r").out


def test_folds_of_arrays(run, tmp_path):
    X = np.random.default_rng(0).normal(size=(90, 3))
    np.savez(tmp_path / "a.npz", X=X, y=(X[:, 0] > 0).astype(int))
    code, _, err = run("train", "a.npz", "--folds", 3, "--ensemble", 2, *FAST, "--out", "r")
    assert code == 0, err
    assert "3 folds of 2 models each: 6 models" in err
    assert run("evaluate", "r", "a.npz").code == 0
    assert len(rows(run("predict", "r", "a.npz").out)) == 90


def test_an_interval_of_a_single_model(run, table):
    code, out, err = run("train", table, "--target", "y", "--interval", 0.9, *FAST, "--out", "r")
    assert code == 0, err
    assert "for 90 % of rows, from 24 rows" in out
    assert "prediction_low" in run("predict", "r", table).out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--folds", "1"], "--folds: expected the parts"),
        (["--folds", "400"], "--folds: expected from 2 to 120"),
        (["--ensemble", "0"], "--ensemble: expected the models"),
        (["--folds", "3", "--validation", "0.2"], "--validation: expected --folds"),
        (["--folds", "3", "--time", "x"], "--time: expected --folds"),
        (["--interval", "2"], "--interval: expected a share"),
        (["--interval", "0.99"], "--interval: expected at least 99 validation rows"),
        (["--interval", "0.9", "--task", "multiclass", "--target", "kind"], "--interval: expected a regression"),
    ],
)
def test_options_that_cannot_be(run, table, options, sentence):
    target = [] if "--target" in options else ["--target", "y"]
    code, _, err = run("train", table, *target, *options, *FAST)
    assert code == 2, err
    assert sentence in err


def test_a_model_that_fails_is_a_note(run, table, second_fails):
    code, _, err = run("train", table, "--target", "y", "--ensemble", 3, *FAST, "--out", "r")
    assert code == 0, err
    assert "note: 1 of 3 models are left out, as their training failed: the loss became nan" in err


def test_small_ensembles_are_validated(run, write):
    frame, y = frame_of(40)
    path = write("b.csv", frame.with_columns(pl.Series("y", y)).write_csv())
    code, out, err = run("train", path, "--target", "y", "--ensemble", 2, *FAST, "--early-stopping", 2)
    assert code == 0, err
    assert "32 to train, 8 to validate" in err
    assert "validation  RMSE" in out


def test_control_c_saves_the_ensemble(run, table, monkeypatch):
    from fastdl.training import pool

    original = pool.Pool.run

    def interrupted(self):
        original(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(pool.Pool, "run", interrupted)
    code, _, err = run("train", table, "--target", "y", "--folds", 3, *FAST, "--out", "r")
    assert code == 130
    assert "interrupted: saving what was learned so far" in err
    assert len(fastdl.load("r").members) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run("inspect", "r").code == 0


def test_an_ensemble_is_not_exported(run, tmp_path, monkeypatch):
    """One sentence instead of a file of one member only."""
    monkeypatch.chdir(tmp_path)
    fastdl.Ensemble(some_models("softmax", 3)[0]).save("e.fastdl")
    code, _, err = run("export", "e.fastdl", "e.py")
    assert code == 1
    assert "expected one model to export, got an ensemble of 3" in err
    assert not Path("e.py").exists()
