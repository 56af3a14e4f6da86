"""How a file of text is written: encoding, line ends, separator, comments and titles, and whether it names its columns."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastdl.errors import InputError, OptionError

SEPARATORS = ",;\t|"
SPACES = " "
"""The separator of files whose columns are separated by any number of spaces."""
SAMPLE_LINES = 60
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
_NOTHING = ("", "NA", "N/A", "NaN", "nan", "null", "None", "?", "-", ".")


@dataclass(frozen=True)
class Wishes:
    """What the user says about the files; None is "find it out".

    names : columns that options name: a first line with one of them is a line of names
    """

    header: bool | None = None
    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    na_values: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.decimal not in (None, ".", ","):
            raise OptionError(f"--decimal: expected a point or a comma, got {self.decimal!r}")
        if self.separator is not None and len(self.separator.encode()) != 1:
            raise OptionError(f"--separator: expected one character, tab or space, got {self.separator!r}")
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except LookupError:
                raise OptionError(
                    f"--encoding: expected a name such as utf-8, cp1252 or utf-16, got {self.encoding!r}"
                ) from None


@dataclass(frozen=True)
class Dialect:
    """How a file is written.

    names : one for each column, empty where it has none
    skipped : lines before the first row of data
    comments : whether lines that start with # are left out
    notes : what is unusual enough to be said
    """

    encoding: str
    carriage_returns: bool
    separator: str
    names: tuple[str, ...]
    has_header: bool
    skipped: int
    comments: bool
    notes: tuple[str, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)

    def decoded(self, block: bytes) -> bytes:
        """A block of the file as UTF-8 with line ends of \\n."""
        if self.encoding != "utf-8":
            block = block.decode(self.encoding, "replace").encode()
        if self.carriage_returns:
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return block

    def separated(self, block: bytes) -> bytes:
        """A block with tabs where spaces separate its cells."""
        if self.separator != SPACES:
            return block
        return b"\n".join(_tabs(line) for line in block.split(b"\n"))

    @property
    def delimiter(self) -> str:
        """The separator in blocks that `separated` gave."""
        return "\t" if self.separator == SPACES else self.separator


def encoding_of(path: Path, head: bytes, wish: str | None) -> tuple[str, list[str]]:
    """The encoding of a file that starts with `head`, and what is to be said about it."""
    if wish is not None:
        return wish, []
    for mark, name in ((b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if head.startswith(mark):
            return name, [f"read as {name.upper()}"]
    if b"\0" in head:
        even, odd = head[::2].count(0), head[1::2].count(0)
        if head[:1] != b"\0" and odd > 0.4 * len(head) // 2 and even * 20 < odd:
            return "utf-16-le", ["read as UTF-16"]
        raise InputError(f"{path}: expected a table or arrays, got a binary file of another kind")
    return "utf-8", []


def sniff(path: Path, text: str, encoding: str, wishes: Wishes, notes: Sequence[str]) -> Dialect:
    """The dialect of a file that starts with `text`, which ends with a whole line.

    Raises
    ------
    InputError : there is nothing in the file
    """
    carriage = "\r" in text and "\n" not in text.replace("\r\n", "")
    carriage = carriage and "\r\n" not in text
    said = list(notes)
    if carriage:
        text = text.replace("\r", "\n")
        said.append("line ends of \\r")
    lines = text.split("\n")
    start, comments = 0, False
    named_by_comment: list[str] = []
    while start < len(lines) and (not lines[start].strip() or lines[start].lstrip().startswith("#")):
        if lines[start].strip():
            comments = True
            named_by_comment = [lines[start].lstrip("# ").strip()]
        start += 1
    if start == len(lines):
        raise InputError(f"{path}: expected a line of column names and rows of data, got an empty file")
    body = [line for line in lines[start:] if line.strip() and not (comments and line.lstrip().startswith("#"))]
    separator = wishes.separator or _separator(body[:SAMPLE_LINES])
    records = _records(body[: 4 * SAMPLE_LINES], separator)
    width = Counter(len(record) for record in records[1:] or records).most_common(1)[0][0]
    titles = 0
    while titles < len(records) - 1 and width > 1 and _is_title(records[titles], width):
        titles += 1
    first, rest = records[titles], records[titles + 1 :]
    if titles:
        said.append(f"skipped {titles} line{'s' if titles > 1 else ''} above the table")
    if comments:
        said.append("skipped lines that start with #")
    header = wishes.header
    if header is None:
        header = not _is_data(first, rest, wishes.names)
        if not header and named_by_comment:
            behind = _records(named_by_comment, separator)[0]
            if len(behind) == len(first):
                said.append("the names of the columns stand behind #")
                return Dialect(
                    encoding, carriage, separator, _stripped(behind), True,
                    _lines_before(lines, start, titles, comments, separator), comments, tuple(said),
                )  # fmt: skip
        if not header:
            said.append(
                f"no line of names: the columns are called column_1 to column_{len(first)} (--header if they are named)"
            )
    names = _stripped(first) if header else tuple(f"column_{i + 1}" for i in range(len(first)))
    if header and len(first) < width:
        # A name fewer than cells: other programs end each line with a separator, R has the rows' names in front.
        longer = [record for record in rest if len(record) > len(first)]
        blank = ("",) * (width - len(first))
        if all(not "".join(record[len(first) :]).strip() for record in longer):
            names = (*names, *blank)
        elif len(blank) == 1 and all(len(record) == width for record in rest):
            names = (*blank, *names)
    skipped = _lines_before(lines, start, titles + bool(header), comments, separator)
    return Dialect(encoding, carriage, separator, names, header, skipped, comments, tuple(said))


def _stripped(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip().strip('"').strip() for name in names)


def _lines_before(lines: Sequence[str], start: int, records: int, comments: bool, separator: str) -> int:
    """How many lines come before the record behind the first `records` ones, blank lines and comments counted."""
    at = start
    for _ in range(records):
        while not lines[at].strip() or (comments and lines[at].lstrip().startswith("#")):
            at += 1
        quotes = lines[at].count('"')
        at += 1
        while quotes % 2 and at < len(lines):
            quotes += lines[at].count('"')
            at += 1
    return at


def _separator(lines: Sequence[str]) -> str:
    """The separator that occurs alike in most lines; spaces where none does and all lines have as many words."""
    bare = [re.sub(r'"[^"]*"', "", line) for line in lines]
    best: tuple[float, int, str] = (0.0, 0, ",")
    for separator in SEPARATORS:
        counts = [line.count(separator) for line in bare]
        common, times = Counter(counts[1:] or counts).most_common(1)[0]
        if not common and counts[0]:
            common, times = counts[0], 0  # a header alone
        if common:
            agree = (times + (counts[0] == common)) / len(counts)
            # The first line is one of names: where it has none of a comma that the others have, that is in numbers.
            key = (round(agree, 1), counts[0], separator)
            if key[:2] > best[:2]:
                best = key
    if best[1] or best[0] > 0.5:
        return best[2]
    words = [len(_tabs(line.encode()).split(b"\t")) for line in lines]
    if len(lines) > 1 and min(words) > 1 and Counter(words).most_common(1)[0][1] >= 0.9 * len(words):
        return SPACES
    return ","


def _tabs(line: bytes) -> bytes:
    line = line.strip()
    if b'"' not in line:
        return b"\t".join(line.split())
    return b"\t".join(re.findall(rb'(?:"[^"]*"|[^\s"])+', line))


def _records(lines: Sequence[str], separator: str) -> list[list[str]]:
    if separator == SPACES:
        lines = [_tabs(line.encode()).decode() for line in lines]
    reader = csv.reader(
        io.StringIO("\n".join(lines), newline=""),
        delimiter="\t" if separator == SPACES else separator,
        skipinitialspace=True,
    )
    records = []
    try:
        for record in reader:
            if record:
                records.append(record)
    except csv.Error:  # what is wrong is found when the rows are read
        pass
    return records or [[lines[0]]]


def _is_title(record: Sequence[str], width: int) -> bool:
    """A line above the table: one cell where the table has more."""
    return (
        (len(record) < width - 1 and len(record) <= max(1, width // 2))
        or (
            width >= 3
            and sum(bool(cell.strip()) for cell in record) == 1
            and len(record) >= 1
            and bool(record[0].strip())
        )
        or (len(record) == 1 and width == 2 and bool(record[0].strip()))
    )


def _is_number(cell: str) -> bool:
    return bool(_NUMBER.match(cell.strip()))


def _is_data(first: Sequence[str], rest: Sequence[Sequence[str]], named: Collection[str]) -> bool:
    """Whether a first line is one of data: numbers over columns of numbers, and no text that only a name would be."""
    cells = [cell.strip() for cell in first]
    if not rest or set(cells) & set(named) or not any(map(_is_number, cells)):
        return False
    seen_again = texts = fractions = False
    for i, cell in enumerate(cells):
        below = [record[i].strip() for record in rest if len(record) > i]
        below = [b for b in below if b not in _NOTHING]
        numbers = bool(below) and sum(map(_is_number, below)) >= 0.9 * len(below)
        if not _is_number(cell) and cell not in _NOTHING:
            if numbers:
                return False
            texts = True
            seen_again |= cell in below
        elif _is_number(cell) and below and not numbers:
            return False
        fractions |= _is_number(cell) and not cell.lstrip("+-").isdigit()  # years are names, 0.25 is none
    return seen_again or fractions or not texts


def separator_of(text: str | None) -> str | None:
    """The separator that the user typed: a character, or its name."""
    if text is None:
        return None
    names = {"tab": "\t", "\\t": "\t", "space": SPACES, "spaces": SPACES, "comma": ",", "semicolon": ";", "pipe": "|"}
    separator = names.get(text.lower(), text)
    if len(separator.encode()) != 1:
        raise OptionError(f"--separator: expected one character, tab or space, got {shlex.quote(text)}")
    return separator
