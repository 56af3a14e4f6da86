"""The input stage: PBLD embeddings and learnt scales, against naive NumPy and finite differences, in every kind of step."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import reference
from checking import differences, eps, relative_error
from checkpointing import Saver
from problems import batches_of, make_data

import fastdl
from fastdl import PBLD, schedules

pytestmark = pytest.mark.usefixtures("one_thread")

STAGES = {  # embedding, scales
    "scale": (None, True),
    "pbld": (PBLD(), False),
    "pbld-scale": (PBLD(), True),
    "some-columns": (PBLD(size=3, frequencies=5, sigma=0.5, columns=[3, 0]), True),
    "wide": (PBLD(size=7, frequencies=21, sigma=0.3, columns=[1, 2, 4]), True),
    "smallest": (PBLD(size=2, frequencies=1, columns=[4]), False),
}
every_stage = pytest.mark.parametrize(("embedding", "scales"), STAGES.values(), ids=STAGES)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def staged(embedding, scales, layers=(5, 7, 3), output="softmax", dtype="float64", activation="tanh", seed=1):
    """A model whose biases and scales are not the initial ones, so that a mistake in them shows."""
    model = fastdl.MLP(list(layers), activation, output, seed, dtype, embedding=embedding, scale_inputs=scales)
    rng = np.random.default_rng(seed)
    for bias in model.biases:
        bias[:] = 0.2 * rng.normal(size=bias.size)
    scale = model.input_stage.scale
    scale[:] = rng.uniform(0.5, 1.5, scale.size)
    return model


def stage_numbers(model):
    """(embedded columns, cosines, size, whether there are scales) as the oracle takes them."""
    e = model.embedding
    if e is None:
        return [], 0, 1, True
    columns = range(model.layers[0]) if e.columns is None else e.columns
    return list(columns), e.frequencies, e.size, model.scale_inputs


def oracle(model, X, y, weight=None, l2=0.0, parameters=None):
    """(loss, gradient) in float64 NumPy."""
    flat = reference.f64(model.parameters if parameters is None else parameters)
    embedded, waves, size, scaled = stage_numbers(model)
    dense = sum(w.size + b.size for w, b in zip(model.weights, model.biases, strict=True))
    rows, scale = reference.split_stage(model.layers[0], embedded, waves, size, scaled, flat[dense:])
    _, inputs = reference.stage_forward(X, embedded, rows, scale)
    layers = (inputs.shape[1], *model.layers[1:])
    activations = [(a.name, a.alpha) for a in model.activations]
    loss, gradient, d_inputs = reference.network_backward(
        layers, activations, model.output, flat[:dense], inputs, y, weight, l2
    )
    return loss, np.concatenate([gradient, reference.stage_backward(X, embedded, rows, scale, scaled, d_inputs)])


def parts(model, flat):
    """Each kind of parameter in a buffer laid out like the model's, by name."""
    found = {f"weights[{i}]": w for i, w in enumerate(model.views(flat)[0])}
    found |= {f"biases[{i}]": b for i, b in enumerate(model.views(flat)[1])}
    return found | model.architecture.stage_views(flat)._asdict()


# --- forward ---


@every_stage
@every_dtype
@pytest.mark.parametrize("rows", [1, 17, 500])
def test_forward(rng, embedding, scales, dtype, rows):
    model = staged(embedding, scales, dtype=dtype)
    X = (3 * rng.normal(size=(rows, 5))).astype(dtype)
    embedded, waves, size, scaled = stage_numbers(model)
    dense = sum(w.size + b.size for w, b in zip(model.weights, model.biases, strict=True))
    numbers, scale = reference.split_stage(5, embedded, waves, size, scaled, model.parameters[dense:])
    _, inputs = reference.stage_forward(X, embedded, numbers, scale)
    activations = [(a.name, a.alpha) for a in model.activations]
    zs, _ = reference.network_forward((inputs.shape[1], 7, 3), activations, model.parameters[:dense], inputs)
    np.testing.assert_allclose(model.forward(X), zs[-1], rtol=0, atol=300 * eps(dtype))
    np.testing.assert_array_equal(model.predict(X), model.forward(X).argmax(axis=1))
    one_by_one = np.concatenate([model.forward(row[None]) for row in X[:20]])
    np.testing.assert_allclose(one_by_one, zs[-1][:20], rtol=0, atol=300 * eps(dtype))


def test_the_views_are_the_formula(rng):
    """One column, one cosine by hand: e = v cos(2π w x + b) + a, and x behind it, times the scales."""
    model = fastdl.MLP([1, 2], output="linear", dtype="float64", embedding=PBLD(2, 1), scale_inputs=True)
    stage = model.input_stage
    stage.frequencies[:], stage.phases[:], stage.weights[:], stage.biases[:] = 0.7, 0.3, 1.5, -0.2
    stage.scale[:] = 2.0, 3.0
    model.weights[0][:] = np.eye(2)
    e = 1.5 * np.cos(2 * np.pi * 0.7 * 0.4 + 0.3) - 0.2
    np.testing.assert_allclose(model.forward([[0.4]]), [[2 * e, 3 * 0.4]], rtol=1e-14)


def test_initial_parameters():
    model = fastdl.MLP([200, 8, 2], embedding=PBLD(sigma=0.3), scale_inputs=True, init="lecun")
    stage = model.input_stage
    assert [v.shape for v in stage] == [(200, 16), (200, 16), (200, 3, 16), (200, 3), (800,)]
    assert model.weights[0].shape == (800, 8)
    assert stage.frequencies.std() == pytest.approx(0.3, rel=0.05)
    assert stage.phases.std() == pytest.approx(np.pi / np.sqrt(3), rel=0.05)
    assert np.abs(stage.phases).max() <= np.pi + 1e-6
    for part in (stage.weights, stage.biases):
        assert part.std() == pytest.approx(0.25 / np.sqrt(3), rel=0.1)
        assert np.abs(part).max() <= 0.25
    assert (stage.scale == 1).all()
    assert model.weights[0].std() == pytest.approx(1 / np.sqrt(800), rel=0.05)
    assert all(np.shares_memory(part, model.parameters) for part in stage)
    assert model.n_parameters == 200 * 83 + 800 + 801 * 8 - 8 + 8 + 8 * 2 + 2


# --- gradient ---


@every_stage
@pytest.mark.parametrize("output", ["softmax", "linear"])
def test_gradient_by_differences(rng, embedding, scales, output):
    model = staged(embedding, scales, output=output)
    X, y = make_data(rng, 6, model.layers, output)
    weight, l2 = [0.5, 3.0, 0.0, 1.0, 1.0, 2.0], 0.3
    value, gradient = model.loss_and_gradient(X, y, weight, l2)

    def loss():
        return model.loss_and_gradient(X, y, weight, l2)[0]

    wanted = parts(model, differences(loss, model.parameters))
    assert value == loss()
    for name, part in parts(model, gradient).items():
        assert relative_error(part, wanted[name]) <= 1e-6, name


@every_stage
@every_dtype
@pytest.mark.parametrize("layers", [(5, 3), (5, 19, 33, 3), (5, 300, 200, 3)], ids=str)
@pytest.mark.parametrize("rows", [3, 50, 700])
def test_gradient_equals_the_oracle(rng, embedding, scales, dtype, layers, rows):
    """Linear models, fused row blocks (small) and layer after layer (large); few rows and many."""
    model = staged(embedding, scales, layers, dtype=dtype)
    X, y = make_data(rng, rows, layers, "softmax")
    X = X.astype(dtype)
    weight = rng.random(rows) * 3
    loss, gradient = model.loss_and_gradient(X, y, weight, 0.2)
    want_loss, want = oracle(model, X, y, weight / weight.mean(), 0.2)
    assert loss == pytest.approx(want_loss, rel=20 * eps(dtype))
    wanted = parts(model, want)
    for name, part in parts(model, gradient).items():
        error = np.linalg.norm(part - wanted[name])
        assert error <= 200 * eps(dtype) * (np.linalg.norm(wanted[name]) + 0.02 * np.linalg.norm(want)), name


# --- training ---


@every_stage
@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("width", [7, 300])
def test_training_follows_the_oracle(rng, embedding, scales, clip, width):
    model = staged(embedding, scales, (5, width, 3))
    X, y = make_data(rng, 45, model.layers, "softmax")
    optimizer = fastdl.AdamW(0.01, weight_decay=0.5)
    rates = {"biases": 0.1, **({"embedding": 0.3} if embedding else {}), **({"input_scale": 6.0} if scales else {})}
    decays = {"embedding": 2.0} if embedding else {}
    flat = np.ones(model.n_parameters)
    lr, decay = flat * 0.01, flat * 0.0
    for bias, d_weight in zip(model.views(lr)[1], model.views(decay)[0], strict=True):
        bias *= 0.1
        d_weight[:] = 0.5
    views, d_views = model.architecture.stage_views(lr), model.architecture.stage_views(decay)
    for view, d_view in zip(views[:4], d_views[:4], strict=True):
        view *= 0.3
        d_view[:] = 1.0
    views.scale[:] *= 6.0
    theta, states, step = model.parameters.copy(), [np.zeros(model.n_parameters)] * 2, 0
    for epoch in range(3):
        for rows in batches_of(45, 9, 0, epoch):
            step += 1
            g = oracle(model, X[rows], y[rows], None, 0.01, theta)[1]
            g *= min(1.0, (clip or np.inf) / np.sqrt(g @ g))
            hyper = {**optimizer.hyperparameters(), "lr": lr, "weight_decay": decay}
            theta, states = reference.adamw(theta, g, states, step, **hyper)
    fastdl.Trainer(model, optimizer, 9, 3, l2=0.01, clip_norm=clip, group_rates=rates, group_decays=decays).fit(X, y)
    np.testing.assert_allclose(model.parameters, theta, rtol=1e-8, atol=1e-11)


@every_dtype
@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize(("width", "batch"), [(20, 100), (150, 100), (12, 1500), (150, 1500)])
def test_the_number_of_threads_changes_no_bit(rng, dtype, clip, width, batch):
    """Fused row blocks, layer after layer, many rows of a small network; with and without clipping."""
    X, y = make_data(rng, 1500, (11, 3), "softmax")
    results = []
    for n_threads in (1, 2, 3):
        model = staged(PBLD(columns=range(1, 10)), True, (11, width, width, 3), dtype=dtype, activation="relu")
        fastdl.Trainer(model, batch_size=batch, epochs=2, n_threads=n_threads, clip_norm=clip, dropout=0.2).fit(X, y)
        results.append((model.parameters, model.engine.forward(model.prepare_inputs(X), n_threads)))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0][0], other[0])
        np.testing.assert_array_equal(results[0][1], other[1])


def test_it_learns_a_wave_that_a_plain_network_does_not(rng):
    X = rng.uniform(-1, 1, (2000, 2)).astype(np.float32)
    y = np.sin(12 * X[:, 0]) * np.sign(X[:, 1])
    errors = []
    for embedding in (None, PBLD(sigma=1.0)):
        model = fastdl.MLP([2, 32, 32, 1], "relu", "linear", embedding=embedding)
        fastdl.Trainer(model, fastdl.Adam(0.01), 100, 30).fit(X[:1500], y[:1500])
        errors.append(np.sqrt(np.mean((model.predict(X[1500:]) - y[1500:]) ** 2)))
    assert errors[1] < 0.5 * errors[0]


def test_dropout_drops_hidden_outputs_and_no_inputs(rng):
    """The first hidden layer has the rate that is asked for, and the stage none."""
    X = rng.normal(size=(40, 5))
    model = staged(PBLD(), True, (5, 400, 3))
    trainer = fastdl.Trainer(model, fastdl.SGD(1e-12), 40, 1, dropout=0.5)
    trainer.fit(X, rng.integers(0, 3, 40))
    workspace = trainer._session.workspace
    stage, hidden = 5 * 4, trainer._session._layout.strides[2]
    outputs = workspace.outputs[: 40 * (stage + hidden)]
    assert (outputs[: 40 * stage] != 0).all()
    assert np.mean(outputs[40 * stage :] == 0) == pytest.approx(0.5, abs=0.03)


def test_explain_says_what_the_embedding_costs():
    model = fastdl.MLP([20, 30, 4], embedding=PBLD(), scale_inputs=True)
    told = fastdl.Trainer(model, batch_size=64, n_threads=1).explain(0.02)
    assert 0 < told.embedding < 1
    shares = [told.embedding, told.forward, told.backward, told.update, told.gather, told.waiting]
    assert sum(shares) == pytest.approx(1, abs=1e-6)
    assert "embedding" in str(told)
    plain = fastdl.Trainer(fastdl.MLP([20, 30, 4]), batch_size=64, n_threads=1).explain(0.02)
    assert plain.embedding == 0
    assert "embedding" not in str(plain)


# --- copies and files ---


@every_stage
@every_dtype
def test_copies_and_files_predict_and_go_on_alike(rng, tmp_path, embedding, scales, dtype):
    model = staged(embedding, scales, dtype=dtype)
    X, y = make_data(rng, 30, model.layers, "softmax")
    model.standardize(X)
    trainer = fastdl.Trainer(model, batch_size=10, epochs=2)
    trainer.fit(X, y)
    model.save(tmp_path / "m.fastdl")
    others = [fastdl.load(tmp_path / "m.fastdl"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    for other in others:
        assert (other.embedding, other.scale_inputs) == (model.embedding, model.scale_inputs)
        np.testing.assert_array_equal(other.parameters, model.parameters)
        np.testing.assert_array_equal(other.forward(X), model.forward(X))
        assert np.shares_memory(other.input_stage.scale, other.parameters) or not scales
        assert not np.shares_memory(other.parameters, model.parameters)
    copied = pickle.loads(pickle.dumps(trainer))
    trainer.fit(X, y)
    copied.fit(X, y)
    np.testing.assert_array_equal(copied.model.parameters, model.parameters)
    assert not np.array_equal(others[0].parameters, model.parameters)


def test_a_file_without_a_stage_says_nothing_of_one(tmp_path):
    description = fastdl.MLP([2, 2])._description()
    assert not {"embedding", "scale_inputs"} & set(description)


# --- bad input ---


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: PBLD(size=1),
            "PBLD: size: expected the numbers that a column becomes, a whole number of at least 2, got 1",
        ),
        (lambda: PBLD(frequencies=0), "PBLD: frequencies"),
        (
            lambda: PBLD(sigma=0),
            "PBLD: sigma: expected the deviation of the initial frequencies, a finite number above 0",
        ),
        (lambda: PBLD(columns=[]), "PBLD: columns: expected None or a list of at least one column's number"),
        (lambda: PBLD(columns="age"), "PBLD: columns"),
        (lambda: PBLD(columns=[1, 1]), r"PBLD: columns: expected each column once, got \[1, 1\]"),
        (lambda: PBLD(columns=[-1]), "PBLD: columns"),
        (
            lambda: fastdl.MLP([3, 2], embedding=PBLD(columns=[3])),
            "PBLD: columns: expected columns 0 to 2 of the model's inputs, got 3",
        ),
        (lambda: fastdl.MLP([3, 2], embedding="pbld"), r"embedding: expected an instance such as fastdl.PBLD\(\)"),
        (lambda: fastdl.MLP([3, 2], embedding=PBLD), "embedding: expected an instance"),
        (lambda: fastdl.MLP([3, 2], scale_inputs=1), "scale_inputs: expected True or False, got 1"),
        (
            lambda: fastdl.Trainer(fastdl.MLP([3, 2], scale_inputs=True), group_rates={"embedding": 0.1}),
            r"group_rates: expected groups that this model has \(weights, biases, input_scale\), got 'embedding'",
        ),
        (
            lambda: fastdl.Trainer(fastdl.MLP([3, 2], embedding=PBLD()), group_rates={"embedding": [0.1]}),
            r"group_rates\['embedding'\]: expected a factor",
        ),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(fastdl.InputError, match=words):
        make()


def test_sparse_rows_are_refused():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    model = fastdl.MLP([3, 2], scale_inputs=True)
    with pytest.raises(
        fastdl.InputError, match="X: expected a dense array, since this model embeds or scales its inputs"
    ):
        model.predict(scipy_sparse.csr_array(np.eye(3)))


@pytest.mark.parametrize("name", ["embedding", "scale_inputs", "input_stage"])
def test_a_model_keeps_its_stage(name):
    model = fastdl.MLP([3, 2], embedding=PBLD())
    with pytest.raises(fastdl.InputError, match=f"{name}: expected a model to keep what it is made of"):
        setattr(model, name, None)


def test_inspect_shows_the_stage(run, tmp_path):
    fastdl.MLP([3, 2], embedding=PBLD(), scale_inputs=True).save(tmp_path / "m.fastdl")
    shown = run("inspect", "m.fastdl").out
    row = next(line for line in shown.splitlines() if line.strip().startswith("inputs") and "PBLD" in line)
    assert "261" in row  # 3 * 83 + 12
    assert "PBLD, scaled" in row
    assert "12 × 2" in shown


def test_a_model_of_a_table_has_a_stage(rng):
    """`TableModel` is made like any other."""
    from fastdl.tables.model import TableModel

    model = TableModel([4, 3, 2], embedding=PBLD(columns=[1]))
    again = TableModel._of_description(model._description(), model.parameters)
    X = rng.normal(size=(5, 4))
    np.testing.assert_array_equal(again.forward(X), model.forward(X))


@pytest.mark.parametrize("options", [{"embedding": fastdl.PBLD()}, {"scale_inputs": True}])
def test_scikit_learn_has_no_stage(options):
    """A network of its own without the embedding would predict something else."""
    with pytest.raises(fastdl.InputError, match="expected a model of dense layers"):
        fastdl.MLP([3, 4, 1], output="linear", **options).to_sklearn()


def test_nor_has_it_a_clip(rng):
    with pytest.raises(fastdl.InputError, match="expected a model of dense layers"):
        fastdl.MLP([3, 4, 1], output="linear").standardize(rng.normal(size=(9, 3)), clip=3.0).to_sklearn()


def test_a_checkpoint_holds_the_stage_and_its_settings(tmp_path, rng):
    """The same bits as without an interruption, with schedules of decay and dropout and rates by groups."""
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    settings = {
        "optimizer": fastdl.AdamW(0.01), "batch_size": 16, "epochs": 6, "dropout": 0.2, "ntk": True,
        "schedule": schedules.CosLog4(), "decay_schedule": schedules.FlatCosine(), "dropout_schedule": schedules.FlatCosine(),
        "group_rates": {"embedding": 0.1, "input_scale": 6.0},
    }  # fmt: skip
    results = []
    for stops in (False, True):
        model = fastdl.MLP([3, 8, 1], output="linear", embedding=fastdl.PBLD(), scale_inputs=True)
        trainer = fastdl.Trainer(model, **settings)
        if stops:
            trainer.callbacks = [Saver(tmp_path / "c", 3)]
            trainer.fit(X, y)
            trainer = fastdl.Trainer.from_checkpoint(tmp_path / "c", callbacks=[])
        trainer.fit(X, y)
        results.append((trainer.model.parameters.tobytes(), trainer.history.loss))
    assert results[0] == results[1]


def test_a_checkpoint_refuses_an_average(tmp_path):
    trainer = fastdl.Trainer(fastdl.MLP([2, 1], output="linear"), callbacks=[fastdl.AverageParameters()])
    with pytest.raises(fastdl.InputError, match="no AverageParameters among the callbacks"):
        trainer.save_checkpoint(tmp_path / "c")
