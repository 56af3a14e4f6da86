"""Files larger than memory: the order of their rows, what is asked of the disk, and a training with less memory than the data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastdl
from fastdl import stored
from fastdl.stored import StoredRows, is_mapped, picked
from fastdl.tables import arrays, data, split
from fastdl.training import read_ahead, shuffling
from fastdl.training.fitting import Blueprint, assess
from fastdl.training.read_ahead import Blocks, addresses, block_order, blocks_of
from fastdl.training.shuffling import Orders, order_of

PROGRAM = Path(__file__).parent / "programs" / "larger_than_memory.py"


# --- the order ---


@pytest.mark.parametrize(
    ("n_rows", "rows", "window"), [(1000, 7, 5), (1000, 1, 10), (10, 20, 3), (96, 8, 4), (1, 1, 1)]
)
def test_blocks_are_shuffled_within_windows(n_rows, rows, window):
    order = block_order(np.random.default_rng(0), n_rows, Blocks(rows, window))
    np.testing.assert_array_equal(np.sort(order), np.arange(n_rows))
    blocks = order // rows
    at, seen = 0, set()
    while at < n_rows:
        # As long as no more than `window` blocks have come, it is one window; each of them is there as a whole.
        stop = at
        while stop < n_rows and len(set(blocks[at : stop + 1])) <= window:
            stop += 1
        here = set(blocks[at:stop].tolist())
        assert not here & seen
        seen |= here
        assert sum(min(rows, n_rows - b * rows) for b in here) == stop - at
        at = stop


def test_rows_of_a_window_are_mixed_evenly():
    """Over 400 epochs each of 12 rows in windows of 2 blocks of 2 is at each place about as often (deviation 5.5)."""
    places = np.array([order_of(3, epoch, 12, Blocks(2, 2)) for epoch in range(400)])
    counts = np.array([np.bincount(places[:, k], minlength=12) for k in range(12)])
    assert np.abs(counts - 400 / 12).max() < 5 * 5.6
    assert not np.array_equal(places[0], places[1])


def test_orders_drawn_beforehand_are_the_same():
    orders = Orders(5)
    orders.draw_next(1, 1000, Blocks(10, 4))
    np.testing.assert_array_equal(orders.take(1, 1000, Blocks(10, 4)), order_of(5, 1, 1000, Blocks(10, 4)))
    orders.draw_next(2, 1000, Blocks(10, 4))
    np.testing.assert_array_equal(orders.take(2, 1000), order_of(5, 2, 1000))


# --- which data ---


@pytest.fixture
def mapped(tmp_path, rng):
    """A file of 3,000 rows of 40 int16, mapped."""
    np.save(tmp_path / "X.npy", rng.integers(-99, 99, (3000, 40)).astype(np.int16))
    return np.load(tmp_path / "X.npy", mmap_mode="r")


@pytest.fixture
def small_limits(monkeypatch):
    """What is done with files of gigabytes is done with those of kilobytes."""
    monkeypatch.setattr(stored, "CONVERTED_BYTES", 0)
    monkeypatch.setattr(read_ahead, "MAPPED_BYTES", 1000)
    monkeypatch.setattr(read_ahead, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(read_ahead, "WINDOW", 8)
    monkeypatch.setattr(arrays, "MAPPED_BYTES", 1000)
    monkeypatch.setattr(split, "BLOCK_BYTES", 4096)


def test_only_large_memory_maps_are_shuffled_by_blocks(mapped, small_limits, monkeypatch):
    whole = np.array(mapped)
    assert is_mapped(mapped[5:, ::2]) and not is_mapped(whole)  # noqa: PT018
    assert blocks_of(StoredRows([whole], "float32")) is None
    assert blocks_of(whole) is None
    assert blocks_of(StoredRows([mapped], "float32")) == Blocks(51, 8)
    monkeypatch.setattr(read_ahead, "MAPPED_BYTES", mapped.nbytes)
    assert blocks_of(StoredRows([mapped], "float32")) is None


def test_a_training_on_a_mapped_file_follows_the_order_of_blocks(mapped, small_limits, monkeypatch):
    """The same bits as on the array in memory, when that is put into this order; and the disk is asked for all of it."""
    y, whole = np.arange(len(mapped)) % 3, np.array(mapped)
    asked = []
    monkeypatch.setattr(read_ahead, "_advise", lambda: lambda address, length, what: asked.append((address, length)))
    monkeypatch.setattr(read_ahead, "submit", lambda future, work: work())

    def train(X):
        model = fastdl.MLP([40, 8, 3])
        fastdl.Trainer(model, batch_size=32, epochs=2).fit(X, y)
        return model.parameters

    got = train(mapped)
    base = mapped.__array_interface__["data"][0]
    covered = np.zeros(mapped.nbytes, bool)
    for address, length in asked:
        covered[max(0, address - base) : address - base + length] = True
    assert covered.all()
    monkeypatch.setattr(
        shuffling, "order_of", lambda seed, epoch, n, blocks=None: order_of(seed, epoch, n, Blocks(51, 8))
    )
    np.testing.assert_array_equal(train(whole), got)
    monkeypatch.setattr(shuffling, "order_of", order_of)
    assert (train(whole) != got).any()


def test_addresses_of_rows_in_several_parts(mapped):
    rows = StoredRows([mapped[:10], mapped[50:55], mapped[100:]], "float32")
    base, width = mapped.__array_interface__["data"][0], 80
    assert addresses(rows, 8, 17) == [
        (base + 8 * width, 2 * width),
        (base + 50 * width, 5 * width),
        (base + 100 * width, 2 * width),
    ]
    assert addresses(rows, 3, 4) == [(base + 3 * width, width)]


def test_picked_rows_of_a_map_are_views(mapped):
    rows = np.array([0, 1, 2, 7, 9, 10])
    parts = picked(mapped, rows)
    assert [len(part) for part in parts] == [3, 1, 2]
    assert all(np.shares_memory(part, mapped) for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts), mapped[rows])
    np.testing.assert_array_equal(picked(np.array(mapped), rows), mapped[rows])


# --- the command line ---


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_large_npy_files_are_not_read(tmp_path, rng, small_limits, dtype):
    """Rows are held out by blocks; scaling and metrics are those of the rows in memory."""
    X = rng.integers(0, 200, (4000, 30)).astype(dtype)
    X[:, 3] = 7  # never varies
    y = (X[:, 0] > 100).astype(np.int64)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    files = [str(tmp_path / "X.npy"), str(tmp_path / "y.npy")]
    loaded = data.load_training(files, seed=1)
    assert "blocks of" in loaded.notes[0]
    X_train, y_train = loaded.training_pair()
    X_held, y_held = loaded.validation_pair()
    assert all(is_mapped(part) for part in [*X_train, *X_held])
    assert 0.15 < len(y_held) / 4000 < 0.25
    np.testing.assert_array_equal(np.concatenate(X_train)[:, 0] > 100, y_train[:, 0] == 1)
    model = Blueprint((8,), "relu", 0, "float32").model(loaded)
    whole = np.concatenate(X_train).astype(np.float64)
    np.testing.assert_allclose(model.scaling.mean, whole.mean(axis=0), rtol=1e-6)
    spread = np.sqrt(np.mean(whole.var(axis=0))) if dtype == "uint8" else np.where(whole.std(0) > 0, whole.std(0), 1)
    np.testing.assert_allclose(model.scaling.scale, spread, rtol=1e-6)
    robust = Blueprint((8,), "relu", 0, "float32", scaling="robust", clip=3.0, embedding="pbld").model(loaded)
    middle, quartiles = np.median(whole, axis=0), np.diff(np.quantile(whole, [0.25, 0.75], axis=0), axis=0)[0]
    np.testing.assert_allclose(robust.scaling.mean, middle)
    np.testing.assert_allclose(
        robust.scaling.scale, spread if dtype == "uint8" else np.where(quartiles > 0, quartiles, 1), rtol=1e-6
    )
    assert robust.embedding.columns == tuple(i for i in range(30) if i != 3)
    fastdl.Trainer(model, batch_size=64, epochs=3).fit(X_train, y_train, validation_data=(X_held, y_held))
    assert assess(model, X_held, y_held) == assess(model, np.concatenate(X_held), y_held)


# --- memory ---


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's accounting of memory")
def test_a_file_trains_in_less_memory_than_its_size(tmp_path):
    """200 MB in a process whose own memory may grow by 80 MB once everything is loaded."""
    told = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), "200", "80"], capture_output=True, text=True, timeout=300
    )
    assert told.returncode == 0, told.stderr
    assert "trained" in told.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's accounting of memory")
def test_the_limit_of_memory_has_teeth(tmp_path):
    told = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), "200", "80", "copy"], capture_output=True, text=True, timeout=300
    )
    assert told.returncode != 0
    assert "MemoryError" in told.stderr
