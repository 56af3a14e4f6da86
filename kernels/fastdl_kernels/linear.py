"""The linear layer with its activation: out = act(x @ weight + bias), and its gradients.

Dims: B rows, I inputs, O outputs.
"""

from __future__ import annotations

import numpy as np

from fastdl_kernels._jit import jit
from fastdl_kernels.activations import IDENTITY, LAST_IN_REGISTERS, apply_activation, is_activation, make_ready
from fastdl_kernels.kernel import SERIAL_WORK, kernel, overlap, require
from fastdl_kernels.matmul import Target, job_block, n_jobs, prepare_products, product_job
from fastdl_kernels.packing import Operand
from fastdl_kernels.precision import FLOAT32, is_arithmetic
from fastdl_kernels.regions import n_threads, run_jobs
from fastdl_kernels.simd import (
    flush_subnormals,
    null,
    pointer,
    restore_mode,
)

# Rows per job of the pass over d_out.
ROWS = 16


@jit
def _forward_job(job, parts, x, weight, bias, activation, alpha, arithmetic, kept, out):
    n_in, n_out = weight.shape
    nothing = null(alpha)
    m0, m1, n0, n1 = job_block(job, x.shape[0], n_out, out.itemsize, parts)
    a = Operand(pointer(x, 0), n_in, False)
    b = Operand(pointer(weight, 0), n_out, True)
    c = Target(pointer(out, 0), n_out, pointer(bias, 0), activation, alpha, nothing, IDENTITY, alpha, nothing, 0, kept)
    mode = flush_subnormals()
    product_job(arithmetic, m0, m1, n0, n1, n_in, a, b, c)
    restore_mode(mode)


@jit
def _forward(x, weight, bias, activation, alpha, arithmetic, kept, out):
    """`linear_forward` after its checks; kept points to z, or is null."""
    n_rows, n_out = out.shape
    n_in = x.shape[1]
    alpha_ = out.dtype.type(alpha)
    parts = n_threads() if n_rows * n_in * n_out > SERIAL_WORK else 1
    jobs = n_jobs(n_rows, n_out, out.itemsize, parts)
    run_jobs(_forward_job, jobs, parts > 1, (parts, x, weight, bias, activation, alpha_, arithmetic, kept, out))


@kernel({"x": "B I", "weight": "I O", "bias": "O", "out": "B O"}, outputs=["out"])
def linear_forward(x, weight, bias, activation, alpha, out, arithmetic=FLOAT32):
    """out = act(x @ weight + bias), fused.

    Parameters
    ----------
    x : float32 or float64 [B, I], C-contiguous, read
    weight : same dtype [I, O], C-contiguous, read
    bias : same dtype [O], read
    activation : a code of ACTIVATIONS, such as RELU
    alpha : slope of LEAKY_RELU below 0, 0 <= alpha < 1; depth of ELU, alpha >= 0; not read otherwise
    out : same dtype [B, O], C-contiguous, overwritten; must not overlap the inputs
    arithmetic : of the product. FLOAT32: that of the arrays. BF16, for float32 arrays on processors that have `vdpbf16ps`: x and
        weight are rounded to bfloat16 as they are read, sums, bias and activation are float32. BF16_EMULATED: the same on any
        processor, slowly. With both, arrays may be bfloat16, of `ml_dtypes` or as its bits in uint16, where they are given from
        Python: see `halves`

    GELU, SILU and MISH need z for their derivative: train with `linear_forward_keep`.

    Raises TypeError for a wrong type or layout and ValueError for wrong shapes, an activation that there is not, an alpha
    out of its range, an arithmetic that this processor or these arrays have not, or overlapping memory, before anything is
    written.

    Cost: 2 B I O flop; itemsize (B I + I O + O + B O) bytes.
    Numerics: sums in the arrays' dtype, in an order that depends on the shapes only: the same bits for any number of
    threads; error about eps sqrt(I), in bf16 about 2^-9 of the largest products. Subnormal numbers count as 0.
    Edges: B = 0 is a no-op; I = 0 gives act(bias); NaN propagates.
    """
    n_rows, n_out = out.shape
    n_in = x.shape[1]
    require(
        "linear_forward",
        x.shape[0] == n_rows and weight.shape == (n_in, n_out) and bias.size == n_out,
        not (overlap(out, x) or overlap(out, weight) or overlap(out, bias)),
    )
    if not is_activation(activation, alpha):
        raise ValueError("linear_forward: expected activation to be a code of ACTIVATIONS, and alpha in its range")
    if not is_arithmetic(arithmetic, out.itemsize):
        raise ValueError(
            "linear_forward: expected an arithmetic that this processor has, and float32 arrays unless it is FLOAT32"
        )
    prepare_products(arithmetic, out)
    if activation > LAST_IN_REGISTERS:
        make_ready(activation, out)
    _forward(x, weight, bias, activation, alpha, arithmetic, null(out.dtype.type(0)), out)


@kernel({"x": "B I", "weight": "I O", "bias": "O", "z": "B O", "out": "B O"}, outputs=["z", "out"])
def linear_forward_keep(x, weight, bias, activation, alpha, z, out, arithmetic=FLOAT32):
    """z = x @ weight + bias and out = act(z), fused: what the derivatives of GELU, SILU and MISH are taken from is kept.

    Parameters
    ----------
    x, weight, bias, activation, alpha, arithmetic : as for `linear_forward`; any activation
    z, out : same dtype [B, O], C-contiguous, overwritten; in memory of their own

    Raises as `linear_forward` does.

    Cost: 2 B I O flop; itemsize (B I + I O + O + 2 B O) bytes. Numerics and edges as for `linear_forward`; the same bits.
    """
    n_rows, n_out = out.shape
    n_in = x.shape[1]
    require(
        "linear_forward_keep",
        x.shape[0] == n_rows and weight.shape == (n_in, n_out) and bias.size == n_out and z.shape == out.shape,
        not (
            overlap(out, x) or overlap(out, weight) or overlap(out, bias) or overlap(out, z)
            or overlap(z, x) or overlap(z, weight) or overlap(z, bias)
        ),
    )  # fmt: skip
    if not is_activation(activation, alpha):
        raise ValueError("linear_forward_keep: expected activation to be a code of ACTIVATIONS, and alpha in its range")
    if not is_arithmetic(arithmetic, out.itemsize):
        raise ValueError(
            "linear_forward_keep: expected an arithmetic that this processor has, and float32 arrays unless it is FLOAT32"
        )
    prepare_products(arithmetic, out)
    make_ready(activation, out)
    _forward(x, weight, bias, activation, alpha, arithmetic, pointer(z, 0), out)


@jit
def _backward_job(job, weight_jobs, parts, x, weight, d_z, arithmetic, d_x, d_weight, d_bias):
    """Job of d_weight = x.T @ d_z and d_bias for the first ones, of d_x = d_z @ weight.T after them."""
    n_in, n_out = weight.shape
    n_rows = x.shape[0]
    stride = d_z.shape[1]
    zero = d_z.dtype.type(0)
    nothing = null(zero)
    mode = flush_subnormals()
    if job < weight_jobs:
        m0, m1, n0, n1 = job_block(job, n_in, n_out, x.itemsize, parts)
        a = Operand(pointer(x, 0), n_in, True)
        b = Operand(pointer(d_z, 0), stride, True)
        c = Target(
            pointer(d_weight, 0),
            n_out,
            nothing,
            IDENTITY,
            zero,
            nothing,
            IDENTITY,
            zero,
            pointer(d_bias, 0),
            0,
            nothing,
        )
        product_job(arithmetic, m0, m1, n0, n1, n_rows, a, b, c)
    else:
        m0, m1, n0, n1 = job_block(job - weight_jobs, n_rows, n_in, x.itemsize, parts)
        a = Operand(pointer(d_z, 0), stride, False)
        b = Operand(pointer(weight, 0), n_out, False)
        c = Target(pointer(d_x, 0), n_in, nothing, IDENTITY, zero, nothing, IDENTITY, zero, nothing, 0, nothing)
        product_job(arithmetic, m0, m1, n0, n1, n_out, a, b, c)
    restore_mode(mode)


@jit
def _differentiate(job, d_out, out, activation, alpha, d_z):
    """d_z = d_out * act'(z) for ROWS rows."""
    n_out, stride = d_out.shape[1], d_z.shape[1]
    first = job * ROWS
    d, source, result = pointer(d_out, first * n_out), pointer(out, first * n_out), pointer(d_z, first * stride)
    rows, one = min(ROWS, d_out.shape[0] - first), d_z.dtype.type(1)
    mode = flush_subnormals()
    apply_activation(activation, 1, result, stride, d, n_out, source, n_out, rows, n_out, alpha, one)
    restore_mode(mode)


@kernel(
    {"x": "B I", "weight": "I O", "out": "B O", "d_out": "B O", "d_x": "B I", "d_weight": "I O", "d_bias": "O"},
    outputs=["d_x", "d_weight", "d_bias"],
    optional=["d_x"],
)
def linear_backward(x, weight, out, d_out, activation, alpha, d_x, d_weight, d_bias, arithmetic=FLOAT32):
    """The gradients of `linear_forward`: with d_z = d_out * act'(z), the derivative taken from out = act(z), or from z,

    d_x = d_z @ weight.T,  d_weight = x.T @ d_z,  d_bias = d_z summed over rows.

    Parameters
    ----------
    x, weight : as given to `linear_forward`, read
    out : what the derivative is taken from [B, O], read: the result of `linear_forward`, or for GELU, SILU and MISH the z of
        `linear_forward_keep`
    d_out : gradient of the loss with respect to out [B, O], read
    activation, alpha : as given to `linear_forward`
    arithmetic : of both products, as in `linear_forward`; d_bias is summed from numbers that were not rounded
    d_x : [B, I], overwritten; an array of shape (0, I) leaves it out (the first layer does not need it)
    d_weight : [I, O], overwritten
    d_bias : [O], overwritten

    Raises as `linear_forward` does. All arrays are C-contiguous and of one dtype, float32 or float64.

    Cost: 4 B I O flop (2 B I O without d_x); itemsize (3 I O + 2 B I + 6 B O) bytes; d_z takes B O numbers of scratch
    memory, unless the activation is IDENTITY.
    Numerics: as `linear_forward`; error about eps sqrt(O) in d_x, eps sqrt(B) in d_weight and d_bias.
    Edges: B = 0 sets d_weight and d_bias to 0; NaN propagates.
    """
    n_in, n_out = weight.shape
    n_rows = x.shape[0]
    for_input = d_x.shape[0] != 0
    require(
        "linear_backward",
        x.shape[1] == n_in and out.shape == (n_rows, n_out) and d_out.shape == (n_rows, n_out)
        and (not for_input or d_x.shape == x.shape) and d_weight.shape == weight.shape and d_bias.size == n_out,
        not (
            overlap(d_x, x) or overlap(d_x, weight) or overlap(d_x, out) or overlap(d_x, d_out)
            or overlap(d_weight, x) or overlap(d_weight, weight) or overlap(d_weight, out) or overlap(d_weight, d_out)
            or overlap(d_bias, x) or overlap(d_bias, weight) or overlap(d_bias, out) or overlap(d_bias, d_out)
            or overlap(d_x, d_weight) or overlap(d_x, d_bias) or overlap(d_weight, d_bias)
        ),
    )  # fmt: skip
    if not is_activation(activation, alpha):
        raise ValueError("linear_backward: expected activation to be a code of ACTIVATIONS, and alpha in its range")
    if not is_arithmetic(arithmetic, out.itemsize):
        raise ValueError(
            "linear_backward: expected an arithmetic that this processor has, and float32 arrays unless it is FLOAT32"
        )
    prepare_products(arithmetic, out)
    alpha_ = out.dtype.type(alpha)
    parts = n_threads() if n_rows * n_in * n_out > SERIAL_WORK // 2 else 1
    d_z = d_out
    if activation != IDENTITY:
        make_ready(activation, out)
        # Computed once for both products. Rows a cache line further apart do not share a few sets of the caches.
        d_z = np.empty((n_rows, n_out + 64 // out.itemsize), out.dtype)
        run_jobs(_differentiate, (n_rows + ROWS - 1) // ROWS, parts > 1, (d_out, out, activation, alpha_, d_z))
    weight_jobs = n_jobs(n_in, n_out, x.itemsize, parts)
    jobs = weight_jobs + (n_jobs(n_rows, n_in, x.itemsize, parts) if for_input else 0)
    run_jobs(_backward_job, jobs, parts > 1, (weight_jobs, parts, x, weight, d_z, arithmetic, d_x, d_weight, d_bias))
