"""The forward pass over many rows: chunks and threads change no bit, inputs are looked through, and classes are argmax."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from checking import DTYPES
from problems import make_model

import fastdl
from fastdl.engine import predictor
from fastdl.engine.predictor import CHUNK_ROWS
from fastdl_kernels.simd import pointer

every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@numba.njit
def argmax_of_each(rows, result):
    for i in range(rows.shape[0]):
        result[i] = predictor.argmax(pointer(rows, i * rows.shape[1]), rows.shape[1])


@numba.njit
def finite_up_to(data, n):
    return predictor.is_finite(pointer(data, 0), n)


@pytest.mark.usefixtures("one_thread")
@every_dtype
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 9, 10, 16, 17, 40])
def test_the_greatest_is_numpy_argmax(rng, dtype, n):
    """Few different values, so that most rows have several greatest; NaN and infinities among them."""
    special = np.array([-np.inf, np.inf, np.nan], dtype)
    rows = rng.integers(-2, 3, size=(600, n)).astype(dtype)
    for share, part in ((0.0, rows[:200]), (0.05, rows[200:400]), (0.5, rows[400:])):
        part[:] = np.where(rng.random(part.shape) < share, rng.choice(special, part.shape), part)
    found = np.empty(len(rows), np.int64)
    argmax_of_each(rows, found)
    np.testing.assert_array_equal(found, rows.argmax(axis=1))


@every_dtype
def test_every_number_is_looked_at(dtype):
    for n in range(1, 75):
        data = np.ones(n + 1, dtype)
        data[n] = np.nan  # beyond the end
        assert finite_up_to(data, n)
        for i in range(n):
            for bad in (np.nan, np.inf, -np.inf):
                data[i] = bad
                assert not finite_up_to(data, n), (n, i, bad)
            data[i] = np.finfo(dtype).max
        assert finite_up_to(data, n)


@every_dtype
@pytest.mark.parametrize("n_rows", [CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS + 1, 1000, 5000])
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_chunks_and_threads_change_no_bit(rng, dtype, n_rows, n_threads):
    model = make_model([9, 40, 20, 5], "tanh", "softmax", dtype)
    X = rng.normal(size=(n_rows, 9)).astype(dtype)
    want = np.concatenate([model.forward(X[i : i + 100]) for i in range(0, n_rows, 100)])
    for _ in range(3):  # calls become longer with each
        np.testing.assert_array_equal(model.engine.forward(X, n_threads), want)
    np.testing.assert_array_equal(model.predict(X), want.argmax(axis=1))


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("row", [0, CHUNK_ROWS, 599])
def test_what_is_not_finite_is_found_in_any_chunk(rng, n_threads, row):
    model = make_model([70, 10, 3], "relu", "softmax", "float32")  # a ReLU turns -inf into 0: outputs would not show it
    X = rng.normal(size=(600, 70)).astype("float32")
    X[row, 69] = -np.inf
    message = f"X: expected finite numbers, got -inf in row {row}, column 69"
    with pytest.raises(fastdl.InputError, match=message):
        model.engine.forward(X, n_threads)
    for call in (model.predict, model.forward, model.predict_proba):
        with pytest.raises(fastdl.InputError, match=message):
            call(X)
        with pytest.raises(fastdl.InputError, match="in row 0, column 69"):
            call(X[row : row + 1])
