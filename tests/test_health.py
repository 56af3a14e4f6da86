"""The health of a training against naive NumPy, its advice, and what looking costs and changes."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

import fastdl
from fastdl.training import health as watching


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def naive(model, X, y, activations):
    """(z, a) of each layer and the gradients of the mean cross-entropy of one sigmoid output, in plain NumPy."""
    a, layers = (X - model.scaling.mean) / model.scaling.scale if model.scaling else X, []
    inputs = []
    for i, (w, b) in enumerate(zip(model.weights, model.biases)):
        inputs.append(a)
        z = a @ w + b
        a = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh, "sigmoid": sigmoid, None: lambda z: z}[
            activations[i]
        ](z)
        layers.append((z, a))
    d = (sigmoid(layers[-1][0]) - y.reshape(-1, 1)) / len(y)
    gradients = []
    for i in reversed(range(len(layers))):
        gradients.append(inputs[i].T @ d)
        if i:
            z, a = layers[i - 1]
            slope = {"relu": (z > 0) * 1.0, "tanh": 1 - a**2, "sigmoid": a * (1 - a)}[activations[i - 1]]
            d = (d @ model.weights[i].T) * slope
    return layers, gradients[::-1]


@pytest.fixture
def data(rng):
    X = rng.normal(size=(90, 4))
    return X, (X[:, 0] * X[:, 1] > 0).astype(float)


@pytest.mark.parametrize("units", [["relu", "tanh"], ["sigmoid", "relu"]])
def test_against_numpy(data, units):
    X, y = data
    model = fastdl.MLP([4, 9, 7, 1], units, "sigmoid", dtype="float64", seed=3)
    model.weights[0][:, :4] = -5 if units[0] == "sigmoid" else 0
    model.biases[0][:4] = -60  # dead, or saturated
    trainer = fastdl.Trainer(model, fastdl.SGD(lr=0.3), batch_size=90, n_threads=1)
    before = model.parameters.copy()
    found = trainer.health(X, y)
    assert (model.parameters == before).all()
    layers, gradients = naive(model, X, y, [*units, None])
    for i, layer in enumerate(found.layers):
        z, a = layers[i]
        w, d = model.weights[i], gradients[i]
        np.testing.assert_allclose((layer.mean, layer.deviation), (z.mean(), z.std()), rtol=1e-9)
        assert sum(layer.counts) == z.size
        assert layer.counts == np.histogram(z, len(layer.counts))[0].tolist()
        norms = np.linalg.norm(w), np.linalg.norm(d), 0.3 * np.linalg.norm(d)
        np.testing.assert_allclose((layer.weight_norm, layer.gradient_norm, layer.update_norm), norms, rtol=1e-8)
        assert layer.update_ratio == pytest.approx(norms[2] / norms[0], rel=1e-8)
        assert layer.not_finite == 0
        unit = units[i] if i < 2 else None
        assert layer.dead == (None if unit != "relu" else (a == 0).all(axis=0).mean())
        inside = (a + 1) / 2 if unit == "tanh" else a
        near = ((inside < 0.01) | (inside > 0.99)).mean(axis=0) >= 0.95
        assert layer.saturated == (near.mean() if unit in ("tanh", "sigmoid") else None)
    assert (found.layers[0].dead if units[0] == "relu" else found.layers[0].saturated) >= 4 / 9


def test_the_step_is_the_trainings_own(data):
    """With Adam's state of the training: one more step of the same rows moves the weights as health said."""
    X, y = data
    model = fastdl.MLP([4, 8, 1], "relu", "sigmoid", dtype="float64")
    trainer = fastdl.Trainer(model, fastdl.Adam(lr=0.01), batch_size=90, epochs=5, l2=0.1, n_threads=1)
    trainer.fit(X, y)
    said = trainer.health()
    again, before = copy.deepcopy(trainer.health(X, y)), copy.deepcopy(model)
    assert [layer.update_norm for layer in said.layers] == [layer.update_norm for layer in again.layers]
    trainer.epochs = 1
    trainer.fit(X, y)
    for layer, new, old in zip(said.layers, model.weights, before.weights):
        assert layer.update_norm == pytest.approx(np.linalg.norm(new - old), rel=1e-9)


def test_behind_an_input_stage(data, rng):
    """What the first layer reads is made of the embeddings, the other inputs and the scales."""
    X, y = data
    model = fastdl.MLP(
        [4, 9, 1], "relu", "sigmoid", dtype="float64", embedding=fastdl.PBLD(columns=[2, 0]), scale_inputs=True
    )
    stage = model.input_stage
    stage.scale[:] = rng.normal(size=stage.scale.shape)
    parts = []
    for e, i in enumerate([2, 0]):
        waves = np.cos(2 * np.pi * np.outer(X[:, i], stage.frequencies[e]) + stage.phases[e])
        parts += [waves @ stage.weights[e].T + stage.biases[e], X[:, [i]]]
    read = np.concatenate([*parts, X[:, [1, 3]]], axis=1) * stage.scale
    z = read @ model.weights[0] + model.biases[0]
    d = (sigmoid(np.maximum(z, 0) @ model.weights[1] + model.biases[1]) - y[:, None]) / len(y)
    gradient = read.T @ ((d @ model.weights[1].T) * (z > 0))
    layer = fastdl.Trainer(model, fastdl.SGD(0.3), batch_size=90, n_threads=1).health(X, y).layers[0]
    np.testing.assert_allclose((layer.mean, layer.deviation), (z.mean(), z.std()), rtol=1e-9)
    np.testing.assert_allclose(layer.gradient_norm, np.linalg.norm(gradient), rtol=1e-8)
    assert layer.dead == (z <= 0).all(axis=0).mean()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_step_of_a_recipe_is_the_trainings_own(data, dropout):
    """With embeddings, rates by groups, the NTK parametrisation, and weight decay and dropout by schedules."""
    X, y = data
    model = fastdl.MLP([4, 8, 6, 1], "selu", "sigmoid", dtype="float64", embedding=fastdl.PBLD(), scale_inputs=True)
    schedules = {f"{name}schedule": fastdl.schedules.Cosine() for name in ("", "decay_", "dropout_")}
    settings = {"ntk": True, "group_rates": {"biases": 0.1, "embedding": 0.2}, "dropout": dropout, **schedules}
    trainer = fastdl.Trainer(
        model, fastdl.AdamW(lr=0.01, weight_decay=0.5), batch_size=90, epochs=5, n_threads=1, **settings
    )
    said, before = [], []

    class Looks(fastdl.Callback):
        def on_epoch_end(self, result):
            said.append(self.trainer.health())
            before.append([weight.copy() for weight in model.weights])

    trainer.callbacks = [Looks()]
    trainer.fit(X, y)
    for look, old, new in zip(said, before, before[1:]):
        for layer, a, b in zip(look.layers, old, new, strict=True):
            assert layer.update_norm == pytest.approx(np.linalg.norm(b - a), rel=1e-7)


def test_a_last_look_is_at_more_rows(data, monkeypatch):
    """As many as the time that is left is for: with a clock of our own, 0.2 s of which a look at 512 rows takes 0.01."""
    from fastdl.tables import data as tables

    now = [0.0]
    monkeypatch.setattr(watching.time, "perf_counter", lambda: now[0])
    loaded = tables.load_training(["digits"])
    seen = []

    class Trainer:
        history, model = fastdl.History([0.1]), fastdl.MLP([64, 8, 10])

        def health(self, X=None, y=None):
            now[0] += 0.01
            seen.append(None if X is None else len(X))
            return "looked"

    for rows, seconds in ((len(loaded.train), 10.0), (1024, 1.5)):
        watch, seen[:] = fastdl.HealthWatch(), []
        watch.on_train_begin(1, 10)
        watch.trainer = Trainer()
        watch.on_epoch_end(fastdl.EpochResult(1, 1, 0.1, None, seconds=seconds))
        watch.look(watch.trainer, loaded)
        assert seen == [None, rows]


def test_advice(data):
    X, y = data
    model = fastdl.MLP([4, 10, 1], "relu", "sigmoid")
    trainer = fastdl.Trainer(model, fastdl.SGD(lr=0.01), n_threads=1)
    assert trainer.health(X, y).advice == []
    assert "nothing stands out" in str(trainer.health(X, y))
    model.biases[0][:6] = -1000
    (advice,) = trainer.health(X, y).advice
    assert advice.startswith(
        "60 % of the units of the hidden 1 layer are dead: lower the rate (now 0.01), use leaky ReLU"
    )
    trainer.optimizer = fastdl.SGD(lr=1e6)
    assert any("a step changes the weights of the output layer" in text for text in trainer.health(X, y).advice)
    model.weights[1][3] = np.nan
    assert any("NaN or infinite" in text for text in trainer.health(X, y).advice)
    saturated = fastdl.MLP([4, 10, 1], "tanh", "sigmoid")
    saturated.weights[0][:] *= 1e4
    assert "100 % of the units of the hidden 1 layer are saturated" in fastdl.Trainer(saturated).health(X, y).advice[0]


def test_looking_changes_nothing(data, monkeypatch):
    X, y = data
    monkeypatch.setattr(watching, "SHARE", 1e9)
    models = []
    for callbacks in ([], [watch := fastdl.HealthWatch()]):
        model = fastdl.MLP([4, 8, 1], "relu", "sigmoid")
        fastdl.Trainer(model, epochs=6, batch_size=16, n_threads=1, callbacks=callbacks).fit(X, y)
        models.append(model.parameters.copy())
    assert (models[0] == models[1]).all()
    assert [found.epoch for found in watch.seen] == [1, 2, 3, 4, 5, 6]
    assert json.dumps(watch.seen[0].to_json())


def test_looking_is_rationed(data, monkeypatch):
    """With a clock of our own: a look takes 1 s, an epoch 10 s, so that 2 % are one look in five epochs."""
    watch = fastdl.HealthWatch()
    now = [0.0]

    class Trainer:
        def health(self):
            now[0] += 1.0
            return now[0]

    monkeypatch.setattr(watching.time, "perf_counter", lambda: now[0])
    watch.on_train_begin(100, 10)
    watch.trainer = Trainer()
    result = fastdl.EpochResult(1, 100, 0.1, None, seconds=10.0)
    for _ in range(100):
        watch.on_epoch_end(result)
    assert 15 <= len(watch.seen) <= 21


def test_rows_are_needed(data):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = data
    trainer = fastdl.Trainer(fastdl.MLP([4, 3, 1], output="sigmoid"), epochs=1, n_threads=1)
    with pytest.raises(fastdl.InputError, match=r"health: expected rows to look at.*trainer.health\(X, y\)"):
        trainer.health()
    watch = fastdl.HealthWatch()
    trainer.callbacks = [watch]
    trainer.fit(sparse.csr_matrix(X), y)
    assert watch.seen == []
    trainer.fit(X, y)
    assert trainer.health().rows == 90
    with pytest.raises(fastdl.InputError, match="health"):
        copy.deepcopy(trainer).health()


def test_the_rate_is_that_of_the_coming_step(data, monkeypatch):
    X, y = data
    monkeypatch.setattr(watching, "SHARE", 1e9)
    watch, cosine = fastdl.HealthWatch(), fastdl.schedules.Cosine()
    model = fastdl.MLP([4, 8, 1], "relu", "sigmoid")
    fastdl.Trainer(
        model, fastdl.SGD(0.5), batch_size=30, epochs=4, n_threads=1, schedule=cosine, callbacks=[watch]
    ).fit(X, y)
    rates = cosine.rates(0.5, 0, 12)
    np.testing.assert_allclose([found.rate for found in watch.seen], rates[[3, 6, 9, 11]])


def test_rows_of_another_model_are_not_looked_at(data):
    X, y = data
    trainer = fastdl.Trainer(fastdl.MLP([4, 8, 1], output="sigmoid"), epochs=1, n_threads=1)
    trainer.fit(X, y)
    trainer.model = fastdl.MLP([3, 8, 2])
    with pytest.raises(fastdl.InputError, match="health: expected rows to look at"):
        trainer.health()
