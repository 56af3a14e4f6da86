"""Valid calls of every public kernel, made from its rules: what the tests of arguments, threads and layers start from."""

from __future__ import annotations

import numpy as np

import fastdl_kernels as fk

KERNELS = {name: getattr(fk, name) for name in fk.__all__ if callable(getattr(fk, name))}
SIZES = {"B": 5, "I": 7, "O": 3, "N": 4, "P": 33}
NUMBERS = {"activation": fk.RELU, "alpha": 0.25, "step": 2, "lr": 0.125, "beta": 0.5, "beta1": 0.5, "beta2": 0.75,
           "eps": 1e-3, "weight_decay": 0.5, "smoothing": 0.25, "delta": 0.375, "arithmetic": fk.FLOAT32}  # fmt: skip


def shape_of(kernel, name, sizes=SIZES):
    return tuple(sizes[dim] for dim in kernel.rules.shapes[name])


def arguments(kernel, dtype="float64", sizes=SIZES, seed=3):
    """name -> value; arrays of positive numbers, labels from 0 to N - 1."""
    rng = np.random.default_rng(seed)
    result = {}
    for name in kernel.rules.names:
        if name not in kernel.rules.shapes:
            result[name] = NUMBERS[name]
        elif name in kernel.rules.labels:
            result[name] = rng.integers(0, sizes["N"], shape_of(kernel, name, sizes))
        else:
            result[name] = rng.uniform(0.1, 0.9, shape_of(kernel, name, sizes)).astype(dtype)
    return result


def contents(given):
    """The bytes of every array: what must not change where a call is refused."""
    return {name: value.tobytes() for name, value in given.items() if isinstance(value, np.ndarray)}
