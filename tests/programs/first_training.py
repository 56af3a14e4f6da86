"""Train once; print what was compiled here and in the helper, and a digest of the parameters."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numba.core import types

import fastdl
from fastdl.engine import compile as prepare
from fastdl.engine import step
from fastdl_kernels.serial import LOSS_BODIES, LOSSES

x = np.linspace(-1, 1, 60, dtype=np.float32).reshape(20, 3)
model = fastdl.MLP([3, 5, 2])
fastdl.Trainer(model, batch_size=6, epochs=2).fit(x, np.arange(20) % 2)
print(
    json.dumps(
        {
            "mine": [unit.ensure(types.float32) for unit in prepare.MINE],
            "helpers": [
                unit.ensure(types.float32)
                for unit in [*prepare.HELPERS, LOSS_BODIES[LOSSES["softmax_cross_entropy"]].linked]
            ],
            "entry": step.train_batches.ensure(types.float32),
            "bits": hashlib.sha256(model.parameters.tobytes()).hexdigest(),
        }
    )
)
