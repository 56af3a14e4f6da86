"""Softmax of rows: exponentials with the maximum subtracted, of long rows one by one, of short ones side by side."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastdl_kernels._jit import inlined, jit
from fastdl_kernels._units import linked
from fastdl_kernels.packing import scratch, transpose_block
from fastdl_kernels.simd import (
    broadcast,
    exp,
    first_lanes,
    hmax,
    hsum,
    lanes_of,
    like,
    load,
    load_strided,
    load_up_to,
    log,
    maximum,
    number_like,
    pointer,
    select,
    store,
    store_strided,
    store_up_to,
)
from fastdl_kernels.simd.vector import call_llvm, element_pointer, first_mask, vec_type

# Classes up to which rows are computed side by side, one in each lane.
FEW = 32
columns_scratch = scratch(FEW * 64)
square_scratch = scratch(16 * 64)
# Classes from which on transposing squares of rows takes less time than picking numbers one by one.
WORTH_TRANSPOSING = 5


@jit
def log_number(x):
    """The logarithm of one number, by the vector function."""
    return hmax(log(broadcast(x)))


@jit
def exp_row(logits, n, out):
    """out[:n] = exp(logits[:n] - top); returns (top, sum of out[:n]) with top the maximum. In place is allowed."""
    lanes = lanes_of(logits)
    lowest = like(broadcast(logits[0]), -np.inf)
    tops = lowest
    for i in range(0, n, lanes):
        v = load_up_to(logits, i, n - i)
        tops = maximum(tops, select(first_lanes(v, n - i), v, lowest))
    top = hmax(tops)
    total = like(lowest, 0.0)
    for i in range(0, n, lanes):
        e = exp(load_up_to(logits, i, n - i) - broadcast(top))
        store_up_to(out, i, e, n - i)
        total = total + select(first_lanes(e, n - i), e, like(e, 0.0))
    return top, hsum(total)


@jit
def scale_row(row, n, factor):
    """row[:n] *= factor."""
    for i in range(0, n, lanes_of(row)):
        store_up_to(row, i, load_up_to(row, i, n - i) * broadcast(factor), n - i)


@intrinsic
def whole_numbers(typingctx, x, numbers, i, n):
    """numbers[i], numbers[i + 1], ... (int64) as floats of x's type; 0 in the lanes from n on."""
    if x not in (types.float32, types.float64) or not all(isinstance(t, types.Integer) for t in (i, n)):
        return None
    result = vec_type(x)

    def codegen(context, builder, sig, args):
        index, n_ = (context.cast(builder, args[k], sig.args[k], types.int64) for k in (2, 3))
        address = element_pointer(context, builder, sig.args[1], args[1], index)
        wide = ir.VectorType(ir.IntType(64), result.count)
        mask = first_mask(builder, result.count, n_)
        zeros = ir.Constant(wide, [0] * result.count)
        address = builder.bitcast(address, wide.as_pointer())
        loaded = call_llvm(
            builder,
            f"llvm.masked.load.v{result.count}i64.p0",
            wide,
            [address, ir.Constant(ir.IntType(32), 8), mask, zeros],
        )
        return builder.sitofp(loaded, context.get_value_type(result))

    return result(x, numbers, i, n), codegen


@jit
def load_columns(logits, first, rows, n, columns):
    """columns[j] = logits[:, j] of up to a vector of rows, one in each lane; returns their maxima.

    With few classes a row does not fill a vector; side by side, rows need no sums across lanes and share one logarithm.
    """
    inlined()
    lanes = lanes_of(logits)
    for j in range(0, n, lanes):
        if n - j >= WORTH_TRANSPOSING:
            transpose_block(columns, j * lanes, lanes, logits, first * n + j, n, rows, n - j)
        else:
            for c in range(j, n):
                store(columns, c * lanes, load_strided(logits, first * n + c, n, rows))
    top = load(columns, 0)
    for j in range(1, n):
        top = maximum(top, load(columns, j * lanes))
    return top


@jit
def store_columns(out, first, rows, n, columns, transposed):
    """out[:, j] = columns[j] for `rows` rows, the reverse of `load_columns`; transposed has room for a square of lanes."""
    inlined()
    lanes = lanes_of(out)
    for j in range(0, n, lanes):
        if n - j >= WORTH_TRANSPOSING:
            transpose_block(transposed, 0, lanes, columns, j * lanes, lanes, lanes, lanes)
            for r in range(rows):
                store_up_to(out, (first + r) * n + j, load(transposed, r * lanes), n - j)
        else:
            for c in range(j, n):
                store_strided(out, first * n + c, n, load(columns, c * lanes), rows)


@jit
def exp_columns(columns, n, top):
    """columns[j] = exp(columns[j] - top) for n columns; returns their sum."""
    lanes = lanes_of(columns)
    total = like(top, 0.0)
    for j in range(n):
        e = exp(load(columns, j * lanes) - top)
        store(columns, j * lanes, e)
        total = total + e
    return total


@linked(
    lambda x: (types.boolean, types.int64, types.int64, types.int64, types.CPointer(x), types.CPointer(x)), lazily=True
)
def softmax_rows(logarithm, first, last, n, logits, out):
    """out = softmax(logits), or its logarithm, for rows first .. last."""
    if n <= FEW:
        columns, transposed, lanes = columns_scratch(logits[0]), square_scratch(logits[0]), lanes_of(logits)
        for r in range(first, last, lanes):
            rows = min(lanes, last - r)
            top = load_columns(logits, r, rows, n, columns)
            total = exp_columns(columns, n, top)
            factor, shift = like(total, 1.0) / total, log(total)
            if logarithm:
                load_columns(logits, r, rows, n, columns)
            for j in range(n):
                v = load(columns, j * lanes)
                store(columns, j * lanes, v - top - shift if logarithm else v * factor)
            store_columns(out, r, rows, n, columns, transposed)
        return
    for r in range(first, last):
        row, out_row = pointer(logits, r * n), pointer(out, r * n)
        top, total = exp_row(row, n, out_row)
        if logarithm:
            shift = log_number(total)
            for i in range(0, n, lanes_of(row)):
                store_up_to(out_row, i, load_up_to(row, i, n - i) - broadcast(top) - broadcast(shift), n - i)
        else:
            scale_row(out_row, n, number_like(total, 1) / total)
