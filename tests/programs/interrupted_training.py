"""Train until a signal's handler raises: that exception comes out of `fit`, and the model can be used.

Usage: interrupted_training.py CASE, a JSON object: layers, rows, batch, again (train on after it), and where wanted clip,
validation (times the rows), alarm (seconds until SIGALRM, whose handler raises TimeoutError; else somebody sends SIGINT).
"""

from __future__ import annotations

import json
import signal
import sys
import time

import numpy as np

import fastdl

case = {"clip": None, "validation": 0, "alarm": None, **json.loads(sys.argv[1])}
raised_at = []


class Shout(fastdl.Callback):
    def on_train_begin(self, epochs, rows):
        print("begun", flush=True)
        if case["alarm"] is not None:
            signal.setitimer(signal.ITIMER_REAL, case["alarm"])


class Quiet(fastdl.Callback):
    pass


def on_alarm(number, frame):
    raised_at.append(time.perf_counter())
    raise TimeoutError("the caller's own")


signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's is ignored
signal.signal(signal.SIGALRM, on_alarm)
layers, rows, validation = case["layers"], case["rows"], case["validation"]
rng = np.random.default_rng(0)
X, y = rng.standard_normal((rows, layers[0]), np.float32), rng.integers(0, layers[-1], rows)
model = fastdl.MLP(layers)
small = np.ones((4, 4)), [0, 1, 0, 1]
fastdl.Trainer(fastdl.MLP([4, 3, 2]), epochs=1, batch_size=2).fit(*small, validation_data=small)  # compiles
trainer = fastdl.Trainer(model, batch_size=case["batch"], epochs=10**6, callbacks=[Shout()], clip_norm=case["clip"])
try:
    trainer.fit(X, y, validation_data=(np.repeat(X, validation, 0), np.repeat(y, validation)) if validation else None)
except KeyboardInterrupt:
    print("interrupted", flush=True)
except TimeoutError as error:
    print("interrupted" if str(error) == "the caller's own" else error, flush=True)
    print(f"{time.perf_counter() - raised_at[0]:.3f} s after the handler", file=sys.stderr)
assert np.isfinite(model.parameters).all()
assert model.predict(X[:3]).shape == (3,)
trainer.epochs, trainer.callbacks = 1, [Quiet()]
if case["again"]:
    assert len(trainer.fit(X, y)) == 1
    assert np.isfinite(model.parameters).all()
print("usable", flush=True)
