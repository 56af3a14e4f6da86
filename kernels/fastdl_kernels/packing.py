"""Packing: blocks of the operands of a product, laid out in the order in which register tiles read them."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastdl_kernels._jit import jit, noinline
from fastdl_kernels.host import host
from fastdl_kernels.simd import (
    lanes_of,
    like,
    load_first,
    load_up_to,
    pointer,
    prefetch_second,
    store,
    store_up_to,
)
from fastdl_kernels.simd.vector import element_of, first_mask, masked_load, unaligned, vec_type
from fastdl_kernels.tile import MR, NV

VECTOR_BYTES = host().vector_bytes
# On AVX-512 a tile takes 14 cycles or more for a step, in which L2 delivers far more than it asks for: blocks
# are cut to fit there, and operands are read where they are. On narrower vectors a panel of B takes half of L1
# (256 steps for 32 KB), and the block of A three quarters of an L2 of 512 KB.
IN_PLACE = host().isa == "avx512"
# Steps of the depth in one block.
DEPTH = 512 if IN_PLACE else host().l1_bytes // 2 // (NV * VECTOR_BYTES) // 8 * 8
# The block of A, of which a packed copy lies on the stack of the thread: 532 KB for 19 tiles of 14 rows. macOS gives a thread
# 512 KB of stack in all, Linux 2 MB or more.
BLOCK_BYTES = 19 * MR * DEPTH * 4 if IN_PLACE else 384 * 1024
if sys.platform == "darwin":
    BLOCK_BYTES = min(BLOCK_BYTES, 192 * 1024)
# Room for the last rows of a transposition, beyond a block's end, and between tiles: without it they are a multiple of
# many cache lines apart, and fall into few sets of the cache.
SLACK = 4096


class Operand(NamedTuple):
    """A or B: numbers at data[i * stride + k], or at data[k * stride + i] when `transposed`.

    i counts rows of A or columns of B, k the depth.
    """

    data: Any
    stride: Any
    transposed: Any


def scratch(n_bytes: int) -> Any:
    """An intrinsic that takes a number of float type and gives a block of the stack, aligned to a cache line, for more."""

    @intrinsic
    def block(typingctx, x):
        def codegen(context, builder, sig, args):
            with builder.goto_entry_block():
                room = builder.alloca(ir.ArrayType(ir.IntType(8), n_bytes))
                room.align = 64
            return builder.bitcast(room, context.get_value_type(sig.return_type))

        return types.CPointer(x)(x), codegen

    return block


# Between packed rows of A lies a cache line, too.
block_scratch = scratch(BLOCK_BYTES + BLOCK_BYTES // (DEPTH * 4) * 64 + 2 * SLACK)
# Room for two panels: one that is in use, and the next one.
PANEL_BYTES = DEPTH * NV * VECTOR_BYTES + SLACK
panel_scratch = scratch(2 * PANEL_BYTES)


@intrinsic
def transpose_block(typingctx, destination, to, to_stride, source, origin, stride, n_rows, n_columns):
    """destination[to + c * to_stride + r] = source[origin + r * stride + c] for a square of one vector's lanes.

    Rows from n_rows on and columns from n_columns on are not read and count as 0. log2(lanes) rounds exchange halves,
    quarters, ... between pairs of rows: two shuffles per pair.
    """
    element = element_of(source)
    if element is None or destination != source:
        return None
    count = vec_type(element).count
    n = types.int64

    def codegen(context, builder, sig, args):
        to_data, to, to_stride, from_data, origin, stride, n_rows, n_columns = args
        vector = context.get_value_type(vec_type(element))

        def whole(value: int) -> ir.Constant:
            return ir.Constant(ir.IntType(64), value)

        def place(base: ir.Value, start: ir.Value, step: ir.Value, row: int) -> ir.Value:
            return builder.gep(base, [builder.add(start, builder.mul(step, whole(row)))])

        is_full = builder.and_(
            builder.icmp_signed(">=", n_rows, whole(count)), builder.icmp_signed(">=", n_columns, whole(count))
        )
        with builder.if_else(is_full) as (then, otherwise):
            with then:
                full = [
                    unaligned(
                        builder.load(builder.bitcast(place(from_data, origin, stride, r), vector.as_pointer())), element
                    )
                    for r in range(count)
                ]
                then_end = builder.block
            with otherwise:
                part = []
                for r in range(count):
                    valid = builder.select(builder.icmp_signed("<", whole(r), n_rows), n_columns, whole(0))
                    mask = first_mask(builder, count, valid)
                    part.append(masked_load(builder, vector, place(from_data, origin, stride, r), mask))
                otherwise_end = builder.block
        rows = []
        for r in range(count):
            row = builder.phi(vector)
            row.add_incoming(full[r], then_end)
            row.add_incoming(part[r], otherwise_end)
            rows.append(row)
        index = ir.VectorType(ir.IntType(32), count)
        half = count // 2
        while half:
            for r in range(count):
                if not r & half:
                    low = [lane if not lane & half else count + lane - half for lane in range(count)]
                    high = [lane + half if not lane & half else count + lane for lane in range(count)]
                    a, b = rows[r], rows[r + half]
                    rows[r] = builder.shuffle_vector(a, b, ir.Constant(index, low))
                    rows[r + half] = builder.shuffle_vector(a, b, ir.Constant(index, high))
            half //= 2
        for r in range(count):
            address = builder.bitcast(place(to_data, to, to_stride, r), vector.as_pointer())
            unaligned(builder.store(rows[r], address), element)
        return context.get_dummy_value()

    return types.none(destination, n, n, source, n, n, n, n), codegen


@jit
def line_of(data):
    """Numbers in a cache line."""
    return 64 // (VECTOR_BYTES // lanes_of(data))


@jit
def packed_row(block):
    """How far packed rows of A are apart: a cache line further than they are long."""
    return DEPTH + line_of(block)


@jit
def pack_a(a, i, start, depth, tile_block):
    """Copy A[i : i + MR, start : start + depth] in the order that a tile reads it.

    Rows lie `packed_row` apart; the MR numbers of a step lie beside each other if A is transposed. The rows of the tile after
    this one are asked for: they arrive while this one is computed.
    """
    noinline()
    lanes = lanes_of(tile_block)
    if a.transposed:
        for k in range(depth):
            for r in range(0, MR, lanes):
                # What a vector takes and writes beyond MR is overwritten by the next step; it stays within its row of memory.
                store(tile_block, k * MR + r, load_up_to(a.data, (start + k) * a.stride + i + r, a.stride - i - r))
        return
    for r in range(MR):
        source, to = pointer(a.data, (i + r) * a.stride + start), pointer(tile_block, r * packed_row(tile_block))
        for k in range(0, depth, lanes):
            prefetch_second(source, MR * a.stride + k)
            store(to, k, load_up_to(source, k, depth - k))


@jit
def pack_panel(b, n0, n1, start, depth, panel):
    """panel[k][c] = B[start + k, n0 + c] for the columns before n1; zeros in the others."""
    noinline()
    lanes = lanes_of(panel)
    width = NV * lanes
    if b.transposed:
        for k in range(depth):
            for c in range(0, width, lanes):
                at = (start + k) * b.stride + n0 + c
                store(panel, k * width + c, load_first(b.data, at, min(lanes, max(0, n1 - n0 - c))))
        return
    # What a block writes beyond the depth falls into the slack.
    for k in range(0, depth, lanes):
        for c in range(0, width, lanes):
            origin = (n0 + c) * b.stride + start + k
            transpose_block(panel, k * width + c, width, b.data, origin, b.stride, n1 - n0 - c, depth - k)


@jit
def add_column_sums(panel, step, depth, columns, first, sums):
    """sums[c] = (or += unless first) the sum of each of the panel's columns, whose rows are `step` apart."""
    noinline()
    lanes = lanes_of(panel)
    for c in range(0, columns, lanes):
        n = min(lanes, columns - c)
        total = like(load_first(sums, c, n), 0.0) if first else load_first(sums, c, n)
        for k in range(depth):
            total = total + load_up_to(panel, k * step + c, n)
        store_up_to(sums, c, total, n)
