"""The data, initial weights and row orders that all peers of a workload train with: the same numbers in every process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastdl_bench.cases import Workload

SEED = 0
LEARNING_RATE = 1e-3


def training_data(workload: Workload) -> tuple[NDArray[np.float32], NDArray]:
    """X float32 [rows, I]; y int64 [rows] for softmax, float32 [rows, O] for linear output."""
    if workload.source == "digits":
        x, y = _digits(workload)
        return np.ascontiguousarray(x[: workload.rows]), y[: workload.rows]
    rng = np.random.default_rng(SEED)
    n_in, n_out = workload.layers[0], workload.layers[-1]
    x = rng.standard_normal((workload.rows, n_in), np.float32)
    teacher = rng.standard_normal((n_in, n_out), np.float32) / np.float32(np.sqrt(n_in))
    scores = x @ teacher
    if workload.output == "softmax":
        y = (scores + rng.gumbel(size=scores.shape) / 2).argmax(axis=1)
        if np.unique(y).size < n_out:  # scikit-learn has as many outputs as there are classes in the data
            y[:n_out] = np.arange(n_out)
        return x, y
    return x, np.tanh(scores)


def validation_data(workload: Workload) -> tuple[NDArray[np.float32], NDArray]:
    """The rows of the digits that `training_data` holds out."""
    x, y = _digits(workload)
    first = len(x) - workload.held_out
    return np.ascontiguousarray(x[first:]), y[first:]


def _digits(workload: Workload) -> tuple[NDArray[np.float32], NDArray]:
    """All the digits with pixels from 0 to 1; mixed where rows are held out, because writers come one after another."""
    from fastdl.datasets import load_digits

    x, y = load_digits()
    order = np.random.default_rng(SEED).permutation(len(x)) if workload.held_out else slice(None)
    return x[order] / np.float32(16), y[order]


def initial_parameters(workload: Workload) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """(weight [I, O], bias [O]) of each layer: He for ReLU, Glorot otherwise, zero biases."""
    rng = np.random.default_rng(SEED + 1)
    result = []
    for n_in, n_out in zip(workload.layers[:-1], workload.layers[1:]):
        scale = 2 / n_in if workload.activation == "relu" else 2 / (n_in + n_out)
        weight = rng.standard_normal((n_in, n_out), np.float32) * np.float32(np.sqrt(scale))
        result.append((weight, np.zeros(n_out, np.float32)))
    return result


def epoch_order(epoch: int, rows: int) -> NDArray[np.int64]:
    """The order of the rows in an epoch, counted from 0: the one `fastdl.Trainer(seed=SEED)` draws.

    Peers draw it within their timed part, as fastdl does. NumPy's permutation is also the fastest at hand: on the
    processor `jax.random.permutation` sorts random keys.
    """
    return np.random.default_rng((SEED, epoch)).permutation(rows)
