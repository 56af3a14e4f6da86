"""Training and prediction in bf16: what is rounded, what is not, and which layers stay in float32."""

from __future__ import annotations

import copy
import json
import warnings

import numpy as np
import pytest
from reference import rounded

import fastdl
from fastdl import cli, precision
from fastdl_kernels.precision import HAS_BF16

EMULATED = "bf16-emulated"
# The first goes through all layers in blocks of rows, the second layer by layer; the last layers are too small for bf16.
NETWORKS = {"fused": [64, 70, 64], "layers": [130, 256, 128, 10]}


def problem(layers, n_rows=96, seed=0):
    rng = np.random.default_rng(seed)
    model = fastdl.MLP(layers, "tanh", "linear", seed=seed)
    return model, rng.standard_normal((n_rows, layers[0])).astype(np.float32), rng.standard_normal((n_rows, layers[-1]))


def gradient_by_hand(model, X, y, rounds):
    """The gradient of the mean squared error, in float64, with products of operands that `rounds` has been applied to."""
    a, outputs = np.asarray(X, np.float64), []
    n_layers = len(model.weights)

    def operands(layer, *matrices):
        large = min(model.weights[layer].shape) >= 64
        return [rounds(m) if large else np.asarray(m, np.float64) for m in matrices]

    for layer, (w, b) in enumerate(zip(model.weights, model.biases, strict=True)):
        outputs.append(a)
        x, w = operands(layer, a, w)
        z = x @ w + b
        a = np.tanh(z) if layer + 1 < n_layers else z
    d = 2 * (a - y) / a.size
    parts = []
    for layer in reversed(range(n_layers)):
        x, w, dz = operands(layer, outputs[layer], model.weights[layer], d)
        parts = [x.T @ dz, d.sum(axis=0), *parts]
        if layer:
            d = dz @ w.T * (1 - outputs[layer] ** 2)
    return np.concatenate([part.ravel() for part in parts])


def step(layers, **settings):
    """(gradient of a step of SGD at rate 1, the model before it, its data)."""
    model, X, y = problem(layers)
    before = copy.deepcopy(model)
    fastdl.Trainer(model, fastdl.SGD(lr=1.0), batch_size=len(X), epochs=1, **settings).fit(X, y)
    return before.parameters.astype(np.float64) - model.parameters, before, X, y


@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
def test_a_step_is_that_of_rounded_operands(layers):
    """Two hundred times nearer to the oracle that rounds than to the one that does not; what a float32 sum turns over a tie is
    rounded to the other side, one part in 256 of one number."""
    gradient, model, X, y = step(layers, precision=EMULATED)
    by_hand = gradient_by_hand(model, X, y, rounded)
    exact = gradient_by_hand(model, X, y, lambda m: np.asarray(m, np.float64))
    size = np.linalg.norm(exact)
    assert np.linalg.norm(gradient - by_hand) < 2e-4 * size
    assert np.linalg.norm(gradient - exact) > 2e-3 * size
    in_float32 = step(layers)[0]
    assert np.linalg.norm(in_float32 - exact) < 2e-6 * size


@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
def test_bits_do_not_depend_on_threads(layers):
    trained = []
    for n_threads in (1, 2):
        model, X, y = problem(layers, 300)
        fastdl.Trainer(model, batch_size=64, epochs=2, n_threads=n_threads, precision=EMULATED).fit(X, y)
        trained.append(model.parameters.tobytes())
    assert trained[0] == trained[1]


@pytest.mark.parametrize(("layers", "batch_size"), [([63, 200, 63], 64), ([70, 63, 70], 64), ([64, 64, 64], 31)])
def test_small_layers_and_batches_stay_in_float32(layers, batch_size):
    """A layer is large by the lesser of its two sizes, so that here none is; or the batches have too few rows."""
    trained = []
    for value in ("float32", EMULATED):
        model, X, y = problem(layers)
        fastdl.Trainer(model, batch_size=batch_size, epochs=2, precision=value).fit(X, y)
        trained.append(model.parameters.tobytes())
    assert trained[0] == trained[1]


def test_it_holds_from_the_next_fit_and_goes_into_records_and_checkpoints(tmp_path):
    layers, halves = NETWORKS["layers"], []
    for value in ("float32", EMULATED):
        model, X, y = problem(layers)
        trainer = fastdl.Trainer(model, batch_size=48, epochs=1)
        trainer.fit(X, y)
        trainer.precision = value
        trainer.save_checkpoint(tmp_path / "here")
        resumed = fastdl.Trainer.from_checkpoint(tmp_path / "here")
        assert resumed.record()["precision"] == value
        resumed.fit(X, y)
        trainer.fit(X, y)
        assert model.parameters.tobytes() == resumed.model.parameters.tobytes()
        halves.append(model.parameters.tobytes())
    assert halves[0] != halves[1]


def test_predictions_take_the_models_precision():
    model, X, _ = problem(NETWORKS["layers"], 500)
    plain = model.predict(X)
    model.precision = EMULATED
    in_bf16 = model.predict(X)
    a = X
    for i, (w, b) in enumerate(zip(model.weights, model.biases, strict=True)):
        large = min(w.shape) >= 64
        z = (rounded(a) @ rounded(w) if large else a.astype(np.float64) @ w) + b
        a = np.tanh(z) if i < 2 else z
    assert np.abs(in_bf16 - a).max() < 2e-3 < 4 * np.abs(plain - a).max()
    np.testing.assert_array_equal(model.predict(X[:31]), plain[:31])  # too few rows to pack weights for
    np.testing.assert_array_equal(copy.deepcopy(model).predict(X), in_bf16)
    model.precision = "float32"
    np.testing.assert_array_equal(model.predict(X), plain)


def test_a_model_file_has_no_precision(tmp_path):
    model, X, _ = problem(NETWORKS["layers"])
    plain = model.predict(X)
    model.precision = EMULATED
    model.save(tmp_path / "model.fastdl")
    np.testing.assert_array_equal(fastdl.load(tmp_path / "model.fastdl").predict(X), plain)


def test_a_processor_without_it():
    model, X, y = problem(NETWORKS["layers"])
    if HAS_BF16:
        assert fastdl.Trainer(model, precision="bf16-strict").precision == "bf16-strict"
        return
    with pytest.raises(fastdl.InputError, match="precision: expected a processor with bf16 instructions"):
        fastdl.Trainer(model, precision="bf16-strict")
    with pytest.warns(UserWarning, match=r"this processor has no bf16 instructions .*: products stay in float32"):
        trainer = fastdl.Trainer(model, batch_size=48, epochs=1, precision="bf16")
    trainer.fit(X, y)  # a second warning would be an error
    trainer.fit(X, y)
    other, X, y = problem(NETWORKS["layers"])
    again = fastdl.Trainer(other, batch_size=48, epochs=1)
    again.fit(X, y)
    again.fit(X, y)
    assert model.parameters.tobytes() == other.parameters.tobytes()


@pytest.mark.parametrize(("value", "dtype", "message"), [
    ("bf17", "float32", "precision: expected one of float32, bf16, bf16-strict, bf16-emulated, got 'bf17'.*bf16"),
    (16, "float32", "precision: expected one of .*got 16"),
    (EMULATED, "float64", "precision: expected a float32 model for 'bf16-emulated', got float64"),
])  # fmt: skip
def test_what_is_refused(value, dtype, message):
    model = fastdl.MLP([3, 2], dtype=dtype)
    with pytest.raises(fastdl.InputError, match=message):
        fastdl.Trainer(model, precision=value)
    with pytest.raises(fastdl.InputError, match=message):
        model.precision = value
    assert model.precision == "float32"


def test_every_precision_is_described():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert all(f'"{value}"' in precision.check.__doc__ for value in precision.PRECISIONS)


def test_the_command_line(tmp_path, capsys):
    def train(*options):
        words = [
            "train",
            "digits",
            "--recipe",
            "plain",
            "--hidden",
            "64",
            "--epochs",
            1,
            "--out",
            tmp_path / "r",
            "--force",
        ]
        code = cli.main([str(word) for word in (*words, "--no-report", *options)])
        return code, capsys.readouterr()

    code, printed = train("--precision", EMULATED)
    assert code == 0
    assert "bf16-emulated" in printed.err
    assert json.loads((tmp_path / "r" / "config.json").read_text())["training"]["precision"] == EMULATED
    rounded_loss = (tmp_path / "r" / "history.csv").read_text()
    code, printed = train("--precision", "bf16")
    assert code == 0
    assert (precision.LACKING in printed.err) != HAS_BF16
    assert (tmp_path / "r" / "history.csv").read_text() != rounded_loss or HAS_BF16
    code, printed = train("--precision", "half")
    assert (code, printed.err) == (
        2,
        "fastdl: --precision: expected one of float32, bf16, bf16-strict, bf16-emulated, got 'half'\n",
    )
