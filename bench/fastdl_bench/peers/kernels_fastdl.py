"""The public kernels of `fastdl_kernels`, called from Python."""

from __future__ import annotations

import os
from collections.abc import Callable

import numba
import numpy as np

import fastdl_kernels as fk
from fastdl_bench.peers.operations import Operation, Timed, serve_operations
from fastdl_bench.problems import BETA1, BETA2, DECAY, DELTA, EPS, LR, STATE, STEP, Arrays


def linear_forward(a: Arrays) -> Timed:
    out = np.empty((a["x"].shape[0], a["weight"].shape[1]), np.float32)
    return lambda: fk.linear_forward(a["x"], a["weight"], a["bias"], fk.RELU, 0.0, out), lambda: {"out": out}


def linear_backward(a: Arrays) -> Timed:
    d_x, d_weight = np.empty_like(a["x"]), np.empty_like(a["weight"])
    d_bias = np.empty(d_weight.shape[1], np.float32)
    arguments = (a["x"], a["weight"], a["out"], a["d_out"], fk.RELU, 0.0, d_x, d_weight, d_bias)
    return lambda: fk.linear_backward(*arguments), lambda: {"d_x": d_x, "d_weight": d_weight, "d_bias": d_bias}


def linear_forward_keep(a: Arrays) -> Timed:
    """With SiLU, one of those that need z."""
    out = np.empty((a["x"].shape[0], a["weight"].shape[1]), np.float32)
    z = np.empty_like(out)
    arguments = (a["x"], a["weight"], a["bias"], fk.SILU, 0.0, z, out)
    return lambda: fk.linear_forward_keep(*arguments), lambda: {"z": z, "out": out}


def _rows(kernel: Callable[..., None]) -> Operation:
    """softmax and log_softmax: one array in, one out."""

    def operation(a: Arrays) -> Timed:
        out = np.empty_like(a["logits"])
        return lambda: kernel(a["logits"], out), lambda: {"out": out}

    return operation


def _loss(name: str, outputs: str, targets: str, *numbers: float) -> Operation:
    """A loss of `outputs` and `targets`, and its gradient. Looked up when it is set up: an older version may not have it."""

    def operation(a: Arrays) -> Timed:
        kernel = getattr(fk, name)
        gradient, loss = np.empty_like(a[outputs]), np.empty(())
        more = (a["q"],) if "q" in a else numbers
        arguments = (a[outputs], a[targets], *more, gradient)

        def call() -> None:
            loss[()] = kernel(*arguments)

        return call, lambda: {"loss": loss, f"d_{outputs}": gradient}

    return operation


def _step(kernel: Callable[..., None], op: str, *numbers: float) -> Operation:
    """A step of an optimizer; Adam's count of steps stands before its other numbers."""

    def operation(a: Arrays) -> Timed:
        arguments = (a["params"], a["grads"], *(a[name] for name in STATE[op]), *numbers)
        return lambda: kernel(*arguments), lambda: a

    return operation


OPERATIONS: dict[str, Operation] = {
    "linear_forward": linear_forward,
    "linear_backward": linear_backward,
    "linear_forward_keep": linear_forward_keep,
    "softmax": _rows(fk.softmax),
    "log_softmax": _rows(fk.log_softmax),
    "softmax_cross_entropy": _loss("softmax_cross_entropy", "logits", "labels"),
    "sigmoid_cross_entropy": _loss("sigmoid_cross_entropy", "logits", "targets"),
    "squared_error": _loss("squared_error", "predictions", "targets"),
    "absolute_error": _loss("absolute_error", "predictions", "targets"),
    "huber_loss": _loss("huber_loss", "predictions", "targets", DELTA),
    "quantile_loss": _loss("quantile_loss", "predictions", "targets"),
    "poisson_loss": _loss("poisson_loss", "log_rates", "targets"),
    "sgd_step": _step(fk.sgd_step, "sgd_step", LR),
    "momentum_step": _step(fk.momentum_step, "momentum_step", LR, BETA1),
    "nesterov_step": _step(fk.nesterov_step, "nesterov_step", LR, BETA1),
    "rmsprop_step": _step(fk.rmsprop_step, "rmsprop_step", LR, BETA1, EPS),
    "adam_step": _step(fk.adam_step, "adam_step", STEP, LR, BETA1, BETA2, EPS),
    "adamw_step": _step(fk.adamw_step, "adamw_step", STEP, LR, BETA1, BETA2, EPS, DECAY),
}


def prepare() -> None:
    """As many threads as the process was given."""
    numba.set_num_threads(int(os.environ["NUMBA_NUM_THREADS"]))


if __name__ == "__main__":
    prepare()
    serve_operations(OPERATIONS)
