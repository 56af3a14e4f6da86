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
    UNIT_ALPHAS,
    WEIGHT,
    WORK_PER_JOB,
    floats,
    matrix_type,
    network_type,
    plan_of,
)
from fastdl_kernels.serial import IDENTITY, Operand, Target, apply_parametric, jit, linked, mix, product_job
from fastdl_kernels.simd import is_null, null, pointer


@jit
def parts_of(size, rows, network, layer):
    """Into how many jobs a layer's product is cut at least, for a team of `size`."""
    plan = plan_of(network, layer)
    return max(1, min(size, rows * plan[N_IN] * plan[N_OUT] // WORK_PER_JOB))


@jit
def activate_units(block, network, layer, above, z):
    """above = the layer's parametric activation of z, for one block; z may be above."""
    m0, m1, n0, n1 = block
    plan = plan_of(network, layer)
    at, own = m0 * plan[STRIDE] + n0, pointer(network.parameters, plan[UNIT_ALPHAS] + n0)
    apply_parametric(
        plan[ACTIVATION], 0, pointer(above, at), pointer(z, at), plan[STRIDE], own, m1 - m0, n1 - n0, network.alphas[layer]
    )  # fmt: skip


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
    parametric = plan[UNIT_ALPHAS] >= 0
    # A parametric activation is applied to the block behind the product, from z in its place.
    z = kept if parametric and not is_null(kept) else above
    a = Operand(below.data, below.stride, False)
    b = Operand(pointer(network.parameters, plan[WEIGHT]), n_out, True)
    bias = pointer(network.parameters, plan[BIAS])
    activation = IDENTITY if parametric else plan[ACTIVATION]
    c = Target(
        z, stride, bias, activation, alpha, nothing, IDENTITY, alpha, nothing, 0, nothing if parametric else kept
    )  # fmt: skip
    product_job(plan[ARITHMETIC], m0, m1, n0, n1, n_in, a, b, c)
    if parametric:
        activate_units(block, network, layer, above, z)
    if plan[DROP]:
        drop(above, stride, m0, m1, n0, n1, plan[DROP], mix(key, layer), plan[ROWS_BEFORE])
