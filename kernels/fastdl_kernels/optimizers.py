"""Optimizer steps, in place over flat buffers."""

from __future__ import annotations

import math

import numba

from fastdl_kernels._jit import parallel_jit


@parallel_jit
def sgd_step(params, grads, lr):
    """theta <- theta - lr g."""
    for i in numba.prange(params.size):
        params[i] -= params.dtype.type(lr) * grads[i]


@parallel_jit
def momentum_step(params, grads, velocity, lr, beta):
    """v <- beta v + (1 - beta) g; theta <- theta - lr v."""
    for i in numba.prange(params.size):
        v = params.dtype.type(beta) * velocity[i] + params.dtype.type(1 - beta) * grads[i]
        velocity[i] = v
        params[i] -= params.dtype.type(lr) * v


@parallel_jit
def rmsprop_step(params, grads, mean_square, lr, beta, eps):
    """s <- beta s + (1 - beta) g²; theta <- theta - lr g / sqrt(s + eps)."""
    for i in numba.prange(params.size):
        s = params.dtype.type(beta) * mean_square[i] + params.dtype.type(1 - beta) * grads[i] * grads[i]
        mean_square[i] = s
        params[i] -= params.dtype.type(lr) * grads[i] / math.sqrt(s + params.dtype.type(eps))


@parallel_jit
def adam_step(params, grads, m, v, step, lr, beta1, beta2, eps):
    """Adam with bias correction; step counts from 1."""
    c1 = params.dtype.type(1 / (1 - beta1**step))
    c2 = params.dtype.type(1 / (1 - beta2**step))
    for i in numba.prange(params.size):
        m[i] = params.dtype.type(beta1) * m[i] + params.dtype.type(1 - beta1) * grads[i]
        v[i] = params.dtype.type(beta2) * v[i] + params.dtype.type(1 - beta2) * grads[i] * grads[i]
        params[i] -= params.dtype.type(lr) * (m[i] * c1) / (math.sqrt(v[i] * c2) + params.dtype.type(eps))
