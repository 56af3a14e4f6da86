"""The public kernels of `fastdl_kernels`, called from Python."""

from __future__ import annotations

import os

import numba
import numpy as np

import fastdl_kernels as fk
from bench.peers.operations import serve_operations
from bench.problems import BETA1, BETA2, EPS, LR, STEP, Arrays


def linear_forward(a: Arrays):
    out = np.empty((a["x"].shape[0], a["weight"].shape[1]), np.float32)
    return lambda: fk.linear_forward(a["x"], a["weight"], a["bias"], fk.RELU, 0.0, out), lambda: {"out": out}


def linear_backward(a: Arrays):
    d_x, d_weight = np.empty_like(a["x"]), np.empty_like(a["weight"])
    d_bias = np.empty(d_weight.shape[1], np.float32)
    arguments = (a["x"], a["weight"], a["out"], a["d_out"], fk.RELU, 0.0, d_x, d_weight, d_bias)
    return lambda: fk.linear_backward(*arguments), lambda: {"d_x": d_x, "d_weight": d_weight, "d_bias": d_bias}


def softmax_cross_entropy(a: Arrays):
    d_logits = np.empty_like(a["logits"])
    loss = np.empty(())

    def call() -> None:
        loss[()] = fk.softmax_cross_entropy(a["logits"], a["labels"], d_logits)

    return call, lambda: {"loss": loss, "d_logits": d_logits}


def adam_step(a: Arrays):
    arguments = (a["params"], a["grads"], a["m"], a["v"], STEP, LR, BETA1, BETA2, EPS)
    return lambda: fk.adam_step(*arguments), lambda: a


OPERATIONS = {f.__name__: f for f in (linear_forward, linear_backward, softmax_cross_entropy, adam_step)}

if __name__ == "__main__":
    numba.set_num_threads(int(os.environ["NUMBA_NUM_THREADS"]))
    serve_operations(OPERATIONS)
