"""Packing for bfloat16: blocks of float32 operands, rounded and laid out as pairs of bfloat16 numbers.

Operands lie in memory as float32; they are rounded (to the nearest, ties to even; NaN stays NaN) where they are packed. A *pair*
is two numbers that follow each other along the depth, as 32 bits: the even one below, the odd one above. It takes the room of one
float32, so that packed pairs have the layout of packed floats with half the steps. A depth that is odd ends with a 0.

Nothing is read where it lies: all of A's block is packed once, and each panel of B. With m rows and n columns to a job and 16
lanes a multiply-add of bf16 costs 1/64 cycle less than one of float32, a number of A about 0.15 cycles to pack, which n / 64 pay
for, and one of B as much, which m / 64 do: from about 64 rows and columns on it pays well.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from fastdl_kernels._jit import jit, noinline
from fastdl_kernels.packing import DEPTH, line_of, pack_a, packed_row
from fastdl_kernels.precision import Float32, kind_of
from fastdl_kernels.simd import lanes_of, like, load, load_up_to, pointer, store
from fastdl_kernels.simd.vector import is_vec
from fastdl_kernels.tile import MR


@intrinsic
def round_pairs(typingctx, even, odd):
    """Pairs of the numbers in two vectors of float32, lane by lane, as the bits of a vector."""
    if not is_vec(even) or even != odd or even.element is not types.float32:
        return None

    def codegen(context, builder, sig, args):
        ints = ir.VectorType(ir.IntType(32), even.count)

        def every(value: int) -> ir.Constant:
            return ir.Constant(ints, [value] * even.count)

        def rounded(x: ir.Value) -> ir.Value:
            """The bits of bfloat16(x) in the upper half; the lower half is anything."""
            bits = builder.bitcast(x, ints)
            last = builder.and_(builder.lshr(bits, every(16)), every(1))
            nearest = builder.add(bits, builder.add(last, every(0x7FFF)))
            quiet = builder.or_(bits, every(0x400000))
            return builder.select(builder.fcmp_unordered("uno", x, x), quiet, nearest)

        upper = builder.and_(rounded(args[1]), every(0xFFFF0000))
        return builder.bitcast(builder.or_(upper, builder.lshr(rounded(args[0]), every(16))), args[0].type)

    return even(even, odd), codegen


def _every_other(start: int) -> Any:
    @intrinsic
    def take(typingctx, first, second):
        if not is_vec(first) or first != second:
            return None
        order = [start + 2 * lane for lane in range(first.count)]

        def codegen(context, builder, sig, args):
            index = ir.Constant(ir.VectorType(ir.IntType(32), first.count), order)
            return builder.shuffle_vector(*args, index)

        return first(first, second), codegen

    return take


# The lanes of two vectors, one behind the other, at even places; at odd ones.
_evens, _odds = _every_other(0), _every_other(1)


@jit
def _pack_pairs_of_a(a, i, rows, start, depth, tile_block):
    """Pairs of A[i : i + rows, start : start + depth] in the order that a tile reads them; see `packing.pack_a`."""
    noinline()
    lanes = lanes_of(tile_block)
    if a.transposed:
        for k in range(0, depth, 2):
            for r in range(0, rows, lanes):
                at = (start + k) * a.stride + i + r
                even = load_up_to(a.data, at, a.stride - i - r)
                odd = like(even, 0.0)
                if k + 1 < depth:
                    odd = load_up_to(a.data, at + a.stride, a.stride - i - r)
                store(tile_block, k // 2 * MR + r, round_pairs(even, odd))
        return
    for r in range(rows):
        source = pointer(a.data, (i + r) * a.stride + start)
        to = pointer(tile_block, r * _pairs_row(tile_block))
        for k in range(0, depth, 2 * lanes):
            first = load_up_to(source, k, depth - k)
            second = like(first, 0.0)
            if k + lanes < depth:
                second = load_up_to(source, k + lanes, depth - k - lanes)
            store(to, k // 2, round_pairs(_evens(first, second), _odds(first, second)))


@jit
def _pairs_row(block):
    """How far packed rows of pairs are apart."""
    return DEPTH // 2 + line_of(block)


@jit
def _pair_rows(panel, depth, width):
    """Rows 2 k and 2 k + 1 of a packed panel become row k of pairs, where they lie."""
    noinline()
    lanes = lanes_of(panel)
    for k in range(0, depth, 2):
        for c in range(0, width, lanes):
            even = load(panel, k * width + c)
            odd = like(even, 0.0)
            if k + 1 < depth:
                odd = load(panel, (k + 1) * width + c)
            store(panel, k // 2 * width + c, round_pairs(even, odd))


def _compiled_only(*args: Any) -> Any:
    raise TypeError("this works inside compiled code only")


def steps_of(arithmetic: Any, depth: int) -> int:
    """How many steps a tile takes for so many numbers of the depth."""
    return _compiled_only()


def a_row_of(arithmetic: Any, block: Any) -> int:
    """How far packed rows of A are apart."""
    return _compiled_only()


def pack_block(arithmetic: Any, a: Any, i: int, rows: int, start: int, depth: int, tile_block: Any) -> None:
    """Copy `rows` rows of A, MR unless they are pairs, in the order that a tile reads them."""
    _compiled_only()


def pair_panel(arithmetic: Any, panel: Any, depth: int, width: int) -> None:
    """Turn a packed panel of B into pairs, if operands are pairs."""
    _compiled_only()


@overload(steps_of, inline="always")
def _steps_of(arithmetic, depth):
    if kind_of(arithmetic) is Float32:
        return lambda arithmetic, depth: depth
    return lambda arithmetic, depth: (depth + 1) // 2


@overload(a_row_of, inline="always")
def _a_row_of(arithmetic, block):
    if kind_of(arithmetic) is Float32:
        return lambda arithmetic, block: packed_row(block)
    return lambda arithmetic, block: _pairs_row(block)


@overload(pack_block, inline="always")
def _pack_block(arithmetic, a, i, rows, start, depth, tile_block):
    if kind_of(arithmetic) is Float32:
        return lambda arithmetic, a, i, rows, start, depth, tile_block: pack_a(a, i, start, depth, tile_block)
    return lambda arithmetic, a, i, rows, start, depth, tile_block: _pack_pairs_of_a(
        a, i, rows, start, depth, tile_block
    )  # fmt: skip


@overload(pair_panel, inline="always")
def _pair_panel(arithmetic, panel, depth, width):
    if kind_of(arithmetic) is Float32:
        return lambda arithmetic, panel, depth, width: None
    return lambda arithmetic, panel, depth, width: _pair_rows(panel, depth, width)
