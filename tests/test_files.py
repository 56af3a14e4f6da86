"""Model files: bitwise round trips, and one clear sentence for every file that is not one."""

from __future__ import annotations

import os
import pickle
import zipfile

import numpy as np
import pytest
from checking import DTYPES
from problems import make_data, make_model

import fastdl
from fastdl.losses import OUTPUTS
from fastdl.optimizers import OPTIMIZERS

pytestmark = pytest.mark.usefixtures("one_thread")


def same(a, b):
    """Bitwise the same model, as far as anyone can see."""
    assert (a.layers, a.activations, a.output, a.dtype) == (b.layers, b.activations, b.output, b.dtype)
    assert a.parameters.tobytes() == b.parameters.tobytes()
    assert (a.feature_names, a.target_names, a.classes, a.metadata) == (
        b.feature_names,
        b.target_names,
        b.classes,
        b.metadata,
    )
    assert (a.scaling is None) == (b.scaling is None)
    if a.scaling is not None:
        for name, values in vars(a.scaling).items():
            other = getattr(b.scaling, name)
            assert (values is None) == (other is None)
            assert values is None or np.asarray(values).tobytes() == np.asarray(other).tobytes()
    return True


@pytest.fixture
def model(rng):
    """A model with everything that a file carries."""
    model = make_model([4, 5, 3, 2], [fastdl.LeakyReLU(0.1), "tanh"], "linear", "float32")
    X, y = make_data(rng, 30, model.layers, "linear")
    model.standardize(X * [1, 10, 1 / 3, 1e-5], y * 7)
    model.feature_names = ["length", "Größe", "a,b", '"quoted"\n']
    model.target_names = ["price", "weight"]
    model.metadata = {"epochs": 3, "note": "π ≈ 3.14159", "nested": {"list": [1, 2.5, None, True]}}
    return model


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.fastdl"


# --- round trips ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_round_trip(rng, path, dtype, output):
    model = make_model([4, 5, 3], "relu", output, dtype)
    X, y = make_data(rng, 30, model.layers, output)
    fastdl.Trainer(model, epochs=2, batch_size=8).fit(X, y)
    model.save(path)
    loaded = fastdl.load(path)
    assert same(model, loaded)
    assert repr(loaded) == repr(model)
    np.testing.assert_array_equal(loaded.forward(X), model.forward(X))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_round_trip_of_everything(rng, path, model):
    model.save(path)
    loaded = fastdl.load(path)
    assert same(model, loaded)
    X = rng.normal(size=(9, 4))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


@pytest.mark.parametrize("classes", [["cat", "dog", "Übel"], [3, 5, 7], [0.5, 1.5, 2.5], [True, False, "x"]], ids=repr)
def test_classes_keep_their_type(path, classes):
    model = make_model([2, 3], [], "softmax")
    model.classes = classes
    model.save(path)
    assert fastdl.load(path).classes == classes
    assert list(map(type, fastdl.load(path).classes)) == list(map(type, classes))


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_numbers_survive(path, dtype):
    model = fastdl.MLP([3, 2], output="linear", dtype=dtype)
    info = np.finfo(dtype)
    model.parameters[:] = [0.0, -0.0, info.max, -info.tiny, np.nan, np.inf, -np.inf, info.smallest_subnormal]
    model.save(path)
    assert fastdl.load(path).parameters.tobytes() == model.parameters.tobytes()


def test_linear_and_deep_models(path):
    for layers in ([1, 1], [2, *[3] * 20, 1]):
        model = make_model(layers, "tanh", "sigmoid")
        model.save(path)
        assert same(model, fastdl.load(path))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_loaded_model_trains_on(rng, path, name):
    model = make_model([4, 5, 3], "relu", "softmax", "float32")
    X, y = make_data(rng, 30, model.layers, "softmax")
    model.save(path)
    loaded = fastdl.load(path)
    for m in (model, loaded):
        fastdl.Trainer(m, OPTIMIZERS[name](), batch_size=8, epochs=2).fit(X, y)
    np.testing.assert_array_equal(model.parameters, loaded.parameters)
    assert np.shares_memory(loaded.parameters, loaded.weights[0])


def test_the_same_model_gives_the_same_bytes(path, model, tmp_path):
    model.save(path)
    fastdl.load(path).save(tmp_path / "again")
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


def test_text_paths_and_overwriting(path, model):
    make_model([9, 9, 9]).save(str(path))
    model.save(str(path))
    assert same(model, fastdl.load(str(path)))


# --- files that are none ---


def refused(path, match=None):
    with pytest.raises(fastdl.ModelFileError, match=match) as caught:
        fastdl.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert "Traceback" not in message


def test_truncated_anywhere(path, model):
    model.save(path)
    whole = path.read_bytes()
    for length in sorted({0, 1, 2, 3, 4, 22, 30, len(whole) - 1, len(whole) - 2, *range(5, len(whole), 37)}):
        path.write_bytes(whole[:length])
        refused(path)


def loads_as_before(path, model):
    """False where the file is refused; where it is not, it must be the same model."""
    try:
        loaded = fastdl.load(path)
    except fastdl.ModelFileError:
        refused(path)
        return False
    return same(model, loaded)


def test_a_flipped_bit_is_noticed(path, model):
    """In a sample of positions: either the file is refused, or the flipped byte says nothing about the model."""
    model.save(path)
    whole = path.read_bytes()
    n_refused = 0
    positions = range(0, len(whole), 3)
    for position in positions:
        changed = bytearray(whole)
        changed[position] ^= (1, 0x80, 0xFF)[position % 9 // 3]
        path.write_bytes(changed)
        n_refused += not loads_as_before(path, model)
    assert n_refused > 0.9 * len(positions)


def test_a_byte_in_front_or_behind(path, model):
    """Something put around a model file: refused, or the same model."""
    model.save(path)
    whole = path.read_bytes()
    for changed in (b"x" + whole, whole + b"x", whole + whole, whole[1:]):
        path.write_bytes(changed)
        loads_as_before(path, model)


def rewrite(path, change):
    """The archive with the bytes of each member passed through `change(name, data)`; None leaves a member out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            if (new := change(name, data)) is not None:
                archive.writestr(name, new)
    return list(members)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"tanh"', b'"relu"'),
        (b"0.1", b"0.2"),
        (b'"linear"', b'"sigmoid"'),
        (b'"price"', b'"prize"'),
        (b"float32", b"float64"),
    ],
)
def test_altered_by_hand(path, model, old, new):
    """A valid archive whose text was edited: the checksum knows."""
    model.save(path)
    seen = []
    rewrite(path, lambda name, data: (seen.append(old in data), data.replace(old, new, 1))[1])
    assert any(seen)
    refused(path, "altered")


def test_swapped_and_missing_members(path, model, tmp_path):
    """The parameters of another model, and an archive without one of its members."""
    other = tmp_path / "other"
    changed = fastdl.MLP(model.layers, output="linear", seed=99)
    changed.save(other)
    model.save(path)
    with zipfile.ZipFile(other) as archive:
        foreign = {name: archive.read(name) for name in archive.namelist()}
    names = rewrite(path, lambda name, data: foreign[name] if name.endswith(".npy") else data)
    refused(path, "altered")
    for missing in names:
        model.save(path)
        rewrite(path, lambda name, data, missing=missing: None if name == missing else data)
        refused(path)


NONSENSE = [b"", b"[]", b"null", b"{}", b"{", b"\xff\xfe", b'{"format": "fastdl-model"}', b"1" * 9999, b"[" * 99_999]


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_as_the_description(path, model, text):
    model.save(path)
    rewrite(path, lambda name, data: text if name.endswith(".json") else data)
    refused(path)


def test_a_file_of_a_later_version(path, model):
    model.save(path)
    rewrite(path, lambda name, data: data.replace(b'"version": 2', b'"version": 99'))
    refused(path, "version")


def test_other_files(path, tmp_path):
    """Empty, text, pickle, another zip, NPY, NPZ, a folder, nothing at all."""
    path.write_bytes(b"")
    refused(path)
    path.write_text("layers: 64, 128, 10\n" * 100)
    refused(path)
    path.write_bytes(pickle.dumps({"layers": [4, 2]}))
    refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(path, "another kind")
    with zipfile.ZipFile(path, "w"):
        pass
    refused(path)
    with path.open("wb") as file:
        np.save(file, np.arange(9))
    refused(path)
    with path.open("wb") as file:
        np.savez(file, X=np.arange(9))
    refused(path, "another kind")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "folder")
    refused(tmp_path / "missing", "nothing")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(path, model):
    model.save(path)
    path.chmod(0)
    refused(path)


class Bomb:
    """Unpickling it leaves a mark."""

    exploded = False

    def __reduce__(self):
        return Bomb.explode, ()

    @staticmethod
    def explode():
        Bomb.exploded = True
        return 0.0


@pytest.mark.parametrize("size", [1, 48])
def test_loading_executes_nothing(path, model, monkeypatch, size):
    """A file whose checksums are right and whose parameters are a pickle is refused, unopened."""
    Bomb.exploded = False
    real = np.save

    def save_pickle(file, array, **_):
        real(file, np.array([Bomb()] * size, dtype=object), allow_pickle=True)

    monkeypatch.setattr(np, "save", save_pickle)
    model.save(path)
    monkeypatch.undo()
    assert b"explode" in path.read_bytes()
    refused(path)
    path.write_bytes(pickle.dumps(Bomb()))
    refused(path)
    assert not Bomb.exploded
    pickle.loads(path.read_bytes())
    assert Bomb.exploded  # the bomb was live


# --- writing ---


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_failing_write_leaves_the_old_file(path, model, tmp_path, monkeypatch, broken):
    """A disk that is full, at the last moment: the old file stays, and no temporary file."""
    old = make_model([4, 3])
    old.save(path)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises((OSError, fastdl.InputError), match="No space left"):
        model.save(path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == [path.name]
    assert same(old, fastdl.load(path))


def test_metadata_that_is_no_json(path, model, tmp_path):
    model.save(path)
    before = path.read_bytes()
    model.metadata = {"callback": object()}
    with pytest.raises((TypeError, ValueError)):
        model.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_saving_where_it_cannot(tmp_path, model):
    for target in (tmp_path / "no" / "such" / "folder", tmp_path):
        with pytest.raises(fastdl.InputError, match=str(target)):
            model.save(target)
    assert os.listdir(tmp_path) == []


def test_the_folder_of_a_run_is_its_model(model, tmp_path):
    model.save(tmp_path / "model.fastdl")
    assert same(model, fastdl.load(tmp_path))
