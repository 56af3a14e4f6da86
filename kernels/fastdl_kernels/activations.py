"""Activations: codes, names, values and derivatives from the output.

| code       | name         | a = act(z)               | d_z / d_a, from a            |
|------------|--------------|--------------------------|------------------------------|
| IDENTITY   | identity     | z                        | 1                            |
| RELU       | relu         | max(0, z)                | 1 if a > 0 else 0            |
| LEAKY_RELU | leaky_relu   | max(alpha z, z)          | 1 if a > 0 else alpha        |
| SIGMOID    | sigmoid      | 1 / (1 + exp(-z))        | a (1 - a)                    |
| TANH       | tanh         | tanh(z)                  | (1 - a)(1 + a)               |
"""

from __future__ import annotations

import math

from fastdl_kernels._jit import jit

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
def activate(z, activation, alpha):
    """act(z) of one number. Never overflows: the exponential is taken of -|z| only."""
    if activation == RELU:
        return z if z > 0 or z != z else z * 0
    if activation == LEAKY_RELU:
        return z if z > 0 else alpha * z
    if activation == SIGMOID:
        e = math.exp(-abs(z))
        return (1 if z >= 0 else e) / (1 + e)
    if activation == TANH:
        return math.tanh(z)
    return z


@jit
def derivative(a, activation, alpha):
    """d act(z) / dz, written in the output a = act(z)."""
    if activation == RELU:
        return a * 0 + (1 if a > 0 else 0)
    if activation == LEAKY_RELU:
        return a * 0 + (1 if a > 0 else alpha)
    if activation == SIGMOID:
        return a * (1 - a)
    if activation == TANH:
        return (1 - a) * (1 + a)
    return a * 0 + 1
