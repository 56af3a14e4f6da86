"""Parquet, Arrow, Excel, zstandard, LIBSVM, archives: the same table whatever the file."""

from __future__ import annotations

import datetime
import io
import sys
import tarfile
import zipfile

import numpy as np
import polars as pl
import pytest

from fastdl.errors import InputError, MissingExtraError, OptionError
from fastdl.tables import data, sources
from fastdl.tables.arrays import ArrayData
from fastdl.tables.dialect import Wishes

FRAME = pl.DataFrame(
    {
        "x": [1.5, None, 3.25, 4.0],
        "n": [1, 2, 3, 2],
        "t": ["a", "b", None, "a"],
        "b": [True, False, True, None],
        "d": [datetime.date(2024, 1, day) for day in (1, 2, 3, 9)],
        "y": [0.5, 1.5, 2.5, 3.5],
    }
)


def features(path):
    loaded = data.load_training([str(path)], target="y", validation=0)
    return loaded.feature_names, loaded.X


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather", "a.jsonl", "a.csv", "a.csv.zst"])
def test_every_format_gives_the_same_features(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".zst"):
        pytest.importorskip("zstandard")
        import zstandard

        path.write_bytes(zstandard.ZstdCompressor().compress(FRAME.write_csv().encode()))
    else:
        writers = {"parquet": FRAME.write_parquet, "arrow": FRAME.write_ipc, "feather": FRAME.write_ipc,
                   "jsonl": FRAME.write_ndjson, "csv": FRAME.write_csv}  # fmt: skip
        writers[name.rsplit(".", 1)[1]](path)
    FRAME.write_csv(tmp_path / "plain.csv")
    names, X = features(tmp_path / "plain.csv")
    assert names == ["x", "x is missing", "n", "t=a", "t=b", "t is missing", "b", "b is missing", "d: days",
                     "d: day of week", "d: day of year"]  # fmt: skip
    found, Y = features(path)
    assert found == names
    np.testing.assert_array_equal(X, Y)


CELLS = """<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>
<row r="1"><c r="A1" t="inlineStr"><is><t>x</t></is></c><c r="B1" t="inlineStr"><is><t>y</t></is></c></row>
<row r="2"><c r="A2"><v>1</v></c><c r="B2"><v>0.5</v></c></row>
<row r="3"><c r="A3"><v>2</v></c><c r="B3"><v>1.5</v></c></row>
<row r="4"><c r="A4"><v>4</v></c><c r="B4"><v>2.5</v></c></row></sheetData></worksheet>"""
PARTS = {
    "[Content_Types].xml": """<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Override PartName="/xl/workbook.xml"
 ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>
<Override PartName="/xl/worksheets/sheet1.xml"
 ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>""",
    "_rels/.rels": """<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
 Target="xl/workbook.xml"/></Relationships>""",
    "xl/workbook.xml": """<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"
 xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">
<sheets><sheet name="s" sheetId="1" r:id="r1"/></sheets></workbook>""",
    "xl/_rels/workbook.xml.rels": """<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet"
 Target="worksheets/sheet1.xml"/></Relationships>""",
    "xl/worksheets/sheet1.xml": CELLS,
}


@pytest.fixture
def sheet(tmp_path):
    """A spreadsheet of x and y."""
    path = tmp_path / "a.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in PARTS.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>\n' + text)
    return path


def test_spreadsheets(sheet):
    pytest.importorskip("fastexcel")
    names, X = features(sheet)
    assert (names, X[:, 0].tolist()) == (["x"], [1, 2, 4])


def test_packages_that_are_missing_are_named(sheet, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    with pytest.raises(MissingExtraError, match=r'fastexcel.*pip install "fastdl\[tables\]"'):
        features(sheet)
    (tmp_path / "a.csv.zst").write_bytes(b"\x28\xb5\x2f\xfd and more")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "compression", None)
    with pytest.raises(MissingExtraError, match="zstandard"):
        features(tmp_path / "a.csv.zst")


def test_libsvm(write):
    source = data.open_data([write("a.txt", "1 1:0.5 3:2 # note\n-1 2:1e-3\n\n1 3:-4\n")])
    assert isinstance(source, ArrayData)
    np.testing.assert_array_equal(source.X, [[0.5, 0, 2], [0, 1e-3, 0], [0, 0, -4]])
    loaded = data.load_training([write("b.txt", "+1 0:1 1:1\n-1 0:2\n+1 0:3\n-1 1:1\n")])
    assert (loaded.targets.task, loaded.targets.classes) == ("binary", [-1, 1])
    assert loaded.X.shape == (4, 2)
    with pytest.raises(InputError, match="row 30: expected a label"):
        data.open_data([write("c.txt", "1 1:2\n" * 29 + "1 1:a\n")])


def test_archives_of_several_files_say_what_is_inside(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("one.csv", "two.csv"):
            archive.writestr(name, "x,y\n1,2\n")
    with pytest.raises(InputError, match=r"2 files: one.csv, two.csv; unpack"):
        features(tmp_path / "a.zip")
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        for name in ("one.csv", "two.csv"):
            info = tarfile.TarInfo(name)
            info.size = 8
            archive.addfile(info, io.BytesIO(b"x,y\n1,2\n"))
    with pytest.raises(InputError, match=r"2 files: one.csv, two.csv; unpack"):
        features(tmp_path / "a.tgz")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"PAR1 and nothing else PAR1"),
        ("a.arrow", b"ARROW1\0\0 and nothing else"),
        ("a.jsonl", b'{"x": 1, "y": 2}\n{"x": \n'),
        ("a.csv.xz", b"\xfd7zXZ\0 and nothing else"),
        ("a.csv.gz", b"\x1f\x8b and nothing else"),
        ("a.zip", b"PK\x03\x04 and nothing else"),
    ],
)
def test_broken_files_are_named(write, name, content):
    with pytest.raises(InputError, match=name):
        features(write(name, content))


def test_a_table_beside_arrays(write, tmp_path):
    np.savez(tmp_path / "a.npz", X=np.eye(2), y=[0, 1])
    with pytest.raises(OptionError, match="one is no table"):
        data.open_data([write("a.csv", "x,y\n1,2\n"), str(tmp_path / "a.npz")])


def test_parts_of_arrays_come_whole(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.eye(3), y=[0, 1, 0])
    parts = list(sources.parts([str(tmp_path / "a.npz")]))
    assert [len(part) for part in parts] == [3]
    assert len(list(sources.parts(["digits"]))) == 1
    with pytest.raises(OptionError, match="digits alone"):
        sources.open_data(["digits", "more"], wishes=Wishes())
