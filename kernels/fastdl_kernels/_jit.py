"""The one place that calls `numba.njit`: flags for every compiled function of fastdl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# Never "nnan" or "ninf": they let LLVM remove the checks that notice a loss that became NaN or infinite.
FASTMATH = frozenset({"contract", "reassoc", "nsz", "arcp", "afn"})


def jit(function: Callable[..., Any]) -> Any:
    """Compile a serial function."""
    return numba.njit(cache=True, fastmath=set(FASTMATH), error_model="numpy", nogil=True)(function)


def parallel_jit(function: Callable[..., Any]) -> Any:
    """Compile a function whose `prange` loops run on Numba's threads."""
    return numba.njit(cache=True, fastmath=set(FASTMATH), error_model="numpy", nogil=True, parallel=True)(function)
