"""Inputs as they are: numbers of any type, anywhere in memory, give the bits of a standardised copy, and none is made."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from problems import make_model

import fastdl
from fastdl import stored
from fastdl.engine.finite import all_finite
from fastdl.errors import InputError
from fastdl.scaling import Scaling
from fastdl.stored import NUMBER_TYPES, StoredRows

ROWS, COLUMNS = 130, 37
LAYERS = [COLUMNS, 11, 3]


@pytest.fixture
def read_in_place(monkeypatch):
    """Small inputs are read where they are as well."""
    monkeypatch.setattr(stored, "CONVERTED_BYTES", 0)


def numbers(rng, dtype, shape=(ROWS, COLUMNS)):
    """Numbers of a dtype over all of its range but for what float32 cannot hold, edges and subnormal ones among them."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.4
    if dtype.kind in "iu":
        ends = np.iinfo(dtype)
        X = rng.integers(ends.min, ends.max, shape, dtype, endpoint=True)
        X[0, :2] = ends.min, ends.max
        return X
    X = (rng.normal(size=shape) * 10.0 ** rng.integers(-3, 3, shape)).astype(dtype)
    X[0, :6] = np.array([0.0, -0.0, np.finfo(dtype).smallest_subnormal, -np.finfo(dtype).tiny / 4, 1, 60000], dtype)
    return X


def by_hand(X, scaling=None):
    """X in float64, standardised there."""
    X = X.astype(np.float64)
    if scaling is None:
        return X
    X = (X - scaling.mean) / scaling.scale
    return X if scaling.clip is None else X / np.hypot(1.0, X / scaling.clip)


def train(X, y, scaling=None, dtype="float32", **settings):
    """(all that a training leaves, losses and validation losses)."""
    model = make_model(LAYERS, "tanh", "softmax", dtype)
    model.scaling = scaling
    trainer = fastdl.Trainer(model, fastdl.Adam(0.01), epochs=2, **{"batch_size": 16, **settings})
    history = trainer.fit(X, y, validation_data=(X, y))
    return [
        model.parameters,
        *trainer._session.states,
        model.forward(X),
        model.predict(X),
    ], history.loss + history.val_loss


def assert_same(got, want):
    for mine, its in zip(got[0], want[0], strict=True):
        assert mine.dtype == its.dtype
        np.testing.assert_array_equal(bits(mine), bits(its))
    assert got[1] == want[1]


def bits(array):
    """The bytes of an array: -0 is not 0."""
    return np.ascontiguousarray(array).view(np.uint8)


LAYOUTS = {
    "rows": lambda X: np.ascontiguousarray(X),
    "columns": np.asfortranarray,
    "strided": lambda X: np.repeat(np.repeat(X, 2, 0), 3, 1)[::2, ::3],
    "backwards": lambda X: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
    "unaligned": lambda X: unaligned(X),
    "broadcast": lambda X: np.broadcast_to(X[:1], X.shape),
}


def unaligned(X):
    """The same numbers one byte behind an aligned place, in records of an odd size."""
    width = X.shape[1] * X.itemsize
    memory = np.zeros(len(X) * (width + 1) + 1, np.uint8)
    view = np.ndarray(X.shape, X.dtype, memory, 1, (width + 1, X.itemsize))
    view[:] = X
    assert X.itemsize == 1 or not view.flags.aligned
    return view


# --- the bits ---


@pytest.mark.parametrize("dtype", NUMBER_TYPES)
@pytest.mark.parametrize("scaled", [False, True, "clipped"])
@pytest.mark.parametrize("model", ["float32", "float64"])
def test_every_dtype_gives_the_bits_of_a_copy_made_by_hand(rng, read_in_place, dtype, scaled, model):
    X, y = numbers(rng, dtype), rng.integers(0, 3, ROWS)
    scaling = Scaling.of(X) if scaled else None
    if scaled == "clipped":
        scaling = replace(scaling, clip=0.7)
    if not scaled and X.dtype.itemsize > 2:  # numbers of 1e19 would saturate all units
        X = X % 9
    want = by_hand(X, scaling).astype(model)
    assert isinstance(make_model(LAYERS, "tanh", "softmax", model)._inputs(X[:, ::-1])[0], StoredRows)
    assert_same(train(X, y, scaling, model), train(want, y, None, model))


@pytest.mark.parametrize("dtype", NUMBER_TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", ["float32", "float64"])
def test_rows_are_read_as_numpy_converts_them(rng, dtype, layout, model):
    """Exactly, subnormal numbers, edges of the range and signs of zero included, from any place."""
    X = LAYOUTS[layout](numbers(rng, dtype))
    X.flags.writeable = False
    for scaling in (None, Scaling.of(X)):
        rows = StoredRows([X], model, *(() if scaling is None else (scaling.mean, scaling.scale)))
        want = by_hand(X, scaling).astype(model)
        np.testing.assert_array_equal(bits(read(rows)), bits(want))
        np.testing.assert_array_equal(bits(rows.array()), bits(want))


def read(rows, order=None):
    """The rows as compiled code reads them: an identity layer gives them back."""
    order = np.arange(len(rows)) if order is None else order
    from fastdl.engine.source import arguments_of, for_source

    for_source(rows)
    out = np.full((len(order), rows.shape[1]), np.nan, rows.dtype)
    read_all(arguments_of(rows), order, out)
    return out


def read_all(source, order, out):
    global _read_all
    if _read_all is None:
        _read_all = compiled_reader()
    _read_all(source, order, out)


_read_all = None


def compiled_reader():
    from fastdl.engine.source import read_rows
    from fastdl.engine.structs import Matrix, source_of
    from fastdl_kernels.serial import entry
    from fastdl_kernels.simd import flush_subnormals, pointer, restore_mode

    @entry
    def read_in_order(source, order, out):
        mode = flush_subnormals()
        to = Matrix(pointer(out, 0), out.shape[1])
        read_rows(to, source_of(source), pointer(order, 0), 0, order.size, order.size)
        restore_mode(mode)

    return read_in_order


@pytest.mark.parametrize("step", [1, 2])
def test_booleans_of_any_byte_are_0_or_1(step):
    """Views of other memory may hold bytes that are neither; to NumPy they are true."""
    X = np.array([[0, 1, 2, 255, 128, 0, 7]], np.uint8).view(bool)[:, ::step]
    np.testing.assert_array_equal(read(StoredRows([X], "float32")), X.astype(np.float32))


def test_numbers_of_the_other_byte_order_are_converted(rng, read_in_place):
    X, y = numbers(rng, "float32"), rng.integers(0, 3, ROWS)
    assert_same(train(X.astype(X.dtype.newbyteorder()), y), train(X, y))


def test_a_training_keeps_no_data(rng, read_in_place):
    """Nor the copy of a batch of all rows, once it has ended."""
    X, y = numbers(rng, "uint8"), rng.integers(0, 3, ROWS)
    trainer = fastdl.Trainer(make_model(LAYERS, "tanh", "softmax", "float32"), batch_size=ROWS, epochs=2)
    trainer.fit(X, y)
    data = weakref.ref(X)
    del X
    gc.collect()
    assert data() is None


def test_several_arrays_are_one_after_the_other(rng):
    parts = [
        numbers(rng, dtype, (n, COLUMNS)) for dtype, n in (("uint8", 5), ("float64", 1), ("int16", 40), ("bool", 3))
    ]
    rows = StoredRows([parts[0], parts[1][:0], *parts[1:]], "float64")
    whole = np.concatenate([part.astype(np.float64) for part in parts])
    order = rng.permutation(len(whole))
    np.testing.assert_array_equal(read(rows, order), whole[order])
    np.testing.assert_array_equal(rows.part(slice(3, 48)).array(), whole[3:48])
    np.testing.assert_array_equal(read(rows.part(slice(5, 49))), whole[5:])


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_training_on_several_arrays_is_that_on_one(rng, monkeypatch, scaled, in_place):
    if in_place:
        monkeypatch.setattr(stored, "CONVERTED_BYTES", 0)
    X, y = numbers(rng, "float32"), rng.integers(0, 3, ROWS)
    cuts = [X[:7], X[7:100].astype(np.float64), X[100:]]
    scaling = Scaling.of(cuts) if scaled else None
    if scaled:
        np.testing.assert_allclose(scaling.mean, Scaling.of(X).mean, rtol=1e-12)
    want = train(X, y, scaling)
    assert_same(train(cuts, y, scaling), want)
    assert_same(train(cuts, [y[:7], y[7:100], y[100:]], scaling), want)
    with pytest.raises(InputError, match="y: expected an array for each of the 3 arrays of X"):
        train(cuts, [y[:7], y[7:]], scaling)
    with pytest.raises(InputError, match=r"X\[1\]: expected shape \(rows, 37\), got \(5, 36\)"):
        train([X, X[:5, 1:]], y)


SETTINGS = {
    "one batch": {"batch_size": ROWS},
    "one thread": {"n_threads": 1},
    "two threads": {"n_threads": 2},
    "clipped, with dropout": {"clip_norm": 0.1, "dropout": 0.3},
    "batches that do not fit": {"batch_size": 57},
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_change_no_bit(rng, read_in_place, settings):
    X, y = numbers(rng, "uint8"), rng.integers(0, 3, ROWS)
    scaling = Scaling.of(X)
    options = SETTINGS[settings]
    assert_same(train(X, y, scaling, **options), train(by_hand(X, scaling).astype(np.float32), y, **options))


def test_memory_maps_are_read_where_they_are(rng, read_in_place, tmp_path):
    X, y = numbers(rng, "int16"), rng.integers(0, 3, ROWS)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    scaling = Scaling.of(mapped)
    rows = make_model(LAYERS, "tanh", "softmax", "float32")._inputs(mapped)[0]
    assert np.shares_memory(rows.parts[0], mapped)
    assert_same(train(mapped, y, scaling), train(by_hand(X, scaling).astype(np.float32), y))


def test_loss_and_gradient_of_rows_as_they_are(rng, read_in_place):
    X, y = numbers(rng, "int8"), rng.integers(0, 3, ROWS)
    model = make_model(LAYERS, "tanh", "softmax", "float64")
    got, want = model.loss_and_gradient(X, y), model.loss_and_gradient(X.astype(np.float64), y)
    assert got[0] == want[0]
    np.testing.assert_array_equal(got[1], want[1])


# --- numbers that are not finite ---


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scaled", [False, True])
def test_numbers_that_are_not_finite_are_named(rng, read_in_place, dtype, bad, scaled):
    X, y = numbers(rng, dtype), rng.integers(0, 3, ROWS)
    scaling = Scaling.of(X) if scaled else None
    X = X[:, ::-1].copy()[:, ::-1]
    X[71, 5] = bad
    told = rf"X: expected finite numbers, got {bad} in row 71, column 5 \(counted from 0\)"
    model = make_model(LAYERS, "tanh", "softmax", "float32")
    model.scaling = scaling
    for call in (lambda: train(X, y, scaling), lambda: model.predict(X), lambda: model.forward(X)):
        with pytest.raises(InputError, match=told):
            call()
    with pytest.raises(InputError, match=told.replace("row 71", "row 201")):
        train([numbers(rng, dtype), X], np.concatenate([y, y]), scaling)


def test_numbers_beyond_float32_are_named(rng, read_in_place):
    X, y = numbers(rng, "float64"), rng.integers(0, 3, ROWS)
    X[9, 2] = 1e39
    with pytest.raises(InputError, match="X as float32: expected finite numbers, got inf in row 9, column 2"):
        train(X, y)
    tiny = Scaling(np.zeros(COLUMNS), np.full(COLUMNS, 1e-30))
    with pytest.raises(InputError, match="X as float32: expected finite numbers, got inf in row"):
        train(numbers(rng, "uint64"), y, tiny)


@pytest.mark.parametrize("at", [(0, 0), (40, 3), (6999, 8)])
def test_the_look_for_them_sees_every_place(rng, at):
    X = rng.normal(size=(7000, 9)).astype(np.float32)
    assert all_finite(StoredRows([X], "float32"))
    X[at] = np.nan
    assert not all_finite(StoredRows([X], "float32"))
    assert not all_finite(StoredRows([X[:3].copy() * 0, X], "float64"))


# --- memory ---


def peak_of(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("layout", ["rows", "columns", "strided"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_no_copy_is_made(rng, dtype, layout):
    """40,000 rows of 200: 32 MB as float32. Statistics, training, prediction take less than that by far."""
    X = LAYOUTS[layout]((rng.random((40_000, 200), np.float32) * 200).astype(dtype))
    y = np.arange(len(X)) % 3
    model = fastdl.MLP([200, 8, 3])
    trainer = fastdl.Trainer(model, batch_size=256, epochs=2)
    small = np.zeros((300, 200), np.float32)
    fastdl.Trainer(fastdl.MLP([200, 8, 3]), batch_size=256, epochs=1).fit(small, y[:300])

    def use():
        model.standardize(X)
        trainer.fit(X, y, validation_data=(X[:5000], y[:5000]))
        model.predict(X)

    assert peak_of(use) < 24 * len(X) + 3 * 2**23 < 4 * X.size  # the order of the rows, and three blocks of 8 MB
