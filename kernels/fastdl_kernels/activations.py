"""Activations: codes, names, values, and derivatives written in the output.

| code       | name         | a = act(z)                      | da/dz                |
|------------|--------------|---------------------------------|----------------------|
| IDENTITY   | identity     | z                               | 1                    |
| RELU       | relu         | max(0, z)                       | 1 if a > 0 else 0    |
| LEAKY_RELU | leaky_relu   | max(alpha z, z), 0 <= alpha < 1 | 1 if a > 0 else alpha |
| SIGMOID    | sigmoid      | 1 / (1 + e^-z)                  | a (1 - a)            |
| TANH       | tanh         | tanh(z)                         | (1 - a)(1 + a)       |

NaN stays NaN in all of them; sigmoid and tanh saturate at their limits for any finite or infinite z.
"""

from __future__ import annotations

from fastdl_kernels._jit import jit, noinline
from fastdl_kernels.simd import broadcast, lanes_of, like, load, load_first, select, sigmoid, store, store_first, tanh

IDENTITY = 0
RELU = 1
LEAKY_RELU = 2
SIGMOID = 3
TANH = 4

ACTIVATIONS: dict[str, int] = {
    "identity": IDENTITY,
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "sigmoid": SIGMOID,
    "tanh": TANH,
}
"""Registry: the name of each activation and its code. Tests, benchmarks and the command line iterate over it."""


@jit
def times_derivative(d, a, activation, alpha):
    """d * act'(z) for vectors d and a = act(z); alpha is a number."""
    one, zero = like(a, 1.0), like(a, 0.0)
    if activation == RELU or activation == LEAKY_RELU:
        slope = broadcast(alpha) if activation == LEAKY_RELU else zero
        return d * select(a > zero, one, select(a <= zero, slope, a))  # a NaN is neither, and stays
    if activation == SIGMOID:
        return d * (a * (one - a))
    if activation == TANH:
        return d * ((one - a) * (one + a))
    return d


@jit
def saturate(v, activation):
    """act(v) for the activations that saturate; the rectifiers are applied by the register tiles."""
    if activation == SIGMOID:
        return sigmoid(v)
    if activation == TANH:
        return tanh(v)
    return v


@jit
def saturate_row(row, n, activation):
    """row[:n] = act(row[:n]) in place, for SIGMOID and TANH; row is a pointer."""
    noinline()
    lanes = lanes_of(row)
    full = n - n % lanes
    for i in range(0, full, lanes):
        store(row, i, saturate(load(row, i), activation))
    if full < n:
        store_first(row, full, saturate(load_first(row, full, n - full), activation), n - full)


@jit
def differentiate_row(row, outputs, n, activation, alpha):
    """row[:n] *= act'(z), given outputs[:n] = act(z); both are pointers."""
    noinline()
    lanes = lanes_of(row)
    full = n - n % lanes
    for i in range(0, full, lanes):
        store(row, i, times_derivative(load(row, i), load(outputs, i), activation, alpha))
    if full < n:
        rest = n - full
        d = times_derivative(load_first(row, full, rest), load_first(outputs, full, rest), activation, alpha)
        store_first(row, full, d, rest)
