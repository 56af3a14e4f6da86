"""Kernels for training multi-layer perceptrons, compiled by Numba. See kernels/README.md for the catalogue.

Choose Numba's threading layer, if not by the environment, before this import: it starts Numba's threads.
"""

import contextlib

import numba

from fastdl_kernels import regions
from fastdl_kernels.activations import ACTIVATIONS, IDENTITY, LEAKY_RELU, RELU, SIGMOID, TANH
from fastdl_kernels.linear import linear_backward, linear_forward
from fastdl_kernels.losses import log_softmax, sigmoid_cross_entropy, softmax, softmax_cross_entropy, squared_error
from fastdl_kernels.matmul import linked_product
from fastdl_kernels.optimizers import adam_step, adamw_step, momentum_step, nesterov_step, rmsprop_step, sgd_step

# A user's cached function that calls a cached parallel kernel crashes in a process where nothing has started Numba's
# threads before (numba #8578, #4807). It takes 10 ms; where no threading layer can be loaded, the first region says so.
with contextlib.suppress(ValueError):
    numba.get_num_threads()
regions.look()
linked_product.load_cached()

__all__ = [
    "ACTIVATIONS",
    "IDENTITY",
    "LEAKY_RELU",
    "RELU",
    "SIGMOID",
    "TANH",
    "adam_step",
    "adamw_step",
    "linear_backward",
    "linear_forward",
    "log_softmax",
    "momentum_step",
    "nesterov_step",
    "rmsprop_step",
    "sgd_step",
    "sigmoid_cross_entropy",
    "softmax",
    "softmax_cross_entropy",
    "squared_error",
]
