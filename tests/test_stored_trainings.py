"""Inputs that are read where they lie, in all that trains on them: many models at once, checkpoints, tables' statistics."""

from __future__ import annotations

import numpy as np
import pytest
from problems import make_model

import fastdl
from fastdl import stored
from fastdl.scaling import Scaling
from fastdl.stored import StoredRows
from fastdl.training.fingerprint import fingerprint
from fastdl.training.rows import TrainingRows

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = [9, 6, 3]


@pytest.fixture(autouse=True)
def read_in_place(monkeypatch):
    """Small inputs are read where they are as well."""
    monkeypatch.setattr(stored, "CONVERTED_BYTES", 0)
    monkeypatch.setattr(stored, "NARROW_BYTES", 0)


@pytest.fixture
def data(rng):
    return rng.integers(0, 256, (60, 9), np.uint8), rng.integers(0, 3, 60)


def trainer_of(X, **settings):
    model = make_model(LAYERS, "tanh", "softmax", "float32").standardize(X, robust=True, clip=2.0)
    return fastdl.Trainer(model, fastdl.Adam(0.01), 8, **{"epochs": 3, **settings})


def copied(X):
    """The same numbers as a model takes them without a copy."""
    return X.astype(np.float32)


def test_chosen_rows_are_those_of_a_copy(rng, data):
    X, _ = data
    rows = StoredRows([X[:20], X[20:21], X[21:]], np.dtype("float32"), np.ones(9), np.full(9, 3.0), 1.5)
    chosen = rng.integers(0, 60, 100)
    np.testing.assert_array_equal(rows[chosen], rows.array()[chosen])
    np.testing.assert_array_equal(rows[chosen[:0]], rows.array()[:0])
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), rows.array())


@pytest.mark.parametrize("form", ["array", "list", "memory map"])
def test_many_models_share_inputs_that_stay_where_they_are(rng, data, form, tmp_path):
    """Each has the bits of its own training on a copy of its rows; weights, classes and validation rows too."""
    X, y = data
    given = X
    if form == "list":
        given = [X[:11], X[11:]]
    elif form == "memory map":
        np.save(tmp_path / "X.npy", X)
        given = np.load(tmp_path / "X.npy", mmap_mode="r")
    rows = [None, np.arange(40), rng.permutation(60)[:30], rng.integers(0, 60, 60)]
    judged = [None, np.arange(40, 60), np.arange(10), None]
    weight = rng.random(60) + 0.1
    trainers = [trainer_of(X, seed=i, class_weight="balanced") for i in range(4)]
    results = fastdl.fit_many(trainers, given, y, rows, judged, sample_weight=weight)
    for i, (trainer, result) in enumerate(zip(trainers, results)):
        assert result.error is None
        own = slice(None) if rows[i] is None else rows[i]
        held = None if judged[i] is None else (copied(X)[judged[i]], y[judged[i]], weight[judged[i]])
        alone = trainer_of(X, seed=i, class_weight="balanced")
        history = alone.fit(copied(X)[own], y[own], held, weight[own])
        np.testing.assert_array_equal(trainer.model.parameters, alone.model.parameters)
        assert (result.history.loss, result.history.val_loss) == (history.loss, history.val_loss)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_checkpoint_goes_on_with_the_same_numbers_in_any_form(data, epoch, tmp_path):
    """Written on bytes, taken up on bytes, on float32, on two arrays, to the bits of a training without a break."""
    (X, y), path = data, tmp_path / "c.fastdl"

    class Save(fastdl.Callback):
        def on_progress(self, now, rows_done):
            if now == epoch:
                self.trainer.save_checkpoint(path)

    trainer = trainer_of(X)
    trainer.fit(X, y)
    trainer_of(X, callbacks=[Save()]).fit(X, y)
    for given in (X, copied(X), [X[:7], X[7:]]):
        again = fastdl.Trainer.from_checkpoint(path, callbacks=[])
        history = again.fit(given, y)
        np.testing.assert_array_equal(again.model.parameters, trainer.model.parameters)
        assert history.loss == trainer.history.loss
    other = X.copy()
    other[3, 4] += 1
    with pytest.raises(fastdl.InputError, match="other values of X in column 4"):
        fastdl.Trainer.from_checkpoint(path, callbacks=[]).fit(other, y)


def test_a_fingerprint_takes_one_pass(monkeypatch):
    """Of 20 GB in a file each takes a minute."""
    x = np.arange(600_000, dtype=np.float64).reshape(-1, 2)[::2]
    rows = fastdl.MLP([2, 1], output="linear", dtype="float64").prepare_inputs(x)
    counts, blocks = [], type(rows).blocks
    monkeypatch.setattr(type(rows), "blocks", lambda self: counts.append(1) or blocks(self))
    found = fingerprint({"X": rows, "y": x[:, 0].copy(), "weight": None})
    assert len(counts) == 1
    assert (found["X"]["shape"], found["weight"]) == ([150_000, 2], None)
    np.testing.assert_allclose(found["X"]["sums"], x.sum(axis=0))
    np.testing.assert_allclose(found["y"]["sums"], [x[:, 0].sum()])


def test_a_fingerprint_is_that_of_a_copy(data):
    X, _ = data
    for dtype in ("float32", "float64"):
        rows = StoredRows([X[:13], X[13:]], np.dtype(dtype), np.full(9, 100.0), np.full(9, 50.0), 3.0)
        mine, its = (fingerprint({"X": x})["X"] for x in (rows, rows.array()))
        np.testing.assert_allclose(mine.pop("sums"), its.pop("sums"), rtol=1e-12)
        assert mine == its


def test_robust_statistics_of_several_arrays_are_those_of_one(rng, monkeypatch):
    X = rng.normal(size=(301, 9)) ** 3
    X[:, 4] = 7
    X[:, 5] = np.arange(301) < 5
    whole = Scaling.robust(X)
    monkeypatch.setattr("fastdl.scaling._COLUMNS_BLOCK", 700)
    for parts in (X, [X[:100], X[100:]], [np.asfortranarray(X)]):
        got = Scaling.robust(parts)
        np.testing.assert_array_equal(got.mean, whole.mean)
        np.testing.assert_array_equal(got.scale, whole.scale)


def test_partial_fit_reads_rows_where_they_lie(data):
    X, y = data
    one, two = trainer_of(X), trainer_of(X)
    for _ in range(3):
        assert one.partial_fit(X, y) == two.partial_fit(copied(X), y)
        assert one.partial_fit([X[:5], X[5:]], [y[:5], y[5:]]) == two.partial_fit(copied(X), y)
    np.testing.assert_array_equal(one.model.parameters, two.model.parameters)


def test_narrow_rows_are_copied_to_learn_from_them(data, monkeypatch):
    """Up to a limit, and not those of a file: reading them anew in each epoch would take longer than a small network."""
    X, y = data
    monkeypatch.setattr(stored, "NARROW_BYTES", 60 * 9 * 4)
    trainer, model = trainer_of(X), trainer_of(X).model
    rows = TrainingRows.given(model, X, y)
    assert isinstance(rows.inputs, np.ndarray)
    np.testing.assert_array_equal(rows.inputs, model.prepare_inputs(X).array())
    assert isinstance(TrainingRows.given(model, np.repeat(X, 2, axis=0), np.repeat(y, 2)).inputs, StoredRows)
    monkeypatch.setattr(stored, "NARROW_ROW", 35)
    assert isinstance(TrainingRows.given(model, X, y).inputs, StoredRows)
    trainer.fit(X, y)
    monkeypatch.setattr(stored, "NARROW_ROW", 36)
    again = trainer_of(X)
    again.fit(X, y)
    np.testing.assert_array_equal(again.model.parameters, trainer.model.parameters)
