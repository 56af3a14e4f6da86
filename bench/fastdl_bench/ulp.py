"""`python -m fastdl_bench.ulp`: the largest error of exp, log, tanh and sigmoid over every finite float32, in ULP.

An error of 1 ULP is the distance between the two float32 numbers around the exact value, which the C library computes
in float64. It takes some minutes on two cores. `--step N` looks at every Nth bit pattern only.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from fastdl_kernels import simd
from fastdl_kernels._jit import entry, parallel_jit

LANES = simd.lanes(np.float32)
PIECE = 1 << 12  # numbers that one thread takes at a time: they stay in its first data cache
CHUNK = 1 << 24


# Not compiled functions: one in a closure keeps the function around it out of the cache.
@register_jitable
def _exact_sigmoid(x: float) -> float:
    e = math.exp(-abs(x))
    return (1.0 if x >= 0 else e) / (1.0 + e)


@register_jitable
def _exact_log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


@register_jitable
def _exact_exp(x: float) -> float:
    return math.exp(x)


@register_jitable
def _exact_tanh(x: float) -> float:
    return math.tanh(x)


@entry
def ulp_error(got: float, exact: float) -> float:
    """|got - exact| in units of float32's spacing at `exact`; infinity counts as 2^128, the next number there would be."""
    if math.isnan(exact) or math.isnan(got):
        return 0.0 if math.isnan(exact) and math.isnan(got) else math.inf
    limit = 2.0**128
    exact = min(max(exact, -limit), limit)
    value = min(max(np.float64(got), -limit), limit)
    _, exponent = math.frexp(exact)
    return abs(value - exact) / math.ldexp(1.0, min(max(exponent, -125), 128) - 24)


def _measurement(function: Any, exact: Any) -> Callable[[NDArray[np.float32]], tuple[float, float]]:
    """worst(x) -> (largest error in ULP, input) of a function of one vector against a function of one number."""

    @parallel_jit
    def pieces(x: NDArray, y: NDArray, errors: NDArray, places: NDArray) -> None:
        for p in numba.prange(len(errors)):
            first, last = p * PIECE, min(x.size, (p + 1) * PIECE)
            for i in range(first, last, LANES):
                simd.store_up_to(y, i, function(simd.load_up_to(x, i, last - i)), last - i)
            error, place = -1.0, first
            for i in range(first, last):
                e = ulp_error(y[i], exact(np.float64(x[i])))
                if e > error:
                    error, place = e, i
            errors[p], places[p] = error, place

    def worst(x: NDArray[np.float32]) -> tuple[float, float]:
        n = -(-len(x) // PIECE)
        errors, places = np.empty(n), np.empty(n, np.int64)
        pieces(x, np.empty_like(x), errors, places)
        p = int(errors.argmax())
        return float(errors[p]), float(x[places[p]])

    return worst


FUNCTIONS: dict[str, Callable[[NDArray[np.float32]], tuple[float, float]]] = {
    "exp": _measurement(simd.exp, _exact_exp),
    "log": _measurement(simd.log, _exact_log),
    "tanh": _measurement(simd.tanh, _exact_tanh),
    "sigmoid": _measurement(simd.sigmoid, _exact_sigmoid),
}


def finite_numbers(first: int, last: int, step: int = 1) -> NDArray[np.float32]:
    """The finite float32 numbers of the bit patterns first, first + step, ..., below last."""
    x = np.arange(first, last, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return x[np.isfinite(x)]


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m fastdl_bench.ulp", description=__doc__.partition(":")[2])
    arguments.add_argument("--step", type=int, default=1, metavar="N", help="every Nth bit pattern (default: all)")
    step = arguments.parse_args().step
    print("| function | largest error, ULP | at | inputs |\n| --- | ---: | ---: | ---: |")
    for name, worst in FUNCTIONS.items():
        error, place, count = -1.0, 0.0, 0
        for first in range(0, 1 << 32, CHUNK * step):
            x = finite_numbers(first, min(1 << 32, first + CHUNK * step), step)
            if x.size == 0:
                continue
            count += x.size
            error, place = max((error, place), worst(x), key=lambda pair: pair[0])
        print(f"| {name} | {error:.3f} | {place!r} | {count:,} |", flush=True)


if __name__ == "__main__":
    main()
