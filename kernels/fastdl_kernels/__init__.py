"""Kernels for training multi-layer perceptrons, compiled by Numba. See kernels/README.md for the catalogue."""

from fastdl_kernels.activations import ACTIVATIONS, IDENTITY, LEAKY_RELU, RELU, SIGMOID, TANH
from fastdl_kernels.linear import linear_backward, linear_forward
from fastdl_kernels.losses import log_softmax, sigmoid_cross_entropy, softmax, softmax_cross_entropy, squared_error
from fastdl_kernels.optimizers import adam_step, momentum_step, rmsprop_step, sgd_step

__all__ = [
    "ACTIVATIONS",
    "IDENTITY",
    "LEAKY_RELU",
    "RELU",
    "SIGMOID",
    "TANH",
    "adam_step",
    "linear_backward",
    "linear_forward",
    "log_softmax",
    "momentum_step",
    "rmsprop_step",
    "sgd_step",
    "sigmoid_cross_entropy",
    "softmax",
    "softmax_cross_entropy",
    "squared_error",
]
