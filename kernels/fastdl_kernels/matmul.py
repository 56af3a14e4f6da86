"""The matrix products of training, cut into tile jobs: x @ W, dy @ W.T and x.T @ dy by one serial body.

A job is a block of at most `job_rows` rows of C = A @ B, and of its columns, over the whole depth:

    for each block of the depth (DEPTH steps)
        for each panel of B, as wide as a register tile
            for each MR rows of A: one call of a register tile

On AVX-512 a tile takes 14 cycles for a step (28 multiply-adds, two at a time), in which it reads 3 to 5 cache lines. The
second cache delivers far more than that, and so late a line may come that the processor is 8 steps ahead: operands are read
where they are, in blocks that fit into the second cache. Only rows that are a multiple of 4 KB apart are copied, since all of
them share one set of the first cache. On one Zen 5 core, shares of the peak FMA rate: a tile by itself 97 to 99 %, 256x512x512
95 % (85 % with panels of B and blocks of A copied).

On narrower vectors a tile reads as much in 6 cycles. There a panel of B takes half of the first cache; the first tile of a
panel reads B where it is and copies it into the panel on the way, and blocks of A that many panels meet are copied before (384
KB, in the second cache). Copies make the other tiles walk through memory step by step instead of from row to row, which at
powers of two falls into a few sets of the caches. Where few tiles use it, an operand is read where it is. Shares of the peak
on one Zen 3 core: a tile on packed operands 96 %; blocks of 258 x 512 x 256 in the caches 90 %.

A B that must be transposed is packed beforehand, panel by panel. The first tile of a panel meets rows of B that no prefetcher
of the hardware follows, from the third cache or memory: they are asked for while the tiles of the panel before are computed
(4 to 7 % less time for 512x2048x1000 and 1024x4096x512).

Tried on Zen 5, for 512x1024x1024 and larger: panels packed in a pass of their own, at once or in slices between the tiles of the
panel before (14 to 24 cycles a row, against 8 on the way); all of B packed into a slab first (5 % of the time, for three times
the traffic of the third cache); blocks of 192 to 344 steps (2 to 8 % more time at 512x1024x1024, at most 3 % less at the two
larger shapes).

Every element of C has one writer, and its sum runs in an order that the shape fixes: how jobs are cut and spread over
threads changes no bit of the result.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba.core import types

from fastdl_kernels._jit import jit, linked
from fastdl_kernels.activations import IDENTITY, LEAKY_RELU, RELU, SIGMOID, saturate_tile
from fastdl_kernels.host import host
from fastdl_kernels.packing import (
    BLOCK_BYTES,
    DEPTH,
    IN_PLACE,
    VECTOR_BYTES,
    Operand,
    add_column_sums,
    ask_for_rows,
    block_scratch,
    pack_a,
    pack_panel,
    packed_row,
    packed_tile,
    panel_scratch,
)
from fastdl_kernels.simd import (
    is_null,
    lanes_of,
    null,
    number_like,
    pointer,
)
from fastdl_kernels.tile import MASKS, MR, NV, tile

# Rows that are a multiple of this many bytes apart share a few sets of the caches. 14 rows on AVX-512 run at 90 % of the peak
# and more at all distances but multiples of 4 KB, where they share one set of 12 lines (78 to 83 %). On AVX2 and a first
# cache of 8 ways: 45 to 80 % of the peak, against 80 to 92 % at other distances and 95 % packed (256 steps, 192 rows).
CONFLICT = 4096 if IN_PLACE else 1024
# Steps times the power of two by which rows of B are apart, up to which a panel is read where it is: beyond it, with 14 lines and
# more to a set, the second cache holds a panel or not by where its pages lie in memory (256x512x512 took 525 or 575 us from
# process to process). 1024x4096x512 takes 3 % less time when copied, 256x784x512 1 % more.
MOST_TOGETHER = 900 * 1024
# Panels of B that the same block of A must meet for a packed copy to be worth its stores.
MANY_PANELS, MANY_PANELS_IN_CONFLICT = (1 << 30 if IN_PLACE else 16), 4
# The most columns of a job.
JOB_COLUMNS = 1024 if IN_PLACE else 512
# The last tile of a column has at least so many rows if it is not the only one: with fewer, multiply-adds wait for each other.
FEWEST_ROWS = 4
# Bytes of a block of B from which on the rows of the next panel are asked for while this one is in use.
ASKING_BYTES = max(128 * 1024, host().l2_bytes // 4)


class Target(NamedTuple):
    """C and its epilogue: data[i * stride + j] = act(sum + bias[j]), then times the derivative of `below`.

    `bias`, `below` and `column_sums` may be null. `below` holds outputs of the activation `below_activation`, laid out
    like the data; with it, `activation` is IDENTITY. `column_sums` [columns] receives the sums of B over the depth from
    the job that owns row 0. With `adds`, products and column sums are added to what is there.
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
    adds: Any


def _product_signature(element: types.Type) -> tuple[types.Type, ...]:
    n, p, x = types.int64, types.CPointer(element), element
    return (n,) * 5 + (p, n, n) * 2 + (p, n, p, n, x, p, n, x, p, n)


@linked(_product_signature, lazily=True)
def _product(
    m0, m1, n0, n1, depth,
    a_data, a_stride, a_transposed,
    b_data, b_stride, b_transposed,
    c_data, c_stride, c_bias, c_activation, c_alpha, c_below, c_below_activation, c_below_alpha, c_column_sums, c_adds,
):  # fmt: skip
    """`product_job` with its operands spread out: what is compiled once and called by address."""
    a = Operand(a_data, a_stride, a_transposed != 0)
    b = Operand(b_data, b_stride, b_transposed != 0)
    a_block = block_scratch(c_alpha)
    b_panel = panel_scratch(c_alpha)
    nothing = null(c_alpha)
    lanes = lanes_of(c_data)
    width, itemsize = NV * lanes, VECTOR_BYTES // lanes
    a_row, a_step = (1, a_stride) if a.transposed else (a_stride, 1)
    summed = m0 == 0 and not is_null(c_column_sums)
    tiles = (m1 - m0 + MR - 1) // MR
    missing = max(0, FEWEST_ROWS - (m1 - m0 - (tiles - 1) * MR)) if tiles > 1 else 0
    short = (missing + 1) // 2 * 2
    # The largest power of two by which rows of B are apart, up to a page.
    power = min(4096, b_stride * itemsize & -(b_stride * itemsize))
    spread = power < CONFLICT and min(depth, DEPTH) * power <= MOST_TOGETHER
    in_place = b.transposed and (tiles <= 2 or (IN_PLACE and spread))
    panels_for_a = MANY_PANELS_IN_CONFLICT if a_stride * itemsize % CONFLICT == 0 else MANY_PANELS
    packs_a = n1 - n0 >= panels_for_a * width
    # The slope below 0: of the activation here or of the one underneath; a product has one of them.
    alpha, below_activation = c_alpha, c_below_activation
    if c_below_activation == RELU or c_below_activation == LEAKY_RELU:
        alpha = c_below_alpha if c_below_activation == LEAKY_RELU else number_like(c_alpha, 0)
        below_activation = RELU
    blocks = max(1, (depth + DEPTH - 1) // DEPTH)
    block_depth = ((depth + blocks - 1) // blocks + 7) // 8 * 8
    start = 0
    while True:
        k = min(block_depth, depth - start)
        last = start + k >= depth
        adds = start + c_adds
        activation = c_activation if last else IDENTITY
        # Rows of B in memory to be asked for with each tile: steps, or columns where it must be turned.
        asked = ((k if b.transposed else width) + tiles - 1) // tiles if k * (n1 - n0) * itemsize > ASKING_BYTES else 0
        for j in range(n0, n1, width):
            columns = min(width, n1 - j)
            panel, panel_step = pointer(b.data, start * b.stride + j), b.stride
            packs = b.transposed and not in_place and columns == width
            readable = columns == width or (MASKS and columns <= width - lanes)
            if not ((b.transposed and in_place and readable) or packs):
                pack_panel(b, j, n1, start, k, b_panel)
                panel, panel_step = b_panel, width
            bias = pointer(c_bias, j) if last and not is_null(c_bias) else nothing
            i, t = m0, 0
            while i < m1:
                rows = min(MR - short if t == tiles - 2 else MR, m1 - i)
                if rows > 8 and rows % 2 == 1:
                    rows = rows // 2 + 1  # and the rest in another one: see `has_body`
                if asked and j + width < n1:
                    if b.transposed:
                        ask_for_rows(b, j + width, width, start + t * asked, min(start + k, start + (t + 1) * asked))
                    else:
                        ask_for_rows(
                            b, start, k, j + width + t * asked, min(n1, j + 2 * width, j + width + (t + 1) * asked)
                        )
                a_tile, row, step = pointer(a_data, i * a_row + start * a_step), a_row, a_step
                if packs_a and rows == MR:
                    a_tile = packed_tile(t, a_block)
                    row, step = (1, MR) if a.transposed else (packed_row(a_block), 1)
                    if j == n0:
                        pack_a(a, i, start, k, a_tile)
                tile(
                    rows, k, a_tile, row, step, panel, panel_step, pointer(c_data, i * c_stride + j), c_stride, columns, adds,
                    bias, activation, alpha, pointer(c_below, i * c_stride + j), below_activation if last else IDENTITY,
                    b_panel if packs and t == 0 else nothing,
                )  # fmt: skip
                if last and activation >= SIGMOID:
                    saturate_tile(pointer(c_data, i * c_stride + j), c_stride, rows, columns, activation)
                if packs and t == 0:
                    panel, panel_step = b_panel, width
                i, t = i + rows, t + 1
            if summed:
                add_column_sums(panel, panel_step, k, columns, adds == 0, pointer(c_column_sums, j))
        if last:
            break
        start += k


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
        c.data, c.stride, c.bias, c.activation, c.alpha, c.below, c.below_activation, c.below_alpha, c.column_sums, c.adds,
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
