"""Mutated model files and checkpoints: `ModelFileError`, or the same as before; no other exception, no hang, bounded memory.

FASTDL_MUTATIONS=100000 scripts/test tests/test_mutated_files.py     so many; the seeds are fixed
"""

from __future__ import annotations

import os
import random
import tracemalloc

import numpy as np
import pytest
from mutating import DAMAGE, FORGERIES, bomb, deep, header
from problems import make_data, make_model
from test_files import same

import fastdl
from fastdl.training import checkpoint_file

MUTATIONS = int(os.environ.get("FASTDL_MUTATIONS", "3000"))
KINDS = {**DAMAGE, **FORGERIES}
MOST_MEMORY = 60
"""Bytes for each byte of the file: Python's objects for JSON are the most of it."""

pytestmark = pytest.mark.usefixtures("one_thread")


class Half(fastdl.Callback):
    """Saves in the second epoch."""

    def __init__(self, path):
        self.path = path

    def on_epoch_end(self, result):
        if result.epoch == 2:
            self.trainer.save_checkpoint(self.path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """kind -> two files of it: a small one with everything in it, and another."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(1)
    made: dict[str, list[bytes]] = {"model": [], "table": [], "checkpoint": []}
    for seed in (1, 2):
        model = make_model([4, 5, 3, 2], [fastdl.LeakyReLU(0.1), "tanh"], "linear", "float32", seed)
        X, y = make_data(rng, 30, model.layers, "linear")
        model.standardize(X * 3, y * 7)
        model.feature_names, model.target_names = list("abcd"), ["y", "z"]
        model.metadata = {"note": {"list": [1, 2.5, None, True]}}
        model.save(folder / "model")
        made["model"].append((folder / "model").read_bytes())
        trainer = fastdl.Trainer(
            model, batch_size=8, epochs=3, early_stopping=5, callbacks=[Half(folder / "c"), fastdl.ReduceOnPlateau(2)]
        )
        trainer.fit(X, y, validation_data=(X, y))
        fastdl.Trainer.from_checkpoint(folder / "c", callbacks=[fastdl.ReduceOnPlateau(2)]).save_checkpoint(
            folder / "c"
        )
        made["checkpoint"].append((folder / "c").read_bytes())
        made["table"].append(table_file(folder, seed))
    return made


def table_file(folder, seed):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(
        {
            "n": [float(i * seed % 7) for i in range(60)],
            "c": ["red", "blue", None] * 20,
            "d": ["2026-01-02", "2026-03-04"] * 30,
            "b": ["yes", "no"] * 30,
        }
    )
    from fastdl.tables.model import TableModel
    from fastdl.tables.preprocessor import Preprocessor

    preprocessor = Preprocessor.fit(frame)
    model = TableModel([len(preprocessor.feature_names), 3, 2], seed=seed)
    model.preprocessor = preprocessor
    model.save(folder / "table")
    return (folder / "table").read_bytes()


def load(kind, path):
    """What a user calls; it must raise ModelFileError or nothing."""
    if kind != "checkpoint":
        return fastdl.load(path)
    contents = checkpoint_file.read(path)
    if not contents.missing:  # else the file asks for things of the user's own
        fastdl.Trainer.from_checkpoint(path)
    return contents


def same_contents(kind, a, b):
    if kind != "checkpoint":
        return same(a, b)
    assert same(a.model, b.model)
    assert (a.settings, a.epochs_done, a.rate_factor, a.history) == (
        b.settings,
        b.epochs_done,
        b.rate_factor,
        b.history,
    )
    assert (a.pending.fit, a.pending.watchers) == (b.pending.fit, b.pending.watchers)
    for mine, other in zip(a.kept.state.states, b.kept.state.states, strict=True):
        assert mine.tobytes() == other.tobytes()
    return True


@pytest.mark.parametrize("kind", ["model", "table", "checkpoint"])
@pytest.mark.parametrize("name", KINDS)
def test_mutated_files(files, tmp_path, kind, name):
    """Each by its own seed: run the case alone to look at it."""
    path = tmp_path / "file"
    data, other = files[kind]
    path.write_bytes(data)
    before = load(kind, path)
    refused, count = 0, max(1, MUTATIONS // (3 * len(KINDS)))
    for seed in range(count):
        changed = KINDS[name](random.Random(f"{kind} {name} {seed}"), data, other)
        path.write_bytes(changed)
        try:
            after = load(kind, path)
        except fastdl.ModelFileError as error:
            message = str(error)
            assert str(path) in message, seed
            assert "\n" not in message, seed
            refused += 1
        else:
            if name in DAMAGE and name not in ("swap_members",):
                assert same_contents(kind, before, after), seed
    harmless = name in ("forge", "swap_members", "zip_numbers")  # many of them
    assert refused > (0.2 if harmless else 0.6) * count, f"only {refused} of {count} were refused"


@pytest.mark.parametrize("kind", ["model", "table", "checkpoint"])
def test_a_whole_file_behind_another_beginning_is_refused(files, tmp_path, kind):
    """Archives may have something in front of them; a file of two would be the second one without a word."""
    data, other = files[kind]
    for changed in (data + other, data[:700] + other, b"x" + other):
        (tmp_path / "file").write_bytes(changed)
        with pytest.raises(fastdl.ModelFileError, match=r"truncated or altered|cannot be used"):
            load(kind, tmp_path / "file")


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
@pytest.mark.parametrize("mutation", [bomb, deep, header], ids=lambda f: f.__name__)
def test_memory_is_bounded_by_the_size_of_the_file(files, tmp_path, kind, mutation):
    path = tmp_path / "file"
    load_it = files[kind][0]
    path.write_bytes(load_it)
    load(kind, path)  # imports
    for seed in range(12):
        path.write_bytes(mutation(random.Random(seed), *files[kind]))
        tracemalloc.start()
        try:
            load(kind, path)
        except fastdl.ModelFileError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MOST_MEMORY * path.stat().st_size + 300_000, (seed, peak, path.stat().st_size)


def test_a_layer_of_a_billion_is_refused_before_memory_is_taken(files, tmp_path):
    """Sound checksums, and layers that no array belongs to."""
    from mutating import described, signed

    members, description = described(files["model"][0])
    for layers in ([10**9, 10**9], [4, 10**12, 2], [1] * 3, [], [4.0, 5, 3, 2], "45", None):
        path = tmp_path / "file"
        path.write_bytes(signed(members, {**description, "layers": layers}))
        tracemalloc.start()
        with pytest.raises(fastdl.ModelFileError):
            fastdl.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()
