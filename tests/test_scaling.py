"""Standardisation at the edges: large offsets, tiny and constant columns, and targets back in their units."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import r2_score

import fastdl
from fastdl import metrics
from fastdl.scaling import Scaling, robust_statistics, robust_statistics_of_ones

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0.0, 5e3, 1.7e9, 1e15, -1e15])
def test_predictions_are_in_the_units_of_the_data(rng, dtype, offset):
    """`predict` and the history agree, however far the targets lie from 0 for what they vary by."""
    A = rng.normal(size=(500, 3))
    w = offset + 10 * A.sum(1)
    model = fastdl.MLP([3, 1], output="linear", dtype=dtype).standardize(A, w)
    history = fastdl.Trainer(model, fastdl.Adam(0.03), batch_size=50, epochs=60).fit(A, w, validation_data=(A, w))
    predictions = model.predict(A)
    assert predictions.dtype == np.float64
    rmse = np.sqrt(np.mean((predictions - w) ** 2))
    resolution = np.spacing(abs(offset) + 50)
    assert rmse == pytest.approx(history.metrics["rmse"][-1], rel=1e-3, abs=2 * resolution + 1e-5)
    assert rmse < 0.1 + 2 * resolution
    assert history.metrics["r2"][-1] == pytest.approx(r2_score(w, predictions), abs=1e-3)


@pytest.mark.parametrize("size", [1e-300, 1e-13, 1e-5, 1.0, 1e13, 1e150])
@pytest.mark.parametrize("offset", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_varies_is_scaled_whatever_its_size(rng, size, offset, dtype):
    """Standardised columns have mean 0 and deviation 1; only differences of a few units in the last place are none."""
    column = np.linspace(-1, 1, 101) * size + offset * size
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with np.errstate(over="ignore", under="ignore"):
            X = column[:, None].astype(dtype)
        if not np.isfinite(X).all() or np.ptp(X) == 0:
            return
        scaled = Scaling.of(X).inputs(X, np.dtype("float64"))
    rough = 50 * np.finfo(dtype).eps * (1 + offset)
    assert abs(scaled.mean()) < rough
    assert scaled.std() == pytest.approx(1, rel=float(1e-3 + rough))


def test_counters_with_a_large_offset():
    """Values of 1e15 + i are numbers that differ by 1: exact in float64, and not in float32."""
    X = (1e15 + np.arange(400.0))[:, None]
    scaled = Scaling.of(X).inputs(X, np.dtype("float32"))
    want = (np.arange(400) - 199.5) / np.arange(400).std()
    np.testing.assert_allclose(scaled[:, 0], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e-13, 1e13, -7.7, 5e-324])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_columns_become_0(value, dtype):
    X = np.full((1000, 1), value, dtype)
    X[::3] = np.nextafter(X[0], dtype(np.inf)) if value > 1e-300 else X[0]  # rounding
    scaling = Scaling.of(X)
    assert scaling.scale[0] == 1
    assert np.abs(scaling.inputs(X, np.dtype("float64"))).max() < 1e-2 * max(abs(value), 1e-20)


def test_whole_numbers_and_booleans():
    X = np.array([[1, 2**40], [3, 2**40], [5, 2**40]])
    np.testing.assert_allclose(Scaling.of(X).scale, [np.sqrt(8 / 3), 1])
    np.testing.assert_allclose(Scaling.of(X[:, :1] > 1).scale, [np.sqrt(2) / 3])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.1, 0.0, 1e6, -3.3])
def test_r2_of_a_constant_target(dtype, value):
    """1 where the error is rounding, else 0, as scikit-learn says of exact numbers."""
    model = fastdl.MLP([1, 1], output="linear", dtype=dtype)
    y = np.full((50, 1), value, dtype)
    close = y * dtype_number(dtype, 1 + np.finfo(dtype).eps)
    assert metrics.evaluate(model, y, y)["r2"] == 1 == r2_score(y, y)
    assert metrics.evaluate(model, close, y)["r2"] == 1
    assert metrics.evaluate(model, y + dtype_number(dtype, 0.01 + abs(value) / 50), y)["r2"] == 0


def dtype_number(dtype, value):
    return np.dtype(dtype).type(value)


def test_r2_as_scikit_learn_has_it(rng):
    model = fastdl.MLP([1, 3], output="linear", dtype="float64")
    y, p, w = rng.normal(size=(40, 3)), rng.normal(size=(40, 3)), rng.random(40)
    assert metrics.evaluate(model, p, y)["r2"] == pytest.approx(r2_score(y, p), rel=1e-12)
    assert metrics.evaluate(model, p, y, w)["r2"] == pytest.approx(r2_score(y, p, sample_weight=w), rel=1e-12)


def test_large_targets_that_nothing_scales_are_warned_of(rng):
    X = rng.normal(size=(60, 3))
    y = 5e5 + 1e4 * X[:, 0]
    model = fastdl.MLP([3, 4, 1], output="linear").standardize(X)
    with pytest.warns(UserWarning, match=r"y: the targets are around 5e\+05 .* model.standardize\(X, y\)") as caught:
        fastdl.Trainer(model, batch_size=20, epochs=1).fit(X, y)
    assert caught[0].filename == __file__
    fastdl.Trainer(model.standardize(X, y), batch_size=20, epochs=1).fit(X, y)  # no warning


def test_predictions_far_beyond_the_targets_have_no_metrics():
    """Squares that leave float64 are infinite, without a warning: a training that diverges is told by its loss."""
    model = fastdl.MLP([2, 1], output="linear", dtype="float64")
    found = metrics.evaluate(model, np.full((3, 1), 1e200), np.array([[1.0], [2.0], [3.0]]))
    assert found == {"rmse": np.inf, "r2": -np.inf}


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int32", "float16", "bool"])
@pytest.mark.parametrize("layout", ["rows", "columns", "every other", "two arrays"])
def test_statistics_block_by_block_are_those_of_numpy(rng, dtype, layout):
    """2.4 million numbers, in blocks of one million: the same bits, the same constant and far columns."""
    X = (rng.random((40_000, 60)) * 90).astype(dtype) if dtype != "bool" else rng.random((40_000, 60)) < 0.3
    X[:, 7] = 1
    if dtype in ("float64", "int32"):
        X[:, 8] = 1e8 + np.arange(len(X)) % 3 * 8
    X = {"columns": np.asfortranarray, "every other": lambda X: np.repeat(X, 2, 1)[:, ::2]}.get(layout, np.array)(X)
    got = Scaling.of([X[:17_000], X[17_000:]] if layout == "two arrays" else X)
    wide = X.astype(np.float32) if dtype == "float16" else X
    mean, scale = wide.mean(axis=0, dtype=np.float64), wide.std(axis=0, dtype=np.float64)
    usual = ~np.isin(np.arange(60), (7, 8))
    np.testing.assert_array_equal(got.mean[usual], mean[usual])
    np.testing.assert_array_equal(got.scale[usual], scale[usual])
    np.testing.assert_allclose(got.scale[8], scale[8], rtol=1e-6)
    assert got.scale[7] == 1


# --- robust statistics and smooth clipping ---


def robust_by_hand(column):
    low, first, median, third, high = np.quantile(column, [0, 0.25, 0.5, 0.75, 1])
    scale = third - first or (high - low) / 2 or 1.0
    return median, scale


def test_robust_statistics_and_the_clip():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=101), np.exp(3 * rng.normal(size=101)), np.arange(101) < 5, np.ones(101)])
    y = rng.normal(7, 3, 101)
    model = fastdl.MLP([4, 1], output="linear", dtype="float64").standardize(X, y, robust=True, clip=3.0)
    middle, scale = np.array([robust_by_hand(column) for column in X.T]).T
    np.testing.assert_allclose(model.scaling.mean, middle)
    np.testing.assert_allclose(model.scaling.scale, scale)
    z = (X - middle) / scale
    np.testing.assert_allclose(model.prepare_inputs(X), z / np.sqrt(1 + (z / 3) ** 2), rtol=1e-12)
    assert abs(model.prepare_inputs(1e12 * X)).max() == pytest.approx(3)
    assert (model.scaling.y_mean, model.scaling.y_scale) == (pytest.approx(y.mean()), pytest.approx(y.std()))
    unclipped = fastdl.MLP([4, 1], output="linear", dtype="float64").standardize(X, y, robust=True)
    np.testing.assert_allclose(unclipped.prepare_inputs(X), z)


def test_a_clip_travels_with_the_file(tmp_path):
    X = np.random.default_rng(0).normal(size=(50, 3)) ** 3
    model = fastdl.MLP([3, 2]).standardize(X, robust=True, clip=2.0)
    model.save(tmp_path / "m.fastdl")
    loaded = fastdl.load(tmp_path / "m.fastdl")
    assert loaded.scaling.clip == 2.0
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    with pytest.raises(fastdl.InputError, match="clip: expected how far features get at the most"):
        model.standardize(X, clip=0.0)


@pytest.mark.parametrize("ones", [0, 1, 3, 24, 25, 26, 50, 75, 76, 99, 100])
def test_robust_statistics_of_ones_are_those_of_the_column(ones):
    column = (np.arange(100) < ones).astype(float)
    assert robust_statistics_of_ones(ones, 100) == pytest.approx(robust_by_hand(column))
    assert robust_statistics(column) == pytest.approx(robust_by_hand(column))
