"""Tables that are read in parts: what is learnt, held out and encoded is what a table in memory gives; and when a store holds."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import fastdl
from fastdl.report import fields
from fastdl.scaling import Scaling
from fastdl.stored import is_mapped
from fastdl.tables import csv_file, data, formats, memory, sampled, store, store_file
from fastdl.tables.data import Options
from fastdl.training.fitting import Blueprint, numeric_features

N_ROWS = 1000


@pytest.fixture
def frame(rng):
    """Numbers, categories of few and of many values, booleans, dates, text that looks like numbers, missing cells and targets."""
    n = N_ROWS
    numbers = rng.normal(size=n).round(3)
    return pl.DataFrame(
        {
            "size": [None if i % 7 == 3 else float(v) for i, v in enumerate(numbers)],
            "count": rng.integers(0, 90, n),
            "colour": rng.choice(["red", "green", "blue"], n),
            "town": [f"town {k}" for k in rng.integers(0, 60, n)],
            "member": rng.choice([True, False], n),
            "day": [f"2024-{1 + i % 12:02d}-{1 + i % 28:02d}" for i in range(n)],
            "code": [f"{k:03d}" if i < 600 else f"x{k}" for i, k in enumerate(rng.integers(0, 5, n))],
            "price": [None if i % 50 == 9 else float(v) for i, v in enumerate((numbers * 3 + 10).round(4))],
        }
    )


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, tmp_path):
    """Files of kilobytes come in many parts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(formats, "SLICE_ROWS", 130)


def write(frame, kind):
    {"csv": frame.write_csv, "parquet": frame.write_parquet, "arrow": frame.write_ipc}[kind](f"t.{kind}")
    return [f"t.{kind}"]


def loaded_both(files, **options):
    wanted = Options(target="price", seed=3, **options)
    return store.load_training(files, wanted), data.load_training(files, wanted)


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
@pytest.mark.parametrize("ways", [{}, {"group": "colour"}, {"time": "day"}, {"validation": 0.0}], ids=str)
def test_a_store_has_the_rows_and_features_of_the_table_in_memory(frame, kind, ways):
    """All rows are in the sample here, so that the columns are learnt by the same ones: nothing differs but the rounding."""
    got, memory = loaded_both(write(frame, kind), **ways)
    assert got.preprocessor == memory.preprocessor
    assert got.is_mapped
    assert (got.targets.task, got.targets.names, got.targets.classes) == ("regression", ["price"], None)
    for mine, its in ((got.train, memory.train), (got.validation, memory.validation)):
        np.testing.assert_array_equal(got.rows[mine], memory.rows[its])
        np.testing.assert_array_equal(got.targets.y[mine], memory.targets.y[its])
        np.testing.assert_array_equal(got.features[mine], memory.X[its].astype(got.features.dtype))
    assert all(is_mapped(part) for part in got.training_pair()[0])
    assert numeric_features(got) == numeric_features(memory)
    assert "left out 20 rows without a target" in got.notes


def test_the_columns_on_the_page_are_those_of_the_table(frame):
    got, memory = loaded_both(write(frame, "csv"))
    for mine, its in zip(fields.described(got)["shown"], fields.described(memory)["shown"]):
        assert mine == its


def test_a_model_of_a_store_is_that_of_the_table(frame):
    got, memory = loaded_both(write(frame, "csv"))
    blueprint = Blueprint((8,), "mish", 0, "float32", scaling="robust", clip=5.0, embedding="pbld")
    mine, its = blueprint.model(got), blueprint.model(memory)
    np.testing.assert_allclose(mine.scaling.mean, its.scaling.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mine.scaling.scale, its.scaling.scale, rtol=1e-5)
    assert mine.embedding == its.embedding
    for model, loaded in ((mine, got), (its, memory)):
        fastdl.Trainer(model, batch_size=32, epochs=5).fit(*loaded.training_pair(), loaded.validation_pair())
    np.testing.assert_allclose(mine.predict(frame), its.predict(frame), rtol=1e-2)


def test_large_numbers_are_kept_in_float64(frame):
    """Seconds since 1970 would be rounded to minutes."""
    times = frame.with_columns((pl.int_range(pl.len()) * 60 + 1_700_000_000).shuffle(seed=1).alias("moment"))
    got, memory = loaded_both(write(times, "csv"))
    assert got.features.dtype == np.float64
    np.testing.assert_array_equal(got.features, memory.X[np.concatenate([memory.train, memory.validation])])


def test_classes_are_those_of_all_rows(frame):
    got = store.load_training(write(frame, "csv"), Options(target="colour"))
    assert got.targets.classes == ["blue", "green", "red"]
    shares = [np.bincount(got.targets.y[rows]) / len(rows) for rows in (got.train, got.validation)]
    np.testing.assert_allclose(*shares, atol=0.01)  # stratified


# --- reading again, or not ---


def test_a_store_is_made_once_and_anew_when_something_changes(frame):
    files, told = write(frame, "csv"), []

    def load(**options):
        told.clear()
        found = store.load_training(files, Options(target="price", **options), told.append)
        return found, bool(told)

    first, made = load()
    assert made
    assert re.search(r"t\.csv\.store.*may be deleted", told[0])
    again, made = load()
    assert not made
    np.testing.assert_array_equal(again.features, first.features)
    assert again.preprocessor == first.preprocessor
    assert [note for note in again.notes if note not in first.notes] == []
    assert load(ignore="town")[1]
    assert load()[1]
    state = os.stat("t.csv")
    path = Path("t.csv")
    path.write_text(path.read_text().replace("green", "grown"))  # of the same size
    os.utime("t.csv", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert load()[1]
    os.utime("t.csv", (1, 1))
    assert load()[1]
    os.remove("t.csv.store")
    assert load()[1]


@pytest.mark.parametrize("cut", [0, 10, 5000, -1])
def test_a_store_that_was_cut_is_made_anew(frame, cut):
    files = write(frame, "csv")
    whole = store.load_training(files, Options(target="price")).X.copy()
    path = Path("t.csv.store")
    path.write_bytes(path.read_bytes()[:cut])
    assert store_file.read(path) is None
    np.testing.assert_array_equal(store.load_training(files, Options(target="price")).X, whole)


def test_there_has_to_be_room(frame, monkeypatch):
    room = os.statvfs(".")
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*room[:3], 2, 2, *room[5:])))
    with pytest.raises(fastdl.InputError, match="make room"):
        store.load_training(write(frame, "csv"), Options(target="price"))
    assert not os.path.exists("t.csv.store")


# --- when ---


def test_tables_are_read_in_parts_when_memory_is_short(frame, monkeypatch):
    files = write(frame, "csv")
    assert not store.is_wanted(files, Options())
    assert store.is_wanted(files, Options(mapped=True))
    monkeypatch.setattr(memory, "free_bytes", lambda: 3.0 * os.path.getsize("t.csv"))
    assert not store.is_wanted(files, Options())  # small
    monkeypatch.setattr(memory, "LEAST", 1000)
    assert store.is_wanted(files, Options())
    assert not store.is_wanted(files, Options(mapped=False))
    np.save("X.npy", np.zeros((3, 2)))
    assert not store.is_wanted(["X.npy"], Options(mapped=True))


def test_free_memory_is_what_limits_leave():
    resource = pytest.importorskip("resource")
    free, (soft, hard) = memory.free_bytes(), resource.getrlimit(resource.RLIMIT_AS)
    assert 0 < free < 2**50
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 10**8, hard))
    try:
        assert memory.free_bytes() < 1.1e8
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# --- samples ---


def test_a_sample_is_every_so_many_rows(rng):
    frame = pl.DataFrame({"i": range(1000), "j": range(1000)})
    taken = sampled.Sample(100, ["j"])
    for start in range(0, 1000, 77):
        taken.add(frame[start : start + 77])
    step = taken.places[1]
    assert 100 <= len(taken.places) <= 200
    np.testing.assert_array_equal(taken.places, np.arange(0, 1000, step))
    assert taken.frame["i"].to_list() == taken.places.tolist()
    assert taken.whole["j"].to_list() == list(range(1000))


def test_columns_are_learnt_by_a_sample_of_the_training_rows(frame, monkeypatch):
    monkeypatch.setattr(store, "MOST_ROWS", 100)
    got, whole = loaded_both(write(frame, "csv"))
    median = {column.name: getattr(column, "median", None) for column in got.preprocessor.columns}["size"]
    places = np.arange(0, N_ROWS, 8)
    own = np.isin(places, whole.rows[whole.train])
    assert median == pytest.approx(frame["size"].gather(places[own]).median())
    np.testing.assert_array_equal(got.rows[got.train], whole.rows[whole.train])


@pytest.mark.parametrize("parts", [1, 3])
def test_medians_of_mapped_files_are_those_of_rows_evenly(rng, monkeypatch, parts, tmp_path):
    np.save(tmp_path / "X.npy", rng.normal(size=(1000, 4)))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    monkeypatch.setattr("fastdl.scaling.MOST_SORTED", 4 * 300)
    pieces = [X] if parts == 1 else [X[:333], X[333:335], X[335:]]
    got, want = Scaling.robust(pieces), Scaling.robust(np.array(X[::4]))
    np.testing.assert_array_equal((got.mean, got.scale), (want.mean, want.scale))
    whole = Scaling.robust(np.array(X))
    np.testing.assert_array_equal(Scaling.robust([np.array(X[:500]), np.array(X[500:])]).mean, whole.mean)
