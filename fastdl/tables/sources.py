"""What the user named, opened: tables and arrays, told apart by their content; several tables become one."""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from fastdl.errors import InputError, OptionError
from fastdl.tables import arrays, formats
from fastdl.tables.arrays import ArrayData
from fastdl.tables.csv_file import CsvFile
from fastdl.tables.dialect import Wishes
from fastdl.tables.streams import ZIP, head_of, members_of_zip
from fastdl.tables.table import Table, joined

_TABLES = ("csv", "parquet", "arrow", "jsonl", "xlsx")


def paths_of(files: Sequence[str]) -> list[Path]:
    """The files that exist, patterns such as `part-*.csv` resolved.

    Raises
    ------
    InputError : a file is not there
    """
    paths: list[Path] = []
    for file in files:
        path = Path(file)
        if not path.exists() and any(mark in file for mark in "*?["):
            found = sorted(glob.glob(file, recursive=True))
            if not found:
                raise InputError(f"{file}: expected files of this pattern, found none")
            paths += [Path(name) for name in found if Path(name).is_file()]
        elif not path.is_file():
            raise arrays.no_such_file(path)
        else:
            paths.append(path)
    return paths


def kind_of(path: Path) -> str:
    """ "npz", "npy", "idx", "libsvm", or a kind of table: "csv", "parquet", "arrow", "jsonl", "xlsx"."""
    try:
        with path.open("rb") as file:
            raw = file.read(8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if raw.startswith(ZIP):
        try:
            names = members_of_zip(path)
        except InputError:
            if path.suffix == ".npz":
                return "npz"
            raise
        if any(name.startswith("xl/") for name in names):
            return "xlsx"
        if names and all(name.endswith(".npy") for name in names):
            return "npz"
    head = head_of(path, 1 << 16)
    if head.startswith(arrays.NPY_MAGIC):
        return "npy"
    if len(head) >= 4 and head[:2] == b"\0\0" and arrays.is_idx(head):
        return "idx"
    return formats.kind_of(path, head) or "csv"


def is_table(paths: Sequence[Path]) -> bool:
    """Whether files are tables, and not arrays."""
    return all(kind_of(path) in _TABLES for path in paths)


def open_data(
    files: Sequence[str],
    with_targets: bool = True,
    wishes: Wishes = Wishes(),  # noqa: B008
    as_text: Collection[str] = (),
    mapped: bool | None = None,
) -> Table | ArrayData:
    """Read `digits`, tables, an NPZ file, or a pair of NPY or IDX files, told apart by their content.

    as_text : columns whose cells are kept as they were written, also where they look like numbers
    mapped : whether X of NPY files is mapped instead of read; None: if it is large
    """
    if list(files) == ["digits"]:
        return arrays.digits()
    if "digits" in files and not Path("digits").exists():
        raise OptionError(f"expected digits alone, got {len(files)}: {' '.join(files)}")
    paths = paths_of(files)
    kinds = [kind_of(path) for path in paths]
    if all(kind in _TABLES for kind in kinds):
        tables = [_table(path, kind, wishes, as_text) for path, kind in zip(paths, kinds)]
        return joined(_alike(tables, paths, kinds, wishes, as_text))
    if len(paths) > 2:
        raise OptionError(
            f"expected tables, or one or two files of arrays (features and targets), got {len(paths)}: {' '.join(files)}"
        )
    pair = tuple(paths)
    if len(paths) == 2 and kinds[0] in ("npz", "libsvm", *_TABLES):
        raise OptionError(
            f"expected one {kinds[0].upper()} file, or several tables, got two files of which one is no table: "
            f"{' '.join(files)}; pairs are NPY or IDX files"
        )
    if mapped and kinds[0] != "npy":
        raise OptionError(
            f"--mapped: expected a table, or NPY files, got {paths[0]}, a file of kind {kinds[0].upper()}"
        )
    if kinds[0] == "npz":
        return arrays.read_npz(paths[0], with_targets)
    if kinds[0] == "npy":
        return arrays.read_npy(pair, with_targets, mapped)
    if kinds[0] == "libsvm":
        X, y = formats.read_libsvm(paths[0])
        return arrays.of_arrays(pair, X, y, str(paths[0]), f"{paths[0]}: label")
    return arrays.read_idx(pair, with_targets)


def parts(
    files: Sequence[str],
    wishes: Wishes = Wishes(),  # noqa: B008
    as_text: Collection[str] = (),
) -> Iterator[Table | ArrayData]:
    """The same data in parts that fit into memory, in their order."""
    if list(files) == ["digits"]:
        yield arrays.digits()
        return
    paths = paths_of(files)
    kinds = [kind_of(path) for path in paths]
    if not all(kind in _TABLES for kind in kinds):
        yield open_data(files, with_targets=False, wishes=wishes, as_text=as_text)
        return
    for path, kind in zip(paths, kinds):
        if kind != "csv":
            yield from formats.parts(path, kind, wishes.na_values)
            continue
        file = CsvFile(path, wishes)
        empty = True
        for block in file.blocks(as_text):
            if block.frame.height:
                empty = False
                yield Table(block.frame, str(path), [path], file.notes, file.places(block.records), block.bad)
        if empty:
            raise InputError(f"{path}: expected at least one row of data below the line of names, got none")


def _table(path: Path, kind: str, wishes: Wishes, as_text: Collection[str]) -> Table:
    return CsvFile(path, wishes).read(as_text) if kind == "csv" else formats.read(path, kind, wishes.na_values)


def _alike(
    tables: list[Table], paths: Sequence[Path], kinds: Sequence[str], wishes: Wishes, as_text: Collection[str]
) -> list[Table]:
    """Tables in which a column that is text in one file was read as text in all of them."""
    if len(tables) == 1:
        return tables
    dtypes: dict[str, set[str]] = {}
    for table in tables:
        for name, dtype in table.frame.schema.items():
            dtypes.setdefault(name, set()).add(str(dtype))
    mixed = {name for name, found in dtypes.items() if "String" in found and len(found - {"Null"}) > 1}
    if not mixed:
        return tables
    return [
        _table(path, kind, wishes, {*as_text, *mixed}) if kind == "csv" else table
        for table, path, kind in zip(tables, paths, kinds)
    ]
