"""Forward: the outputs of one layer for one block of rows and columns.

Here as in `loss`, `backward`, `update` and `gather`, a job is serial, owns what it writes, and is cut by sizes alone: how
jobs are spread over threads changes no bit. Callers flush subnormal numbers.
"""

from __future__ import annotations

from fastdl.engine.dropout import drop
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
    ROWS_BEFORE,
    STRIDE,
    WEIGHT,
    WORK_PER_JOB,
    floats,
    matrix_type,
    network_type,
    plan_of,
)
from fastdl_kernels.serial import IDENTITY, Operand, Target, jit, linked, mix, product_job
from fastdl_kernels.simd import null, pointer


@jit
def parts_of(size, rows, network, layer):
    """Into how many jobs a layer's product is cut at least, for a team of `size`."""
    plan = plan_of(network, layer)
    return max(1, min(size, rows * plan[N_IN] * plan[N_OUT] // WORK_PER_JOB))


@linked(lambda x: (BLOCK, network_type(x), I64, matrix_type(x), floats(x), floats(x), KEY))
def forward(block, network, layer, below, above, kept, key):
    """above = act(below @ W + b) for one block, and dropout; below is [rows, n_in] and above points to [rows, n_out].

    kept, laid out like above, receives z = below @ W + b unless it is null.
    """
    m0, m1, n0, n1 = block
    plan = plan_of(network, layer)
    n_in, n_out, stride = plan[N_IN], plan[N_OUT], plan[STRIDE]
    alpha = network.alphas[layer]
    nothing = null(alpha)
    a = Operand(below.data, below.stride, False)
    b = Operand(pointer(network.parameters, plan[WEIGHT]), n_out, True)
    bias = pointer(network.parameters, plan[BIAS])
    c = Target(above, stride, bias, plan[ACTIVATION], alpha, nothing, IDENTITY, alpha, nothing, 0, kept)
    product_job(plan[ARITHMETIC], m0, m1, n0, n1, n_in, a, b, c)
    if plan[DROP]:
        drop(above, stride, m0, m1, n0, n1, plan[DROP], mix(key, layer), plan[ROWS_BEFORE])
