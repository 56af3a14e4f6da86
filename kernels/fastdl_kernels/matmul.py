"""The matrix products of training, cut into tile jobs: x @ W, dy @ W.T and x.T @ dy by one serial body.

A job is a block of at most `job_rows` rows of C = A @ B, and of its columns, over the whole depth:

    for each block of the depth (DEPTH steps)
        for each panel of B, as wide as a register tile     (16 KB, at rest in the first cache)
            for each MR rows of A: one call of a register tile

The first tile of a panel reads B where it is and copies it into the panel on the way; the tiles of the first panel do the
same with A, for the panels after it (384 KB, in the second cache). The copies make the other tiles walk through memory
step by step instead of from row to row, which at powers of two falls into a few sets of the caches. Only a B that must be
transposed is packed beforehand, panel by panel. Where few tiles use it, an operand is read where it is.

Shares of the peak FMA rate on one Zen 3 core, as measured while this was chosen: a tile on packed operands 96 %; blocks of
258 x 512 x 256 in the caches 90 %. The first tile of a panel takes 3,100 cycles for 1,536 of multiply-adds, 4,300 where rows
of B are 4 KB apart: they lie on 128 or 256 pages, beyond the first level of the TLB. Packing B in a pass of its own cost as
much; packing A so cost 1 to 2 cycles a number, which made up most of the way from 72 to 85 % in `linear_backward`.

Every element of C has one writer, and its sum runs in an order that the shape fixes: how jobs are cut and spread over
threads changes no bit of the result.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba.core import types

from fastdl_kernels._jit import jit, linked
from fastdl_kernels.activations import IDENTITY, LEAKY_RELU, RELU, SIGMOID, saturate_tile
from fastdl_kernels.packing import (
    BLOCK_BYTES,
    DEPTH,
    VECTOR_BYTES,
    Operand,
    add_column_sums,
    block_scratch,
    pack_panel,
    panel_scratch,
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
from fastdl_kernels.tile import MR, NV, tile

# Rows that are a multiple of this many bytes apart share a few sets of the caches: a tile that reads them in place runs at
# 45 to 80 % of the peak, against 80 to 92 % at other distances and 95 % packed (256 steps, 192 rows).
CONFLICT = 1024
# Panels of B that the same block of A must meet for a packed copy to be worth its stores.
MANY_PANELS, MANY_PANELS_IN_CONFLICT = 16, 4
# The most columns of a job.
JOB_COLUMNS = 512


class Target(NamedTuple):
    """C and its epilogue: data[i * stride + j] = act(sum + bias[j]), then times the derivative of `below`.

    `bias`, `below` and `column_sums` may be null. `below` holds outputs of the activation `below_activation`, laid out
    like the data; with it, `activation` is IDENTITY. `column_sums` [columns] receives the sums of B over the depth from
    the job that owns row 0.
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


def _product_signature(element: types.Type) -> tuple[types.Type, ...]:
    n, p, x = types.int64, types.CPointer(element), element
    return (n,) * 5 + (p, n, n) * 2 + (p, n, p, n, x, p, n, x, p)


@linked(_product_signature, lazily=True)
def _product(
    m0, m1, n0, n1, depth,
    a_data, a_stride, a_transposed,
    b_data, b_stride, b_transposed,
    c_data, c_stride, c_bias, c_activation, c_alpha, c_below, c_below_activation, c_below_alpha, c_column_sums,
):  # fmt: skip
    """`product_job` with its operands spread out: what is compiled once and called by address."""
    b = Operand(b_data, b_stride, b_transposed != 0)
    a_block = block_scratch(c_alpha)
    b_panel = panel_scratch(c_alpha)
    nothing = null(c_alpha)
    lanes = lanes_of(c_data)
    width = NV * lanes
    a_row, a_step = (1, a_stride) if a_transposed != 0 else (a_stride, 1)
    summed = m0 == 0 and not is_null(c_column_sums)
    few_rows = m1 - m0 <= 2 * MR
    # Rows of a multiple of CONFLICT bytes fall into few sets of the caches.
    conflicting = a_stride * (VECTOR_BYTES // lanes) % CONFLICT == 0
    packing_a = n1 - n0 >= (MANY_PANELS_IN_CONFLICT if conflicting else MANY_PANELS) * width
    # The slope below 0: of the activation here or of the one underneath; a product has one of them.
    alpha, below_activation = c_alpha, c_below_activation
    if c_below_activation == RELU or c_below_activation == LEAKY_RELU:
        alpha = c_below_alpha if c_below_activation == LEAKY_RELU else number_like(c_alpha, 0)
        below_activation = RELU
    mode = flush_subnormals()
    blocks = max(1, (depth + DEPTH - 1) // DEPTH)
    block_depth = ((depth + blocks - 1) // blocks + 7) // 8 * 8
    start = 0
    while True:
        k = min(block_depth, depth - start)
        last = start + k >= depth
        activation = c_activation if last else IDENTITY
        tile_stride = MR * k + 64 // (VECTOR_BYTES // lanes)
        for j in range(n0, n1, width):
            columns = min(width, n1 - j)
            source = pointer(b.data, start * b.stride + j)
            whole = b.transposed and columns == width
            panel, panel_step = b_panel, width
            if whole and few_rows:
                panel, panel_step = source, b.stride
            elif not whole:
                pack_panel(b, j, n1, start, k, b_panel)
            bias = pointer(c_bias, j) if last and not is_null(c_bias) else nothing
            for i in range(m0, m1, MR):
                rows = min(MR, m1 - i)
                a_packed = pointer(a_block, (i - m0) // MR * tile_stride)
                a_tile, row, step = pointer(a_data, i * a_row + start * a_step), a_row, a_step
                out = pointer(c_data, i * c_stride + j)
                below = pointer(c_below, i * c_stride + j)
                packs_b = whole and not few_rows and i == m0
                packs_a = packing_a and j == n0 and rows == MR
                if packing_a and j > n0 and rows == MR:
                    a_tile, row, step = a_packed, 1, MR
                b_tile, b_step = (source, b.stride) if packs_b else (panel, panel_step)
                tile(
                    rows, k, a_tile, row, step, b_tile, b_step, out, c_stride, columns, start, bias, activation, alpha, below,
                    below_activation if last else IDENTITY, a_packed if packs_a else nothing, panel if packs_b else nothing,
                )  # fmt: skip
                if last and activation >= SIGMOID:
                    saturate_tile(out, c_stride, rows, columns, activation)
            if summed:
                add_column_sums(panel, panel_step, k, columns, start == 0, pointer(c_column_sums, j))
        if last:
            break
        start += k
    restore_mode(mode)


linked_product = _product.linked


@jit
def product_job(m0, m1, n0, n1, depth, a, b, c):
    """Rows m0 .. m1 and columns n0 .. n1 of C = A @ B with the epilogue of `c`; C is overwritten.

    A job has at most `job_rows` rows.
    """
    _product(
        m0, m1, n0, n1, depth,
        a.data, a.stride, a.transposed,
        b.data, b.stride, b.transposed,
        c.data, c.stride, c.bias, c.activation, c.alpha, c.below, c.below_activation, c.below_alpha, c.column_sums,
    )  # fmt: skip


@jit
def job_rows(itemsize):
    """The most rows of a job: what a packed block of A has room for."""
    return BLOCK_BYTES // (DEPTH * itemsize) // MR * MR


@jit
def grid(rows, columns, itemsize, parts, whole_rows):
    """(row blocks, rows of a block, column blocks, columns of a block) of the jobs that make up a product.

    As many blocks as their size demands, and at least `parts` of them where there are as many tiles: at least `parts`
    blocks of rows if `whole_rows`.
    """
    width = NV * VECTOR_BYTES // itemsize
    row_blocks, row_size = _split(rows, MR, job_rows(itemsize), 1)
    column_blocks, column_size = _split(columns, width, JOB_COLUMNS, 1)
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
            column_blocks, column_size = _split(columns, width, JOB_COLUMNS, wanted_across)
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
    if wanted <= 1 and units * unit <= most:  # divisions are what small products have no time for
        return 1, units * unit
    blocks = (units * unit + most - 1) // most
    blocks = blocks + blocks % 2 if blocks > 1 else blocks
    blocks = min(units, max(blocks, wanted))
    size = (units + blocks - 1) // blocks
    return (units + size - 1) // size, size * unit
