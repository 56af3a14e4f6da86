"""The matrix products of training, cut into tile jobs: x @ W, dy @ W.T and x.T @ dy by one serial body.

A job is a block of at most `job_rows` rows of C = A @ B, and of its columns, over the whole depth:

    for each block of the depth (DEPTH steps)
        for each panel of B, as wide as a register tile
            for each MR rows of A: one call of a register tile

On AVX-512 a tile takes 14 cycles for a step (28 multiply-adds, two at a time), in which it reads 3 to 5 cache lines. L2
delivers far more than that, and the processor runs 8 steps ahead of a line that is late: blocks are cut to fit into L2, and small
ones are read where they are. Only rows that are a multiple of 4 KB apart are copied first, since all of them share one set of
L1. On narrower vectors a tile reads as much in 6 cycles. There a panel of B takes half of L1, and blocks of A that many panels
meet are copied before (384 KB, in L2).

What comes from L3 or from memory are C and the next panel of B, whose rows no prefetcher of the hardware follows. Tiles see to
both between their steps: every so many steps they prefetch another row of C, pack a row of the next panel, and prefetch one
a little further. All at once those lines would fill the few places for outstanding misses, and the loads of the tile itself
would queue behind them. A B that must be transposed is prefetched in the same way, a slice by each tile, and transposed slice by
slice after the tiles. On one Zen 5 core, whose L3 others used as well, cycles for 14 x 512 x 32 of a 512x2048x2048 (at the
peak 7168):

                                  a tile   with sums in C   the first of a panel   transposing a panel
    all prefetched before a tile    7650             8100         20000 to 30000         8000 to 14000
    between the steps               7450             7500                   7500                  4300

and whole products take 0.85 to 0.95 of the time from 512x1024x1024 on. A run of steps costs 1 to 5 cycles more than the
steps. Of the peak on one Zen 5 core: a tile by itself 97 to 99 %, 256x512x512 94 %, 512x2048x1000 90 %; on one Zen 3 core: a tile
on packed operands 96 %. The rest of 512x1024x1024: 4 % in the tiles, 2 % copying A, 1 % the last rows.

Tried on Zen 5, for 512x1024x1024 and larger, all slower: panels packed in a pass of their own; rows of B prefetched 16 to 48
steps ahead by a tile that copies them; all of B packed first (5 %); blocks of 256 to 1,024 steps with as many rows as L2 has
room for (1 to 5 %); for gradients, Adam's step on each tile (2 %: three arrays in pieces of 128 bytes come slower from memory
than in streams).

Every element of C has one writer, and its sum runs in an order that the shape fixes: how jobs are cut and spread over
threads changes no bit of the result.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.core import types

from fastdl_kernels._jit import inlined, jit, linked, named_type
from fastdl_kernels.activations import (
    IDENTITY,
    LAST_DERIVATIVE_IN_REGISTERS,
    LAST_IN_REGISTERS,
    LEAKY_RELU,
    RELU,
    apply_activation,
)
from fastdl_kernels.host import host
from fastdl_kernels.packing import (
    BLOCK_BYTES,
    DEPTH,
    IN_PLACE,
    PANEL_BYTES,
    VECTOR_BYTES,
    Operand,
    add_column_sums,
    block_scratch,
    pack_panel,
    panel_scratch,
)
from fastdl_kernels.pairs import a_row_of, pack_block, pair_panel, steps_of
from fastdl_kernels.precision import BF16, BF16_EMULATED, FLOAT32, HAS_BF16, Bf16, Bf16Emulated, Float32, is_paired
from fastdl_kernels.simd import (
    is_null,
    lanes_of,
    null,
    number_like,
    pointer,
)
from fastdl_kernels.tile import MASKS, MR, NV, tile
from fastdl_kernels.tile_body import ASKING_DEPTH, GRAIN

# Rows that are a multiple of this many bytes apart share a few sets of the caches. 14 rows on AVX-512 run at 90 % of the peak
# and more at all distances but multiples of 4 KB, where they share one set of 12 lines (78 to 83 %). On AVX2 and an L1 of 8
# ways: 45 to 80 % of the peak, against 80 to 92 % at other distances and 95 % packed (256 steps, 192 rows).
CONFLICT = 4096 if IN_PLACE else 1024
# Steps times the power of two by which rows of B are apart, up to which a panel is read where it is: beyond it, with 14 lines and
# more to a set, L2 holds a panel or not by where its pages lie in memory (256x512x512 took 525 or 575 us from
# process to process). 1024x4096x512 takes 3 % less time when copied, 256x784x512 1 % more.
MOST_TOGETHER = 900 * 1024
# Panels of B that the same block of A must meet for a packed copy to be worth its stores.
MANY_PANELS, MANY_PANELS_IN_CONFLICT = (1 << 30 if IN_PLACE else 16), 4
# The most columns of a job.
JOB_COLUMNS = 1024 if IN_PLACE else 512
# The last tile of a column has at least so many rows if it is not the only one: with fewer, multiply-adds wait for each other.
# They come from the tile before it, an even number, of which at least as many are left.
FEWEST_ROWS = min(4, MR // 2)
# Full tiles of a panel from which on they prepare the next one between their steps; at least GRAIN.
FEWEST_TILES = 4
# Bytes of a block of B up to which there is nothing to prepare where it can be read in place.
SMALL_BYTES = max(128 * 1024, host().l2_bytes // 2) if IN_PLACE else 0


class Target(NamedTuple):
    """C and its epilogue: data[i * stride + j] = act(sum + bias[j]), then times the derivative of `below`.

    `bias`, `below`, `column_sums` and `kept` may be null. `below` holds what the derivative of the activation
    `below_activation` is taken from (its outputs, or z), laid out like the data; with it, `activation` is IDENTITY.
    `column_sums` [columns] receives the sums of B over the depth from the job that owns row 0. With `adds`, products and column
    sums are added to what is there. `kept`, laid out like the data, receives z = sum + bias.
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
    kept: Any


def _product_signature(element: types.Type) -> tuple[types.Type, ...]:
    n, p, x = types.int64, types.CPointer(element), element
    operand = named_type(Operand, p, n, types.boolean)
    return types.UniTuple(n, 4), n, operand, operand, named_type(Target, p, n, p, n, x, p, n, x, p, n, p)


@jit
def _product_of(arithmetic, block, depth, a, b, c):
    """`product_job`, in one arithmetic."""
    inlined()
    m0, m1, n0, n1 = block
    paired = is_paired(arithmetic)
    rows_per_step = 2 if paired else 1
    a_block = block_scratch(c.alpha)
    b_panels = panel_scratch(c.alpha)
    nothing = null(c.alpha)
    lanes = lanes_of(c.data)
    width, itemsize = NV * lanes, VECTOR_BYTES // lanes
    a_row, a_step = (1, a.stride) if a.transposed else (a.stride, 1)
    summed = m0 == 0 and not is_null(c.column_sums)
    tiles = (m1 - m0 + MR - 1) // MR
    missing = max(0, FEWEST_ROWS - (m1 - m0 - (tiles - 1) * MR)) if tiles > 1 else 0
    short = (missing + 1) // 2 * 2
    full_tiles = tiles - 2 if short else (m1 - m0) // MR
    # The largest power of two by which rows of B are apart, up to a page.
    power = min(4096, b.stride * itemsize & -(b.stride * itemsize))
    spread = power < CONFLICT and min(depth, DEPTH) * power <= MOST_TOGETHER
    in_place = b.transposed and (tiles <= 2 or spread) and not paired
    panels_for_a = MANY_PANELS_IN_CONFLICT if a.stride * itemsize % CONFLICT == 0 else MANY_PANELS
    packs_a = n1 - n0 >= panels_for_a * width
    # The slope below 0: of the activation here or of the one underneath; a product has one of them.
    alpha, below_activation = c.alpha, c.below_activation
    if c.below_activation == RELU or c.below_activation == LEAKY_RELU:
        alpha = c.below_alpha if c.below_activation == LEAKY_RELU else number_like(c.alpha, 0)
        below_activation = RELU
    # What the tiles cannot apply themselves is applied to each when it has been stored.
    keeps = not is_null(c.kept)
    z = c.kept if keeps else c.data
    acts = keeps or c.activation < 0 or c.activation > LAST_IN_REGISTERS
    differentiates = c.below_activation < 0 or c.below_activation > LAST_DERIVATIVE_IN_REGISTERS
    blocks = max(1, (depth + DEPTH - 1) // DEPTH)
    block_depth = ((depth + blocks - 1) // blocks + 7) // 8 * 8
    start = 0
    while True:
        k = min(block_depth, depth - start)
        last = start + k >= depth
        adds = start + c.adds
        activation = IDENTITY if acts or not last else c.activation
        # `portion` is what a tile packs of the next panel: rows to copy, or steps to transpose. It works ahead after `every`
        # steps: often enough for each of these rows, or for each tile's width of the rows of memory that hold these steps, and
        # for all rows of C.
        steps = steps_of(arithmetic, k)
        asks = steps >= ASKING_DEPTH
        prepares = asks and full_tiles >= FEWEST_TILES * rows_per_step
        if in_place and k * (n1 - n0) * itemsize <= SMALL_BYTES:
            prepares = False
        every, portion = steps // MR, 0
        if prepares and b.transposed:
            every = min(every, full_tiles // rows_per_step) // GRAIN * GRAIN
            portion = steps // every
        elif prepares:
            portion = (k + lanes * full_tiles - 1) // (lanes * full_tiles) * lanes
            every = min(every, steps // (width * ((portion + width - 1) // width))) // GRAIN * GRAIN
        every = max(GRAIN, every) if asks else max(1, steps)
        is_ready = False
        this, following = b_panels, pointer(b_panels, PANEL_BYTES // itemsize)
        for j in range(n0, n1, width):
            columns = min(width, n1 - j)
            readable = columns == width or (MASKS and columns <= width - lanes)
            panel, panel_step = this, width
            if not is_ready:
                if in_place and readable:
                    panel, panel_step = pointer(b.data, start * b.stride + j), b.stride
                else:
                    pack_panel(b, j, n1, start, k, this)
            if paired:
                if summed:
                    add_column_sums(this, width, k, columns, adds == 0, pointer(c.column_sums, j))
                pair_panel(arithmetic, this, k, width)
            bias = pointer(c.bias, j) if last and not is_null(c.bias) else nothing
            # Whole panels are copied; what is transposed may be narrower.
            next_is_ready = prepares and j + (2 * width if b.transposed else width + 1) <= n1
            i, t = m0, 0
            while i < m1:
                rows = min(MR - short if t == tiles - 2 else MR, m1 - i)
                if rows > 8 and rows % 2 == 1:
                    rows = rows // 2 + 1  # and the rest in another one: see `has_body`
                a_tile, row, step = pointer(a.data, i * a_row + start * a_step), a_row, a_step
                if paired or (packs_a and rows == MR):
                    a_tile = pointer(a_block, t * MR * a_row_of(arithmetic, a_block))
                    row, step = (1, MR) if a.transposed else (a_row_of(arithmetic, a_block), 1)
                    if j == n0:
                        pack_block(arithmetic, a, i, rows, start, k, a_tile)
                source, target, done = nothing, nothing, t * portion
                copies = next_is_ready and b.transposed and t < every * rows_per_step
                transposes = next_is_ready and not b.transposed and done < k
                if copies:
                    source = pointer(b.data, (start + done) * b.stride + j + width)
                    target = pointer(following, done * width)
                elif transposes:
                    source = pointer(b.data, (j + width) * b.stride + start + done)
                tile(
                    arithmetic, rows, steps, (a_tile, row, step), (panel, panel_step),
                    (pointer(z, i * c.stride + j), c.stride, columns, adds), bias, (activation, alpha),
                    (pointer(c.below, i * c.stride + j), below_activation if last else IDENTITY),
                    (every, source, b.stride, k if copies else width, target),
                )  # fmt: skip
                if transposes:
                    pack_panel(b, j + width, n1, start + done, min(portion, k - done), pointer(following, done * width))
                if last:
                    at = i * c.stride + j
                    if acts:
                        out, sums = pointer(c.data, at), pointer(z, at)
                        apply_activation(
                            c.activation,
                            0,
                            out,
                            c.stride,
                            sums,
                            c.stride,
                            sums,
                            c.stride,
                            rows,
                            columns,
                            c.alpha,
                            c.alpha,
                        )
                    if differentiates:
                        out, under = pointer(c.data, at), pointer(c.below, at)
                        apply_activation(
                            c.below_activation, 1, out, c.stride, out, c.stride, under, c.stride, rows, columns,
                            c.below_alpha, number_like(c.alpha, 1),
                        )  # fmt: skip
                i, t = i + rows, t + 1
            copied = every * rows_per_step * portion
            if next_is_ready and b.transposed and copied < k:
                pack_panel(b, j + width, n1, start + copied, k - copied, pointer(following, copied * width))
            if summed and not paired:
                add_column_sums(panel, panel_step, k, columns, adds == 0, pointer(c.column_sums, j))
            this, following, is_ready = following, this, next_is_ready
        if last:
            break
        start += k


_IN_FLOAT32, _IN_BF16, _IN_BF16_EMULATED = Float32(), Bf16() if HAS_BF16 else Bf16Emulated(), Bf16Emulated()


@linked(_product_signature, lazily=True)
def _product(block, depth, a, b, c):
    """In the operands' own arithmetic, compiled once and called by address."""
    _product_of(_IN_FLOAT32, block, depth, a, b, c)


@linked(_product_signature, at_first_call=True)
def _bf16_product(block, depth, a, b, c):
    """In bf16; callers do not ask for it where the processor cannot."""
    _product_of(_IN_BF16, block, depth, a, b, c)


@linked(_product_signature, at_first_call=True)
def _bf16_emulated_product(block, depth, a, b, c):
    """The same without the instruction for it."""
    _product_of(_IN_BF16_EMULATED, block, depth, a, b, c)


linked_product = _product.linked
PAIRED_PRODUCTS = {BF16: _bf16_product.linked, BF16_EMULATED: _bf16_emulated_product.linked}


@jit
def product_job(arithmetic, m0, m1, n0, n1, depth, a, b, c):
    """Rows m0 .. m1 and columns n0 .. n1 of C = A @ B with the epilogue of `c`; C is overwritten.

    A job has at most `job_rows` rows. The arithmetic is FLOAT32, or for float32 BF16 or BF16_EMULATED: see `precision`.
    """
    n = np.int64  # a caller's whole numbers may be of other types
    block, depth_ = (n(m0), n(m1), n(n0), n(n1)), n(depth)
    a_ = Operand(a.data, n(a.stride), bool(a.transposed))
    b_ = Operand(b.data, n(b.stride), bool(b.transposed))
    c_ = Target(
        c.data, n(c.stride), c.bias, n(c.activation), c.alpha, c.below, n(c.below_activation), c.below_alpha,
        c.column_sums, n(c.adds), c.kept,
    )  # fmt: skip
    if arithmetic == FLOAT32:
        _product(block, depth_, a_, b_, c_)
    elif arithmetic == BF16:
        _bf16_product(block, depth_, a_, b_, c_)
    else:
        _bf16_emulated_product(block, depth_, a_, b_, c_)


@jit
def prepare_products(arithmetic, x):
    """Compile, or load, the products of an arithmetic, by a call for nothing: before a parallel region, see `make_ready`."""
    if arithmetic != FLOAT32:
        p, zero = pointer(x, 0), x.dtype.type(0)
        nothing = null(zero)
        a = Operand(p, 0, False)
        c = Target(p, 0, nothing, IDENTITY, zero, nothing, IDENTITY, zero, nothing, 0, nothing)
        product_job(arithmetic, 0, 0, 0, 0, 0, a, a, c)


@jit
def job_rows(itemsize):
    """The most rows of a job: what a packed block of A has room for."""
    return BLOCK_BYTES // (DEPTH * itemsize) // MR * MR


@jit
def grid(rows, columns, itemsize, parts, whole_rows):
    """(row blocks, rows of a block, column blocks, columns of a block) of the jobs that make up a product.

    As many blocks as their size demands, and at least `parts` of them where there are as many tiles: at least `parts`
    blocks of rows if `whole_rows`, of whole tiles then.
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
    if not whole_rows and row_blocks > 1 and row_blocks * column_blocks == parts:
        # One job for each thread: they shall be of one length, at the price of tiles of fewer rows.
        row_size = min(row_size, ((rows + row_blocks - 1) // row_blocks + 1) // 2 * 2)
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
