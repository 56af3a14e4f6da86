"""Tables in files as chunks: the rows of all parts, as a model that knows the table takes them, once in each epoch."""

from __future__ import annotations

import numpy as np
import pytest

import fastdl
from fastdl.tables import csv_file, data, formats
from fastdl.training.fitting import Blueprint

pl = pytest.importorskip("polars")

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = 230


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", 1 << 11)
    monkeypatch.setattr(formats, "SLICE_ROWS", 90)


@pytest.fixture
def table(rng):
    """Numbers with gaps, words, and a target that some rows do not have."""
    x, word = rng.normal(size=ROWS), rng.choice(["red", "green", "blue"], ROWS)
    answer = np.where(x + (word == "red") > 0.3, "yes", "no")
    return pl.DataFrame(
        {
            "x": [None if i % 50 == 7 else v for i, v in enumerate(x.tolist())],
            "word": word,
            "n": rng.integers(0, 9, ROWS),
            "answer": [None if i % 60 == 11 else v for i, v in enumerate(answer.tolist())],
        }
    )


@pytest.fixture
def model(table, tmp_path):
    """A model that knows the table from its first half."""
    table.head(120).write_csv(tmp_path / "part.csv")
    loaded = data.load_training([str(tmp_path / "part.csv")], data.Options("answer", validation=0))
    return Blueprint((6,), "tanh", 0, "float32").model(loaded)


def written(table, folder, kind):
    path = folder / f"whole.{kind}"
    {"csv": table.write_csv, "parquet": table.write_parquet, "arrow": table.write_ipc}[kind](path)
    return path


def trainer_of(model, **settings):
    model.parameters[:] = np.random.default_rng(0).normal(size=model.n_parameters)
    return fastdl.Trainer(model, fastdl.Adam(0.01), **{"batch_size": 16, "epochs": 2, **settings})


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_chunks_are_the_rows_of_the_file(table, model, tmp_path, kind):
    """All rows that have a target, in their order, as the model encodes them; the second epoch reads them again."""
    chunks = fastdl.FileChunks(written(table, tmp_path, kind), model)
    known = table.filter(pl.col("answer").is_not_null())
    for _ in range(2):
        found = list(chunks)
        assert len(found) > 2
        inputs = np.concatenate([model.prepare_inputs(X) for X, _ in found])
        np.testing.assert_array_equal(inputs, model.prepare_inputs(known.drop("answer")))
        answers = np.concatenate([y for _, y in found]).reshape(-1)
        assert [model.classes[int(k)] for k in answers] == known["answer"].to_list()


def test_a_training_on_files_is_one_on_their_chunks(table, model, tmp_path):
    paths = [tmp_path / f"{i}.parquet" for i in range(2)]
    table.head(100).write_parquet(paths[0])
    table.tail(130).write_parquet(paths[1])
    chunks = list(fastdl.FileChunks(paths, model))
    assert len(chunks) == 4
    trainer = trainer_of(model)
    by_hand = trainer.fit(chunks)
    parameters = model.parameters.copy()
    history = trainer_of(model).fit(fastdl.FileChunks(str(tmp_path / "?.parquet"), model))
    np.testing.assert_array_equal(model.parameters, parameters)
    assert history.loss == by_hand.loss
    assert history.loss[1] < history.loss[0]


def test_columns_of_numbers_need_no_model_that_knows_them(rng, tmp_path):
    X, y = rng.normal(size=(ROWS, 3)), rng.normal(size=ROWS)
    pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": y, "c": X[:, 2]}).write_parquet(tmp_path / "t.parquet")
    by_place, by_name = (fastdl.MLP([3, 4, 1], output="linear") for _ in range(2))
    by_name.feature_names = ["c", "a", "b"]
    for model, columns in ((by_place, X), (by_name, X[:, [2, 0, 1]])):
        chunks = list(fastdl.FileChunks([tmp_path / "t.parquet"], model, "y"))
        np.testing.assert_array_equal(np.concatenate([X for X, _ in chunks]), columns)
        np.testing.assert_array_equal(np.concatenate([y for _, y in chunks]).reshape(-1), y)
        trainer_of(model).fit(fastdl.FileChunks([tmp_path / "t.parquet"], model, "y"))


def test_what_no_chunks_can_be_made_of_is_told(table, model, tmp_path, rng):
    with pytest.raises(fastdl.InputError, match=r"none\.csv"):
        fastdl.FileChunks(tmp_path / "none.csv", model)
    with pytest.raises(fastdl.InputError, match="files: expected at least one file"):
        fastdl.FileChunks([], model)
    path = written(table, tmp_path, "parquet")
    with pytest.raises(fastdl.InputError, match="'price'"):
        trainer_of(model).fit(fastdl.FileChunks(path, model, "price"))
    np.save(tmp_path / "X.npy", rng.normal(size=(30, 2)))
    with pytest.raises(fastdl.InputError, match="expected a table, got arrays"):
        list(fastdl.FileChunks(tmp_path / "X.npy", model))
