"""The same in NumPy, with its BLAS, writing into arrays that exist."""

from __future__ import annotations

import numpy as np

from fastdl_bench.peers.operations import Operation, Timed, serve_operations
from fastdl_bench.problems import BETA1, BETA2, DECAY, DELTA, EPS, LR, STEP, Arrays


def linear_forward(a: Arrays) -> Timed:
    x, weight, bias = a["x"], a["weight"], a["bias"]
    out = np.empty((x.shape[0], weight.shape[1]), np.float32)

    def call() -> None:
        np.matmul(x, weight, out=out)
        np.add(out, bias, out=out)
        np.maximum(out, 0, out=out)

    return call, lambda: {"out": out}


def linear_forward_keep(a: Arrays) -> Timed:
    x, weight, bias = a["x"], a["weight"], a["bias"]
    z = np.empty((x.shape[0], weight.shape[1]), np.float32)
    out = np.empty_like(z)

    def call() -> None:
        np.matmul(x, weight, out=z)
        np.add(z, bias, out=z)
        np.negative(z, out=out)
        np.exp(out, out=out)
        np.add(out, 1, out=out)
        np.divide(z, out, out=out)

    return call, lambda: {"z": z, "out": out}


def linear_backward(a: Arrays) -> Timed:
    x, weight, out, d_out = a["x"], a["weight"], a["out"], a["d_out"]
    d_z, d_x, d_weight = np.empty_like(d_out), np.empty_like(x), np.empty_like(weight)
    d_bias = np.empty(weight.shape[1], np.float32)

    def call() -> None:
        np.multiply(d_out, out > 0, out=d_z)
        np.matmul(d_z, weight.T, out=d_x)
        np.matmul(x.T, d_z, out=d_weight)
        d_z.sum(axis=0, out=d_bias)

    return call, lambda: {"d_x": d_x, "d_weight": d_weight, "d_bias": d_bias}


def softmax(a: Arrays) -> Timed:
    logits = a["logits"]
    out = np.empty_like(logits)

    def call() -> None:
        np.subtract(logits, logits.max(axis=1, keepdims=True), out=out)
        np.exp(out, out=out)
        np.divide(out, out.sum(axis=1, keepdims=True), out=out)

    return call, lambda: {"out": out}


def log_softmax(a: Arrays) -> Timed:
    logits = a["logits"]
    out, scratch = np.empty_like(logits), np.empty_like(logits)

    def call() -> None:
        np.subtract(logits, logits.max(axis=1, keepdims=True), out=out)
        np.exp(out, out=scratch)
        np.subtract(out, np.log(scratch.sum(axis=1, keepdims=True)), out=out)

    return call, lambda: {"out": out}


def sigmoid_cross_entropy(a: Arrays) -> Timed:
    z, t = a["logits"], a["targets"]
    d_logits, scratch, e = np.empty_like(z), np.empty_like(z), np.empty_like(z)
    loss = np.empty(())

    def call() -> None:
        # With e = exp(-|z|): softplus(z) = max(z, 0) + log1p(e), and sigmoid(z) = 1 / (1 + e) or e / (1 + e).
        np.abs(z, out=e)
        np.negative(e, out=e)
        np.exp(e, out=e)
        np.log1p(e, out=scratch)
        total = scratch.sum(dtype=np.float64)
        np.maximum(z, 0, out=scratch)
        total += scratch.sum(dtype=np.float64) - np.vdot(t, z)
        loss[()] = total / len(z)
        np.copyto(d_logits, e)
        np.copyto(d_logits, 1, where=z >= 0)
        np.add(e, 1, out=e)
        np.divide(d_logits, e, out=d_logits)
        np.subtract(d_logits, t, out=d_logits)
        np.multiply(d_logits, np.float32(1 / len(z)), out=d_logits)

    return call, lambda: {"loss": loss, "d_logits": d_logits}


def squared_error(a: Arrays) -> Timed:
    p, t = a["predictions"], a["targets"]
    d_predictions, loss = np.empty_like(p), np.empty(())

    def call() -> None:
        np.subtract(p, t, out=d_predictions)
        loss[()] = np.vdot(d_predictions, d_predictions) / p.size
        np.multiply(d_predictions, np.float32(2 / p.size), out=d_predictions)

    return call, lambda: {"loss": loss, "d_predictions": d_predictions}


def absolute_error(a: Arrays) -> Timed:
    p, t = a["predictions"], a["targets"]
    e, d_predictions, loss = np.empty_like(p), np.empty_like(p), np.empty(())

    def call() -> None:
        np.subtract(p, t, out=e)
        np.sign(e, out=d_predictions)
        loss[()] = np.vdot(e, d_predictions) / p.size
        np.multiply(d_predictions, np.float32(1 / p.size), out=d_predictions)

    return call, lambda: {"loss": loss, "d_predictions": d_predictions}


def huber_loss(a: Arrays) -> Timed:
    p, t = a["predictions"], a["targets"]
    e, d_predictions, loss = np.empty_like(p), np.empty_like(p), np.empty(())

    def call() -> None:
        np.subtract(p, t, out=e)
        np.clip(e, -DELTA, DELTA, out=d_predictions)
        # With c the limited error: c (e - c / 2) is e^2 / 2 within the limits, and delta (|e| - delta / 2) beyond them.
        loss[()] = (np.vdot(d_predictions, e) - np.vdot(d_predictions, d_predictions) / 2) / p.size
        np.multiply(d_predictions, np.float32(1 / p.size), out=d_predictions)

    return call, lambda: {"loss": loss, "d_predictions": d_predictions}


def quantile_loss(a: Arrays) -> Timed:
    p, t, q = a["predictions"], a["targets"], a["q"]
    e, d_predictions, loss = np.empty_like(p), np.empty_like(p), np.empty(())

    def call() -> None:
        np.subtract(p, t, out=e)
        np.heaviside(e, q, out=d_predictions)  # at 0 the gradient is 0
        np.subtract(d_predictions, q, out=d_predictions)
        loss[()] = np.vdot(e, d_predictions) / p.size
        np.multiply(d_predictions, np.float32(1 / p.size), out=d_predictions)

    return call, lambda: {"loss": loss, "d_predictions": d_predictions}


def poisson_loss(a: Arrays) -> Timed:
    z, t = a["log_rates"], a["targets"]
    d_log_rates, scratch, loss = np.empty_like(z), np.empty_like(z), np.empty(())

    def call() -> None:
        np.exp(z, out=d_log_rates)
        np.maximum(t, 1, out=scratch)  # t log t is 0 where t is 0
        np.log(scratch, out=scratch)
        np.subtract(scratch, z, out=scratch)
        total = np.vdot(t, scratch) + d_log_rates.sum(dtype=np.float64) - t.sum(dtype=np.float64)
        loss[()] = total / z.size
        np.subtract(d_log_rates, t, out=d_log_rates)
        np.multiply(d_log_rates, np.float32(1 / z.size), out=d_log_rates)

    return call, lambda: {"loss": loss, "d_log_rates": d_log_rates}


def softmax_cross_entropy(a: Arrays) -> Timed:
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


def sgd_step(a: Arrays) -> Timed:
    params, grads = a["params"], a["grads"]
    scratch = np.empty_like(params)

    def call() -> None:
        np.multiply(grads, LR, out=scratch)
        np.subtract(params, scratch, out=params)

    return call, lambda: a


def _momentum(nesterov: bool) -> Operation:
    def operation(a: Arrays) -> Timed:
        params, grads, velocity = a["params"], a["grads"], a["velocity"]
        scratch, update = np.empty_like(params), np.empty_like(params)

        def call() -> None:
            np.multiply(velocity, BETA1, out=velocity)
            np.multiply(grads, 1 - BETA1, out=scratch)
            np.add(velocity, scratch, out=velocity)
            if nesterov:
                np.multiply(velocity, BETA1, out=update)
                np.add(update, scratch, out=update)
                np.multiply(update, LR, out=update)
            else:
                np.multiply(velocity, LR, out=update)
            np.subtract(params, update, out=params)

        return call, lambda: a

    return operation


def rmsprop_step(a: Arrays) -> Timed:
    params, grads, mean_square = a["params"], a["grads"], a["mean_square"]
    scratch, step = np.empty_like(params), np.empty_like(params)

    def call() -> None:
        np.multiply(mean_square, BETA1, out=mean_square)
        np.multiply(grads, grads, out=scratch)
        np.multiply(scratch, 1 - BETA1, out=scratch)
        np.add(mean_square, scratch, out=mean_square)
        np.add(mean_square, EPS, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.multiply(grads, LR, out=step)
        np.divide(step, scratch, out=step)
        np.subtract(params, step, out=params)

    return call, lambda: a


def _adam(decay: float = 0.0) -> Operation:
    def operation(a: Arrays) -> Timed:
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
            if decay:
                np.multiply(params, 1 - LR * decay, out=params)
            np.subtract(params, step, out=params)

        return call, lambda: a

    return operation


OPERATIONS: dict[str, Operation] = {
    "linear_forward": linear_forward,
    "linear_backward": linear_backward,
    "linear_forward_keep": linear_forward_keep,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "softmax_cross_entropy": softmax_cross_entropy,
    "sigmoid_cross_entropy": sigmoid_cross_entropy,
    "squared_error": squared_error,
    "absolute_error": absolute_error,
    "huber_loss": huber_loss,
    "quantile_loss": quantile_loss,
    "poisson_loss": poisson_loss,
    "sgd_step": sgd_step,
    "momentum_step": _momentum(nesterov=False),
    "nesterov_step": _momentum(nesterov=True),
    "rmsprop_step": rmsprop_step,
    "adam_step": _adam(),
    "adamw_step": _adam(DECAY),
}

if __name__ == "__main__":
    serve_operations(OPERATIONS)
