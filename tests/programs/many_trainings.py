"""Trainings from four threads, a ThreadPool, a forked child and another region give the bits that they give alone.

Prints the threading layer.
"""

from __future__ import annotations

import hashlib
import os
import threading
from multiprocessing.pool import ThreadPool

import numba
import numpy as np

import fastdl

rng = np.random.default_rng(0)
CASES = [([16, 24, 3], 60, 16), ([30, 70, 40, 3], 90, 45)]
DATA = [(rng.standard_normal((rows, layers[0]), np.float32), rng.integers(0, 3, rows)) for layers, rows, _ in CASES]


def train(number, n_threads):
    layers, _, batch = CASES[number % 2]
    model = fastdl.MLP(layers, seed=number % 5)
    options = {"dropout": 0.2, "clip_norm": 0.5} if number % 3 == 0 else {}
    X, y = DATA[number % 2]
    fastdl.Trainer(model, batch_size=batch, epochs=2, n_threads=n_threads, **options).fit(X, y, (X, y))
    return hashlib.sha256(model.parameters.tobytes()).hexdigest()


alone = [train(number, 1) for number in range(30)]  # 30 = 2 * 3 * 5 different trainings

results = {}


def work(first):
    for number in range(first, 200, 4):
        results[number] = train(number, 2 + number % 7)


threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
wrong = [number for number in range(200) if results[number] != alone[number % 30]]
assert not wrong, wrong

with ThreadPool(4) as pool:
    assert pool.map(lambda number: train(number, 4), range(30)) == alone

if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        good = False
        try:
            good = [train(number, 4) for number in range(6)] == alone[:6]
        finally:
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0, "in a forked child"


@numba.njit(parallel=True)
def nested(n):
    for i in numba.prange(n):
        with numba.objmode():
            call(i)


seen = []


def call(i):
    seen.append(train(i, 2) == alone[i])


if numba.threading_layer() != "workqueue":  # it ends a process that nests regions
    nested(2)
    assert seen == [True, True]
print(numba.threading_layer())
