"""Small tables as people have them, and the right reading of each: one line a case."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fastdl.tables import data
from fastdl.tables.dialect import Wishes


@dataclass
class Case:
    """A file, the options that go with it, and what must be read.

    kinds : of each column beside the target, by its first letters; X : columns of the features, by name
    y : targets, classes as they are; notes : words that must be said
    """

    content: str | bytes
    kinds: str = ""
    X: dict[str, list[float]] = field(default_factory=dict)
    y: list[Any] | None = None
    task: str = ""
    notes: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    wishes: dict[str, Any] = field(default_factory=dict)
    name: str = "a.csv"


def table(header, *rows, separator=",", end="\n"):
    return end.join(separator.join(map(str, row)) for row in ([header] if header else []) + list(rows)) + end


def numbered(cells, y=None, name="x"):
    """A table of one column, an ordinary column of numbers beside it, and a target."""
    y = [f"{i * 7 % 5 + 0.5}" for i in range(len(cells))] if y is None else y
    return table([name, "z", "y"], *([c, i * i % 7 + 0.25, t] for i, (c, t) in enumerate(zip(cells, y, strict=True))))


def zipped(name, content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
        archive.writestr("__MACOSX/._" + name, "x")
    return file.getvalue()


def tarred(*names):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(SIMPLE)
            archive.addfile(info, io.BytesIO(SIMPLE.encode()))
    return file.getvalue()


SIMPLE = "x,y\n1,0.5\n2,1.5\n4,2.5\n"
READ = {"kinds": "num", "X": {"x": [1, 2, 4]}, "y": [0.5, 1.5, 2.5]}
DAYS = ["2024-01-31", "2024-02-29", "2024-03-01", "2023-12-31", "2024-01-02"]

CASES = {
    # 1 to 3: numbers in the target
    "decimal commas in the target": Case(
        numbered([1, 2, 4, 3], ['"2,5"', '"3,5"', '"2,5"', '"4,5"']),
        y=[2.5, 3.5, 2.5, 4.5],
        task="regression",
        notes=("decimal commas",),
    ),
    "money in the target": Case(
        numbered([1, 2, 4], ["$9.99", '"$1,644.09"', "$5"]), y=[9.99, 1644.09, 5], task="regression"
    ),
    "thousands in the target": Case(
        numbered([1, 2, 4] * 9, ['"1,000"', '"2,500"', '"1,250,000"'] * 9),
        y=[1000, 2500, 1250000] * 9,
        options={"task": "regression"},
        task="regression",
    ),
    "semicolons and decimal commas": Case(
        "x;y\n45,06;0,5\n3,2;1,5\n4;2,25\n",
        "num",
        {"x": [45.06, 3.2, 4]},
        [0.5, 1.5, 2.25],
        "regression",
        notes=("decimal commas",),
    ),
    # numbers as people write them
    "money": Case(numbered(["$1", '"$1,234.50"', "-$3.25", "€4"]), "num num", {"x": [1, 1234.5, -3.25, 4]}),
    "percent": Case(numbered(["12 %", "3.5%", "100 %"]), "num num", {"x": [12, 3.5, 100]}),
    "parentheses": Case(numbered(["(3.2)", "4", "(1)"]), "num num", {"x": [-3.2, 4, -1]}),
    "thin spaces and plus signs": Case(numbered(["1\u202f234", "+5", "2 000"]), "num num", {"x": [1234, 5, 2000]}),
    "european thousands": Case(
        "x;y\n1.234,5;1\n2.000;2\n3,25;4\n", "num", {"x": [1234.5, 2000, 3.25]}, options={"task": "regression"}
    ),
    "decimals said": Case(
        numbered(['"1,000"', '"2,000"', '"3,500"']), "num num", {"x": [1, 2, 3.5]}, wishes={"decimal": ","}
    ),
    "1e15 + i": Case(numbered([1e15 + i for i in range(12)]), "num num", {"x": [1e15 + i for i in range(12)]}),
    # 4 and 13: options
    "options twice and with commas": Case(
        table(
            ["a", "City, State", "b", "c", "y"], *([i, "uv"[i % 2], i * 3 % 5, i * 5 % 7, i + 0.5] for i in range(6))
        ).replace("City, State", '"City, State"'),
        "ign cat ign cat",
        options={"ignore": ["a", "b"], "categorical": ["City, State,c"]},
    ),
    # 5: no header
    "no header": Case(
        "0.1,7.2,1\n0.3,6.1,0\n0.2,5.5,1\n",
        "num num",
        {"column_1": [0.1, 0.3, 0.2]},
        [1, 0, 1],
        notes=("no line of names",),
        options={"target": "column_3"},
    ),
    "no header over text": Case(
        "39,State-gov,1.5\n50,Private,2.5\n38,Private,3.5\n53,State-gov,1.5\n",
        "num cat",
        {"column_1": [39, 50, 38, 53]},
        notes=("no line of names",),
        options={"target": "column_3"},
    ),
    "years as names": Case("1950,1960,y\n1,2,3.5\n3,4,4.5\n", "num num", {"1950": [1, 3]}),
    "numbers as names, one of them said": Case(
        "1950,1960,1970\n1,2,3.5\n3,4,4.5\n", "num num", {"1960": [2, 4]}, options={"target": "1970"}
    ),
    "no header said": Case(
        "a,b,1.5\nb,a,2.5\na,a,3.5\n", "cat cat", wishes={"header": False}, options={"target": "column_3"}
    ),
    # 7, 10, 11, 16: missing values
    "missing classes": Case(
        numbered([1, 2, 4, 3, 5, 6], ["cat", "NA", "dog", "?", "cat", "dog"]),
        y=["cat", "dog", "cat", "dog"],
        task="binary",
        notes=("2 rows without a target",),
    ),
    "plus and minus are classes": Case(numbered([1, 2, 4, 3], ["+", "-", "-", "+"]), y=["+", "-", "-", "+"]),
    "missing numbers": Case(
        numbered([1, "", "NA", "?", "-", "NaN", ".", "null", "None", "N/A", 4]),
        "num num",
        {"x": [1, *[2.5] * 9, 4], "x is missing": [0, *[1] * 9, 0]},
    ),
    "missing numbers of the user": Case(
        numbered([1, -999, 4]),
        "num num",
        {"x": [1, 2.5, 4], "x is missing": [0, 1, 0]},
        wishes={"na_values": ("-999",)},
    ),
    "missing categories": Case(
        numbered(["u", "", "v", "?"]),
        "cat num",
        {"x=u": [1, 0, 0, 0], "x=v": [0, 0, 1, 0], "x is missing": [0, 1, 0, 1]},
    ),
    "missing booleans": Case(
        numbered(["True", "False", "", "True"]), "boo num", {"x": [1, 0, 2 / 3, 1], "x is missing": [0, 0, 1, 0]}
    ),
    "missing dates": Case(
        numbered(["2024-01-31", "", "2024-02-29"]), "dat num", {"x: month": [1, 1.5, 2], "x is missing": [0, 1, 0]}
    ),
    "targets left out": Case(numbered([1, 2, 4], ["0.5", "", "1.5"]), y=[0.5, 1.5], notes=("1 row without a target",)),
    "a word among many numbers": Case(
        numbered([*range(0, 90, 3), "many"]), "num num", {"x": [*range(0, 90, 3), 43.5]}, notes=("'many'",)
    ),
    # 14, 15, 17, 21, 32: how files are written
    "comments": Case("# made by hand\n#\n" + SIMPLE, **READ, notes=("start with #",)),
    "names behind a comment": Case("# x,y\n1,0.5\n2,1.5\n4,2.5\n", **READ, notes=("stand behind #",)),
    "a title": Case(
        "Measurements of May\n\n" + "x,z,y\n1,4,0.5\n2,3,1.5\n4,5,2.5\n",
        "num num",
        {"x": [1, 2, 4]},
        notes=("skipped 1 line",),
    ),
    "carriage returns": Case(SIMPLE.replace("\n", "\r"), **READ, notes=("line ends of",)),
    "utf-16": Case(SIMPLE.encode("utf-16"), **READ, notes=("UTF-16",)),
    "cp1252": Case(
        numbered(["Köln", "Zürich", "Köln"]).encode("cp1252"), "cat num", {"x=Köln": [1, 0, 1]}, notes=("CP1252",)
    ),
    "an encoding said": Case(
        numbered(["Łódź", "Kraków", "Łódź"]).encode("cp1250"),
        "cat num",
        {"x=Łódź": [1, 0, 1]},
        wishes={"encoding": "cp1250"},
    ),
    "names twice": Case(
        "x,x,y\n1,4,0.5\n2,3,1.5\n3,5,2.5\n", "num num", {"x": [1, 2, 3], "x_2": [4, 3, 5]}, notes=("numbered",)
    ),
    "spaces between": Case(SIMPLE.replace(",", "    ").replace("\n", "  \n"), **READ),
    "spaces and quotes": Case(
        '18.0   8  "chevrolet chevelle"  1.5\n15.0   4  "buick skylark"  2.5\n16.0   8  "buick skylark"   3\n',
        "num num cat",
        {"column_1": [18, 15, 16]},
        notes=("no line of names",),
        options={"target": "column_4"},
    ),
    "a separator said": Case(SIMPLE.replace(",", "~"), **READ, wishes={"separator": "~"}),
    "a separator at each end": Case("x,y,\n1,0.5,\n2,1.5,\n4,2.5,\n", **READ, notes=("column 3, which has no name",)),
    "names of rows": Case("x,y\na,1,0.5\nb,2,1.5\nc,4,2.5\n", **READ, notes=("column 1, which has no name",)),
    # 6, 18, 19, 23: kinds
    "a counter": Case(table(["Id", "x", "y"], *([i + 1, i % 3, i / 2 + 0.25] for i in range(12))), "ide num"),
    "a counter alone": Case(table(["n", "y"], *([i, i / 2 + 0.25] for i in range(12))), "num"),
    "keys": Case(table(["userId", "x", "y"], *([i * 37 % 101, i % 3, i + 0.5] for i in range(12))), "ide num"),
    "names of people": Case(table(["who", "x", "y"], *([f"p{i}", i % 3, i + 0.5] for i in range(30))), "ide num"),
    "codes said": Case(
        table(["code", "x", "y"], *(["007" if i % 2 else "7", i * i % 5, i + 0.5] for i in range(6))),
        "cat num",
        {"code=007": [0, 1, 0, 1, 0, 1], "code=7": [1, 0, 1, 0, 1, 0]},
        options={"categorical": "code"},
    ),
    "1 and 1.0": Case(numbered(["1", "1.0", "b", "1"]), "cat num", {"x=1": [1, 1, 0, 1], "x=b": [0, 0, 1, 0]}),
    "a constant": Case(numbered([5, 5, 5, 5]), "con num"),
    "nothing": Case(numbered(["", "NA", "", ""]), "con num"),
    "free text": Case(
        numbered([f"a {'good' if i % 2 else 'bad'} day number {i} it was" for i in range(40)]),
        "tex num",
        {"x has 'good'": [i % 2 for i in range(40)]},
    ),
    **{
        f"{true} and {false}": Case(numbered([true, false, true.upper(), true]), "boo num", {"x": [1, 0, 1, 1]})
        for true, false in (("True", "False"), ("yes", "no"), ("t", "f"), ("Y", "N"))
    },
    "yes and no as target": Case(numbered([1, 2, 4], ["Yes", "No", "Yes"]), y=["Yes", "No", "Yes"], task="binary"),
    "booleans as target": Case(numbered([1, 2, 4], ["True", "False", "TRUE"]), y=[True, False, True], task="binary"),
    **{
        f"dates {form}": Case(
            table(["d", "y"], *zip([change(d) for d in DAYS], range(5))),
            "dat",
            {
                "d: month": [1, 2, 3, 12, 1],
                "d: year": [2024, 2024, 2024, 2023, 2024],
                "d: day of week": [3, 4, 5, 7, 2],
                "d: day of year": [31, 60, 61, 365, 2],
            },
            options={"task": "regression"},
        )
        for form, change in {
            "iso": lambda d: d,
            "d.m.y": lambda d: ".".join(reversed(d.split("-"))),
            "m/d/y": lambda d: "/".join([*d.split("-")[1:], d[:4]]),
            "iso with time": lambda d: d + "T06:30:00",
            "with zone": lambda d: d + " 06:30:00+00:00",
            "written": lambda d: (
                f"{int(d[8:])} {['Jan', 'Feb', 'Mar', 'Dec'][int(d[5:7]) % 12 and min(int(d[5:7]), 4) - 1]} {d[:4]}"
            ),
        }.items()
        if form != "written"
    },
    "hours": Case(
        table(["d", "y"], ["12:30", 1.5], ["01:00", 2.5], ["23:15", 3.5]), "dat", {"d: hour": [12.5, 1, 23.25]}
    ),
    "dates without separators, said": Case(
        table(["d", "y"], [20240131, 1.5], [20240229, 2.5], [20231231, 3.5]),
        "dat",
        {"d: month": [1, 2, 12]},
        options={"date": "d"},
    ),
    # 22: formats
    "gzip": Case(gzip.compress(SIMPLE.encode()), **READ, name="a.csv.gz"),
    "xz": Case(lzma.compress(SIMPLE.encode()), **READ, name="a.csv.xz"),
    "zip": Case(zipped("b.csv", SIMPLE), **READ, name="a.zip"),
    "tgz": Case(tarred("b.csv"), **READ, name="a.tgz"),
    "json lines": Case('{"x": 1, "y": 0.5}\n{"x": 2, "y": 1.5}\n{"y": 2.5, "x": 4}\n', **READ, name="a.jsonl"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_right_reading(write, case):
    options = {"target": "y", "validation": 0, **case.options}
    loaded = data.load_training([write(case.name, case.content)], wishes=Wishes(**case.wishes), **options)
    kinds = [column.kind for column in loaded.preprocessor.columns]
    if case.kinds:
        assert " ".join(kind[:3] for kind in kinds) == case.kinds
    X = dict(zip(loaded.feature_names, loaded.X.T, strict=True))
    for name, values in case.X.items():
        np.testing.assert_allclose(X[name], values, rtol=1e-15, err_msg=name)
    if case.y is not None:
        classes = loaded.targets.classes
        y = loaded.targets.y.reshape(-1)
        assert [v if classes is None else classes[int(v)] for v in y.tolist()] == case.y
    if case.task:
        assert loaded.targets.task == case.task
    for words in case.notes:
        assert any(words in note for note in loaded.notes), loaded.notes
    if not case.notes:
        assert loaded.notes == [], loaded.notes
