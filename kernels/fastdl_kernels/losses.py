"""Losses computed from logits, numerically stable, with their gradients. B rows, N classes or outputs."""

from __future__ import annotations

import math

import numba
import numpy as np

from fastdl_kernels._jit import parallel_jit


@parallel_jit
def log_softmax(logits, out):
    """out[b, :] = logits[b, :] - log(sum(exp(logits[b, :]))), with the maximum subtracted first."""
    for r in numba.prange(logits.shape[0]):
        top = logits[r].max()
        total = logits.dtype.type(0)
        for n in range(logits.shape[1]):
            total += math.exp(logits[r, n] - top)
        shift = top + math.log(total)
        for n in range(logits.shape[1]):
            out[r, n] = logits[r, n] - shift


@parallel_jit
def softmax(logits, out):
    """out[b, :] = exp(logits[b, :]) / sum(exp(logits[b, :]))."""
    for r in numba.prange(logits.shape[0]):
        top = logits[r].max()
        total = logits.dtype.type(0)
        for n in range(logits.shape[1]):
            out[r, n] = math.exp(logits[r, n] - top)
            total += out[r, n]
        for n in range(logits.shape[1]):
            out[r, n] /= total


@parallel_jit
def softmax_cross_entropy(logits, labels, d_logits):
    """Mean over rows of -log_softmax(logits)[label]; d_logits = (softmax(logits) - onehot(label)) / B."""
    n_rows, n = logits.shape
    losses = np.empty(n_rows)
    for r in numba.prange(n_rows):
        top = logits[r].max()
        total = logits.dtype.type(0)
        for k in range(n):
            d_logits[r, k] = math.exp(logits[r, k] - top)
            total += d_logits[r, k]
        losses[r] = math.log(total) + top - logits[r, labels[r]]
        for k in range(n):
            d_logits[r, k] /= total * n_rows
        d_logits[r, labels[r]] -= logits.dtype.type(1) / n_rows
    return losses.sum() / n_rows


@parallel_jit
def sigmoid_cross_entropy(logits, targets, d_logits):
    """Mean over rows of sum_n softplus(z) - t z; d_logits = (sigmoid(z) - t) / B."""
    n_rows = logits.shape[0]
    losses = np.zeros(n_rows)
    for r in numba.prange(n_rows):
        for n in range(logits.shape[1]):
            z = logits[r, n]
            e = math.exp(-abs(z))
            losses[r] += max(z, 0) - z * targets[r, n] + math.log1p(e)
            d_logits[r, n] = ((1 if z >= 0 else e) / (1 + e) - targets[r, n]) / n_rows
    return losses.sum() / n_rows


@parallel_jit
def squared_error(predictions, targets, d_predictions):
    """Mean over rows and targets of (p - t)²; d_predictions = 2 (p - t) / (B N)."""
    n_rows, n = predictions.shape
    losses = np.zeros(n_rows)
    for r in numba.prange(n_rows):
        for k in range(n):
            e = predictions[r, k] - targets[r, k]
            losses[r] += e * e
            d_predictions[r, k] = 2 * e / (n_rows * n)
    return losses.sum() / (n_rows * n)
