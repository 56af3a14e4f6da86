"""The linear layer with its activation: out = act(x @ weight + bias), and its gradients.

Dims: B rows, I inputs, O outputs. All arrays are C-contiguous and of one dtype, float32 or float64.
"""

from __future__ import annotations

import numba

from fastdl_kernels._jit import parallel_jit
from fastdl_kernels.activations import activate, derivative


@parallel_jit
def linear_forward(x, weight, bias, activation, alpha, out):
    """out = act(x @ weight + bias), fused."""
    n_rows, n_in = x.shape
    n_out = weight.shape[1]
    for r in numba.prange(n_rows):
        for o in range(n_out):
            out[r, o] = bias[o]
        for i in range(n_in):
            v = x[r, i]
            for o in range(n_out):
                out[r, o] += v * weight[i, o]
        for o in range(n_out):
            out[r, o] = activate(out[r, o], activation, out.dtype.type(alpha))


@parallel_jit
def linear_backward(x, weight, out, d_out, activation, alpha, d_x, d_weight, d_bias):
    """Gradients of `linear_forward`, given d_out = dL/d_out; d_x may have zero rows: then it is not computed."""
    n_rows, n_in = x.shape
    n_out = weight.shape[1]
    for i in numba.prange(n_in + 1):
        if i < n_in:
            for o in range(n_out):
                d_weight[i, o] = 0
            for r in range(n_rows):
                for o in range(n_out):
                    d_weight[i, o] += x[r, i] * (d_out[r, o] * derivative(out[r, o], activation, out.dtype.type(alpha)))
        else:
            for o in range(n_out):
                d_bias[o] = 0
            for r in range(n_rows):
                for o in range(n_out):
                    d_bias[o] += d_out[r, o] * derivative(out[r, o], activation, out.dtype.type(alpha))
    for r in numba.prange(d_x.shape[0]):
        for i in range(n_in):
            total = d_x.dtype.type(0)
            for o in range(n_out):
                total += d_out[r, o] * derivative(out[r, o], activation, out.dtype.type(alpha)) * weight[i, o]
            d_x[r, i] = total
