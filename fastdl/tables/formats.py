"""Files of other kinds as tables: Parquet, Arrow and Feather, JSON lines, Excel sheets, LIBSVM."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdl.errors import InputError, MissingExtraError
from fastdl.tables.streams import opened, read_bytes
from fastdl.tables.table import Table
from fastdl.tables.text import polars, tidied

if TYPE_CHECKING:
    import polars as pl

PARQUET, ARROW, OLD_FEATHER = b"PAR1", b"ARROW1", b"FEA1"
SLICE_ROWS = 200_000
"""Rows of a Parquet or Arrow file that are read at a time where a file is read in parts."""


def kind_of(path: Path, head: bytes) -> str | None:
    """ "parquet", "arrow", "xlsx", "jsonl" or "libsvm" by the first bytes (and the name where they do not say), or None."""
    if head.startswith(PARQUET):
        return "parquet"
    if head.startswith((ARROW, OLD_FEATHER)):
        return "arrow"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"{") and b'"' in text[:200] and b":" in text[:2000]:
        return "jsonl"
    if _is_libsvm(head):
        return "libsvm"
    return None


def read(path: Path, kind: str, na_values: Sequence[str] = ()) -> Table:
    """A whole file as a table.

    Raises
    ------
    InputError : the file cannot be read, or holds no rows
    MissingExtraError : an xlsx file, and the package for that is not installed
    """
    pl = polars()
    readers: dict[str, Callable[[], Any]] = {
        "parquet": lambda: pl.read_parquet(path),
        "arrow": lambda: pl.read_ipc(path),
        "jsonl": lambda: pl.read_ndjson(io.BytesIO(read_bytes(path)), infer_schema_length=None),
        "xlsx": lambda: _read_xlsx(path),
    }
    try:
        frame = readers[kind]()
    except (pl.exceptions.PolarsError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).split("\n")[0]
        raise InputError(f"{path}: expected a whole {kind} file, got one that cannot be read ({reason})") from error
    if frame.height == 0:
        raise InputError(f"{path}: expected at least one row of data, got none")
    first = 2 if kind == "xlsx" else 1
    frame = tidied(frame, na_values)
    return Table(frame, str(path), [path], places=lambda row: f"{path}, row {row + first}")


def parts(path: Path, kind: str, na_values: Sequence[str] = ()) -> Iterator[Table]:
    """A file in parts, for what does not fit into memory; kinds that cannot be cut come whole."""
    if kind not in ("parquet", "arrow"):
        yield read(path, kind, na_values)
        return
    pl = polars()
    lazy = pl.scan_parquet(path) if kind == "parquet" else pl.scan_ipc(path)
    n_rows = lazy.select(pl.len()).collect().item()
    for start in range(0, n_rows, SLICE_ROWS):
        frame = tidied(lazy.slice(start, SLICE_ROWS).collect(), na_values)
        yield Table(frame, str(path), [path], places=lambda row, start=start: f"{path}, row {start + row + 1}")  # type: ignore[misc]


def _read_xlsx(path: Path) -> pl.DataFrame:
    pl = polars()
    try:
        return pl.read_excel(path, infer_schema_length=None)
    except ImportError as error:
        raise MissingExtraError(
            f'{path}: reading Excel files needs fastexcel, which is not installed: pip install "fastdl[tables]"'
        ) from error


def _is_libsvm(head: bytes) -> bool:
    lines = [line.split(b"#")[0].split() for line in head.splitlines()[:20]]
    lines = [line for line in lines if line]
    if len(lines) > 1 and not head.endswith(b"\n"):
        lines.pop()  # it may be cut
    return bool(lines) and any(len(line) > 1 for line in lines) and all(map(_is_libsvm_line, lines))


def _is_libsvm_line(cells: list[bytes]) -> bool:
    try:
        float(cells[0])
        for cell in cells[1:]:
            index, _, value = cell.partition(b":")
            if not (index == b"qid" or index.isdigit()):
                return False
            float(value)
    except ValueError:
        return False
    return True


def read_libsvm(path: Path) -> tuple[Any, Any]:
    """X [N, I], dense, and y [N] of a file of `label index:value ...` lines.

    Indices count from 1, or from 0 where one is 0. Features that a line leaves out are 0.
    """
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    labels: list[float] = []
    with opened(path) as stream:
        for number, line in enumerate(stream.read().splitlines(), start=1):
            cells = line.split(b"#")[0].split()
            if not cells:
                continue
            if not _is_libsvm_line(cells):
                raise InputError(f"{path}, row {number}: expected a label and pairs of index:value, got {line[:40]!r}")
            for cell in cells[1:]:
                index, _, value = cell.partition(b":")
                if index != b"qid":
                    rows.append(len(labels))
                    columns.append(int(index))
                    values.append(float(value))
            labels.append(float(cells[0]))
    first = 0 if 0 in columns else 1
    width = max(columns, default=first) + 1 - first
    if len(labels) * width > 2e9:
        raise InputError(f"{path}: expected a matrix that fits into memory, got {len(labels):,} x {width:,} features")
    X = np.zeros((len(labels), width))
    X[rows, np.array(columns, dtype=np.int64) - first] = values
    return X, np.array(labels)
