"""CSV files in blocks: polars parses them, columns of plain numbers become numbers at once, errors name the line."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import InputError
from fastdl.tables.dialect import SPACES, Dialect, Wishes, encoding_of, sniff
from fastdl.tables.streams import head_of, opened
from fastdl.tables.table import Table, unique_names
from fastdl.tables.text import cleaned, listed, polars

if TYPE_CHECKING:
    import polars as pl

BLOCK_BYTES = 16 << 20
"""Bytes that are parsed at a time: their cells as text take about four times as much for the moment."""
_HEAD = 1 << 18
_LOOK = 500  # cells that say whether a column may be one of numbers
_LOOK_BYTES = 1 << 17


@dataclass
class Block:
    """Rows of the file that were parsed together.

    records : the record of the file that each row is, counted from the first one of data; blank lines are records
    bad : rows that could not be read, with the reason
    """

    frame: pl.DataFrame
    records: NDArray[np.int64]
    bad: dict[int, str] = field(default_factory=dict)


class CsvFile:
    """A CSV file, read as it is written: see `Dialect` for what is found out by itself."""

    def __init__(self, path: Path, wishes: Wishes = Wishes()) -> None:  # noqa: B008
        self.path = path
        self._wishes = wishes
        self.dialect, self._mixed = self._look(path, wishes)
        named = [name for name in self.dialect.names if name]
        self.names, twice = unique_names(named)
        self._columns = [i for i, name in enumerate(self.dialect.names) if name]
        self._plain: set[int] | None = None  # columns of plain numbers, as the last block showed
        self.notes = list(self.dialect.notes)
        self.notes += [f"left out column {i + 1}, which has no name" for i, n in enumerate(self.dialect.names) if not n]
        if twice:
            self.notes.append(f"columns of one name are numbered: {listed([repr(name) for name in twice], 6)}")

    def _look(self, path: Path, wishes: Wishes) -> tuple[Dialect, bool]:
        head = head_of(path, _HEAD)
        encoding, notes = encoding_of(path, head, wishes.encoding)
        decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)()
        try:
            text = decoder.decode(head, final=len(head) < _HEAD)
        except UnicodeDecodeError as error:
            if wishes.encoding is not None:
                raise InputError(
                    f"{path}: expected {wishes.encoding} as --encoding says, got the byte 0x{head[error.start]:02x}; "
                    f"leave the option out, or name another encoding"
                ) from error
            encoding, text = "cp1252", _western(head).decode()
            notes = ["read as CP1252 (Latin-1), as it is not UTF-8"]
        if len(head) == _HEAD:
            text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
        return sniff(path, text, encoding, wishes, notes), False

    def blocks(self, as_text: Collection[str] = (), columns: Collection[str] | None = None) -> Iterator[Block]:
        """The rows in blocks; `as_text` names columns whose cells stay as they are, `columns` those that are wanted."""
        first = 0
        width, separator = len(self.dialect.names), self.dialect.delimiter
        header = separator.join(f"c{i}" for i in range(width)).encode() + b"\n"
        with ThreadPoolExecutor(2) as pool:
            blocks = self._raw_blocks(header)
            coming = pool.submit(next, blocks, None)
            while (data := coming.result()) is not None:
                coming = pool.submit(next, blocks, None)  # read while these rows are parsed
                block = self._parse(data, len(header), first, as_text, columns, pool)
                first = int(block.records[-1]) + 1 if len(block.records) else first
                yield block

    def read(self, as_text: Collection[str] = ()) -> Table:
        """All rows."""
        pl = polars()
        columns: dict[str, list[Any]] = {name: [] for name in self.names}
        records: list[NDArray[np.int64]] = []
        bad: dict[int, str] = {}
        height = 0
        for block in self.blocks(as_text):
            if block.frame.height:
                for name in self.names:
                    columns[name].append(block.frame[name])
                records.append(block.records)
                bad |= {height + row: why for row, why in block.bad.items()}
                height += block.frame.height
        if not height:
            raise InputError(f"{self.path}: expected at least one row of data below the line of names, got none")
        mixed = [n for n, parts in columns.items() if len({part.dtype for part in parts} - {pl.Null}) > 1]
        if mixed:  # numbers in one block, text in another: the text is needed everywhere
            again = [block.frame for block in self.blocks({*as_text, *mixed}, mixed) if block.frame.height]
            columns |= {name: [frame[name] for frame in again] for name in mixed}
        # Column by column, so that the parts of only one are there twice.
        whole = [_joined(columns.pop(name)) for name in self.names]
        places = self.places(np.concatenate(records))
        return Table(pl.DataFrame(whole), str(self.path), [self.path], self.notes, places, bad)

    def places(self, records: NDArray[np.int64]) -> Callable[[int], str]:
        """How messages call a row."""
        return lambda row: f"{self.path}, row {self._line(int(records[row]))}"

    # From bytes to blocks

    def _raw_blocks(self, header: bytes = b"") -> Iterator[bytes]:
        """UTF-8 bytes of whole records behind `header`, the lines above the first row of data left out."""
        dialect = self.dialect
        decoder: Any = None
        if dialect.encoding not in ("utf-8", "cp1252"):
            decoder = codecs.getincrementaldecoder(dialect.encoding)("replace")
        skip, carry, begun = dialect.skipped, b"", False
        with opened(self.path) as stream:
            while True:
                data = stream.read(BLOCK_BYTES)
                end = not data
                if not begun:
                    data, begun = data.removeprefix(codecs.BOM_UTF8), True
                if decoder is not None:
                    data = decoder.decode(data, final=end).removeprefix("\ufeff").encode()
                if dialect.carriage_returns:
                    data = data.replace(b"\r", b"\n")
                data = carry + data
                cut = len(data) if end else _last_record_end(data)
                rows: bytes | memoryview = memoryview(data)[:cut]
                if skip or dialect.separator == SPACES or not (decoder is not None or data.isascii()):
                    text = bytes(rows) if decoder is not None else self._valid(bytes(rows))
                    while skip and text:
                        text = text[text.find(b"\n") + 1 or len(text) :]
                        skip -= 1
                    rows = dialect.separated(text)
                if len(rows):
                    yield b"".join((header, rows))
                carry = data[cut:]
                if end:
                    return

    def _valid(self, data: bytes) -> bytes:
        if self.dialect.encoding == "cp1252":
            return _western(data)
        try:
            data.decode()
        except UnicodeDecodeError:
            note = "some of it is read as CP1252 (Latin-1), as it is not UTF-8"
            if note not in self.notes:
                self.notes.append(note)
            return b"\n".join(_western(line) if _is_broken(line) else line for line in data.split(b"\n"))
        return data

    # From blocks to columns

    def _parse(
        self,
        data: bytes,
        start: int,
        first: int,
        as_text: Collection[str],
        columns: Collection[str] | None,
        pool: ThreadPoolExecutor,
    ) -> Block:
        pl = polars()
        bad: dict[int, str] = {}
        wanted = [(i, n) for i, n in zip(self._columns, self.names) if columns is None or n in columns]
        candidates = [i for i, n in wanted if n not in as_text]
        if self._plain is None or not self._plain <= set(candidates):
            self._plain = self._plain_numbers(data, candidates)
        plain = self._plain
        try:
            cells = self._read(data, plain)
        except pl.exceptions.PolarsError:
            cells, bad = self._parse_slowly(data[start:])
        records = np.arange(first, first + cells.height)
        if cells.height and cells["c0"].has_nulls():
            blank = cells.select(pl.all_horizontal(pl.all().is_null())).to_series().to_numpy()
            blank[list(bad)] = False
            kept = np.flatnonzero(~blank)
            cells, records = cells[kept], records[kept]
            bad = {int(np.searchsorted(kept, row)): why for row, why in bad.items()}
        series = list(
            pool.map(lambda column: self._column(cells[f"c{column[0]}"].alias(column[1]), column[1] in as_text), wanted)
        )
        return Block(pl.DataFrame(series), records, bad)

    def _read(self, data: bytes, plain: Collection[int]) -> pl.DataFrame:
        """Cells as text, those of `plain` columns as numbers; as text all of them, if one of those is no number."""
        pl = polars()
        schema = {f"c{i}": pl.Float64 if i in plain else pl.String for i in range(len(self.dialect.names))}
        options = {
            "separator": self.dialect.delimiter,
            "comment_prefix": "#" if self.dialect.comments else None,
            "infer_schema_length": 0,
        }
        try:
            return pl.read_csv(data, schema_overrides=schema, **options)
        except pl.exceptions.PolarsError:
            if not plain:
                raise
            self._plain = None  # the next block is looked at anew
            return pl.read_csv(data, **options)

    def _plain_numbers(self, data: bytes, candidates: Sequence[int]) -> set[int]:
        """The columns whose first cells are numbers as computers write them; those of one block are tried on the next ones."""
        pl = polars()
        if self._wishes.na_values:
            return set()
        end = _last_record_end(data[:_LOOK_BYTES])
        try:
            look = self._read(data[:end], ())
        except pl.exceptions.PolarsError:
            return set()
        plain = set()
        for i in candidates:
            cells = look[f"c{i}"].drop_nulls()
            if len(cells) and not cells.cast(pl.Float64, strict=False).has_nulls():
                plain.add(i)
        return plain

    def _column(self, cells: pl.Series, as_text: bool) -> pl.Series:
        """Plain numbers as numbers, everything else as text without spaces around it."""
        pl = polars()
        if cells.dtype == pl.Float64:
            return cells.fill_nan(None)
        cells = cleaned(cells, self._wishes.na_values)
        if as_text:
            return cells
        if cells.null_count() == len(cells):
            return pl.Series(cells.name, [None] * len(cells), dtype=pl.Null)
        look = cells.head(_LOOK).drop_nulls()
        if len(look) and look.cast(pl.Float64, strict=False).has_nulls():
            return cells
        numbers = cells.cast(pl.Float64, strict=False)
        return numbers.fill_nan(None) if numbers.null_count() == cells.null_count() else cells

    def _parse_slowly(self, data: bytes) -> tuple[pl.DataFrame, dict[int, str]]:
        """The cells of a block that polars refuses, row by row, and the rows with too many cells."""
        width = len(self.dialect.names)
        rows: list[list[str | None]] = []
        bad: dict[int, str] = {}
        if data.count(b'"') % 2:
            raise InputError(
                f"{self.path}: expected a CSV file, got one that cannot be parsed; is a double quote left open?"
            )
        try:
            for record in self._records_of(data):
                if len(record) > width and "".join(record[width:]).strip():
                    bad[len(rows)] = (
                        f"expected {width} cells as in the line of names, got {len(record)}; "
                        f"put cells that hold the separator {self.dialect.separator!r} in double quotes"
                    )
                    record = []
                cells: list[str | None] = [cell if cell else None for cell in record[:width]]
                rows.append(cells + [None] * (width - len(cells)))
        except csv.Error as error:
            raise InputError(f"{self.path}: expected a CSV file, got one that cannot be parsed ({error})") from error
        pl = polars()
        return pl.DataFrame(rows, schema={f"c{i}": pl.String for i in range(width)}, orient="row"), bad

    def _records_of(self, data: bytes) -> Iterator[list[str]]:
        reader = csv.reader(
            io.StringIO(data.decode(), newline=""), delimiter=self.dialect.delimiter, skipinitialspace=True
        )
        for record in reader:
            if not (self.dialect.comments and record and record[0].startswith("#")):
                yield record

    def _line(self, wanted: int) -> int:
        """The line of the file on which a record starts, found by reading it again."""
        line, number = self.dialect.skipped + 1, 0
        for data in self._raw_blocks():
            reader = csv.reader(io.StringIO(data.decode(), newline=""), delimiter=self.dialect.delimiter)
            try:
                before = 0
                for record in reader:
                    if not (self.dialect.comments and record and record[0].startswith("#")):
                        if number == wanted:
                            return line + before
                        number += 1
                    before = reader.line_num
            except csv.Error:
                break
            line += data.count(b"\n")
        return self.dialect.skipped + 1 + wanted


def _joined(parts: list[pl.Series]) -> pl.Series:
    """Parts of a column below each other; those without any value have the type of the others."""
    pl = polars()
    dtype = next((part.dtype for part in parts if part.dtype != pl.Null), pl.Null)
    return parts[0] if len(parts) == 1 else pl.concat([part.cast(dtype) for part in parts], rechunk=True)


def _last_record_end(data: bytes) -> int:
    """Behind the last line end that is outside of double quotes, or 0."""
    end = data.rfind(b"\n")
    quotes = data.count(b'"', 0, end) if b'"' in data else 0
    while end >= 0 and quotes % 2:
        opening = data.rfind(b'"', 0, end)
        before = data.rfind(b"\n", 0, opening)
        quotes -= data.count(b'"', max(before, 0), end)
        end = before
    return end + 1


def _western(data: bytes) -> bytes:
    """Bytes of CP1252, or of Latin-1 where that has no such character, as UTF-8."""
    try:
        return data.decode("cp1252").encode()
    except UnicodeDecodeError:
        return data.decode("latin-1").encode()


def _is_broken(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return False
