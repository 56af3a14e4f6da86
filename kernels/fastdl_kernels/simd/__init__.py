"""Explicit SIMD for Numba: a vector of as many lanes as one register of this processor holds.

Numba's loops are vectorised by LLVM when it can prove that it may; a `Vec` is a register by construction. Kernels are
written once against `lanes(dtype)` and run with 16 (AVX-512), 8 (AVX2) or 4 (SSE, NEON) float32 lanes, half of that in
float64. The functions work inside `@njit` code only:

    >>> import numba, numpy as np
    >>> from fastdl_kernels import simd
    >>> LANES = simd.lanes(np.float32)
    >>> @numba.njit
    ... def scaled_exp(a, factor, out):            # out = factor * exp(a), any length
    ...     f = simd.broadcast(factor)
    ...     full = a.size - a.size % LANES
    ...     for i in range(0, full, LANES):
    ...         simd.store(out, i, f * simd.exp(simd.load(a, i)))
    ...     rest = a.size - full
    ...     if rest:
    ...         simd.store_first(out, full, f * simd.exp(simd.load_first(a, full, rest)), rest)
    >>> a = np.linspace(-1, 1, 11, dtype=np.float32)
    >>> out = np.empty_like(a)
    >>> scaled_exp(a, np.float32(2), out)
    >>> bool(np.allclose(out, 2 * np.exp(a)))
    True

| function                                | per lane                                                                |
|-----------------------------------------|-------------------------------------------------------------------------|
| `load(a, i)`, `store(a, i, v)`          | a[i], a[i+1], ...: no alignment needed, no bounds check                 |
| `load_first(a, i, n)`                   | the first n lanes, 0 in the others; nothing beyond a[i+n-1] is touched  |
| `store_first(a, i, v, n)`               | only the first n lanes                                                  |
| `load_up_to(a, i, n)`, `store_up_to`    | full vectors where n allows, else the first n lanes                     |
| `load_strided(a, i, stride, n)`         | a[i], a[i + stride], ..., n of them; the lanes from n on repeat the last |
| `store_strided(a, i, stride, v, n)`     | a[i], a[i + stride], ... = the first n lanes                            |
| `prefetch`, `prefetch_second(a, i)`     | asks for the cache line of a[i], into L1 or L2         |
| `broadcast(x)`, `lane_index(x)`         | x in every lane; 0, 1, 2, ... of x's type                               |
| `+ - * /`, unary `-`, `< <= > >= == !=` | arithmetic; comparisons give a mask                                     |
| `fma(a, b, c)`                          | a * b + c in one rounding where the processor can, else in two          |
| `first_lanes(v, n)`                     | the mask that is true in the lanes before n                             |
| `first_true(mask)`                      | the first lane where the mask is true; the number of lanes if none is   |
| `minimum(a, b)`, `maximum(a, b)`        | of numbers: b where either is NaN                                       |
| `select(mask, a, b)`                    | a where the mask is true, else b                                        |
| `sqrt(v)`, `absolute(v)`, `floor(v)`    | exact                                                                   |
| `exp(v)`, `log(v)`, `tanh(v)`, `sigmoid(v)` | at most 2 units in the last place from the exact value, NaN stays NaN |
| `cospi(v)`, `sinpi(v)`                  | cos(πv) and sin(πv), at most 4 units in the last place off; NaN for infinity |
| `flush_subnormals()`, `restore_mode(m)` | this thread: subnormal numbers count as 0; back to what it was          |
| `keep_subnormals()`                     | until `flush_subnormals` is called again, they count as what they are   |
| `hsum(v)`, `hmax(v)`                    | one number: the sum in a fixed tree order; the maximum                  |

For numbers of other types, one by one: `number_in(bytes_at(address), offset, like)` loads one of the type of `like`, aligned or
not; `size_of(like)` is its size, `float64_of_bits(i)` the float64 with the bits of an int64, and `quotient(x, d, 1 / d)` is x / d
in float64, faster than a division.

`a` is a C-contiguous array of any shape, indexed flat, or a `pointer(a, i)`, which passes through functions without
touching reference counts. A pointer does not keep its array alive: hold the array while you use it.
"""

from __future__ import annotations

from fastdl_kernels.simd.arithmetic import (
    absolute,
    floor,
    fma,
    hmax,
    hsum,
    maximum,
    minimum,
    select,
    sqrt,
)
from fastdl_kernels.simd.control import (
    flush_subnormals,
    keep_subnormals,
    restore_mode,
)
from fastdl_kernels.simd.mathematics import (
    cospi,
    exp,
    log,
    sigmoid,
    sinpi,
    tanh,
)
from fastdl_kernels.simd.memory import (
    broadcast,
    first_lanes,
    first_true,
    is_null,
    lane_index,
    lanes_of,
    like,
    load,
    load_first,
    load_strided,
    load_up_to,
    null,
    number_like,
    pointer,
    prefetch,
    prefetch_second,
    store,
    store_first,
    store_strided,
    store_up_to,
)
from fastdl_kernels.simd.raw import (
    bytes_at,
    float64_of_bits,
    number_in,
    quotient,
    size_of,
)
from fastdl_kernels.simd.vector import (
    lanes,
)

__all__ = [
    "absolute",
    "broadcast",
    "bytes_at",
    "cospi",
    "exp",
    "first_lanes",
    "first_true",
    "float64_of_bits",
    "floor",
    "flush_subnormals",
    "fma",
    "hmax",
    "hsum",
    "is_null",
    "keep_subnormals",
    "lane_index",
    "lanes",
    "lanes_of",
    "like",
    "load",
    "load_first",
    "load_strided",
    "load_up_to",
    "log",
    "maximum",
    "minimum",
    "null",
    "number_in",
    "number_like",
    "pointer",
    "prefetch",
    "prefetch_second",
    "quotient",
    "restore_mode",
    "select",
    "sigmoid",
    "sinpi",
    "size_of",
    "sqrt",
    "store",
    "store_first",
    "store_strided",
    "store_up_to",
    "tanh",
]
