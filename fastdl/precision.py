"""The precision of matrix products: float32, or bfloat16 operands with sums in float32."""

from __future__ import annotations

import warnings

import numpy as np

from fastdl.errors import InputError
from fastdl.suggest import did_you_mean
from fastdl_kernels.serial import BF16, BF16_EMULATED, FLOAT32, HAS_BF16

LACKING = "this processor has no bf16 instructions (AVX-512 BF16): products stay in float32"
PRECISIONS = ("float32", "bf16", "bf16-strict", "bf16-emulated")
"""What a precision may be: see `check`."""


def check(value: str, dtype: np.dtype) -> str:
    """The precision, if a model of this dtype can have it.

    "float32" : products in the model's dtype
    "bf16" : in large layers both operands are rounded to bfloat16; sums, parameters, activations, losses and the optimizer stay
        in float32. On a processor without an instruction for it, products are in float32, and a warning says so
    "bf16-strict" : the same, and an InputError on such a processor
    "bf16-emulated" : the same arithmetic on any processor, slower than float32: to try what it does to a model

    Raises InputError for another word, and for bf16 with a float64 model.
    """
    if not isinstance(value, str) or value not in PRECISIONS:
        hint = did_you_mean(value, PRECISIONS) if isinstance(value, str) else ""
        raise InputError(f"precision: expected one of {', '.join(PRECISIONS)}, got {value!r}{hint}")
    if value != "float32" and dtype != np.float32:
        raise InputError(f"precision: expected a float32 model for {value!r}, got {dtype}; use MLP(dtype='float32')")
    if value == "bf16-strict" and not HAS_BF16:
        raise InputError(
            "precision: expected a processor with bf16 instructions (AVX-512 BF16) for 'bf16-strict', and this one has none; "
            "use 'float32', or 'bf16' for whichever there is"
        )
    for note in notes(value):
        warnings.warn(f"precision: {note}", stacklevel=2)
    return value


def notes(value: str) -> list[str]:
    """What is to be said of the precision on this processor: one sentence, or none."""
    return [LACKING] if value == "bf16" and not HAS_BF16 else []


def here(value: str, dtype: np.dtype) -> str:
    """What the precision comes to on this processor: "float32" for "bf16" without instructions for it, without a warning."""
    return "float32" if notes(value) and dtype == np.float32 else check(value, dtype)


def arithmetic_of(precision: str) -> int:
    """The code of what products are done in on this processor, for a precision that `check` gave back."""
    if precision == "bf16-emulated":
        return BF16_EMULATED
    return BF16 if precision != "float32" and HAS_BF16 else FLOAT32
