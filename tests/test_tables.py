"""CSV files for training: what their columns become, and what bad cells, columns and options get."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from fastdl.errors import InputError, OptionError
from fastdl.tables import data
from fastdl.tables.csv_file import CsvFile

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
    """Separators, quotes, line ends, byte order marks, blank lines, spaces, encodings and gzip make no difference."""
    variants = {
        "plain.csv": "x,y\n1.5,2\n-3,4e2\n",
        "semicolon.csv": "x;y\n1.5;2\n-3;4e2\n",
        "tab.tsv": "x\ty\n1.5\t2\n-3\t4e2\n",
        "spaces.txt": "x    y\n1.5  2\n -3  4e2\n",
        "quoted.csv": '"x","y"\r\n"1.5","2"\r\n"-3","4e2"\r\n',
        "bom.csv": b"\xef\xbb\xbfx,y\n1.5,2\n-3,4e2",
        "utf16.csv": "x,y\n1.5,2\n-3,4e2\n".encode("utf-16"),
        "returns.csv": "x,y\r1.5,2\r-3,4e2\r",
        "blank.csv": "\n\nx,y\n\n1.5,2\n\n-3,4e2\n\n",
        "padded.csv": " x , y\n 1.5, 2 \n-3 ,4e2\n",
        "commented.csv": "# by hand\nx,y\n1.5,2\n# done\n-3,4e2\n",
        "titled.csv": "A table\nx,y\n1.5,2\n-3,4e2\n",
        "packed.csv.gz": gzip.compress(b"x,y\n1.5,2\n-3,4e2\n"),
    }
    for name, content in variants.items():
        table = CsvFile(Path(write(name, content))).read()
        assert table.frame.to_dict(as_series=False) == {"x": [1.5, -3.0], "y": [2.0, 400.0]}, name


def test_csv_numbers_are_read_exactly(write):
    """Every cell becomes the float that Python reads."""
    rng = np.random.default_rng(1)
    cells = [repr(float(v)) for v in rng.standard_normal(500) * 10.0 ** rng.integers(-30, 30, 500)]
    table = CsvFile(Path(write("a.csv", "x\n" + "\n".join(cells) + "\n"))).read()
    np.testing.assert_array_equal(table.frame["x"], [float(c) for c in cells])


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
def test_a_rare_category_stays_where_the_split_puts_it(write, seed):
    """Which rows validate depends on the seed alone; a category of none of the training rows is none of the known."""
    rows = "".join(f"{'rare' if i == 11 else 'ab'[i % 2]},{i},{i / 3}\n" for i in range(20))
    loaded = data.load_training([write("a.csv", "c,x,y\n" + rows)], target="y", validation=0.5, seed=seed)
    np.testing.assert_array_equal(loaded.validation, data.split(20, 0.5, seed)[1])
    assert loaded.columns[0].categories == (("a", "b", "rare") if 11 in loaded.train else ("a", "b"))
    one_hot = loaded.X[:, : len(loaded.columns[0].categories)]
    assert one_hot.sum() == (20 if 11 in loaded.train else 19)


def test_a_comma_in_a_column_name(write):
    loaded = data.load_training([write("a.csv", '"x,1",y\n1,0.5\n2,1.5\n3,2.5\n')], target="y", ignore="")
    assert loaded.feature_names == ["x,1"]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("x,y\n1,0.5\n2,-inf\n", {}, ["row 3, column 'y'", "finite", "-inf"]),
        ("x,y\n1,0.5\n2,1,3\n4,5,6\n", {}, ["row 3", "expected 2 cells", "got 3", "row 4"]),
        ('x,y\n1,0.5\n"2,1\n', {}, ["double quote left open"]),
        ("x,y\n", {}, ["at least one row", "got none"]),
        ("", {}, ["empty file"]),
        ("\n\n", {}, ["empty file"]),
        (b"\x7fELF\x02\x01\x01\0\0\0", {}, ["binary file of another kind"]),
        ("x,y\n1,0.5\n2,1.5\n3,b\n4,c\n5,7\n", {}, ["row 4, column 'y'", "'b'", "'c' in row 5", "--task multiclass"]),
        ('x,y\n"1\n",1\n\n3,2\n4,b\n5,3\n', {}, ["row 6, column 'y'", "'b'"]),
        ("x,y\n1,3\n2,3\n3,3\n", {}, ["'y'", "at least two classes", "only 3"]),
        ("x,y\n1,\n2,NA\n", {}, ["a target in some row"]),
        ("x,y\n1,0.5\n", {}, ["at least 2 rows", "--validation 0"]),
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
        ({"target": "specie", "ignore": "widht", "date": "lenght"}, ["--target", "--ignore", "--date"]),
        ({"target": "species", "ignore": "length,width"}, ["at least one feature column"]),
        ({"target": "species", "validation": 1.0}, ["--validation", "[0, 1)", "got 1"]),
        ({"target": "species", "validation": -0.5}, ["--validation", "got -0.5"]),
        ({"target": "species", "group": "plot"}, ["--group", "'plot'"]),
        ({"target": "species", "time": "species"}, ["--time", "another column than the target"]),
    ],
)
def test_bad_options(write, options, words):
    with pytest.raises(OptionError) as caught:
        data.load_training([write("iris.csv", IRIS)], **options)
    for word in words:
        assert word in str(caught.value)


def test_columns_that_are_not_what_the_user_says(write):
    path = write("a.csv", "when,CO(GT),y\nred,blue,1.5\ngreen,blue,2.5\nred,teal,3.5\n")
    with pytest.raises(InputError) as caught:
        data.load_training([path], target="y", date="when", numeric="CO(GT)")
    for word in ("--date", "'when'", "--numeric", "--ignore 'CO(GT)'"):
        assert word in str(caught.value)
