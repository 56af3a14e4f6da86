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
from fastdl_kernels.simd import broadcast, lanes_of, like, load_up_to, select, sigmoid, store_up_to, tanh

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
def saturate_tile(out, stride, rows, columns, activation):
    """out[r * stride : r * stride + columns] = act(...) in place for each row, for SIGMOID and TANH; out is a pointer."""
    noinline()
    lanes = lanes_of(out)
    for r in range(rows):
        for i in range(r * stride, r * stride + columns, lanes):
            n = r * stride + columns - i
            v = load_up_to(out, i, n)
            store_up_to(out, i, sigmoid(v) if activation == SIGMOID else tanh(v), n)
