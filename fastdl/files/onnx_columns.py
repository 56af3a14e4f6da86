"""Raw columns of a table as nodes of an ONNX graph: each becomes its features [N, width] in float64."""

from __future__ import annotations

import itertools
import re

import numpy as np

from fastdl.errors import InputError
from fastdl.files.onnx_graph import Graph
from fastdl.files.portable import Input, LookupInput, MomentInput, NumberInput, TableInputs, WordsInput

MICROSECONDS = {"day": 86_400_000_000, "hour": 3_600_000_000, "minute": 60_000_000}
NO_MOMENT = -(2**63)
"""What NumPy's NaT is as a whole number."""


def check(table: TableInputs) -> None:
    """Refuse what ONNX has no exact operators for.

    Raises
    ------
    InputError : columns of free text; all of them are named
    """
    texts = [repr(column.name) for column in table.columns if isinstance(column, WordsInput)]
    if texts:
        raise InputError(
            f"ONNX: expected columns of numbers, categories, booleans and dates, got free text in {', '.join(texts)}, which ONNX "
            f"has no operators to cut into words; export to a .py file, or train with --ignore of "
            f"{'this column' if len(texts) == 1 else 'these columns'}"
        )


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
    assert isinstance(column, MomentInput)
    return _moments(graph, column, value)


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


def _columns(graph: Graph, values: list[str]) -> str:
    """Values [N] side by side, [N, len(values)] in float64."""
    axis = graph.constant([1], "axis", np.int64)
    parts = [graph.add("Unsqueeze", graph.cast(value, np.float64), axis) for value in values]
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)
