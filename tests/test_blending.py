"""Networks mixed with linear models: the mix is what it says, the share follows from the rows, both ways of training give it."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

import fastdl
from fastdl import TabularClassifier, TabularRegressor, cli
from fastdl.activations import ACTIVATIONS
from fastdl.calibration import log_loss
from fastdl.training import blending
from fastdl.training.blending import Pair, blend, can_blend, first_features, noted, posterior_mean, with_linear_part
from fastdl.training.recipes import Facts, resolve

RNG = np.random.default_rng


def table(n=240, seed=0):
    """Numbers, a category of 20 values, and a target that is linear in them."""
    rng = RNG(seed)
    x, z = rng.standard_normal(n), rng.lognormal(size=n)
    town = rng.integers(0, 20, n)
    y = x - z + rng.standard_normal(20)[town] + rng.standard_normal(n)
    return pl.DataFrame({"x": x, "z": z, "town": [f"town {t}" for t in town]}), y


def codes_and_numbers(rng, n=60):
    return np.column_stack(
        [rng.standard_normal(n), rng.integers(0, 4, n), rng.standard_normal(n), rng.integers(0, 6, n)]
    )


def network(activation="selu", output="linear", outputs=2, dtype="float64", **more):
    """A network of four inputs, the second and the fourth codes if it takes such."""
    model = fastdl.MLP([4, 7, 5, outputs], activation, output, seed=3, dtype=dtype, **more)
    rng = RNG(4)
    for part in (*model.biases, *model.unit_alphas):
        part[:] += rng.normal(0, 0.3, part.shape)
    if model.input_stage is not None:
        model.input_stage.scale[:] = rng.uniform(0.5, 2, model.input_stage.scale.shape)
    return model


CODES = fastdl.CategoryEmbedding({1: 3, 3: 5}, 3)


# --- the mix ---


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_it_is_a_mix_of_raw_outputs(activation):
    model, X = network(activation), RNG(0).standard_normal((50, 4))
    coefficients = RNG(1).standard_normal((5, 2))
    mixed = with_linear_part(model, coefficients, 0.3, 2.0)
    linear = X @ coefficients[:-1] + coefficients[-1]
    np.testing.assert_allclose(mixed.forward(X), 0.35 * model.forward(X) + 0.3 * linear, rtol=1e-10, atol=1e-10)
    assert mixed.layers == (4, 9, 7, 2)


@pytest.mark.parametrize("more", [
    {"categories": CODES}, {"categories": CODES, "scale_inputs": True},
    {"categories": CODES, "scale_inputs": True, "embedding": fastdl.PBLD(columns=[0])}, {"embedding": fastdl.PBLD()},
    {"embedding": fastdl.Periodic(columns=[2])}, {"scale_inputs": True},
])  # fmt: skip
@pytest.mark.parametrize("activation", ["mish", fastdl.PReLU(), fastdl.Activation("selu", parametric=True)])
def test_behind_an_input_stage(more, activation):
    """With a linear model of what the first layer gets, each category with a coefficient of its own."""
    model = network(activation, **more)
    X = codes_and_numbers(RNG(0))
    z = first_features(model, X)
    coefficients = RNG(1).standard_normal((z.shape[1] + 1, 2))
    mixed = with_linear_part(model, coefficients, 0.3)
    expected = 0.7 * model.forward(X) + 0.3 * (z @ coefficients[:-1] + coefficients[-1])
    np.testing.assert_allclose(mixed.forward(X), expected, rtol=1e-10, atol=1e-10)


def test_the_features_of_codes():
    model = network(categories=CODES, scale_inputs=True)
    X = codes_and_numbers(RNG(0))
    z = first_features(model, X)
    numbers = X[:, [0, 2]] * model.input_stage.scale[:2]
    np.testing.assert_allclose(z[:, :2], numbers)
    np.testing.assert_array_equal(z[:, 2:6], np.eye(4)[X[:, 1].astype(int)])
    np.testing.assert_array_equal(z[:, 6:], np.eye(6)[X[:, 3].astype(int)])


def test_the_network_stays_as_it_is():
    model = network(output="softmax", outputs=3)
    model.metadata["note"] = "mine"
    model.classes = ["a", "b", "c"]
    before = model.parameters.copy()
    mixed = with_linear_part(model, RNG(1).standard_normal((5, 3)), 0.5)
    mixed.metadata["note"] = "other"
    np.testing.assert_array_equal(model.parameters, before)
    assert model.metadata["note"] == "mine"
    assert (mixed.classes, mixed.output, mixed.loss, mixed.dtype) == (model.classes, "softmax", model.loss, model.dtype)


@pytest.mark.parametrize(("made", "able"), [
    (lambda: fastdl.MLP([3, 4, 1], output="linear"), True),
    (lambda: fastdl.MLP([3, 4, 2]), True),
    (lambda: fastdl.MLP([3, 4, 2], output="sigmoid"), True),
    (lambda: fastdl.MLP([3, 1], output="linear"), False),  # linear itself
    (lambda: fastdl.MLP([2000, 4, 1], output="linear"), True),
    (lambda: fastdl.MLP([2001, 4, 1], output="linear"), False),
    (lambda: fastdl.MLP([2, 4, 1], output="linear", categories=fastdl.CategoryEmbedding({0: 1998})), True),
    (lambda: fastdl.MLP([2, 4, 1], output="linear", categories=fastdl.CategoryEmbedding({0: 1999})), False),
    (lambda: fastdl.MLP([2, 4, 32], output="linear"), True),
    (lambda: fastdl.MLP([2, 4, 33], output="linear"), False),
    (lambda: fastdl.MLP([3, 4, 1], output="linear", loss="absolute_error"), False),
    (lambda: fastdl.MLP([3, 4, 1], output="linear", loss="poisson"), False),
    (lambda: fastdl.MLP([3, 4, 2], output="linear", loss=fastdl.Quantile([0.1, 0.9])), False),
])  # fmt: skip
def test_what_can_be_mixed(made, able):
    assert can_blend(made()) == able


# --- the share ---


def test_without_evidence_it_is_a_half_and_with_much_the_best():
    s = np.linspace(0, 1, 51)
    assert posterior_mean(0 * s) == 0.5
    assert posterior_mean(-1e6 * (s - 0.2) ** 2) == pytest.approx(0.2, abs=0.005)
    assert posterior_mean(1e5 * s) == pytest.approx(1, abs=0.001)
    # Of a likelihood that is e^ks the mean is 1 / (1 - e^-k) - 1 / k.
    assert posterior_mean(3 * s) == pytest.approx(1 / (1 - np.exp(-3)) - 1 / 3, abs=0.002)


@pytest.mark.parametrize(("output", "outputs"), [("linear", 2), ("sigmoid", 1), ("sigmoid", 3), ("softmax", 3)])
def test_evidence_is_the_likelihood(output, outputs):
    rng = RNG(0)
    network_, linear = rng.standard_normal((2, 30, outputs))
    model = network(output=output, outputs=outputs)
    y = rng.integers(0, outputs, 30) if output == "softmax" else rng.integers(0, 2, (30, outputs)).astype(float)
    pair = Pair(model, np.zeros((5, outputs)), network_, linear, y)
    for share, temperature in ((0.0, 1.0), (0.3, 2.0)):
        mixed = (1 - share) * network_ / temperature + share * linear
        if output == "softmax":
            expected = [sum(row[target] - np.log(np.exp(row).sum()) for row, target in zip(mixed, y, strict=True))]
        elif output == "sigmoid":
            expected = [
                sum(t * z - np.log1p(np.exp(z)) for t, z in zip(y[:, k], mixed[:, k], strict=True))
                for k in range(outputs)
            ]
        else:
            expected = [-15 * np.log(np.mean((mixed[:, k] - y[:, k]) ** 2)) for k in range(outputs)]
        np.testing.assert_allclose(pair.evidence(share, temperature), expected, rtol=1e-10)


def test_pairs_of_the_same_rows_count_these_once():
    rng = RNG(0)
    model = network(outputs=1)
    y = rng.standard_normal((8, 1))
    pair = Pair(model, np.zeros((5, 1)), y + 2 * rng.standard_normal((8, 1)), y + 0.5 * rng.standard_normal((8, 1)), y)
    shares = [blend([pair] * times, rows)[1][0] for times, rows in ((1, 8), (3, 8), (3, 24))]
    assert 0.5 < shares[0] < 0.95
    assert shares[1] == shares[0]
    assert shares[2] > shares[0] + 0.01


def test_a_linear_model_that_says_nothing_is_left_out():
    rng = RNG(0)
    model = network(outputs=1)
    y = rng.standard_normal((4000, 1))
    pair = Pair(model, np.zeros((5, 1)), y + 0.001 * rng.standard_normal(y.shape), rng.standard_normal(y.shape), y)
    models, shares = blend([pair], len(y))
    assert (models, shares.tolist(), noted(shares)) == ([model], [0.0], None)


def test_each_target_has_a_share_of_its_own():
    """A target that the linear model knows by heart, and a constant one, leave others alone."""
    rng = RNG(0)
    model = network(outputs=3)
    y = np.column_stack([rng.standard_normal(60), rng.standard_normal(60), np.zeros(60)])
    told = y + 0.1 * rng.standard_normal(y.shape)
    linear = np.column_stack([rng.standard_normal(60), y[:, 1], y[:, 2]])
    coefficients = rng.standard_normal((5, 3))
    (mixed,), shares = blend([Pair(model, coefficients, told, linear, y)], 60)
    assert shares[0] < 0.1
    assert (shares[1:] > 0.95).all()
    assert noted(shares) == shares.tolist()
    X = rng.standard_normal((20, 4))
    expected = (1 - shares) * model.forward(X) + shares * (X @ coefficients[:-1] + coefficients[-1])
    np.testing.assert_allclose(mixed.forward(X), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("what", ["network", "linear", "coefficients"])
def test_what_is_not_finite_is_not_mixed(what):
    model = network(outputs=1)
    y = RNG(0).standard_normal((40, 1))
    given = {"coefficients": np.zeros((5, 1)), "network": y.copy(), "linear": y.copy()}
    given[what][2] = np.nan
    models, shares = blend([Pair(model, **given, targets=y)], 40)
    assert (models, noted(shares)) == ([model], None)


def test_the_temperature_is_that_of_the_network():
    """A network that is too certain, beside a linear model that is right."""
    rng = RNG(0)
    raw = rng.standard_normal((3000, 1))
    y = (rng.random((3000, 1)) < 1 / (1 + np.exp(-raw))).astype(float)
    model = network(output="sigmoid", outputs=1)
    pair = Pair(model, np.zeros((5, 1)), 10 * raw, raw + 0.5 * rng.standard_normal(raw.shape), y)
    (mixed,), shares = blend([pair], 3000, calibrates=True)
    assert shares[0] < 0.3
    scale = mixed.weights[-1][0, 0] / model.weights[-1][0, 0]
    assert (1 - shares[0]) / scale == pytest.approx(10, rel=0.1)


def test_weights_of_rows_and_classes_are_the_networks():
    rng = RNG(0)
    X, y = rng.standard_normal((80, 4)), rng.integers(0, 2, 80)
    model = network(output="sigmoid", outputs=1)
    weight = np.repeat([1.0, 0.0], 40)  # of mean 1: 2 and 0
    twice = Pair.of(model, (np.vstack([X[:40]] * 2), np.tile(y[:40], 2)), (X, y)).coefficients
    np.testing.assert_allclose(Pair.of(model, (X, y), (X, y), weight).coefficients, twice, rtol=1e-6, atol=1e-9)
    plain, ones_count = (Pair.of(model, (X, y), (X, y), class_weight=w) for w in (None, {0: 1.0, 1: 9.0}))
    assert ones_count.linear.mean() > plain.linear.mean() + 1


# --- in a training ---


def test_the_recipe_mixes_where_rows_are_few():
    def chosen(rows=500, validates=True, given=None, more=None, name="auto"):
        facts = Facts(classes=True, rows=rows, numbers=3, pixels=False, validates=validates)
        return resolve(name, facts, given or {}, more or {})["blend_linear"]

    assert chosen()
    assert not chosen(rows=1000)
    assert not chosen(validates=False)
    with pytest.raises(fastdl.InputError, match="expected rows to validate on"):
        chosen(validates=False, more={"blend_linear": True})
    with pytest.raises(fastdl.InputError, match="expected True or False, got 3"):
        TabularRegressor(settings={"blend_linear": 3}).fit(*table())
    assert not chosen(given={"hidden": (64,)})
    assert chosen(given={"hidden": (64,)}, more={"blend_linear": True})
    assert not chosen(more={"blend_linear": False})
    assert not chosen(name="plain")
    assert not chosen(name="realmlp")


def test_a_linear_table_is_learnt_nearly_as_well_as_by_a_linear_model():
    frame, y = table(400)
    rest, held_out = frame[:300], frame[300:]
    mixed = TabularRegressor(seed=1).fit(rest, y[:300])
    alone = TabularRegressor(seed=1, settings={"blend_linear": False}).fit(rest, y[:300])
    errors = [np.sqrt(np.mean((model.predict(held_out) - y[300:]) ** 2)) for model in (mixed, alone)]
    assert errors[0] < errors[1]
    assert 0.05 < mixed.model_.metadata["linear_share"] <= 1
    assert "linear_share" not in alone.model_.metadata
    assert mixed.model_.layers == (*alone.model_.layers[:1], 129, 129, 129, 1)


def test_the_same_bits_again_and_in_a_file(tmp_path):
    frame, y = table()
    labels = np.where(y > 0, "high", "low")
    first, again = (TabularClassifier(seed=2, threads=n).fit(frame, labels) for n in (1, 2))
    np.testing.assert_array_equal(first.model_.parameters, again.model_.parameters)
    first.model_.save(tmp_path / "model.fastdl")
    loaded = fastdl.load(tmp_path / "model.fastdl")
    np.testing.assert_array_equal(loaded.predict_proba(frame), first.model_.predict_proba(frame))
    assert loaded.metadata["linear_share"] == first.model_.metadata["linear_share"]


def test_it_can_be_exported(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    frame, y = table()
    model = TabularRegressor().fit(frame.select("x", "z"), y).model_
    assert model.metadata["linear_share"] > 0
    model.export(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64}
    rows = {given.name: frame[given.name].to_numpy().astype(kinds[given.type]) for given in session.get_inputs()}
    np.testing.assert_allclose(np.ravel(session.run(None, rows)[0]), model.predict(frame), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{"ensemble": 2}, {"cross_validation": 3}, {"cross_validation": 2, "ensemble": 2}])
def test_one_share_for_all_models(options):
    frame, y = table()
    labels = np.where(y > 0, "high", "low")
    model = TabularClassifier(epochs=10, **options).fit(frame, labels).model_
    plain = TabularClassifier(epochs=10, settings={"blend_linear": False}, **options).fit(frame, labels).model_
    assert 0 < model.metadata["linear_share"] <= 1
    assert [m.layers[1:] for m in model.members] == [(129, 129, 129, 1)] * len(plain.members)
    if "cross_validation" not in options:
        assert model.temperature == 1 != plain.temperature  # it is in the members, which were mixed behind it
    raw = model.forward(frame).astype(np.float64)
    assert log_loss(raw, (labels == "low")[:, None].astype(float)) < 0.6


def test_a_loss_without_a_linear_model_is_left_alone():
    frame, y = table()
    model = TabularRegressor(loss="absolute_error", epochs=3).fit(frame, y).model_
    assert model.layers[1:] == (128, 128, 128, 1)
    assert "linear_share" not in model.metadata


def test_the_command(tmp_path, capsys):
    frame, y = table()
    frame.with_columns(pl.Series("y", y)).write_csv(tmp_path / "t.csv")
    run = [str(tmp_path / "t.csv"), "--target", "y", "--epochs", "12"]
    assert cli.main(["train", *run, "--out", str(tmp_path / "a")]) == 0
    share = json.loads((tmp_path / "a" / "config.json").read_text())["training"]["linear_share"]
    assert f"linear part  {100 * share:.0f} % of the outputs, as validation rows say" in capsys.readouterr().out
    model = fastdl.load(tmp_path / "a" / "model.fastdl")
    assert model.metadata["linear_share"] == share
    by_class = TabularRegressor(epochs=12).fit(frame, y).model_
    np.testing.assert_array_equal(model.parameters, by_class.parameters)
    assert cli.main(["train", *run, "--out", str(tmp_path / "b"), "--set", "blend_linear=false"]) == 0
    assert "linear part" not in capsys.readouterr().out
    assert json.loads((tmp_path / "b" / "config.json").read_text())["training"]["linear_share"] is None
    assert cli.main(["inspect", str(tmp_path / "a")]) == 0
    assert "linear part" in capsys.readouterr().out
    assert cli.main(["train", *run, "--out", str(tmp_path / "c"), "--set", "blend_linear=3"]) == 2
    assert "expected true or false" in capsys.readouterr().err


def test_scikit_learn_has_no_such_network():
    """Its activations have no numbers of their own: it would be another network, without a word."""
    frame, y = table()
    model = (
        TabularRegressor(recipe="plain", settings={"blend_linear": True}, validation=0.2, epochs=3).fit(frame, y).model_
    )
    assert model.metadata["linear_share"] > 0
    with pytest.raises(fastdl.InputError, match="got parametric relu"):
        model.to_sklearn()


def test_tuning_keeps_it(tmp_path, monkeypatch):
    """Though its best trial names the layers: the first one is as the options say."""
    monkeypatch.chdir(tmp_path)
    frame, y = table()
    frame.with_columns(pl.Series("y", y)).write_csv("t.csv")
    assert cli.main(["tune", "t.csv", "--target", "y", "--epochs", "6", "--trials", "1", "--out", "a"]) == 0
    assert cli.main(["train", "t.csv", "--target", "y", "--epochs", "6", "--out", "b"]) == 0
    a, b = (fastdl.load(f"{name}/model.fastdl") for name in "ab")
    assert a.metadata["linear_share"] == b.metadata["linear_share"]
    np.testing.assert_array_equal(a.parameters, b.parameters)
    assert (
        cli.main(["tune", "t.csv", "--target", "y", "--epochs", "3", "--trials", "1", "--hidden", "32", "--out", "c"])
        == 0
    )
    assert "linear_share" not in fastdl.load("c/model.fastdl").metadata


def test_without_rows_to_validate_on_folds_judge_what_is_saved(tmp_path):
    """With few rows the command cross-validates beside the training: of networks that are not mixed either."""
    frame, y = table(45)
    frame.with_columns(pl.Series("y", y)).write_csv(tmp_path / "t.csv")
    assert (
        cli.main(["train", str(tmp_path / "t.csv"), "--target", "y", "--epochs", "3", "--out", str(tmp_path / "r")])
        == 0
    )
    model = fastdl.load(tmp_path / "r" / "model.fastdl")
    assert "linear_share" not in model.metadata
    assert model.layers[1:] == (128, 128, 128, 1)
    told = json.loads((tmp_path / "r" / "config.json").read_text())
    assert told["training"]["linear_share"] is None
    assert told["result"]["cross_validation"] == 5


def test_several_targets_of_a_table():
    rng = RNG(0)
    x = rng.standard_normal((300, 3))
    frame = pl.DataFrame({f"x{i}": x[:, i] for i in range(3)})
    targets = np.column_stack([np.sin(2 * x[:, 0]) * x[:, 1], x @ [1.0, 2.0, 3.0], np.full(300, 7.0)])
    model = TabularRegressor(epochs=20).fit(frame, targets).model_
    alone = TabularRegressor(epochs=20, settings={"blend_linear": False}).fit(frame, targets).model_
    shares = model.metadata["linear_share"]
    assert shares[0] < 0.5 < 0.9 < shares[1]
    errors = [np.sqrt(np.mean((np.asarray(m.predict(frame))[:, 0] - targets[:, 0]) ** 2)) for m in (model, alone)]
    assert errors[0] < 1.2 * errors[1]


def test_least_is_a_share_that_nobody_would_miss():
    assert 0 < blending.LEAST <= 0.01
