"""The serial bodies of the kernels, for engines that bring their own threads.

A public kernel is a loop over jobs; the jobs themselves are here, to be called from compiled code. They take pointers
(`simd.pointer`), check nothing and never start a thread; `run_jobs` does. `fastdl`'s training engine is built from these.
"""

from fastdl_kernels import regions
from fastdl_kernels._jit import Linked, entry, inlined, jit, linked, named_type, noinline
from fastdl_kernels.activations import BLOCKS as ACTIVATION_BLOCKS
from fastdl_kernels.activations import (
    IDENTITY,
    IN_REGISTERS,
    SIGMOID,
    TANH,
    apply_activation,
    is_rectifier,
    needs_z,
)
from fastdl_kernels.host import host, usable_cores
from fastdl_kernels.loss_rows import BODIES as LOSS_BODIES
from fastdl_kernels.loss_rows import LOSSES, SQUARED_ERROR, loss_rows, mean_over_elements, sum_of
from fastdl_kernels.matmul import (
    PAIRED_PRODUCTS,
    Target,
    grid,
    job_block,
    job_rows,
    linked_product,
    n_jobs,
    product_job,
)
from fastdl_kernels.optimizers import AdamNumbers, adam_range, momentum_range, rmsprop_range, sgd_range
from fastdl_kernels.packing import Operand
from fastdl_kernels.peak import fma_flop, run_fma_loops
from fastdl_kernels.precision import BF16, BF16_EMULATED, FLOAT32, HAS_BF16
from fastdl_kernels.random_bits import mix, mix_small
from fastdl_kernels.regions import run_jobs
from fastdl_kernels.team import STATE_SIZE, STOP, barrier, check_in, claim, first_job
from fastdl_kernels.ticks import ticks
from fastdl_kernels.tile import MR as TILE_ROWS
from fastdl_kernels.tile import panel_width

__all__ = [
    "ACTIVATION_BLOCKS",
    "BF16",
    "BF16_EMULATED",
    "FLOAT32",
    "HAS_BF16",
    "IDENTITY",
    "IN_REGISTERS",
    "LOSSES",
    "LOSS_BODIES",
    "PAIRED_PRODUCTS",
    "SIGMOID",
    "SQUARED_ERROR",
    "STATE_SIZE",
    "STOP",
    "TANH",
    "TILE_ROWS",
    "AdamNumbers",
    "Linked",
    "Operand",
    "Target",
    "adam_range",
    "apply_activation",
    "barrier",
    "check_in",
    "claim",
    "entry",
    "first_job",
    "fma_flop",
    "grid",
    "host",
    "inlined",
    "is_rectifier",
    "jit",
    "job_block",
    "job_rows",
    "linked",
    "linked_product",
    "loss_rows",
    "mean_over_elements",
    "mix",
    "mix_small",
    "momentum_range",
    "n_jobs",
    "named_type",
    "needs_z",
    "noinline",
    "panel_width",
    "product_job",
    "regions",
    "rmsprop_range",
    "run_fma_loops",
    "run_jobs",
    "sgd_range",
    "sum_of",
    "ticks",
    "usable_cores",
]
