"""The same in NumPy, with its BLAS, writing into arrays that exist."""

from __future__ import annotations

import numpy as np

from bench.peers.operations import serve_operations
from bench.problems import BETA1, BETA2, EPS, LR, STEP, Arrays


def linear_forward(a: Arrays):
    x, weight, bias = a["x"], a["weight"], a["bias"]
    out = np.empty((x.shape[0], weight.shape[1]), np.float32)

    def call() -> None:
        np.matmul(x, weight, out=out)
        np.add(out, bias, out=out)
        np.maximum(out, 0, out=out)

    return call, lambda: {"out": out}


def linear_backward(a: Arrays):
    x, weight, out, d_out = a["x"], a["weight"], a["out"], a["d_out"]
    d_z, d_x, d_weight = np.empty_like(d_out), np.empty_like(x), np.empty_like(weight)
    d_bias = np.empty(weight.shape[1], np.float32)

    def call() -> None:
        np.multiply(d_out, out > 0, out=d_z)
        np.matmul(d_z, weight.T, out=d_x)
        np.matmul(x.T, d_z, out=d_weight)
        d_z.sum(axis=0, out=d_bias)

    return call, lambda: {"d_x": d_x, "d_weight": d_weight, "d_bias": d_bias}


def softmax_cross_entropy(a: Arrays):
    logits, labels = a["logits"], a["labels"]
    rows = np.arange(len(labels))
    d_logits = np.empty_like(logits)
    loss = np.empty(())

    def call() -> None:
        np.subtract(logits, logits.max(axis=1, keepdims=True), out=d_logits)
        right = d_logits[rows, labels]
        np.exp(d_logits, out=d_logits)
        total = d_logits.sum(axis=1, keepdims=True)
        loss[()] = (np.log(total[:, 0]) - right).mean()
        np.divide(d_logits, total * len(rows), out=d_logits)
        d_logits[rows, labels] -= 1 / len(rows)

    return call, lambda: {"loss": loss, "d_logits": d_logits}


def adam_step(a: Arrays):
    params, grads, m, v = a["params"], a["grads"], a["m"], a["v"]
    scratch, step = np.empty_like(params), np.empty_like(params)

    def call() -> None:
        np.multiply(m, BETA1, out=m)
        np.multiply(grads, 1 - BETA1, out=scratch)
        np.add(m, scratch, out=m)
        np.multiply(v, BETA2, out=v)
        np.multiply(grads, grads, out=scratch)
        np.multiply(scratch, 1 - BETA2, out=scratch)
        np.add(v, scratch, out=v)
        np.multiply(v, 1 / (1 - BETA2**STEP), out=scratch)
        np.sqrt(scratch, out=scratch)
        np.add(scratch, EPS, out=scratch)
        np.multiply(m, LR / (1 - BETA1**STEP), out=step)
        np.divide(step, scratch, out=step)
        np.subtract(params, step, out=params)

    return call, lambda: a


OPERATIONS = {f.__name__: f for f in (linear_forward, linear_backward, softmax_cross_entropy, adam_step)}

if __name__ == "__main__":
    serve_operations(OPERATIONS)
