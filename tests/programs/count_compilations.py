"""Trainings of all kinds after a first one: what is compiled, and which functions get another version."""

from __future__ import annotations

import collections
import gc
import itertools
import json

import numpy as np
from numba.core import event
from numba.core.dispatcher import Dispatcher
from problems import make_data

import fastdl
from fastdl.losses import OUTPUTS
from fastdl.optimizers import OPTIMIZERS
from fastdl_kernels import ACTIVATIONS


def overloads():
    counts = collections.Counter()
    for d in gc.get_objects():
        if isinstance(d, Dispatcher):
            counts[d.py_func.__module__ + "." + d.py_func.__qualname__] += len(d.overloads)
    return counts


def train(layers, activation, output, optimizer, weighted, l2):
    model = fastdl.MLP(layers, activation, output)
    X, y = make_data(np.random.default_rng(0), 20, layers, output)
    X = X.astype("float32")
    if weighted:  # arrays of another kind than the first ones
        X = np.frombuffer(b"0" + X.tobytes(), np.uint8)[1:].view("float32").reshape(X.shape)  # read-only, misaligned
        y.flags.writeable = False
    trainer = fastdl.Trainer(model, OPTIMIZERS[optimizer](), batch_size=8, epochs=2, l2=l2)
    trainer.fit(X, y, (X, y), sample_weight=np.ones(20) if weighted else None)
    model.loss_and_gradient(X, y)


# Each activation and loss is compiled when it is first used, and never again.
for activation in ACTIVATIONS:
    train([4, 5, 3], activation, "softmax", "adam", False, 0.0)
for output in OUTPUTS:
    train([4, 5, 3], "relu", output, "adam", False, 0.0)
before = overloads()
with event.install_recorder("numba:compile") as recorder:
    for i, (activation, output, optimizer) in enumerate(itertools.product(ACTIVATIONS, OUTPUTS, OPTIMIZERS)):
        train([[4, 3], [6, 5, 2], [3, 9, 8, 2]][i % 3], activation, output, optimizer, i % 2 == 0, i % 4 * 0.1)
grown = {name: n for name, n in overloads().items() if n > before[name]}
print(json.dumps({"compiled": len(recorder.buffer), "grown": grown}))
