"""Train until somebody interrupts, and go on with the model.

Usage: interrupted_training.py JSON, an object of layers, rows, batch, again, and perhaps clip and validation.
"""

from __future__ import annotations

import json
import signal
import sys

import numpy as np

import fastdl

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's is ignored


class Shout(fastdl.Callback):
    def on_train_begin(self, epochs, rows):
        print("begun", flush=True)


class Quiet(fastdl.Callback):
    pass


case = {"validation": 0, "clip": None, **json.loads(sys.argv[1])}
layers, rows, batch, validation = (case[name] for name in ("layers", "rows", "batch", "validation"))
rng = np.random.default_rng(0)
X, y = rng.standard_normal((rows, layers[0]), np.float32), rng.integers(0, layers[-1], rows)
model = fastdl.MLP(layers)
small = np.ones((4, 4)), [0, 1, 0, 1]
fastdl.Trainer(fastdl.MLP([4, 3, 2]), epochs=1, batch_size=2).fit(*small, validation_data=small)  # compiles
trainer = fastdl.Trainer(model, batch_size=batch, epochs=10**6, callbacks=[Shout()], clip_norm=case["clip"])
try:
    trainer.fit(X, y, validation_data=(np.repeat(X, validation, 0), np.repeat(y, validation)) if validation else None)
except KeyboardInterrupt:
    print("interrupted", flush=True)
assert np.isfinite(model.parameters).all()
assert model.predict(X[:3]).shape == (3,)
trainer.epochs, trainer.callbacks = 1, [Quiet()]
if case["again"]:
    assert len(trainer.fit(X, y)) == 1
    assert np.isfinite(model.parameters).all()
print("usable", flush=True)
