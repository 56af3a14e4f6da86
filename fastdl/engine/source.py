"""Source: rows that lie in memory as their owner left them, converted and scaled while they are read.

Numbers of any type, strides of any kind, several arrays after each other. x becomes (x - shift) / scale in float64 and is, where
there is a clip, brought smoothly nearer than that, and then rounded to the dtype of the network: the same bits as of a copy that
NumPy makes, and no such copy.
"""

from __future__ import annotations

import math
from types import FunctionType
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype
from numpy.typing import NDArray

from fastdl.engine.structs import I64, INTS, NUMBERS, ROWS_AHEAD, SOURCE, floats, matrix_type
from fastdl.stored import (
    ADDRESS,
    COLUMN_STEP,
    FIRST_ROW,
    KIND,
    NUMBER_TYPES,
    PART_COLUMNS,
    ROW_STEP,
    Inputs,
    StoredRows,
)
from fastdl_kernels.serial import jit, linked
from fastdl_kernels.simd import (
    bytes_at,
    float64_of_bits,
    flush_subnormals,
    is_null,
    keep_subnormals,
    number_in,
    number_like,
    pointer,
    prefetch,
    quotient,
    size_of,
)

# The most bytes of a coming row that are asked for: of a longer one the processor's own prefetcher fetches the rest.
MOST_AHEAD = 1024
_LINE = 64
# The least divisor of `quotient`.
_LEAST = 2.0**-400


@jit
def _number(memory, offset, like):
    """A number as float64."""
    return np.float64(number_in(memory, offset, like))


@jit
def _truth(memory, offset, like):
    """A boolean, which is any byte but 0, as float64."""
    return 1.0 if number_in(memory, offset, like) else 0.0


@jit
def _half(memory, offset, like):
    """A float16, of which `like` (uint16) has the bits, as float64; exact."""
    bits = np.int64(number_in(memory, offset, like))
    sign, exponent, fraction = bits >> 15, bits >> 10 & 31, bits & 1023
    power = 2047 if exponent == 31 else exponent + 1008
    large = float64_of_bits(np.int64(sign << 63 | power << 52 | fraction << 42))
    small = np.float64(fraction) * 2.0**-24
    return (-small if sign else small) if exponent == 0 else large


@jit
def _packed(step, like):
    """How far numbers are apart that lie side by side: a constant, with which the loops use vectors."""
    return size_of(like)


@jit
def _strided(step, like):
    return step


def _read(to, address, step, n, shift, scale, inverse, clip, like):
    """to[:n] = the numbers that lie `step` bytes apart; `_value` and `_distance` are those of a kind, see `_reader`."""
    memory, step = bytes_at(address), _distance(step, like)  # noqa: F821
    if is_null(scale):
        for i in range(n):
            to[i] = number_like(to[0], _value(memory, i * step, like))  # noqa: F821
    elif is_null(clip) and not is_null(inverse):
        for i in range(n):
            x = _value(memory, i * step, like) - shift[i]  # noqa: F821
            to[i] = number_like(to[0], quotient(x, scale[i], inverse[i]))
    elif is_null(clip):
        for i in range(n):
            to[i] = number_like(to[0], (_value(memory, i * step, like) - shift[i]) / scale[i])  # noqa: F821
    else:  # with the C library's hypot, which NumPy calls too
        for i in range(n):
            x = (_value(memory, i * step, like) - shift[i]) / scale[i]  # noqa: F821
            to[i] = number_like(to[0], x / math.hypot(1.0, x / clip[i]))


# What stands for a number in compiled code.
_LIKE = {"bool": types.uint8, "float16": types.uint16}


def _reader(name: str, distance: Any) -> tuple[Any, types.Type]:
    """What reads a row of numbers of a dtype, compiled when it is first needed, and the type that stands for them.

    One body serves all: what it calls `_value` and `_distance` differs.
    """
    value = {"bool": _truth, "float16": _half}.get(name, _number)
    names = {**globals(), "_value": value, "_distance": distance}
    function = FunctionType(_read.__code__, names, f"read_{name}{distance.py_func.__name__}")
    function.__qualname__ = function.__name__  # the cache tells functions apart by it
    like = _LIKE.get(name) or from_dtype(np.dtype(name))
    return linked(lambda x: (floats(x), I64, I64, I64, *[NUMBERS] * 4, like), at_first_call=True)(function), like


READERS = [_reader(name, distance) for name in NUMBER_TYPES for distance in (_strided, _packed)]
"""By kind: twice the place of the dtype in NUMBER_TYPES, and 1 more where the numbers of a row lie side by side."""


@intrinsic
def _read_row(typingctx, kind, to, address, step, n, shift, scale, inverse, clip):
    """to[:n] = the numbers of this kind that lie `step` bytes apart from an address on, shifted, scaled and clipped."""
    element = to.dtype

    def codegen(context, builder, sig, args):
        end = builder.append_basic_block("row_end")
        switch = builder.switch(args[0], end)
        for number, (reader, like) in enumerate(READERS):
            place = builder.append_basic_block(f"row_of_kind_{number}")
            switch.add_case(ir.Constant(ir.IntType(64), number), place)
            builder.position_at_end(place)
            zero = ir.Constant(context.get_value_type(like), 0)
            reader.linked.emit_call(context, builder, element, [*args[1:], zero])
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.none(I64, floats(element), I64, I64, I64, *[NUMBERS] * 4), codegen


@jit
def _part_of(source, row):
    """The part in which a row lies: the last that does not begin behind it."""
    low, high = 0, source.n_parts
    while high - low > 1:
        middle = (low + high) // 2
        if source.parts[middle * PART_COLUMNS + FIRST_ROW] <= row:
            low = middle
        else:
            high = middle
    return pointer(source.parts, low * PART_COLUMNS)


@jit
def _address_of(part, row):
    return part[ADDRESS] + (row - part[FIRST_ROW]) * part[ROW_STEP]


@linked(lambda x: (matrix_type(x), SOURCE, INTS, I64, I64, I64), at_first_call=True)
def read_rows(to, source, order, first, stop, n_rows):
    """to = the rows order[first:stop] of a source; where `order` is null, its rows first .. stop.

    Each has to.stride columns. n_rows is how long `order` is.
    """
    keep_subnormals()
    natural = is_null(order)
    for r in range(first, stop):
        row = r if natural else order[r]
        part = _part_of(source, row)
        if not natural:
            ahead = order[min(r + ROWS_AHEAD, n_rows - 1)]
            coming = _part_of(source, ahead)
            memory = bytes_at(_address_of(coming, ahead))
            for i in range(0, min(to.stride * abs(coming[COLUMN_STEP]), MOST_AHEAD), _LINE):
                prefetch(memory, i)
        _read_row(
            part[KIND], pointer(to.data, (r - first) * to.stride), _address_of(part, row), part[COLUMN_STEP], to.stride,
            source.shift, source.scale, source.inverse, source.clip,
        )  # fmt: skip
    flush_subnormals()


_ready: set[tuple[types.Type, int]] = set()


def for_source(x: StoredRows) -> None:
    """Make ready what reads these rows."""
    element = from_dtype(x.dtype)
    for kind in x.kinds:
        if (element, kind) not in _ready:
            read_rows.linked.ensure(element)
            READERS[kind][0].linked.ensure(element)
            _ready.add((element, kind))


NOTHING = np.zeros(0)
NO_SOURCE = np.zeros((0, PART_COLUMNS), np.int64), NOTHING, NOTHING, NOTHING, NOTHING
"""As `structs.source_of` takes it, where there is none."""


def arguments_of(x: StoredRows) -> tuple[Any, ...]:
    """The same for rows; they must stay as they are for as long as compiled code has it."""
    if x.shift is None or x.scale is None:
        return x.parts_table, NOTHING, NOTHING, NOTHING, NOTHING
    clip = NOTHING if x.clip is None else np.full(len(x.scale), x.clip)
    return x.parts_table, x.shift, x.scale, _inverse(x), clip


def _inverse(x: StoredRows) -> NDArray[np.float64]:
    """1 / scale, where divisions by it can be done in the faster way of `quotient`: a difference of one unit in the last place
    of float64 in 2^53 numbers is gone when they are rounded to float32, and scales beyond what it takes do not occur.
    """
    assert x.scale is not None
    sizes = np.abs(x.scale)
    if x.dtype != np.float32 or not ((sizes > _LEAST) & (sizes < 1 / _LEAST)).all():
        return NOTHING
    return 1.0 / x.scale


def taken(x: Inputs, whole: bool) -> tuple[Inputs, tuple[Any, ...]]:
    """What is left to say of the inputs of an epoch, and what says where rows are that are converted as they are read.

    A batch of all rows (`whole`) is converted once.
    """
    if not isinstance(x, StoredRows):
        return x, NO_SOURCE
    if whole:
        return x.whole, NO_SOURCE
    for_source(x)
    return x, arguments_of(x)
