"""Recipes: what they choose, what goes before them, and that both ways to ask for them train the same model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import fastdl
from fastdl import InputError, TabularClassifier, TabularRegressor, cli
from fastdl.calibration import best_temperature, careful, log_loss
from fastdl.training import fitting, recipes
from fastdl.training.recipes import Facts, resolve


def facts(**given):
    return Facts(**{"classes": True, "rows": 1000, "numbers": 3, "pixels": False, "validates": True, **given})


def frame_of(n=300, seed=0):
    rng = np.random.default_rng(seed)
    x, z = rng.standard_normal(n), np.exp(rng.standard_normal(n))
    kind = rng.choice(["a", "b", "c"], n)
    y = np.sin(3 * x) + np.log(z) + (kind == "a") + 0.1 * rng.standard_normal(n)
    return pl.DataFrame({"x": x, "z": z, "kind": kind}), y


# --- what is chosen ---


@pytest.mark.parametrize(("rows", "batch", "epochs"), [(30, 30, 48), (600, 32, 48), (1000, 64, 48), (3000, 256, 48),
                                                       (13_000, 256, 31), (43_000, 256, 22), (10**6, 256, 8)])  # fmt: skip
def test_batches_and_epochs_by_rows(rows, batch, epochs):
    found = resolve("auto", facts(rows=rows), {}, {})
    assert (found["batch_size"], found["epochs"]) == (batch, epochs)


def test_the_task_decides():
    classes, numbers = resolve("auto", facts(), {}, {}), resolve("auto", facts(classes=False), {}, {})
    assert (classes["activation"], classes["lr"], classes["loss"], classes["calibrate"]) == (
        "selu", 0.02, "cross_entropy:0.1", True,
    )  # fmt: skip
    assert (numbers["activation"], numbers["lr"], numbers["loss"], numbers["calibrate"]) == ("mish", 0.1, None, False)


@pytest.mark.parametrize("given", [{"pixels": True}, {"numbers": 0}, {"numbers": 101}])
def test_not_everything_is_embedded(given):
    found = resolve("auto", facts(**given), {}, {})
    assert found["embedding"] is None
    assert "embedding" not in found["group_rates"]
    assert resolve("auto", facts(), {}, {})["embedding"] == "pbld"


def test_few_rows_get_a_smaller_network():
    few, many = (resolve("auto", facts(rows=rows), {}, {}) for rows in (999, 1000))
    assert (few["hidden"], few["embedding"], few["group_rates"]) == (
        (128, 128, 128), None, {"biases": 0.1, "input_scale": 6.0},
    )  # fmt: skip
    assert (many["hidden"], many["embedding"]) == ((256, 256, 256), "pbld")
    assert (few["parametric"], many["parametric"]) == (False, True)
    assert resolve("realmlp", facts(rows=100), {}, {})["embedding"] == "pbld"
    assert resolve("auto", facts(rows=100), {}, {"embedding": "pbld"})["group_rates"]["embedding"] == 0.1


def test_without_validation_nothing_stops_early():
    found = resolve("auto", facts(validates=False), {}, {})
    assert (found["early_stopping"], found["calibrate"]) == (0, False)


def test_plain_is_a_plain_network():
    found = resolve("plain", facts(), {}, {})
    assert {name: found[name] for name in recipes.MORE} == recipes.MORE
    assert (found["hidden"], found["optimizer"], found["epochs"], found["early_stopping"]) == (
        (256, 128),
        "adam",
        40,
        0,
    )


# --- what goes before ---


def test_given_settings_go_before():
    found = resolve(
        "auto", facts(), {"epochs": 3, "lr": 0.5, "hidden": None}, {"embedding": None, "scale_inputs": False}
    )
    assert (found["epochs"], found["lr"], found["hidden"]) == (3, 0.5, (256, 256, 256))
    assert found["group_rates"] == {"biases": 0.1, "activations": 0.1}


def test_another_optimizer_comes_with_its_own_rate():
    found = resolve("auto", facts(), {"optimizer": "sgd"}, {})
    assert [found[name] for name in ("lr", "weight_decay", "beta2", "ntk", "group_rates", "init")] == [
        None, None, None, False, None, "auto",
    ]  # fmt: skip
    assert resolve("auto", facts(), {"optimizer": "sgd"}, {"ntk": True})["ntk"] is True
    assert resolve("auto", facts(), {"optimizer": "adamw"}, {})["lr"] == 0.02


def test_nothing_is_dropped_without_hidden_layers():
    assert resolve("auto", facts(), {"hidden": ()}, {})["dropout"] == 0.0


# --- two ways to ask ---


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_the_command_and_the_class_train_the_same_model(tmp_path, monkeypatch, recipe):
    monkeypatch.chdir(tmp_path)
    frame, y = frame_of()
    frame.with_columns(y=pl.Series(y)).write_csv("a.csv")
    embedding = None if recipe == "plain" else "pbld"
    line = ["train", "a.csv", "--target", "y", "--recipe", recipe, "--hidden", "16", "--epochs", "4"]
    line += ["--validation", "0.2", "--set", "clip=5", "--set", f"embedding={embedding or 'none'}"]
    assert cli.main([*line, "--out", "r"]) == 0
    more = {"clip": 5.0, "embedding": embedding}
    settings = {"hidden": (16,), "epochs": 4, "validation": 0.2, "settings": more}
    model = TabularRegressor(recipe=recipe, **settings).fit(frame, y).model_
    assert fastdl.load("r").parameters.tobytes() == model.parameters.tobytes()
    assert model.scaling.clip == 5.0
    assert (model.embedding is None) == (recipe == "plain")


def test_all_of_it_is_in_the_configuration(tmp_path, monkeypatch):
    """And given again as options, it makes the same model."""
    monkeypatch.chdir(tmp_path)
    frame, y = frame_of()
    frame.with_columns(y=pl.Series(np.where(y > 0, "yes", "no"))).write_csv("a.csv")
    assert cli.main(["train", "a.csv", "--target", "y", "--hidden", "16", "--epochs", "4", "--out", "r"]) == 0
    told = json.loads(Path("r/config.json").read_text())
    options = told["options"]
    assert {text.partition("=")[0] for text in options["set"]} == set(recipes.MORE)
    assert told["training"]["temperature"] > 0
    line = ["train", "a.csv", "--target", "y", "--recipe", "plain", "--out", "again"]
    for name in (*recipes.BY_RECIPE, "weight_decay"):
        assert options[name] is not None, name
        line += [f"--{name.replace('_', '-')}", str(options[name])]
    assert cli.main([*line, *(word for text in options["set"] for word in ("--set", text))]) == 0
    assert Path("again/model.fastdl").read_bytes() == Path("r/model.fastdl").read_bytes()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"recipe": "best"}, "recipe: expected one of auto, realmlp, plain, got 'best'"),
        ({"settings": {"embeding": None}}, "settings: expected names of .* got 'embeding'; did you mean 'embedding'?"),
        ({"settings": [1]}, "settings: expected a dictionary"),
        (
            {"settings": {"embedding": "plr"}},
            "embedding: expected one of pbld, periodic, piecewise, or None, got 'plr'",
        ),
        ({"settings": {"scaling": "min-max"}}, "scaling: expected 'standard' or 'robust', got 'min-max'"),
        ({"settings": {"decay_schedule": "cosin"}}, "decay_schedule: .* did you mean 'cosine'?"),
        ({"optimizer": "sgd", "settings": {"beta2": 0.9}}, "beta2: expected another optimizer with it than sgd"),
        ({"optimizer": "adem"}, "optimizer: expected one of"),
    ],
)
def test_bad_settings(given, sentence):
    with pytest.raises(InputError, match=sentence):
        TabularRegressor(**given).fit(*frame_of(80))


# --- how good it is ---


def test_it_learns_what_a_plain_network_does_not():
    frame, y = frame_of(1500)
    fresh, truth = frame_of(500, seed=1)
    errors = {
        recipe: np.sqrt(np.mean((TabularRegressor(recipe=recipe).fit(frame, y).predict(fresh) - truth) ** 2))
        for recipe in ("auto", "plain")
    }
    assert errors["auto"] < 0.8 * errors["plain"]
    assert errors["auto"] < 0.18  # the noise is 0.1


def test_noise_is_not_learnt_by_heart():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 6)), rng.integers(0, 2, 300)
    fresh, truth = rng.normal(size=(1000, 6)), rng.integers(0, 2, 1000)
    losses = {}
    for recipe in ("auto", "plain"):
        chances = TabularClassifier(recipe=recipe).fit(X, y).predict_proba(fresh)
        losses[recipe] = -np.log(chances[np.arange(1000), truth]).mean()
    assert losses["auto"] < 0.73 < losses["plain"]


# --- calibration ---


def test_the_last_layer_takes_the_temperature_in():
    rng = np.random.default_rng(0)
    for output, n_out in (("softmax", 3), ("sigmoid", 1)):
        model = fastdl.MLP([4, 8, n_out], output=output, init=0.8)
        X = rng.normal(size=(200, 4))
        y = rng.integers(0, max(2, n_out), 200)
        raw = model.forward(X).astype(float)
        targets = y if n_out > 1 else y[:, None].astype(float)
        found = fitting.calibrate(model, X, y)
        assert found > 1.5
        np.testing.assert_allclose(model.forward(X), raw / found, rtol=1e-4, atol=1e-5)
        losses = [careful(lambda t, raw=raw, targets=targets: log_loss(raw / t, targets), 200)(t) for t in
                  (found, 0.97 * found, 1.03 * found)]  # fmt: skip
        assert losses[0] < min(losses[1:])


def test_log_loss_by_hand():
    rng = np.random.default_rng(0)
    raw, labels = rng.normal(size=(50, 3)), rng.integers(0, 3, 50)
    chances = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    assert log_loss(raw, labels) == pytest.approx(-np.log(chances[np.arange(50), labels]).mean())
    several = rng.integers(0, 2, (50, 3)).astype(float)
    chance = 1 / (1 + np.exp(-raw))
    assert log_loss(raw, several) == pytest.approx(-np.log(np.where(several > 0, chance, 1 - chance)).mean())


def test_few_rows_that_are_all_right_do_not_make_certain():
    raw, labels = np.eye(3)[[0, 1, 2] * 4], np.array([0, 1, 2] * 4)

    def loss_of(temperature):
        return log_loss(raw / temperature, labels)

    assert best_temperature(loss_of) < 0.06
    assert best_temperature(careful(loss_of, 12)) > 0.1


def test_realmlp_has_parametric_activations_and_embedded_categories():
    found = resolve("realmlp", facts(), {}, {})
    assert (found["parametric"], found["category_size"]) == (True, 8)
    assert found["group_rates"] == {"biases": 0.1, "input_scale": 6.0, "embedding": 0.1, "activations": 0.1}
    assert "activations" not in resolve("realmlp", facts(), {"hidden": ()}, {})["group_rates"]
    assert "embedding" not in resolve("realmlp", facts(numbers=0), {}, {"embedding": "pbld"})["group_rates"]
    assert recipes.embeds_categories("realmlp", {})
    assert recipes.embeds_categories("auto", {})
    assert not recipes.embeds_categories("realmlp", {"category_size": 0})
    assert not recipes.embeds_categories("plain", {})
