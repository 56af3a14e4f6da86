"""Array files, splits, and what a trained model takes from a file: what is read, and what bad files get."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

import fastdl
from fastdl.errors import InputError, OptionError
from fastdl.tables import data
from fastdl.training.fitting import Blueprint


def idx(array, code=0x08):
    """An array as the bytes of an IDX file."""
    head = struct.pack(">HBB", 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype({0x08: ">u1", 0x0D: ">f4", 0x0B: ">i2"}[code]).tobytes()


# Array files


@pytest.fixture
def images():
    """Six images of 2 x 3 bytes, and their labels."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6, 2, 3)), np.array([3, 1, 3, 7, 1, 3])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"])
def test_idx_pair_as_mnist_ships_it(write, images, packed, name):
    """The labels are found beside the images, and given explicitly it is the same."""
    X, y = images
    pack, end = (gzip.compress, ".gz") if packed else (bytes, "")
    image_file = write(name + end, pack(idx(X)))
    label_file = write(name.replace("images", "labels").replace("idx3", "idx1") + end, pack(idx(y)))
    for files in ([image_file], [image_file, label_file]):
        loaded = data.load_training(files)
        np.testing.assert_array_equal(loaded.X, X.reshape(6, 6))
        assert loaded.targets.classes == [1, 3, 7]
        np.testing.assert_array_equal(loaded.targets.y, [1, 0, 1, 2, 0, 1])
        assert (loaded.name, loaded.pixels) == ("t10k-images", True)


def test_idx_numbers_of_every_kind(write):
    for code in (0x0D, 0x0B):
        X = np.arange(6).reshape(3, 2) - 2
        source = data.open_data([write("x.idx", idx(X, code)), write("y.idx", idx(np.array([0, 1, 0])))])
        np.testing.assert_array_equal(source.X, X)


def test_labels_of_idx_files_are_classes_however_many(write):
    y = np.arange(40) % 30
    loaded = data.load_training([write("x", idx(np.zeros((40, 2, 2)) + y[:, None, None])), write("y", idx(y))])
    assert (loaded.targets.task, loaded.targets.n_outputs) == ("multiclass", 30)


def test_npz_and_npy(write, tmp_path):
    X, y = np.arange(12.0).reshape(6, 2), np.array([0.5, 1, 2, 3, 4, 5])
    np.savez(tmp_path / "a.npz", X=X, y=y, other=1)
    np.save(tmp_path / "X_train.npy", X)
    np.save(tmp_path / "y_train.npy", y)
    files = [str(tmp_path / n) for n in ("a.npz", "X_train.npy", "y_train.npy")]
    for given in ([files[0]], [files[1]], files[1:]):
        loaded = data.load_training(given)
        np.testing.assert_array_equal(loaded.X, X)
        np.testing.assert_array_equal(loaded.targets.y, y[:, None])
        assert not loaded.pixels


def test_npz_text_labels_and_several_targets(tmp_path):
    X = np.arange(8.0).reshape(4, 2)
    np.savez(tmp_path / "a.npz", X=X, y=np.array(["no", "yes", "no", "no"]))
    np.savez(tmp_path / "b.npz", X=X, y=np.array([[0, 1], [1, 1], [0, 0], [1, 0]], bool))
    np.savez(tmp_path / "c.npz", X=X, y=X * 1.5)
    found = [data.load_training([str(tmp_path / n)]).targets for n in ("a.npz", "b.npz", "c.npz")]
    assert [t.task for t in found] == ["binary", "multilabel", "regression"]
    assert found[0].classes == ["no", "yes"]
    assert [t.n_outputs for t in found] == [1, 2, 2]


def test_digits_ship_with_the_package():
    loaded = data.load_training(["digits"])
    assert loaded.X.shape == (1797, 64)
    assert loaded.targets.classes == list(range(10))
    assert loaded.pixels


NAN = np.array([[1.0, np.nan], [3, 4]])


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (NAN, [0, 1], ["X", "finite", "row 0, column 1"]),
        (np.array([[1, np.inf]]), [1], ["X", "inf"]),
        (np.eye(2), [0, np.nan], ["y", "finite", "row 1"]),
        (np.eye(2), [0, 1, 0], ["one target for each of the 2 rows", "got 3"]),
        (np.arange(3.0), [0, 1, 0], ["X", "shape (rows, features)", "X[:, None]"]),
        (np.zeros((0, 3)), [], ["X", "at least one row"]),
        (np.array([["a", "b"]]), [1], ["X", "real numbers"]),
        (np.eye(2), np.zeros((2, 2, 2)), ["y", "(2, 2, 2)"]),
        (np.eye(2, dtype=complex), [0, 1], ["X", "complex128"]),
        (np.eye(2), np.array([0, 1j]), ["y", "complex128"]),
    ],
)
def test_bad_arrays(tmp_path, X, y, words):
    np.savez(tmp_path / "a.npz", X=X, y=np.array(y))
    with pytest.raises(InputError) as caught:
        data.load_training([str(tmp_path / "a.npz")])
    for word in ["a.npz", *words]:
        assert word in str(caught.value)


def test_bad_array_files(write, tmp_path, images):
    X, y = images
    np.savez(tmp_path / "names.npz", x_train=np.eye(2), y_train=np.arange(2))
    np.savez(tmp_path / "objects.npz", X=np.array([{}, {}]), y=np.arange(2))
    np.save(tmp_path / "alone.npy", np.eye(2))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "whole.npz", X=np.eye(200), y=np.arange(200))
    whole = (tmp_path / "whole.npz").read_bytes()
    cases = [
        (["names.npz"], "x_train, y_train"),
        (["objects.npz"], "could execute code"),
        (["objects.npy", "alone.npy"], "could execute code"),
        (["alone.npy"], "name both: fastdl train X.npy y.npy"),
        ([write("short.npz", whole[:1000])], "NPZ file"),
        ([write("altered.npz", whole[:5000] + b"\1" * 50 + whole[5050:])], "NPZ file"),
        ([write("short.npy", (tmp_path / "alone.npy").read_bytes()[:-4]), "alone.npy"], "NPY file"),
        ([write("labels", idx(y)), write("images", idx(X))], "images first and the labels second"),
        ([write("t-images-idx3-ubyte", idx(X))], "t-labels-idx1-ubyte beside it"),
        ([write("cut", idx(X)[:-1]), write("l", idx(y))], "expected 52 bytes"),
        ([write("long", idx(X) + b"x"), write("l", idx(y))], "truncated or altered"),
        ([write("head", idx(X)[:9]), write("l", idx(y))], "truncated or altered"),
        ([write("cut.gz", gzip.compress(idx(X))[:-9]), write("l", idx(y))], "whole compressed file"),
        ([write("i", idx(X)), write("fewer", idx(y[:4]))], "each of the 6 rows of X, got 4"),
        ([write("i", idx(X)), write("csv", "a,b\n1,2\n")], "expected an IDX file"),
    ]
    for files, words in cases:
        with pytest.raises(InputError) as caught:
            data.load_training([str(tmp_path / f) for f in files])
        assert words in str(caught.value), files
        assert files[0].rsplit("/", 1)[-1] in str(caught.value) or files[1].rsplit("/", 1)[-1] in str(caught.value)


def test_missing_files_name_the_nearest(write, tmp_path, monkeypatch):
    write("prices.csv", "x,y\n1,2\n")
    for path, words in [
        (str(tmp_path / "price.csv"), "did you mean 'prices.csv'?"),
        (str(tmp_path / "nowhere" / "a.csv"), "no folder"),
        (str(tmp_path), "got a folder"),
    ]:
        with pytest.raises(InputError, match="expected a file of data") as caught:
            data.load_training([path])
        assert words in str(caught.value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="did you mean 'digits'"):
        data.load_training(["digit"])


# Splitting


def test_split_is_a_partition_drawn_by_the_seed():
    train, held_out = data.split(100, 0.2, seed=3)
    assert len(held_out) == 20
    np.testing.assert_array_equal(np.sort(np.r_[train, held_out]), np.arange(100))
    np.testing.assert_array_equal(held_out, data.split(100, 0.2, seed=3)[1])
    assert (held_out != data.split(100, 0.2, seed=4)[1]).any()


def test_split_keeps_the_shares_of_the_classes():
    labels = np.repeat([0, 1, 2, 3], [500, 100, 39, 1])
    for seed in range(5):
        train, held_out = data.split(640, 0.25, seed, labels)
        counts = np.bincount(labels[held_out], minlength=4)
        assert abs(counts - 0.25 * np.bincount(labels)).max() <= 1
        assert set(labels[train]) == {0, 1, 2, 3}
        assert len(train) + len(held_out) == 640


def test_split_draws_every_row_alike():
    """Over many seeds each row is held out about as often, with and without classes."""
    for labels in (None, np.arange(50) % 5):
        counts = np.zeros(50)
        for seed in range(400):
            counts[data.split(50, 0.2, seed, labels)[1]] += 1
        assert counts.min() > 45  # 80 expected, standard deviation 8
        assert counts.max() < 115


def test_no_validation():
    train, held_out = data.split(7, 0.0, seed=0)
    assert (len(train), len(held_out)) == (7, 0)


# What a trained model takes


CUTS = "cut,x,y\nfair,1,0.5\ngood,2,1.5\nfair,3,1\ngood,4,2\nfair,5,2.5\n"


def model_of(path, **options):
    """An untrained model that knows what training on `path` would tell it."""
    return Blueprint([], "relu", 0, "float32").model(data.load_training([path], **options))


def test_features_are_found_by_name_and_encoded_as_in_training(write):
    model = model_of(write("a.csv", CUTS), target="y")
    new = write("b.csv", "note,x,cut\nhi,7,good\n,8,fair\n")
    np.testing.assert_array_equal(data.load_features([new], model).matrix(), [[0, 1, 7], [1, 0, 8]])


@pytest.mark.parametrize(
    ("content", "row"),
    [
        ("x,cut\n1,great\n", [0, 0, 1]),  # a category that training did not show has no 1 anywhere
        ("x,cut\n1,\n", [0, 0, 1]),
        ("x,cut\nb,good\n", [0, 1, 3]),  # the median of the training rows
        ("x,cut\n,good\n", [0, 1, 3]),
        ('x,cut\n1," good "\n', [0, 1, 1]),
    ],
)
def test_rows_that_training_did_not_prepare_for(write, content, row):
    model = model_of(write("a.csv", CUTS), target="y", validation=0)
    np.testing.assert_array_equal(data.load_features([write("new.csv", content)], model).matrix(), [row])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("xx,cut\n1,good\n", ["expected the column 'x'", "did you mean 'xx'?"]),
        ("a,b\n1,good\n", ["expected the columns 'cut', 'x'", "the columns are a, b"]),
    ],
)
def test_columns_that_are_missing(write, content, words):
    model = model_of(write("a.csv", CUTS), target="y")
    with pytest.raises(InputError) as caught:
        data.load_features([write("new.csv", content)], model)
    for word in ["new.csv", *words]:
        assert word in str(caught.value)


def test_arrays_for_a_model(write, tmp_path):
    np.save(tmp_path / "X.npy", np.eye(3))
    with pytest.raises(InputError, match="expected a table with the columns cut, as the model encodes"):
        data.load_features([str(tmp_path / "X.npy")], model_of(write("a.csv", CUTS), target="y"))
    with pytest.raises(InputError, match="expected 4 features for this model, got 3"):
        data.load_features([str(tmp_path / "X.npy")], fastdl.MLP([4, 2]))
    np.testing.assert_array_equal(data.load_features([str(tmp_path / "X.npy")], fastdl.MLP([3, 2])), np.eye(3))


def test_a_model_without_names_takes_columns_in_order(write):
    model = fastdl.MLP([2, 3])
    path = write("a.csv", "u,v,label\n1,2,0\n3,4,2\n")
    X, y, notes = data.load_labelled([path], model, "label")
    assert notes == []
    np.testing.assert_array_equal(X, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(y, [0, 2])
    with pytest.raises(InputError, match=r"expected 2 columns.*got 3: u, v, label"):
        data.load_features([path], model)
    with pytest.raises(InputError, match=r"row 3, column 'v': expected a number in each cell.*train it on a table"):
        data.load_features([write("b.csv", "u,v\n1,2\n3,\n")], model)


@pytest.mark.parametrize(
    ("classes", "target"),
    [(["no", "yes"], "yes,no,yes"), ([2, 5], "5,2,5"), ([False, True], "true,False,TRUE")],
)
def test_labels_for_evaluation_are_those_of_training(write, classes, target):
    model = fastdl.MLP([1, 1], output="sigmoid")
    model.classes, model.target_names, model.feature_names = classes, ["y"], ["x"]
    path = write("a.csv", "x,y\n" + "".join(f"1,{t}\n" for t in target.split(",")))
    np.testing.assert_array_equal(data.load_labelled([path], model)[1], [[1], [0], [1]])


def test_bad_labels_for_evaluation(write):
    model = fastdl.MLP([1, 3])
    model.classes, model.target_names, model.feature_names = ["a", "b", "c"], ["kind"], ["x"]
    with pytest.raises(InputError, match="row 3, column 'kind': expected one of the classes 'a', 'b', 'c', got 'd'"):
        data.load_labelled([write("a.csv", "x,kind\n1,a\n2,d\n")], model)
    with pytest.raises(OptionError, match=r"expected the target 'kind'.*did you mean 'kinds'"):
        data.load_labelled([write("b.csv", "x,kinds\n1,a\n")], model)
    with pytest.raises(OptionError, match="--target"):
        data.load_labelled([write("b.csv", "x,kinds\n1,a\n")], model, "kin")
