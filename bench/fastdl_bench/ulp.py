"""`python -m fastdl_bench.ulp`: the largest error of exp, log and every curved activation over every finite float32.

An error of 1 ULP is the distance between the two float32 numbers around the exact value, which the C library computes
in float64. Where an activation is below 0.001 |z|, its absolute error counts, in units of |z|. It takes some minutes on two
cores. `--step N` looks at every Nth bit pattern only.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from fastdl_kernels import simd
from fastdl_kernels._jit import entry, parallel_jit
from fastdl_kernels.activations import SPECS, value_of

LANES = simd.lanes(np.float32)
PIECE = 1 << 12  # numbers that one thread takes at a time: they stay in its first data cache
CHUNK = 1 << 24
SMALL = 0.001  # times |z|: below it an activation's absolute error counts


class Worst(NamedTuple):
    """The largest error in ULP and where it is; the largest absolute error / |z| of small results and where it is."""

    ulp: float
    at: float
    small: float
    small_at: float


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


@register_jitable
def _exact_elu(x: float) -> float:
    return x if x > 0 else math.expm1(x)


@register_jitable
def _exact_selu(x: float) -> float:
    return 1.0507009873554804934193349852946 * (x if x > 0 else 1.6732632423543772848170429916717 * math.expm1(x))


@register_jitable
def _exact_softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@register_jitable
def _exact_gelu(x: float) -> float:
    return 0.5 * x * math.erfc(-x * math.sqrt(0.5))


@register_jitable
def _exact_silu(x: float) -> float:
    return x * _exact_sigmoid(x)


@register_jitable
def _exact_mish(x: float) -> float:
    return x * math.tanh(_exact_softplus(x))


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


def _measurement(function: Any, exact: Any, small: float = 0.0) -> Callable[[NDArray[np.float32]], Worst]:
    """worst(x) of a function of one vector, or of the activation with that code, against a function of one number."""
    code = function if isinstance(function, int) else -1
    plain = simd.exp if code >= 0 else function

    @parallel_jit
    def pieces(x: NDArray, y: NDArray, errors: NDArray, places: NDArray) -> None:
        for p in numba.prange(len(errors)):
            first, last = p * PIECE, min(x.size, (p + 1) * PIECE)
            for i in range(first, last, LANES):
                v = simd.load_up_to(x, i, last - i)
                simd.store_up_to(y, i, value_of(code, v, simd.like(v, 1.0)) if code >= 0 else plain(v), last - i)
            errors[p] = -1.0
            places[p] = first
            for i in range(first, last):
                z = np.float64(x[i])
                wanted = exact(z)
                kind = 1 if abs(wanted) < small * abs(z) else 0
                e = abs(np.float64(y[i]) - wanted) / abs(z) if kind else ulp_error(y[i], wanted)
                if not e <= errors[p, kind]:
                    errors[p, kind] = e
                    places[p, kind] = i

    def worst(x: NDArray[np.float32]) -> Worst:
        n = -(-len(x) // PIECE)
        errors, places = np.empty((n, 2)), np.empty((n, 2), np.int64)
        pieces(x, np.empty_like(x), errors, places)
        (p, q) = errors.argmax(axis=0)
        return Worst(float(errors[p, 0]), float(x[places[p, 0]]), max(0.0, float(errors[q, 1])), float(x[places[q, 1]]))

    return worst


FUNCTIONS: dict[str, Callable[[NDArray[np.float32]], Worst]] = {
    "exp": _measurement(simd.exp, _exact_exp),
    "log": _measurement(simd.log, _exact_log),
    "tanh": _measurement(simd.tanh, _exact_tanh),
    "sigmoid": _measurement(simd.sigmoid, _exact_sigmoid),
}
ACTIVATIONS: dict[str, Callable[[NDArray[np.float32]], Worst]] = {
    name: _measurement(SPECS[name].code, exact, SMALL)
    for name, exact in {
        "elu": _exact_elu,
        "selu": _exact_selu,
        "softplus": _exact_softplus,
        "gelu": _exact_gelu,
        "silu": _exact_silu,
        "mish": _exact_mish,
    }.items()
}
"""Those that are no functions of `simd`; alpha is 1."""


def finite_numbers(first: int, last: int, step: int = 1) -> NDArray[np.float32]:
    """The finite float32 numbers of the bit patterns first, first + step, ..., below last."""
    x = np.arange(first, last, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return x[np.isfinite(x)]


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m fastdl_bench.ulp", description=__doc__.partition(":")[2])
    arguments.add_argument("--step", type=int, default=1, metavar="N", help="every Nth bit pattern (default: all)")
    arguments.add_argument("--only", metavar="NAME", help="one function (default: all)")
    given = arguments.parse_args()
    print("| function | largest error, ULP | at | small results, / abs(z) | at | inputs |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, worst in (FUNCTIONS | ACTIVATIONS).items():
        if given.only not in (None, name):
            continue
        found, count = Worst(-1.0, 0.0, 0.0, 0.0), 0
        for first in range(0, 1 << 32, CHUNK * given.step):
            x = finite_numbers(first, min(1 << 32, first + CHUNK * given.step), given.step)
            if x.size == 0:
                continue
            count += x.size
            new = worst(x)
            by_ulp, by_size = max(found[:2], new[:2]), max(found[2:], new[2:])
            found = Worst(*by_ulp, *by_size)
        print(
            f"| {name} | {found.ulp:.3f} | {found.at!r} | {found.small:.2g} | {found.small_at!r} | {count:,} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
