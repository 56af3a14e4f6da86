"""CSV files: cells as text, columns as numbers on request, and errors that name the line as an editor shows it."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastdl.errors import InputError, MissingExtraError
from fastdl.suggest import did_you_mean

if TYPE_CHECKING:
    import polars as pl

GZIP_MAGIC = b"\x1f\x8b"
_SEPARATORS = ",;\t|"
_BOOLEANS = {"true": 1.0, "false": 0.0}


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked when it is a gzip archive."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not data.startswith(GZIP_MAGIC):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"{path}: expected a whole gzip file, got one that is truncated or altered ({error})"
        ) from error


class Table:
    """The cells of a CSV file as text, in named columns.

    The first line that is not blank holds the names; the separator is the one of `, ; tab |` that it uses most. Blank
    lines are skipped, spaces around names and cells do not count. Columns without a name are left out and listed in
    `unnamed` by number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = _text_bytes(path)
        header, self._header_lines, start = _header(path, self._data)
        self.separator = header[1]
        self.unnamed = [i + 1 for i, name in enumerate(header[0]) if not name]
        self.names = [name for name in header[0] if name]
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise InputError(
                f"{path}: expected a name for each column in the first line, got {twice[0]!r} more than once; "
                f"{'add a line of names above the data' if _all_numbers(self.names) else 'rename one of them'}"
            )
        frame = self._read(header[0], self._data[start:])
        blank = frame.select(polars().all_horizontal(polars().all().is_null())).to_series()
        self._rows = np.flatnonzero(~blank.to_numpy())  # the record in the file of each row
        self._frame = frame.filter(~blank).select(self.names)
        self._parsed: dict[str, tuple[pl.Series, NDArray[np.float64], NDArray[np.bool_]]] = {}
        if len(self) == 0:
            raise InputError(f"{path}: expected at least one row of data below the line of names, got none")

    def __len__(self) -> int:
        return int(self._frame.height)

    def where(self, row: int, name: str | None = None) -> str:
        """How an error names a cell: file, line and column."""
        place = f"{self.path}, row {self._line(row)}"
        return place if name is None else f"{place}, column {name!r}"

    def texts(self, name: str) -> pl.Series:
        """The cells of a column without the spaces around them; an empty cell is an error."""
        cells = self._parse(name)[0]
        empty = (cells == "").to_numpy()
        if empty.any():
            raise InputError(self._empty(name, empty))
        return cells

    def is_text(self, name: str) -> bool:
        """Whether some cell of a column is neither a number, nor a boolean (in a column of booleans), nor empty."""
        return bool(self._parse(name)[2].any())

    def is_mostly_numbers(self, name: str) -> bool:
        """Whether at least half of the cells that are not empty are numbers."""
        cells, _, bad = self._parse(name)
        return bool(bad.sum() * 2 <= (cells != "").sum())

    def is_boolean(self, name: str) -> bool:
        """Whether a column holds `true` and `false` (in any case) and nothing else."""
        cells, values, bad = self._parse(name)
        return not bad.any() and len(cells) > 0 and cells[0].lower() in _BOOLEANS and not np.isnan(values).any()

    def numbers(self, name: str, mend: str) -> NDArray[np.float64]:
        """A column as finite numbers; booleans count as 0 and 1.

        `mend` says how text or an empty cell can be mended.

        Raises
        ------
        InputError : a cell is empty, text, NaN or infinite; the message names its line and column
        """
        cells, values, bad = self._parse(name)
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(f"{self.where(row, name)}: expected a number, got {_shown(cells[row])}; {mend}")
        empty = (cells == "").to_numpy()
        if empty.any():
            raise InputError(f"{self._empty(name, empty)}; {mend}")
        wrong = ~np.isfinite(values)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(f"{self.where(row, name)}: expected a finite number, got {_shown(cells[row])}; {mend}")
        return values

    def find(self, name: str, what: str) -> str:
        """`name`, if a column is called so; `what` says who asks."""
        if name not in self.names:
            close = did_you_mean(name, self.names) or f"; the columns are {listed(self.names)}"
            raise InputError(f"{what}: expected a column of {self.path}, got {name!r}{close}")
        return name

    def _parse(self, name: str) -> tuple[pl.Series, NDArray[np.float64], NDArray[np.bool_]]:
        """The stripped cells, their values (NaN where there is none), and which cells are text."""
        if name not in self._parsed:
            pl = polars()
            cells = self._frame[name].fill_null("").str.strip_chars()
            values = cells.cast(pl.Float64, strict=False)
            text = values.is_null() & (cells != "")
            if text.all():
                booleans = cells.str.to_lowercase().replace_strict(_BOOLEANS, default=None, return_dtype=pl.Float64)
                if not booleans.has_nulls():
                    values, text = booleans, text & False
            self._parsed[name] = cells, values.fill_null(np.nan).to_numpy(), text.to_numpy()
        return self._parsed[name]

    def _empty(self, name: str, empty: NDArray[np.bool_]) -> str:
        count = f" ({empty.sum()} of {len(self)} rows are empty there)" if empty.sum() > 1 else ""
        return f"{self.where(int(np.argmax(empty)), name)}: expected a value, got an empty cell{count}"

    def _read(self, columns: list[str], data: bytes) -> pl.DataFrame:
        pl = polars()
        # A column without a name gets its number, after a character that no stripped name can begin with.
        names = [name or f"\n{i}" for i, name in enumerate(columns)]
        try:
            # infer_schema_length=0: every cell is text.
            return pl.read_csv(data, infer_schema_length=0, new_columns=names, separator=self.separator)
        except pl.exceptions.PolarsError as error:
            raise InputError(self._explain(len(columns))) from error

    def _explain(self, n_columns: int) -> str:
        """Why the file cannot be read, found by reading it again slowly."""
        try:
            for line, cells in self._records():
                if len(cells) > n_columns:
                    return (
                        f"{self.path}, row {line}: expected {n_columns} cells as in the line of names, "
                        f"got {len(cells)}; put cells that hold the separator {self.separator!r} in double quotes"
                    )
        except csv.Error:
            pass
        return f"{self.path}: expected a CSV file, got one that cannot be parsed; is a double quote left open?"

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """The records below the header with the line that each starts on, blank lines included."""
        reader = csv.reader(io.StringIO(self._data.decode(), newline=""), delimiter=self.separator)
        line = 1
        for cells in reader:
            if line > self._header_lines:
                yield line, cells
            line = reader.line_num + 1

    def _line(self, row: int) -> int:
        wanted = int(self._rows[row])
        try:
            for record, (line, _) in enumerate(self._records()):
                if record == wanted:
                    return line
        except csv.Error:
            pass
        return self._header_lines + 1 + wanted


def polars() -> Any:
    """The polars module, or one sentence on how to get it."""
    try:
        import polars as pl
    except ImportError as error:
        raise MissingExtraError(
            'reading CSV files needs polars, which is not installed: pip install "fastdl[cli]"'
        ) from error
    return pl


def listed(names: list[str], most: int = 12) -> str:
    """Names for a message, the middle left out when there are many."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 2])}, … ({len(names) - most + 1} more), {names[-1]}"


def _text_bytes(path: Path) -> bytes:
    data = read_bytes(path)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: expected UTF-8 text, got UTF-16; save it again as 'CSV UTF-8'")
    if b"\0" in data[:65536]:
        raise InputError(f"{path}: expected a CSV, NPZ, NPY or IDX file, got a binary file of another kind")
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, row {line}: expected UTF-8 text, got the byte 0x{data[error.start]:02x}; save the file as UTF-8"
        ) from error
    return data


def _header(path: Path, data: bytes) -> tuple[tuple[list[str], str], int, int]:
    """Names and separator, the number of the line that they end on, and where in the data they start."""
    end, lines = 0, 0
    while end < len(data):
        start, end = end, _record_end(data, end)
        record = data[start:end].decode()
        lines += max(1, record.count("\n"))
        if record.strip():
            outside = "".join(record.split('"')[::2])
            separator = max(_SEPARATORS, key=outside.count)
            names = next(csv.reader(io.StringIO(record.strip("\r\n"), newline=""), delimiter=separator))
            return ([name.strip() for name in names], separator), lines, start
    raise InputError(f"{path}: expected a line of column names and rows of data, got an empty file")


def _record_end(data: bytes, start: int) -> int:
    """Behind the line end that is outside of double quotes."""
    end = start
    while True:
        end = data.find(b"\n", end) + 1
        if end == 0:
            return len(data)
        if data.count(b'"', start, end) % 2 == 0:
            return end


def _all_numbers(names: list[str]) -> bool:
    try:
        return bool([float(name) for name in names])
    except ValueError:
        return False


def _shown(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else cell[:39] + "…")
