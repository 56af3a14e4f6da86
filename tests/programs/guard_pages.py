"""Masked tails and every kernel, with all arrays flush against pages that may not be read: a touch ends the process."""

import ctypes
import mmap
import os

import numba
import numpy as np
from kernel_calls import KERNELS, arguments, contents

from fastdl_kernels import simd

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
kept = []


def fenced(values, at_end):
    """A copy of `values` between two pages that must not be touched, flush with the one behind it or before it."""
    values = np.ascontiguousarray(values)
    page = mmap.PAGESIZE
    room = -(-max(values.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, room + 2 * page)
    raw = np.frombuffer(memory, np.uint8)
    kept.append((memory, raw))
    for place in (0, page + room):
        assert libc.mprotect(raw.ctypes.data + place, page, 0) == 0, os.strerror(ctypes.get_errno())
    start = page + (room - values.nbytes if at_end else 0)
    view = raw[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    view[...] = values
    return view


@numba.njit
def copy_first(x, out, n):
    simd.prefetch(x, n)
    simd.store_first(out, 0, simd.load_first(x, 0, n), n)


@numba.njit
def copy_up_to(x, out):
    lanes = simd.lanes_of(x)
    for i in range(0, x.size, lanes):
        simd.store_up_to(out, i, simd.load_up_to(x, i, x.size - i), x.size - i)


for dtype in ("float32", "float64"):
    for n in range(1, 2 * simd.lanes(dtype) + 2):
        values = np.arange(1, n + 1).astype(dtype)
        x, out = fenced(values, True), fenced(np.zeros(n, dtype), True)
        if n <= simd.lanes(dtype):
            copy_first(x, out, n)
            assert (out == values).all()
            out[:] = 0
        copy_up_to(x, out)
        assert (out == values).all()

SIZES = [
    {"B": 1, "I": 1, "O": 1, "N": 1, "P": 1},
    {"B": 7, "I": 5, "O": 3, "N": 10, "P": 37},
    {"B": 29, "I": 37, "O": 10, "N": 17, "P": 1001},
    {"B": 64, "I": 64, "O": 128, "N": 32, "P": 1024},
    {"B": 41, "I": 600, "O": 70, "N": 300, "P": 40_003},
]
for name, kernel in KERNELS.items():
    for dtype in ("float32", "float64"):
        for sizes in SIZES:
            plain = arguments(kernel, dtype, sizes)
            kernel(*plain.values())
            for at_end in (True, False):
                given = {
                    key: fenced(value, at_end) if isinstance(value, np.ndarray) else value
                    for key, value in arguments(kernel, dtype, sizes).items()
                }
                kernel(*given.values())
                assert contents(given) == contents(plain), (name, dtype, sizes)
print("fine")
