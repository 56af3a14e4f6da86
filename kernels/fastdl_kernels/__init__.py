"""Kernels for training multi-layer perceptrons, compiled by Numba. See kernels/README.md for the catalogue.

Choose Numba's threading layer, if not by the environment, before this import: it starts Numba's threads.
"""

import numba

if numba.config.DISABLE_JIT:
    raise ImportError(
        "fastdl_kernels is compiled by Numba, and NUMBA_DISABLE_JIT=1 turns that off: unset it before the import "
        "(your own functions can be tried uncompiled by their attribute py_func)"
    )

from fastdl_kernels._jit import load_cached
from fastdl_kernels.activations import (
    ACTIVATIONS,
    ELU,
    GELU,
    IDENTITY,
    LEAKY_RELU,
    MISH,
    RELU,
    SELU,
    SIGMOID,
    SILU,
    SOFTPLUS,
    TANH,
)
from fastdl_kernels.linear import linear_backward, linear_forward, linear_forward_keep
from fastdl_kernels.losses import (
    absolute_error,
    huber_loss,
    log_softmax,
    poisson_loss,
    quantile_loss,
    sigmoid_cross_entropy,
    softmax,
    softmax_cross_entropy,
    squared_error,
)
from fastdl_kernels.optimizers import adam_step, adamw_step, momentum_step, nesterov_step, rmsprop_step, sgd_step
from fastdl_kernels.precision import BF16, BF16_EMULATED, FLOAT32
from fastdl_kernels.regions import start_threads

start_threads()
load_cached()

__all__ = [
    "ACTIVATIONS",
    "BF16",
    "BF16_EMULATED",
    "ELU",
    "FLOAT32",
    "GELU",
    "IDENTITY",
    "LEAKY_RELU",
    "MISH",
    "RELU",
    "SELU",
    "SIGMOID",
    "SILU",
    "SOFTPLUS",
    "TANH",
    "absolute_error",
    "adam_step",
    "adamw_step",
    "huber_loss",
    "linear_backward",
    "linear_forward",
    "linear_forward_keep",
    "log_softmax",
    "momentum_step",
    "nesterov_step",
    "poisson_loss",
    "quantile_loss",
    "rmsprop_step",
    "sgd_step",
    "sigmoid_cross_entropy",
    "softmax",
    "softmax_cross_entropy",
    "squared_error",
]
