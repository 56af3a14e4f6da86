"""Train many models until SIGINT comes: KeyboardInterrupt, and models that can be used."""

import signal

import numpy as np

import fastdl
from fastdl.training import pool

pool.most_threads = lambda: 2
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's is ignored
rng = np.random.default_rng(0)
X, y = rng.standard_normal((640, 8), np.float32), rng.integers(0, 3, 640)
trainers = [fastdl.Trainer(fastdl.MLP([8, 16, 3], seed=s), batch_size=32, epochs=10**6) for s in range(4)]
said = []


def progress(state):
    if state.done > 0 and not said:
        said.append(1)
        print("begun", flush=True)


try:
    fastdl.fit_many(trainers, X, y, progress=progress)
except KeyboardInterrupt:
    print("interrupted", flush=True)
assert [len(t.history) > 0 for t in trainers] == [True, True, False, False]
assert all(np.isfinite(t.model.parameters).all() for t in trainers)
for t in trainers:
    t.epochs = 1
assert [r.error for r in fastdl.fit_many(trainers, X, y)] == [None] * 4
print("usable", flush=True)
