"""Raw columns of a table as nodes of an ONNX graph: each becomes its features [N, width] in float64."""

from __future__ import annotations

import functools
import itertools
import re
import sys

import numpy as np

from fastdl.errors import InputError
from fastdl.files.onnx_graph import OPSET, OPSET_WITH_TEXT, Graph
from fastdl.files.portable import Input, LookupInput, MomentInput, NumberInput, TableInputs, WordsInput

MICROSECONDS = {"day": 86_400_000_000, "hour": 3_600_000_000, "minute": 60_000_000}
NO_MOMENT = -(2**63)
"""What NumPy's NaT is as a whole number."""


def check(table: TableInputs) -> None:
    """Refuse what ONNX has no exact operators for.

    Raises
    ------
    InputError : columns of free text with words that end with a Greek sigma, whose small letter depends on what follows; all of
        these columns are named
    """
    found = [repr(c.name) for c in table.columns if isinstance(c, WordsInput) and any(w[-1] in "σς" for w in c.words)]
    if found:
        raise InputError(
            f"ONNX: expected words that ONNX's operators can find in any case, got some that end with a Greek sigma in the free "
            f"text of {', '.join(found)}; export to a .py file, or train with --ignore of it"
        )


def opset(table: TableInputs | None) -> int:
    """The operators of ai.onnx that the columns need: those that search text came later."""
    has_text = table is not None and any(isinstance(column, WordsInput) for column in table.columns)
    return OPSET_WITH_TEXT if has_text else OPSET


def kind_of(column: Input) -> tuple[type, str]:
    """(dtype of NumPy, what the input holds) of a column."""
    if isinstance(column, NumberInput):
        return np.float64, "number; NaN where it is missing"
    if isinstance(column, MomentInput):
        return (
            np.int64,
            "microseconds since 1970-01-01 UTC: column.astype('datetime64[us]').astype('int64'); NaT is missing",
        )
    return np.str_, "text, without spaces around it; empty where it is missing"


def features(graph: Graph, column: Input, value: str, table: TableInputs) -> str:
    """The nodes of one column [N], and the name of its features."""
    if isinstance(column, NumberInput):
        return _numbers(graph, column, value, table)
    if isinstance(column, LookupInput):
        return _lookup(graph, column, value, table)
    if isinstance(column, MomentInput):
        return _moments(graph, column, value)
    return _words(graph, column, value, table)


def _numbers(graph: Graph, column: NumberInput, value: str, table: TableInputs) -> str:
    missing = graph.add("Or", graph.add("IsNaN", value), graph.add("IsInf", value))
    for number in table.missing_numbers:
        missing = graph.add("Or", missing, graph.add("Equal", value, graph.constant(number, dtype=np.float64)))
    filled = graph.add("Where", missing, graph.constant(column.fill, "fill", np.float64), value)
    return _columns(graph, [filled, *([missing] if column.marked else [])])


def _lookup(graph: Graph, column: LookupInput, value: str, table: TableInputs) -> str:
    codes = dict.fromkeys(table.missing_words, column.missing)
    for text, code in column.codes.items():
        codes |= dict.fromkeys(_spellings(text, column.lower), code)
    number = graph.add(
        "LabelEncoder", value, keys_strings=list(codes), values_int64s=list(codes.values()), default_int64=column.unseen
    )
    return graph.add("Gather", graph.constant(column.rows, "rows", np.float64), number, axis=0)


def _spellings(text: str, lower: bool) -> list[str]:
    """How a known text may be written: in any case, or a whole number with up to three zeros behind the point."""
    if lower:
        return ["".join(letters) for letters in itertools.product(*({c, c.upper()} for c in text))]
    if re.fullmatch(r"[+-]?\d+", text):
        return [text, *(f"{text}.{'0' * zeros}" for zeros in range(4))]
    return [text]


def _moments(graph: Graph, column: MomentInput, value: str) -> str:
    clock = _Clock(graph)
    missing = graph.add("Equal", value, clock.number(NO_MOMENT))
    moment = graph.add("Where", missing, clock.number(0), value)
    numbers = _parts(clock, moment, set(column.parts))
    parts = [
        graph.add("Where", missing, graph.constant(fill, "fill", np.float64), numbers[part])
        for part, fill in column.parts.items()
    ]
    return _columns(graph, [*parts, *([missing] if column.marked else [])])


class _Clock:
    """Arithmetic of whole numbers [N]."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def number(self, value: int) -> str:
        """A constant."""
        return self.graph.constant(value, dtype=np.int64)

    def op(self, operator: str, a: str, b: int | str) -> str:
        """a operator b."""
        return self.graph.add(operator, a, self.number(b) if isinstance(b, int) else b)

    def divide(self, a: str, b: int) -> tuple[str, str]:
        """(floor(a / b), a - b floor(a / b)) for b > 0."""
        rest = self.op("Mod", a, b)  # of the sign of b
        return self.op("Div", self.op("Sub", a, rest), b), rest

    def floating(self, value: str) -> str:
        """As float64."""
        return self.graph.cast(value, np.float64)


def _parts(clock: _Clock, moment: str, wanted: set[str]) -> dict[str, str]:
    """The numbers of calendar and clock that are wanted, of microseconds since 1970, as float64.

    Source: H. Hinnant, chrono-Compatible Low-Level Date Algorithms (2013), civil_from_days: years begin in March there.
    """
    graph, found = clock.graph, {}
    days, rest = clock.divide(moment, MICROSECONDS["day"])
    if "days" in wanted:
        exact = graph.constant(float(MICROSECONDS["day"]), dtype=np.float64)
        found["days"] = graph.add("Div", clock.floating(moment), exact)
    if "hour" in wanted:
        hours, rest = clock.divide(rest, MICROSECONDS["hour"])
        minutes = clock.floating(clock.divide(rest, MICROSECONDS["minute"])[0])
        share = graph.add("Div", minutes, graph.constant(60.0, dtype=np.float64))
        found["hour"] = graph.add("Add", clock.floating(hours), share)
    if "day of week" in wanted:
        found["day of week"] = clock.floating(clock.op("Add", clock.op("Mod", clock.op("Add", days, 3), 7), 1))
    if not wanted & {"year", "month", "day of year"}:
        return found
    era, day = clock.divide(clock.op("Add", days, 719_468), 146_097)  # of 400 years, from 0000-03-01
    leaps = clock.op("Sub", clock.op("Div", day, 36_524), clock.op("Div", day, 1_460))
    leaps = clock.op("Sub", leaps, clock.op("Div", day, 146_096))
    year = clock.op("Div", clock.op("Add", day, leaps), 365)
    before = clock.op("Sub", clock.op("Div", year, 4), clock.op("Div", year, 100))
    since_march = clock.op("Sub", clock.op("Sub", day, clock.op("Mul", year, 365)), before)
    month = clock.op("Div", clock.op("Add", clock.op("Mul", since_march, 5), 2), 153)
    next_year = clock.op("GreaterOrEqual", month, 10)
    one = clock.op("Mul", graph.cast(next_year, np.int64), 1)
    year = clock.op("Add", clock.op("Add", year, clock.op("Mul", era, 400)), one)
    found["year"] = clock.floating(year)
    number = clock.op("Add", month, 3)
    found["month"] = clock.floating(clock.op("Sub", number, clock.op("Mul", one, 12)))
    is_leap = graph.add(
        "And",
        clock.op("Equal", clock.op("Mod", year, 4), 0),
        graph.add(
            "Or",
            graph.add("Not", clock.op("Equal", clock.op("Mod", year, 100), 0)),
            clock.op("Equal", clock.op("Mod", year, 400), 0),
        ),
    )
    late = clock.op("Add", clock.op("Add", since_march, 60), graph.cast(is_leap, np.int64))
    early = clock.op("Sub", since_march, 305)
    found["day of year"] = clock.floating(graph.add("Where", next_year, early, late))
    return found


def _words(graph: Graph, column: WordsInput, value: str, table: TableInputs) -> str:
    words = dict.fromkeys(table.missing_words, 0)
    there = graph.add(
        "LabelEncoder", value, keys_strings=list(words), values_int64s=list(words.values()), default_int64=1
    )
    there = graph.cast(there, np.bool_)
    found = [graph.add("RegexFullMatch", value, pattern=_pattern(word)) for word in column.words]
    return _columns(graph, [graph.add("And", there, match) for match in found])


def _pattern(word: str) -> str:
    """A pattern of RE2 for texts that have a word, in any case, between letters and digits of no other word.

    The small letter of İ is an i and a dot above it, and the dot ends a word.
    """
    letters = [f"[{re.escape(''.join(_capitals()[letter]))}]" for letter in word]
    end = r"(?:[^\pL\pN].*)?"
    last = f"(?:{letters[-1]}{end}|İ.*)" if word[-1] == "i" else letters[-1] + end
    return rf"(?s)(?:.*(?:[^\pL\pN]|İ))?{''.join(letters[:-1])}{last}"


@functools.cache
def _capitals() -> dict[str, list[str]]:
    """All letters with the same small letter, by that one."""
    found: dict[str, list[str]] = {}
    for code in range(sys.maxunicode + 1):
        letter = chr(code)
        found.setdefault(letter.lower(), []).append(letter)
    return found


def _columns(graph: Graph, values: list[str]) -> str:
    """Values [N] side by side, [N, len(values)] in float64."""
    axis = graph.constant([1], "axis", np.int64)
    parts = [graph.add("Unsqueeze", graph.cast(value, np.float64), axis) for value in values]
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)
