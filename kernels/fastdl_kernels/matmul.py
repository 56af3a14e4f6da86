"""The matrix products of training, cut into tile jobs: x @ W, dy @ W.T and x.T @ dy by one serial body.

A job is a block of rows and columns of C = A @ B over the whole depth, at most `job_rows` x `job_columns`:

    for each block of the depth (DEPTH steps)
        pack the job's block of B into panels as wide as a register tile        (stays in the second cache)
        pack the job's block of A, if it must be transposed or differentiated   (stays in the second cache)
        for each panel of B                                                     (comes to rest in the first cache)
            for each MR rows of A: one call of a register tile

Packing is a copy of M K + K N numbers for 2 M N K operations. It makes the tile walk through memory step by step instead
of from row to row, which at powers of two falls into a few sets of the caches. Where B is used by two tiles or less, it
is read where it is.

Every element of C has one writer, and its sum runs in an order that the shape fixes: how jobs are spread over threads
changes no bit of the result.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastdl_kernels._jit import Linked, jit, noinline
from fastdl_kernels.activations import IDENTITY, SIGMOID, differentiate_row, saturate_row, times_derivative
from fastdl_kernels.host import host
from fastdl_kernels.simd import (
    element_of,
    first_mask,
    flush_subnormals,
    is_null,
    lanes_of,
    like,
    load,
    load_first,
    masked_load,
    null,
    pointer,
    prefetch,
    restore_mode,
    store,
    store_first,
    unaligned,
    vec_type,
)
from fastdl_kernels.tile import MR, NV, tile

VECTOR_BYTES = host().vector_bytes
# Steps of the depth in one block: a panel of B takes half of the first data cache (256 steps for 32 KB; 384 steps, three
# quarters of it, are 5 % slower at 256x512x512 although a tile alone gains 1 %).
DEPTH = host().l1_bytes // 2 // (NV * VECTOR_BYTES) // 8 * 8
# The packed blocks of A and of B, on the stack of the thread: 192 KB each keeps both in a second cache of 512 KB (96 KB:
# 3 % slower). macOS gives a thread 512 KB of stack in all, Linux 2 MB or more.
BLOCK_BYTES = (96 if sys.platform == "darwin" else 192) * 1024
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


class Target(NamedTuple):
    """C and its epilogue: data[i * stride + j] = act(sum + bias[j]), then times the derivative of `below`.

    `bias`, `below` and `column_sums` may be null. `below` holds outputs of the activation `below_activation`, laid out
    like the data; `column_sums` [columns] receives the sums of B over the depth from the job that owns row 0.
    """

    data: Any
    stride: Any
    bias: Any
    activation: Any
    alpha: Any
    below: Any
    below_activation: Any
    below_alpha: Any
    column_sums: Any


def _scratch(n_bytes: int) -> Any:
    """An intrinsic that takes a number of float type and gives a block of the stack, aligned to a cache line, for more."""

    @intrinsic
    def scratch(typingctx, x):
        def codegen(context, builder, sig, args):
            with builder.goto_entry_block():
                block = builder.alloca(ir.ArrayType(ir.IntType(8), n_bytes))
                block.align = 64
            return builder.bitcast(block, context.get_value_type(sig.return_type))

        return types.CPointer(x)(x), codegen

    return scratch


_block_scratch = _scratch(BLOCK_BYTES + _SLACK)
_rows_scratch = _scratch(DEPTH * MR * 8 + _SLACK)


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
def _pack_b(b, n0, n1, start, depth, block):
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
def _pack_rows(a, m0, m1, start, depth, block):
    """block[tile][k][r] = A[m0 + tile * MR + r, start + k], with the derivative: rows are interleaved.

    Interleaved rows are one stream, and a tile on them runs at 95 % of the peak, against 58 to 92 % where it reads rows
    in their place (by how their distance falls into the sets of the first cache). Interleaving costs as much as that
    saves, so that it is done only where the derivative makes a copy necessary anyhow.
    """
    noinline()
    lanes = lanes_of(block)
    differentiated = _rows_scratch(a.alpha)
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
def _pack_columns(a, m0, m1, start, depth, total, block):
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
def _add_column_sums(block, depth, columns, first, sums):
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
        store_first(sums, c, total, n)


def _product(
    m0, m1, n0, n1, depth,
    a_data, a_stride, a_transposed, a_outputs, a_activation, a_alpha,
    b_data, b_stride, b_transposed, b_outputs, b_activation, b_alpha,
    c_data, c_stride, c_bias, c_activation, c_alpha, c_below, c_below_activation, c_below_alpha, c_column_sums,
):  # fmt: skip
    """`product_job` with its operands spread out: what is compiled once and called by address."""
    a = Operand(a_data, a_stride, a_transposed != 0, a_outputs, a_activation, a_alpha)
    b = Operand(b_data, b_stride, b_transposed != 0, b_outputs, b_activation, b_alpha)
    a_block = _block_scratch(c_alpha)
    b_block = _block_scratch(c_alpha)
    nothing = null(c_alpha)
    width = NV * lanes_of(c_data)
    summed = m0 == 0 and not is_null(c_column_sums)
    in_place = b.transposed and b.activation == IDENTITY and m1 - m0 <= 2 * MR and not summed and (n1 - n0) % width == 0
    mode = flush_subnormals()
    blocks = max(1, (depth + DEPTH - 1) // DEPTH)
    step = ((depth + blocks - 1) // blocks + 7) // 8 * 8
    start = 0
    while True:
        k = min(step, depth - start)
        last = start + k >= depth
        if a.transposed:
            _pack_columns(a, m0, m1, start, k, depth * a.stride, a_block)
        elif a.activation != IDENTITY:
            _pack_rows(a, m0, m1, start, k, a_block)
        if not in_place:
            _pack_b(b, n0, n1, start, k, b_block)
        if summed:
            _add_column_sums(b_block, k, n1 - n0, start == 0, pointer(c_column_sums, n0))
        activation = c_activation if last else IDENTITY
        for j in range(n0, n1, width):
            columns = min(width, n1 - j)
            if in_place:
                panel, panel_step = pointer(b.data, start * b.stride + j), b.stride
            else:
                panel, panel_step = pointer(b_block, (j - n0) * k), width
            bias = pointer(c_bias, j) if last and not is_null(c_bias) else nothing
            for i in range(m0, m1, MR):
                rows = min(MR, m1 - i)
                if a.transposed or a.activation != IDENTITY:
                    a_tile, a_row, a_step = pointer(a_block, (i - m0) * k), 1, MR
                else:
                    a_tile, a_row, a_step = pointer(a.data, i * a.stride + start), a.stride, 1
                out = pointer(c_data, i * c_stride + j)
                tile(
                    rows, k, a_tile, a_row, a_step, panel, panel_step, out, c_stride, columns, start, bias, activation, c_alpha
                )
                if last and activation >= SIGMOID:
                    for r in range(rows):
                        saturate_row(pointer(out, r * c_stride), columns, activation)
                if last and c_below_activation != IDENTITY:
                    for r in range(rows):
                        at = (i + r) * c_stride + j
                        differentiate_row(pointer(c_data, at), pointer(c_below, at), columns, c_below_activation, c_below_alpha)
        if last:
            break
        start += k
    restore_mode(mode)


def _product_signature(element: types.Type) -> tuple[types.Type, ...]:
    n, p, x = types.int64, types.CPointer(element), element
    operand = (p, n, n, p, n, x)
    return (n,) * 5 + operand + operand + (p, n, p, n, x, p, n, x, p)


linked_product = Linked(_product, _product_signature)


@intrinsic
def _call_product(typingctx, alpha, args):
    if alpha not in (types.float32, types.float64) or not isinstance(args, types.BaseTuple):
        return None

    def codegen(context, builder, sig, values):
        wanted = _product_signature(alpha)
        given = cgutils.unpack_tuple(builder, values[1])
        cast = [context.cast(builder, v, t, w) for v, t, w in zip(given, sig.args[1], wanted, strict=True)]
        linked_product.emit_call(builder, alpha, cast)
        return context.get_dummy_value()

    return types.none(alpha, args), codegen


@jit
def product_job(m0, m1, n0, n1, depth, a, b, c):
    """Rows m0 .. m1 and columns n0 .. n1 of C = A @ B with the epilogue of `c`; C is overwritten.

    A job has at most `job_rows` rows and `job_columns` columns.
    """
    _call_product(
        c.alpha,
        (
            m0, m1, n0, n1, depth,
            a.data, a.stride, a.transposed, a.outputs, a.activation, a.alpha,
            b.data, b.stride, b.transposed, b.outputs, b.activation, b.alpha,
            c.data, c.stride, c.bias, c.activation, c.alpha, c.below, c.below_activation, c.below_alpha, c.column_sums,
        ),
    )  # fmt: skip


@jit
def job_rows(itemsize):
    """The most rows of a job: what a packed block of A has room for."""
    return BLOCK_BYTES // (DEPTH * itemsize) // MR * MR


@jit
def job_columns(itemsize):
    """The most columns of a job: what a packed block of B has room for."""
    width = NV * VECTOR_BYTES // itemsize
    return BLOCK_BYTES // (DEPTH * itemsize) // width * width


@jit
def grid(rows, columns, itemsize):
    """(row blocks, rows of a block, column blocks, columns of a block) of the jobs that make up a product."""
    row_blocks, row_size = _split(rows, MR, job_rows(itemsize))
    column_blocks, column_size = _split(columns, NV * VECTOR_BYTES // itemsize, job_columns(itemsize))
    return row_blocks, row_size, column_blocks, column_size


@jit
def _split(n, unit, most):
    """(blocks, size): n cut into equal blocks of whole units, at most `most` in each; an even number if several."""
    units = (n + unit - 1) // unit
    blocks = max(1, (units * unit + most - 1) // most)
    blocks = min(units, blocks + blocks % 2) if blocks > 1 else blocks
    return blocks, (units + blocks - 1) // blocks * unit
