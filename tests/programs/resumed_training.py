"""Load a checkpoint, train on to the end, and keep parameters and history: resumed_training.py CHECKPOINT DATA OUT [EPOCHS]."""

from __future__ import annotations

import json
import sys

import numpy as np

import fastdl

checkpoint, data, out, *epochs = sys.argv[1:]
with np.load(data) as arrays:
    X, y = arrays["X"], arrays["y"]
trainer = fastdl.Trainer.from_checkpoint(checkpoint)
if epochs:
    trainer.epochs = int(epochs[0])
history = trainer.fit(X, y, validation_data=(X[:20], y[:20]))
np.savez(
    out, parameters=trainer.model.parameters, history=json.dumps([history.loss, history.val_loss, history.metrics])
)
print("fine")
