"""Sums in an order that sizes alone decide, and multiples of vectors."""

from __future__ import annotations

from fastdl_kernels.serial import jit, noinline
from fastdl_kernels.simd import (
    broadcast,
    first_lanes,
    fma,
    hsum,
    lanes_of,
    like,
    load_up_to,
    pointer,
    select,
    store_up_to,
)


@jit
def sum_rows(matrix, stride, rows, n, out):
    """out[:n] = the sum of so many rows of a matrix, one after the other."""
    noinline()
    for i in range(0, n, lanes_of(out)):
        total = load_up_to(matrix, i, n - i)
        for r in range(1, rows):
            total = total + load_up_to(matrix, r * stride + i, n - i)
        store_up_to(out, i, total, n - i)


@jit
def square_sum(x, n):
    """Σ x², in float64: four sums by turns, which do not wait for each other, then the rest."""
    noinline()
    s0 = s1 = s2 = s3 = 0.0
    full = n - n % 4
    for i in range(0, full, 4):
        a, b, c, d = float(x[i]), float(x[i + 1]), float(x[i + 2]), float(x[i + 3])
        s0 += a * a
        s1 += b * b
        s2 += c * c
        s3 += d * d
    total = (s0 + s1) + (s2 + s3)
    for i in range(full, n):
        total += float(x[i]) * float(x[i])
    return total


@jit
def add_multiple(out, x, factor, n):
    """out += factor * x."""
    for i in range(0, n, lanes_of(out)):
        store_up_to(out, i, fma(broadcast(factor), load_up_to(x, i, n - i), load_up_to(out, i, n - i)), n - i)


@jit
def scale(out, factor, n):
    """out *= factor."""
    for i in range(0, n, lanes_of(out)):
        store_up_to(out, i, broadcast(factor) * load_up_to(out, i, n - i), n - i)


@jit
def row_square(row, n):
    """Σ w² of a row of n weights: a sum that does not depend on how rows are cut into blocks."""
    total = like(broadcast(row[0]), 0.0)
    for i in range(0, n, lanes_of(row)):
        w = load_up_to(row, i, n - i)
        w = select(first_lanes(w, n - i), w, like(w, 0.0))
        total = fma(w, w, total)
    return float(hsum(total))


@jit
def row_squares_of(weights, n, rows, sums):
    """sums[r] = Σ w² of a row of n weights, for `rows` rows."""
    noinline()
    for r in range(rows):
        sums[r] = row_square(pointer(weights, r * n), n)
