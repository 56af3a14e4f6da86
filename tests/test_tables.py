"""CSV files for training: what their columns become, and what bad cells, columns and options get."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from fastdl.errors import InputError, OptionError
from fastdl.tables import data
from fastdl.tables.csv_file import Table

IRIS = (
    "length,width,species\n5.1,3.5,setosa\n4.9,3.0,setosa\n6.2,2.9,versicolor\n5.9,3.2,versicolor\n6.3,3.3,virginica\n"
)


def test_csv_columns_are_numbers_by_name(write):
    loaded = data.load_training([write("a.csv", IRIS)], target="species", validation=0.2)
    assert loaded.feature_names == ["length", "width"]
    np.testing.assert_array_equal(loaded.X[2], [6.2, 2.9])
    assert loaded.targets.classes == ["setosa", "versicolor", "virginica"]
    np.testing.assert_array_equal(loaded.targets.y, [0, 0, 1, 1, 2])
    assert loaded.name == "a"


def test_csv_dialects_give_the_same_table(write):
    """Separators, quotes, line ends, a byte order mark, blank lines, spaces and gzip make no difference."""
    plain = Table(Path(write("a.csv", "x,y\n1.5,2\n-3,4e2\n")))
    variants = {
        "semicolon.csv": "x;y\n1.5;2\n-3;4e2\n",
        "tab.tsv": "x\ty\n1.5\t2\n-3\t4e2\n",
        "quoted.csv": '"x","y"\r\n"1.5","2"\r\n"-3","4e2"\r\n',
        "bom.csv": b"\xef\xbb\xbfx,y\n1.5,2\n-3,4e2",
        "blank.csv": "\n\nx,y\n\n1.5,2\n\n-3,4e2\n\n",
        "spaces.csv": " x , y\n 1.5, 2 \n-3 ,4e2\n",
        "packed.csv.gz": gzip.compress(b"x,y\n1.5,2\n-3,4e2\n"),
    }
    for name, content in variants.items():
        table = Table(Path(write(name, content)))
        assert table.names == plain.names, name
        for column_name in plain.names:
            np.testing.assert_array_equal(table.numbers(column_name, ""), plain.numbers(column_name, ""), name)


def test_csv_numbers_are_read_exactly(write):
    """Every cell becomes the float that Python reads."""
    rng = np.random.default_rng(1)
    cells = [repr(float(v)) for v in rng.standard_normal(500) * 10.0 ** rng.integers(-30, 30, 500)]
    table = Table(Path(write("a.csv", "x\n" + "\n".join(cells) + "\n")))
    np.testing.assert_array_equal(table.numbers("x", ""), [float(c) for c in cells])


def test_booleans_count_as_0_and_1(write):
    path = write("a.csv", "a,b,y\nTrue,false,1.5\nFALSE,true,2.5\nTrue,false,0.5\n")
    loaded = data.load_training([path], target="y")
    np.testing.assert_array_equal(loaded.X, [[1, 0], [0, 1], [1, 0]])


def test_a_column_without_a_name_is_left_out_and_told(write):
    loaded = data.load_training([write("a.csv", ",x,y\n0,1,0.5\n1,2,1.5\n2,4,2.5\n")], target="y")
    assert loaded.feature_names == ["x"]
    assert loaded.notes == ["left out column 1, which has no name"]


def test_ignored_columns_may_hold_anything(write):
    path = write("a.csv", "x,note,y\n1,,0.5\n2,hello,1.5\n3,nan,1\n")
    assert data.load_training([path], target="y", ignore="note").feature_names == ["x"]


def test_categories_become_one_column_each(write):
    path = write("a.csv", "cut,x,y\nfair,1,0.5\ngood,2,1.5\nfair,3,1\ngood,4,2\nfair,5,2.5\n")
    loaded = data.load_training([path], target="y", categorical="cut")
    assert loaded.feature_names == ["cut=fair", "cut=good", "x"]
    np.testing.assert_array_equal(loaded.X[:, :2], [[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]])


@pytest.mark.parametrize("seed", range(8))
def test_a_category_is_never_in_validation_only(write, seed):
    """Categories are learnt from training rows, so a row with a rare one is trained on."""
    rows = "".join(f"{'rare' if i == 11 else 'ab'[i % 2]},{i},{i / 3}\n" for i in range(20))
    loaded = data.load_training(
        [write("a.csv", "c,x,y\n" + rows)], target="y", categorical="c", validation=0.5, seed=seed
    )
    assert 11 in loaded.train
    assert loaded.columns[0].categories == ("a", "b", "rare")
    assert sorted([*loaded.train, *loaded.validation]) == list(range(20))


def test_a_comma_in_a_column_name(write):
    loaded = data.load_training([write("a.csv", '"x,1",y\n1,0.5\n2,1.5\n3,2.5\n')], target="y", ignore="")
    assert loaded.feature_names == ["x,1"]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("x,y\n1,0.5\n2,1.5\nabc,1\n", {}, ["row 4, column 'x'", "'abc'", "--ignore x", "--categorical x"]),
        ("x,y\nred,0.5\nblue,1.5\n", {}, ["row 2, column 'x'", "'red'", "--ignore x", "--categorical x"]),
        ('x,y\n"1\n",1\n\n3,2\nb,2.5\n', {}, ["row 6, column 'x'", "'b'"]),
        ("x,y\n1,0.5\n,1.5\n2,1\n", {}, ["row 3, column 'x'", "empty cell"]),
        ("x,y\n1,0.5\n2\n", {}, ["row 3", "column 'y'", "empty cell"]),
        ("x,y\n1,0.5\nnan,1.5\n", {}, ["row 3, column 'x'", "finite", "'nan'"]),
        ("x,y\n1,0.5\n2,-inf\n", {}, ["row 3, column 'y'", "finite", "'-inf'"]),
        ("x,y\n1,0.5\n1e999,1\n", {}, ["row 3, column 'x'", "finite", "'1e999'"]),
        ("x,y\n1,0.5\n2,1,3\n", {}, ["row 3", "expected 2 cells", "got 3"]),
        ('x,y\n1,0.5\n"2,1\n', {}, []),  # what is wrong depends on the parser
        ("x,y\n", {}, ["at least one row", "got none"]),
        ("", {}, ["empty file"]),
        ("\n\n", {}, ["empty file"]),
        ("x,x,y\n1,2,3\n", {}, ["'x' more than once", "rename"]),
        ("1,1,3\n1,2,3\n", {}, ["'1' more than once", "line of names above"]),
        (b"x,y\n1,2\n\xe9,2\n", {}, ["row 3", "UTF-8", "0xe9"]),
        ("x,y\n1,2\n".encode("utf-16"), {}, ["UTF-16"]),
        (b"\x7fELF\x02\x01\x01\0\0\0", {}, ["binary file of another kind"]),
        ("x,y\n1,0.5\n2,1.5\n3,b\n", {}, ["row 4, column 'y'", "'b'", "--task multiclass"]),
        ("x,y\n1,3\n2,3\n3,3\n", {}, ["'y'", "at least two classes", "only 3"]),
        ("x,y\n1,0.5\n", {}, ["at least 2 rows", "--validation 0"]),
        ("x,y\na,1\n,2\n", {"categorical": "x"}, ["row 3, column 'x'", "empty cell"]),
        ("x,y\n1,a\n2,b\n", {"task": "regression"}, ["row 2, column 'y'", "'a'"]),
        ("x,y\n1,1\n2,2\n3,3\n", {"task": "binary"}, ["'y'", "two different values", "got 3"]),
        ("x,y\n1,1.5\n2,2\n3,2\n", {"task": "multiclass"}, ["row 2, column 'y'", "1.5", "--task regression"]),
        ("x,y\n1,0\n2,2\n3,1\n", {"task": "multilabel"}, ["row 3, column 'y'", "0 or 1", "got 2"]),
        ("x,a,b\n1,0,0\n2,1,1\n3,0,1\n", {"target": "a,b", "task": "multiclass"}, ["row 2", "--task multilabel"]),
        ("x,a,b\n1,0,u\n2,1,v\n", {"target": "a,b"}, ["row 2, column 'b'", "'u'"]),
    ],
)
def test_bad_csv(write, content, options, words):
    path = write("bad.csv", content)
    with pytest.raises(InputError) as caught:
        data.load_training([path], **({"target": "y"} | options))
    message = str(caught.value)
    assert not isinstance(caught.value, OptionError)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert message.startswith((str(path), "the target", "expected at least 2 rows"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["--target", "length, width, species"]),
        ({"target": "specie"}, ["--target", "'specie'", "did you mean 'species'?"]),
        ({"target": "species", "ignore": "widht"}, ["--ignore", "did you mean 'width'?"]),
        ({"target": "species", "categorical": "lenght"}, ["--categorical", "did you mean 'length'?"]),
        ({"target": "species", "categorical": "species"}, ["--categorical", "which is the target"]),
        ({"target": "species", "categorical": "width", "ignore": "width"}, ["'width' in both"]),
        ({"target": "species", "ignore": "length,width"}, ["at least one feature column"]),
        ({"target": "species", "categorical": "length"}, ["--categorical", "5 different values", "--ignore length"]),
        ({"target": "species", "validation": 1.0}, ["--validation", "[0, 1)", "got 1"]),
        ({"target": "species", "validation": -0.5}, ["--validation", "got -0.5"]),
    ],
)
def test_bad_options(write, options, words):
    with pytest.raises(OptionError) as caught:
        data.load_training([write("iris.csv", IRIS)], **options)
    for word in words:
        assert word in str(caught.value)


def test_the_first_error_names_all_text_columns(write):
    path = write("a.csv", "sex,town,x,y\nm,A,1,1.5\nf,B,2,2.5\n")
    with pytest.raises(InputError, match="the columns of text are sex,town"):
        data.load_training([path], target="y")
