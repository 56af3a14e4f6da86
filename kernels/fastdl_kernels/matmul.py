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

from typing import Any, NamedTuple

from numba.core import cgutils, types
from numba.extending import intrinsic

from fastdl_kernels._jit import Linked, jit
from fastdl_kernels.activations import IDENTITY, LEAKY_RELU, RELU, SIGMOID, differentiate_tile, saturate_tile
from fastdl_kernels.packing import (
    BLOCK_BYTES,
    CONFLICT,
    DEPTH,
    VECTOR_BYTES,
    Operand,
    add_column_sums,
    block_scratch,
    pack_b,
    pack_columns,
    pack_rows,
)
from fastdl_kernels.simd import (
    flush_subnormals,
    is_null,
    lanes_of,
    null,
    number_like,
    pointer,
    restore_mode,
)
from fastdl_kernels.tile import MR, NV, packing_tile, tile


class Target(NamedTuple):
    """C and its epilogue: data[i * stride + j] = act(sum + bias[j]), then times the derivative of `below`.

    `bias`, `below` and `column_sums` may be null. `below` holds outputs of the activation `below_activation`, laid out
    like the data; with it, `activation` is IDENTITY. `column_sums` [columns] receives the sums of B over the depth from the job that owns row 0.
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


def _product(
    m0, m1, n0, n1, depth,
    a_data, a_stride, a_transposed, a_outputs, a_activation, a_alpha,
    b_data, b_stride, b_transposed, b_outputs, b_activation, b_alpha,
    c_data, c_stride, c_bias, c_activation, c_alpha, c_below, c_below_activation, c_below_alpha, c_column_sums,
):  # fmt: skip
    """`product_job` with its operands spread out: what is compiled once and called by address."""
    a = Operand(a_data, a_stride, a_transposed != 0, a_outputs, a_activation, a_alpha)
    b = Operand(b_data, b_stride, b_transposed != 0, b_outputs, b_activation, b_alpha)
    a_block = block_scratch(c_alpha)
    b_block = block_scratch(c_alpha)
    nothing = null(c_alpha)
    width = NV * lanes_of(c_data)
    summed = m0 == 0 and not is_null(c_column_sums)
    in_place = b.transposed and b.activation == IDENTITY and m1 - m0 <= 2 * MR and not summed and (n1 - n0) % width == 0
    full = (n1 - n0) // width if b.transposed and b.activation == IDENTITY and m1 - m0 >= MR and not in_place else 0
    # Columns of A are read in place unless their distance makes them fall into a few sets of the cache.
    itemsize = VECTOR_BYTES // lanes_of(c_data)
    conflicting = a.stride * itemsize % CONFLICT == 0 and n1 - n0 >= 4 * width
    packed = a.activation != IDENTITY or (a.transposed and conflicting)
    below_rectified = c_below_activation == RELU or c_below_activation == LEAKY_RELU
    # The slope below 0: of the activation here or of the one underneath; a product has one of them.
    alpha = c_alpha
    if below_rectified:
        alpha = c_below_alpha if c_below_activation == LEAKY_RELU else number_like(c_alpha, 0)
    mode = flush_subnormals()
    blocks = max(1, (depth + DEPTH - 1) // DEPTH)
    step = ((depth + blocks - 1) // blocks + 7) // 8 * 8
    start = 0
    while True:
        k = min(step, depth - start)
        last = start + k >= depth
        if packed and a.transposed:
            pack_columns(a, m0, m1, start, k, depth * a.stride, a_block)
        elif packed:
            pack_rows(a, m0, m1, start, k, a_block)
        if not in_place:
            # Full panels of rows as they are stored get packed by the first tile that reads them.
            pack_b(b, n0 + full * width, n1, start, k, pointer(b_block, full * width * k))
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
                if packed:
                    a_tile, a_row, a_step = pointer(a_block, (i - m0) * k), 1, MR
                elif a.transposed:
                    a_tile, a_row, a_step = pointer(a.data, start * a.stride + i), 1, a.stride
                else:
                    a_tile, a_row, a_step = pointer(a.data, i * a.stride + start), a.stride, 1
                out = pointer(c_data, i * c_stride + j)
                below = pointer(c_below, i * c_stride + j) if below_rectified and last else nothing
                tile(
                    rows, k, a_tile, a_row, a_step, panel, panel_step, out, c_stride, columns, start, bias, activation,
                    c_alpha, below,
                )  # fmt: skip
                if last and activation >= SIGMOID:
                    saturate_tile(out, c_stride, rows, columns, activation)
                if last and c_below_activation >= SIGMOID:
                    below = pointer(c_below, i * c_stride + j)
                    differentiate_tile(out, below, c_stride, rows, columns, c_below_activation, c_below_alpha)
        if summed:
            add_column_sums(b_block, k, n1 - n0, start == 0, pointer(c_column_sums, n0))
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
def grid(rows, columns, itemsize, parts, whole_rows):
    """(row blocks, rows of a block, column blocks, columns of a block) of the jobs that make up a product.

    As many blocks as their size demands, and at least `parts` of them where there are as many tiles: at least `parts`
    blocks of rows if `whole_rows`.
    """
    width = NV * VECTOR_BYTES // itemsize
    row_blocks, row_size = _split(rows, MR, job_rows(itemsize), 1)
    column_blocks, column_size = _split(columns, width, job_columns(itemsize), 1)
    if whole_rows:
        row_blocks, row_size = _split(rows, MR, job_rows(itemsize), parts)
    elif row_blocks * column_blocks < parts:
        # Blocks of columns share no packing, blocks of rows pack the same columns of B again: rows only where they can be
        # shared out more evenly.
        down, across = (rows + MR - 1) // MR, (columns + width - 1) // width
        wanted_across = (parts + row_blocks - 1) // row_blocks
        wanted_down = (parts + column_blocks - 1) // column_blocks
        longest_across = (across + wanted_across - 1) // wanted_across
        longest_down = (down + wanted_down - 1) // wanted_down
        if longest_across * wanted_across * down <= longest_down * wanted_down * across:
            column_blocks, column_size = _split(columns, width, job_columns(itemsize), wanted_across)
        else:
            row_blocks, row_size = _split(rows, MR, job_rows(itemsize), wanted_down)
    return row_blocks, row_size, column_blocks, column_size


@jit
def n_jobs(rows, columns, itemsize, parts, whole_rows=False):
    """How many jobs make up a product."""
    row_blocks, _, column_blocks, _ = grid(rows, columns, itemsize, parts, whole_rows)
    return row_blocks * column_blocks


@jit
def job_block(job, rows, columns, itemsize, parts, whole_rows=False):
    """(m0, m1, n0, n1) of a job; jobs run down the rows first, so that a half of them is a half of the columns."""
    row_blocks, row_size, _, column_size = grid(rows, columns, itemsize, parts, whole_rows)
    m0, n0 = job % row_blocks * row_size, job // row_blocks * column_size
    return m0, min(rows, m0 + row_size), n0, min(columns, n0 + column_size)


@jit
def _split(n, unit, most, wanted):
    """(blocks, size): n cut into equal blocks of whole units, at most `most` in each and `wanted` blocks if possible;
    an even number if several."""
    units = max(1, (n + unit - 1) // unit)
    blocks = (units * unit + most - 1) // most
    blocks = blocks + blocks % 2 if blocks > 1 else blocks
    blocks = min(units, max(blocks, wanted))
    size = (units + blocks - 1) // blocks
    return (units + size - 1) // size, size * unit
