"""Packing: blocks of the operands of a product, laid out in the order in which register tiles read them."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastdl_kernels._jit import jit, noinline
from fastdl_kernels.activations import IDENTITY, times_derivative
from fastdl_kernels.host import host
from fastdl_kernels.simd import (
    lanes_of,
    like,
    load,
    load_first,
    prefetch,
    store,
    store_up_to,
)
from fastdl_kernels.simd.vector import element_of, first_mask, masked_load, unaligned, vec_type
from fastdl_kernels.tile import MR, NV

VECTOR_BYTES = host().vector_bytes
# Steps of the depth in one block: a panel of B takes half of the first data cache (256 steps for 32 KB; 384 steps, three
# quarters of it, are 5 % slower at 256x512x512 although a tile alone gains 1 %).
DEPTH = host().l1_bytes // 2 // (NV * VECTOR_BYTES) // 8 * 8
# The packed blocks of A and of B, on the stack of the thread: 192 KB each keeps both in a second cache of 512 KB (96 KB:
# 3 % slower). macOS gives a thread 512 KB of stack in all, Linux 2 MB or more.
BLOCK_BYTES = (96 if sys.platform == "darwin" else 192) * 1024
# Rows that are a multiple of this many bytes apart share a few sets of the caches: a tile that reads them in place runs at
# 45 to 80 % of the peak, against 80 to 92 % at other distances and 95 % packed (256 steps, 192 rows).
CONFLICT = 1024
# Room for the last rows of a transposition and of a tile, beyond the block's end.
_SLACK = 4096
# Packing goes through the depth in strips of this many rows and asks for the rows of the next strip. Rows are up to a
# page apart: the hardware's prefetcher does not follow, and more of them at once fall out of the first cache's sets.
_STRIP = 8


class Operand(NamedTuple):
    """A or B: numbers at data[i * stride + k], or at data[k * stride + i] when `transposed`, times act'(z).

    i counts rows of A or columns of B, k the depth. `outputs` is act(z), laid out like the data; activation IDENTITY
    means that there is none.
    """

    data: Any
    stride: Any
    transposed: Any
    outputs: Any
    activation: Any
    alpha: Any


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


block_scratch = scratch(BLOCK_BYTES + _SLACK)
rows_scratch = scratch(DEPTH * MR * 8 + _SLACK)


@intrinsic
def _copy_rows_of_tile(typingctx, destination, i, source, j):
    """destination[i : i + MR] = source[j : j + MR] by the widest moves there are."""
    element = element_of(source)
    if element is None or destination != source:
        return None

    def codegen(context, builder, sig, args):
        to, i_, from_, j_ = args
        vector = ir.VectorType(context.get_value_type(element), MR)
        value = unaligned(builder.load(builder.bitcast(builder.gep(from_, [j_]), vector.as_pointer())), element)
        unaligned(builder.store(value, builder.bitcast(builder.gep(to, [i_]), vector.as_pointer())), element)
        return context.get_dummy_value()

    return types.none(destination, types.int64, source, types.int64), codegen


@intrinsic
def _transpose_block(typingctx, destination, to, to_stride, source, origin, stride, n_rows, n_columns):
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
def pack_b(b, n0, n1, start, depth, block):
    """block[panel][k][c] = B[start + k, n0 + panel * width + c], with the derivative; zeros beyond n1."""
    noinline()
    lanes = lanes_of(block)
    width = NV * lanes
    if not b.transposed:
        for j in range(n0, n1, width):
            # Rows beyond the depth that a block of the transposition adds are overwritten by the next panel.
            for k in range(0, depth, lanes):
                for c in range(0, width, lanes):
                    to = (j - n0) * depth + k * width + c
                    origin = (j + c) * b.stride + start + k
                    _transpose_block(block, to, width, b.data, origin, b.stride, n1 - j - c, depth - k)
        return
    for first in range(0, depth, _STRIP):
        strip = min(_STRIP, depth - first)
        for j in range(n0, n1, width):
            panel = (j - n0) * depth + first * width
            source = (start + first) * b.stride + j
            if b.activation == IDENTITY and n1 - j >= width:
                for k in range(strip):
                    prefetch(b.data, source + (k + _STRIP) * b.stride)
                    for c in range(NV):
                        store(block, panel + k * width + c * lanes, load(b.data, source + k * b.stride + c * lanes))
            else:
                for k in range(strip):
                    for c in range(0, width, lanes):
                        n = min(lanes, max(0, n1 - j - c))
                        at = source + k * b.stride + c
                        value = load_first(b.data, at, n)
                        if b.activation != IDENTITY:
                            value = times_derivative(value, load_first(b.outputs, at, n), b.activation, b.alpha)
                        store(block, panel + k * width + c, value)


@jit
def pack_rows(a, m0, m1, start, depth, block):
    """block[tile][k][r] = A[m0 + tile * MR + r, start + k], with the derivative: rows are interleaved.

    Interleaved rows are one stream, and a tile on them runs at 95 % of the peak, against 58 to 92 % where it reads rows
    in their place (by how their distance falls into the sets of the first cache). Interleaving costs as much as that
    saves, so that it is done only where the derivative makes a copy necessary anyhow.
    """
    noinline()
    lanes = lanes_of(block)
    differentiated = rows_scratch(a.alpha)
    data, origin, stride = a.data, m0 * a.stride + start, a.stride
    for i in range(m0, m1, MR):
        rows = min(MR, m1 - i)
        if a.activation != IDENTITY:
            for r in range(rows):
                source = (i + r) * a.stride + start
                for k in range(0, depth, lanes):
                    n = min(lanes, depth - k)
                    d, outputs = load_first(a.data, source + k, n), load_first(a.outputs, source + k, n)
                    store(differentiated, r * DEPTH + k, times_derivative(d, outputs, a.activation, a.alpha))
            data, origin, stride = differentiated, 0, DEPTH
        else:
            origin = i * a.stride + start
        # Later rows first: what a store writes beyond the tile's rows belongs to the next step and is written again.
        to = (i - m0) * depth
        for k in range(0, depth, lanes):
            for r in range((MR - 1) // lanes * lanes, -1, -lanes):
                _transpose_block(block, to + k * MR + r, MR, data, origin + r * stride + k, stride, rows - r, depth - k)


@jit
def pack_columns(a, m0, m1, start, depth, total, block):
    """block[tile][k][r] = A[m0 + tile * MR + r, start + k], where A is stored transposed, `total` numbers in all."""
    noinline()
    for first in range(0, depth, _STRIP):
        strip = min(_STRIP, depth - first)
        for i in range(m0, m1, MR):
            to = (i - m0) * depth + first * MR
            source = (start + first) * a.stride + i
            # A whole tile's rows are copied even where fewer count, unless that would read beyond the array.
            if source + (strip - 1) * a.stride + MR <= total:
                for k in range(strip):
                    prefetch(a.data, source + (k + _STRIP) * a.stride)
                    _copy_rows_of_tile(block, to + k * MR, a.data, source + k * a.stride)
            else:
                for k in range(strip):
                    for r in range(min(MR, m1 - i)):
                        block[to + k * MR + r] = a.data[source + k * a.stride + r]


@jit
def add_column_sums(block, depth, columns, first, sums):
    """sums[c] = (or += unless first) the sum of each column of the packed panels."""
    noinline()
    lanes = lanes_of(block)
    width = NV * lanes
    for c in range(0, columns, lanes):
        n = min(lanes, columns - c)
        panel = c // width * width * depth + c % width
        total = like(load(block, 0), 0.0)
        if not first:
            total = load_first(sums, c, n)
        for k in range(depth):
            total = total + load(block, panel + k * width)
        store_up_to(sums, c, total, n)
