"""Trainings and predictions whose arrays lie against unmapped pages: whoever reads or writes one number too far crashes.

Usage: guard_engine.py FIRST COUNT runs the cases with these numbers; the number of the last one begun is the last line
printed. Each runs on ordinary memory, with every array against a page at its end, and at its start, with the same bits.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import sys

import numpy as np

import fastdl
from fastdl.activations import resolve
from fastdl.engine import Engine, Session, Settings, engine, loss, plan, predictor, session, workspace
from fastdl.network import aligned_zeros
from fastdl.optimizers import OPTIMIZERS

PAGE = mmap.PAGESIZE
ACTIVATIONS = ["relu", "sigmoid", "tanh", "identity", fastdl.LeakyReLU(0.2)]
_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Memory:
    """Stands in for NumPy in a module: its new arrays lie against an unmapped page, at their end or at their start."""

    def __init__(self, at_end):
        self.at_end = at_end

    def __getattr__(self, name):
        return getattr(np, name)

    def zeros(self, shape, dtype=np.float64):
        dtype, shape = np.dtype(dtype), (shape,) if np.isscalar(shape) else tuple(shape)
        size = int(np.prod(shape)) * dtype.itemsize
        pages = -(-size // PAGE) * PAGE
        memory = mmap.mmap(-1, pages + 2 * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for page in (address, address + PAGE + pages):
            assert _mprotect(page, PAGE, 0) == 0, ctypes.get_errno()
        start = PAGE + (pages - size if self.at_end else 0)
        return np.frombuffer(memory, np.uint8)[start : start + size].view(dtype).reshape(shape)

    def empty(self, shape, dtype=np.float64):
        result = self.zeros(shape, dtype)
        result.view(np.uint8).fill(0xFF)  # NaN: what is read before it is written shows
        return result

    def array(self, values, dtype=None):
        values = np.asarray(values, dtype)
        result = self.zeros(values.shape, values.dtype)
        result[...] = values
        return result

    def arange(self, n):
        return self.array(np.arange(n))


class Ordinary(Memory):
    """The same on memory as NumPy gives it."""

    def zeros(self, shape, dtype=np.float64):
        return np.zeros(shape, dtype)


def use(memory):
    """Have the engine's arrays made there."""
    for module in (engine, loss, plan, predictor, session, workspace):
        module.np = memory
    guarded = aligned_zeros if isinstance(memory, Ordinary) else memory.zeros
    for module in (session, workspace):
        module.aligned_zeros = guarded
    loss.NO_LABELS = session.NO_LABELS = memory.zeros(0, np.int64)
    predictor.NO_CLASSES = memory.zeros(0, np.int64)


def random_case(rng):
    """(model, data, settings, order): sizes around those of vectors and tiles, and some that are large."""
    sizes = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 48, 64, 65, 97, 128, 200, 256]
    layers = [int(n) for n in rng.choice(sizes, int(rng.integers(2, 6)))]
    output = str(rng.choice(["linear", "sigmoid", "softmax"]))
    layers[-1] = max(2, layers[-1]) if output == "softmax" else layers[-1]
    dtype = str(rng.choice(["float32", "float64"]))
    hidden = len(layers) - 2
    chosen = rng.integers(0, len(ACTIVATIONS), hidden)
    units = [resolve(ACTIVATIONS[k], 1)[0] for k in chosen]
    units = [unit.made_parametric() if k % 3 == 0 else unit for k, unit in zip(chosen, units, strict=True)]
    model = fastdl.MLP(layers, units, output, int(rng.integers(1000)), dtype)
    rows = int(rng.choice([1, 2, 5, 6, 7, 12, 13, 30, 77, 100, 193, 400]))
    batch_size = int(rng.choice([1, 3, 6, 8, 24, 25, 64, 100, 400, rows, rows + 3]))
    if rng.random() < 0.08:  # partial gradients of many blocks of rows
        rows, batch_size = 1700, int(rng.choice([800, 1600, 1700]))
    batch_size = max(batch_size, rows // 40)  # not too many steps
    X = rng.normal(size=(rows, layers[0])).astype(dtype)
    y = rng.integers(0, layers[-1], rows) if output == "softmax" else rng.random((rows, layers[-1])).astype(dtype)
    weight = rng.random(rows).astype(dtype) if rng.random() < 0.3 else None
    optimizer = None
    if rng.random() < 0.9:
        optimizer = OPTIMIZERS[str(rng.choice(list(OPTIMIZERS)))](lr=0.01)
    dropout = tuple(rng.choice([0.0, 0.1, 0.6], hidden)) if hidden and rng.random() < 0.3 else ()
    settings = Settings(
        batch_size,
        optimizer,
        l2=0.01 if rng.random() < 0.4 else 0.0,
        clip_norm=float(rng.choice([0.01, 10.0])) if rng.random() < 0.3 else 0.0,
        dropout=dropout,
        n_threads=int(rng.integers(1, 4)),
        clocked=bool(rng.random() < 0.1),
    )
    order = np.arange(rows) if batch_size >= rows else rng.permutation(rows)
    if rng.random() < 0.2:  # an epoch over some of the rows
        order = order[: int(rng.integers(1, rows + 1))]
    if rng.random() < 0.3:  # an input stage
        columns = rng.permutation(layers[0])[: int(rng.integers(1, layers[0] + 1))].tolist()
        size, frequencies = int(rng.integers(2, 9)), int(rng.choice([1, 7, 16, 33]))
        kinds = [fastdl.PBLD, fastdl.Periodic, lambda size, n, columns: fastdl.PiecewiseLinear(size, n, columns)]
        kind = kinds[int(rng.integers(3))]
        embedding = kind(size, frequencies, columns=columns) if rng.random() < 0.7 else None
        codes = (
            {} if embedding is None else {c: int(rng.choice([1, 5, 70])) for c in range(layers[0]) if c not in columns}
        )
        categories = (
            fastdl.CategoryEmbedding(codes, int(rng.choice([1, 8, 19]))) if codes and rng.random() < 0.7 else None
        )
        for column in codes:
            X[:, column] = rng.integers(-1, 80, rows)
        scales = embedding is None or bool(rng.random() < 0.6)
        model = fastdl.MLP(
            layers, units, output, dtype=dtype, embedding=embedding, scale_inputs=scales, categories=categories
        )
    return model, (X, y, weight), settings, order


def results(case, memory):
    """All numbers that come out of a training, predictions and losses with arrays there."""
    model, data, settings, order = case
    use(memory)
    x, y, weight = (None if a is None else memory.array(a) for a in data)
    parameters, order = memory.array(model.parameters), memory.array(order)
    rates = memory.zeros(-(-len(order) // settings.batch_size))
    rates += 0.01
    training = Session(model.architecture, parameters, settings)
    losses = [training.epoch(x, y, weight, order, rates)[0] for _ in range(2)]
    whole = settings.optimizer is None or settings.clip_norm > 0  # else it is a slot for each thread
    runner = Engine(model.architecture, parameters)
    raw = runner.forward(x, settings.n_threads)
    losses.append(runner.mean_loss(memory.array(raw), y))
    loss_, gradient = runner.loss_and_gradient(x, y, weight, 0.1, settings.n_threads)
    arrays = [parameters, *training.states, raw, runner.classes(x), gradient, np.array([*losses, loss_])]
    return [array.copy() for array in [*arrays, training.gradient[: parameters.size if whole else 0]]]


def main(first, count):
    faulthandler.enable()
    for dtype in (
        "float32",
        "float64",
    ):  # compiled before the modules' NumPy is replaced, which compiled code refers to
        model = fastdl.MLP([2, 2], dtype=dtype)
        Session(model.architecture, model.parameters, Settings(1)).prepare()
        Engine(model.architecture, model.parameters).prepare()
    for number in range(first, first + count):
        print(number, flush=True)
        case = random_case(np.random.default_rng(number))
        want = results(case, Ordinary(True))
        for at_end in (True, False):
            for got, wanted in zip(results(case, Memory(at_end)), want, strict=True):
                np.testing.assert_array_equal(got.view(np.uint8), wanted.view(np.uint8))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
