"""A call that compiled code refuses, one that works, and a caller of the user's that is compiled.

The first two need nothing that only Numba's compiler needs; after them the compiler finds everything in its place.
"""

from __future__ import annotations

import sys

import numba
import numpy as np

from fastdl_kernels import squared_error

gradient = np.zeros((1, 2))
try:
    squared_error(np.zeros((1, 3)), np.zeros((1, 2)), gradient)
except ValueError as error:
    print(error)
print(squared_error(np.array([[3.0, 5.0]]), np.array([[1.0, 2.0]]), gradient), gradient[0].tolist())
print({"scipy.linalg", "numba.np.arraymath"} & set(sys.modules))


@numba.njit
def user(p, t):
    gradient = np.zeros_like(p)
    return squared_error(p, t, gradient), np.sort(gradient[0])[::-1].sum(), f"{len(p)} row"


print(user(np.array([[3.0, 5.0]]), np.array([[1.0, 2.0]])))
