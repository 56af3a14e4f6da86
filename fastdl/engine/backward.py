"""Backward: the gradient through one layer, and the gradients of weights and biases."""

from __future__ import annotations

from fastdl.engine.dropout import differentiate, drop, fused_derivative
from fastdl.engine.structs import (
    ACTIVATION,
    ARITHMETIC,
    BIAS,
    BLOCK,
    DROP,
    I64,
    KEY,
    N_IN,
    N_OUT,
    OUTPUT,
    ROWS_BEFORE,
    STRIDE,
    UNIT_ALPHAS,
    WEIGHT,
    Matrix,
    Z,
    floats,
    matrix_type,
    memory_type,
    network_type,
    plan_of,
)
from fastdl_kernels.serial import IDENTITY, Operand, Target, apply_parametric, jit, job_rows, linked, mix, product_job
from fastdl_kernels.simd import null, pointer


@linked(lambda x: (BLOCK, network_type(x), I64, memory_type(x), KEY))
def backward(block, network, layer, memory, key):
    """d_z of the layer underneath = (d_z @ W.T) * act' there, for one block.

    Where its activation is parametric, z there becomes what each row adds to the gradient of the units' own numbers.
    """
    m0, m1, n0, n1 = block
    plan, under = plan_of(network, layer), plan_of(network, layer - 1)
    n_out = plan[N_OUT]
    d_above = pointer(memory.d_outputs, plan[OUTPUT])
    d_below = pointer(memory.d_outputs, under[OUTPUT])
    # What the derivative underneath is taken from: outputs, or z where that was kept.
    below = pointer(memory.outputs, under[Z] if under[Z] >= 0 else under[OUTPUT])
    alpha, alpha_under = network.alphas[layer], network.alphas[layer - 1]
    nothing = null(alpha)
    a = Operand(d_above, plan[STRIDE], False)
    b = Operand(pointer(network.parameters, plan[WEIGHT]), n_out, False)
    stride, rate = under[STRIDE], under[DROP]
    parametric = under[UNIT_ALPHAS] >= 0
    fused = IDENTITY if parametric else fused_derivative(under[ACTIVATION], rate)
    c = Target(d_below, stride, nothing, IDENTITY, alpha, below, fused, alpha_under, nothing, 0, nothing)
    product_job(plan[ARITHMETIC], m0, m1, n0, n1, n_out, a, b, c)
    if rate:
        if fused != under[ACTIVATION] and not parametric:
            differentiate(d_below, below, stride, m0, m1, n0, n1, rate, under[ACTIVATION], alpha_under)
        drop(d_below, stride, m0, m1, n0, n1, rate, mix(key, layer - 1), under[ROWS_BEFORE])
    if parametric:
        at, own = m0 * stride + n0, pointer(network.parameters, under[UNIT_ALPHAS] + n0)
        apply_parametric(
            under[ACTIVATION], 1, pointer(d_below, at), pointer(below, at), stride, own, m1 - m0, n1 - n0, alpha_under
        )  # fmt: skip


@jit
def weight_gradient(m0, m1, network, layer, rows, below, d_above, d_weight, d_bias, adds):
    """d_weight = below.T @ d_above (+ d_weight) for rows m0 .. m1 of the weights; from row 0 on, d_bias as well."""
    plan = plan_of(network, layer)
    n_out, alpha = plan[N_OUT], network.alphas[layer]
    nothing = null(alpha)
    a = Operand(below.data, below.stride, True)
    b = Operand(d_above, plan[STRIDE], True)
    # A product counts its rows from the matrix's first.
    first = pointer(d_weight, -m0 * n_out)
    c = Target(first, n_out, nothing, IDENTITY, alpha, nothing, IDENTITY, alpha, d_bias, adds, nothing)
    product_job(plan[ARITHMETIC], m0, m1, 0, n_out, rows, a, b, c)


@linked(lambda x: (I64, network_type(x), I64, I64, matrix_type(x), floats(x), floats(x), I64))
def add_partial(first, network, layer, rows, below, d_above, partial, adds):
    """A layer's gradient over `rows` rows from `first` on, written or added to its place in a flat partial gradient."""
    plan = plan_of(network, layer)
    n_in, n_out, at = plan[N_IN], plan[N_OUT], plan[WEIGHT]
    x = Matrix(pointer(below.data, first * below.stride), below.stride)
    d = pointer(d_above, first * plan[STRIDE])
    d_bias = pointer(partial, plan[BIAS])
    most = job_rows(network.itemsize)
    for m0 in range(0, n_in, most):
        d_weight = pointer(partial, at + m0 * n_out)
        weight_gradient(m0, min(n_in, m0 + most), network, layer, rows, x, d, d_weight, d_bias, adds)
