"""The input stage: embeddings of numbers and learnt scales, against naive NumPy and differences, in every kind of step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import reference
from checking import eps
from problems import batches_of, make_data
from staging import check_by_differences, check_by_oracle, every_dtype, every_stage, forward, oracle, staged

import fastdl
from fastdl import PBLD, Periodic, PiecewiseLinear

pytestmark = pytest.mark.usefixtures("one_thread")

# --- forward ---


@every_stage
@every_dtype
@pytest.mark.parametrize("rows", [1, 17, 500])
def test_forward(rng, embedding, scales, dtype, rows):
    model = staged(embedding, scales, dtype=dtype)
    X = (3 * rng.normal(size=(rows, 5))).astype(dtype)
    wanted = forward(model, X)
    np.testing.assert_allclose(model.forward(X), wanted, rtol=0, atol=300 * eps(dtype))
    np.testing.assert_array_equal(model.predict(X), model.forward(X).argmax(axis=1))
    one_by_one = np.concatenate([model.forward(row[None]) for row in X[:20]])
    np.testing.assert_allclose(one_by_one, wanted[:20], rtol=0, atol=300 * eps(dtype))


def test_the_views_are_the_formula(rng):
    """One column, one cosine by hand: e = v cos(2π w x + b) + a, and x behind it, times the scales."""
    model = fastdl.MLP([1, 2], output="linear", dtype="float64", embedding=PBLD(2, 1), scale_inputs=True)
    stage = model.input_stage
    stage.frequencies[:], stage.phases[:], stage.weights[:], stage.biases[:] = 0.7, 0.3, 1.5, -0.2
    stage.scale[:] = 2.0, 3.0
    model.weights[0][:] = np.eye(2)
    e = 1.5 * np.cos(2 * np.pi * 0.7 * 0.4 + 0.3) - 0.2
    np.testing.assert_allclose(model.forward([[0.4]]), [[2 * e, 3 * 0.4]], rtol=1e-14)


def test_periodic_views_are_the_formula():
    model = fastdl.MLP([1, 1], output="linear", dtype="float64", embedding=Periodic(1, 1))
    stage = model.input_stage
    assert [v.shape for v in stage] == [(1, 1), (1, 0), (1, 1, 2), (1, 1), (0,), (1, 0), (0, 0)]
    stage.frequencies[:], stage.weights[:], stage.biases[:] = 0.7, [1.5, 0.4], -0.2
    model.weights[0][:] = 1
    angle = 2 * np.pi * 0.7 * 0.4
    np.testing.assert_allclose(model.forward([[0.4]]), [[1.5 * np.cos(angle) + 0.4 * np.sin(angle) - 0.2]], rtol=1e-14)


def test_pieces_are_the_formula():
    """Edges 0, 1, 1, 3: the first and the last piece go on beyond the edges, and the one of no width is 0."""
    model = fastdl.MLP([1, 1], output="linear", dtype="float64", embedding=PiecewiseLinear(1, 3))
    stage = model.input_stage
    assert [v.shape for v in stage] == [(1, 0), (1, 0), (1, 1, 3), (1, 1), (0,), (1, 4), (0, 0)]
    stage.edges[:], stage.weights[:], stage.biases[:] = [0, 1, 1, 3], [10.0, 5.0, 1.0], 0.5
    model.weights[0][:] = 1
    inputs = np.array([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 5.0])[:, None]
    wanted = np.array([-9.5, 0.5, 5.5, 10.5, 11.0, 11.5, 12.5])[:, None]
    np.testing.assert_allclose(model.forward(inputs), wanted, rtol=1e-14)


@every_dtype
def test_edges_are_quantiles_of_what_the_network_reads(rng, dtype):
    X = np.column_stack([rng.normal(7, 3, 400), rng.exponential(size=400), rng.integers(0, 2, 400), np.full(400, 2.0)])
    model = fastdl.MLP([4, 1], output="linear", dtype=dtype, embedding=PiecewiseLinear(2, 8, columns=[1, 0, 2, 3]))
    before = model.input_stage.edges.copy()
    np.testing.assert_allclose(before[0], -before[0, ::-1], atol=1e-6)
    assert (np.diff(before) > 0).all()
    model.standardize(X, clip=3.0)
    inputs = model.prepare_inputs(X)
    for edges, column in zip(model.input_stage.edges[:2], (1, 0), strict=True):
        np.testing.assert_allclose(edges, np.quantile(inputs[:, column], np.arange(9) / 8), rtol=1e-6)
    low, high = np.unique(inputs[:, 2])
    np.testing.assert_array_equal(model.input_stage.edges[2], [low] * 8 + [high])
    np.testing.assert_array_equal(model.input_stage.edges[3], np.zeros(9))
    assert np.isfinite(model.forward(X)).all()
    other = fastdl.MLP([4, 1], output="linear", dtype=dtype, embedding=PiecewiseLinear(2, 8, columns=[1, 0, 2, 3]))
    other.fit_embedding(model.prepare_inputs(X))
    np.testing.assert_array_equal(other.input_stage.edges, model.input_stage.edges)


@pytest.mark.parametrize("clip", [None, 0.01])
def test_no_step_changes_edges(rng, clip):
    X, y = make_data(rng, 40, (5, 3), "softmax")
    model = staged(PiecewiseLinear(), True, dtype="float32")
    before = model.input_stage.edges.copy()
    optimizer = fastdl.AdamW(0.1, weight_decay=0.5)
    fastdl.Trainer(model, optimizer, 8, 3, l2=0.1, clip_norm=clip, group_decays={"embedding": 1, "input_scale": 1}).fit(
        X, y
    )
    np.testing.assert_array_equal(model.input_stage.edges, before)


def test_initial_parameters():
    model = fastdl.MLP([200, 8, 2], embedding=PBLD(sigma=0.3), scale_inputs=True, init="lecun")
    stage = model.input_stage
    assert [v.shape for v in stage] == [(200, 16), (200, 16), (200, 3, 16), (200, 3), (800,), (200, 0), (0, 0)]
    assert model.weights[0].shape == (800, 8)
    assert stage.frequencies.std() == pytest.approx(0.3, rel=0.05)
    assert stage.phases.std() == pytest.approx(np.pi / np.sqrt(3), rel=0.05)
    assert np.abs(stage.phases).max() <= np.pi + 1e-6
    for part in (stage.weights, stage.biases):
        assert part.std() == pytest.approx(0.25 / np.sqrt(3), rel=0.1)
        assert np.abs(part).max() <= 0.25
    assert (stage.scale == 1).all()
    assert model.weights[0].std() == pytest.approx(1 / np.sqrt(800), rel=0.05)
    assert all(np.shares_memory(part, model.parameters) for part in stage[:5])
    assert model.n_parameters == 200 * 83 + 800 + 801 * 8 - 8 + 8 + 8 * 2 + 2


# --- gradient ---


@every_stage
@pytest.mark.parametrize("output", ["softmax", "linear"])
def test_gradient_by_differences(rng, embedding, scales, output):
    model = staged(embedding, scales, output=output)
    X, y = make_data(rng, 6, model.layers, output)
    gradient = check_by_differences(model, X, y, 1e-6)
    assert not model.architecture.stage_views(gradient).edges.any()


@every_stage
@every_dtype
@pytest.mark.parametrize("layers", [(5, 3), (5, 19, 33, 3), (5, 300, 200, 3)], ids=str)
@pytest.mark.parametrize("rows", [3, 50, 700])
def test_gradient_equals_the_oracle(rng, embedding, scales, dtype, layers, rows):
    """Linear models, fused row blocks (small) and layer after layer (large); few rows and many."""
    model = staged(embedding, scales, layers, dtype=dtype)
    X, y = make_data(rng, rows, layers, "softmax")
    X = X.astype(dtype)
    check_by_oracle(rng, model, X, y, 20, 200)


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
@pytest.mark.parametrize(
    ("kind", "clip", "width", "batch"),
    [*itertools.product([PBLD], [None, 0.1], [20, 150], [100, 1500]), (Periodic, None, 20, 100), (Periodic, 0.1, 150, 1500),
     (PiecewiseLinear, None, 20, 1500), (PiecewiseLinear, 0.1, 150, 100)],
)  # fmt: skip
def test_the_number_of_threads_changes_no_bit(rng, dtype, kind, clip, width, batch):
    """Fused row blocks, layer after layer, many rows of a small network; with and without clipping."""
    X, y = make_data(rng, 1500, (11, 3), "softmax")
    results = []
    for n_threads in (1, 2, 3):
        model = staged(kind(columns=range(1, 10)), True, (11, width, width, 3), dtype=dtype, activation="relu")
        fastdl.Trainer(model, batch_size=batch, epochs=2, n_threads=n_threads, clip_norm=clip, dropout=0.2).fit(X, y)
        results.append((model.parameters, model.engine.forward(model.prepare_inputs(X), n_threads)))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0][0], other[0])
        np.testing.assert_array_equal(results[0][1], other[1])


def test_it_learns_a_wave_that_a_plain_network_does_not(rng):
    X = rng.uniform(-1, 1, (2000, 2)).astype(np.float32)
    y = np.sin(12 * X[:, 0]) * np.sign(X[:, 1])
    errors = []
    for embedding in (None, PBLD(sigma=1.0), Periodic(sigma=1.0), PiecewiseLinear(pieces=32)):
        model = fastdl.MLP([2, 32, 32, 1], "relu", "linear", embedding=embedding)
        fastdl.Trainer(model, fastdl.Adam(0.01), 100, 30).fit(X[:1500], y[:1500])
        errors.append(np.sqrt(np.mean((model.predict(X[1500:]) - y[1500:]) ** 2)))
    assert max(errors[1:]) < 0.5 * errors[0]


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


@pytest.mark.parametrize("embedding", [PBLD(), Periodic(), PiecewiseLinear()])
def test_explain_says_what_the_embedding_costs(embedding):
    model = fastdl.MLP([20, 30, 4], embedding=embedding, scale_inputs=True)
    told = fastdl.Trainer(model, batch_size=64, n_threads=1).explain(0.02)
    assert 0 < told.embedding < 1
    shares = [told.embedding, told.forward, told.backward, told.update, told.gather, told.waiting]
    assert sum(shares) == pytest.approx(1, abs=1e-6)
    assert "embedding" in str(told)
    plain = fastdl.Trainer(fastdl.MLP([20, 30, 4]), batch_size=64, n_threads=1).explain(0.02)
    assert plain.embedding == 0
    assert "embedding" not in str(plain)
