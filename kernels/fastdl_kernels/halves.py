"""Arrays of bfloat16 for kernels that round to it anyway: as `ml_dtypes.bfloat16`, or as uint16 that hold its bits.

They take half of the memory and nothing of the accuracy, since products with `arithmetic=BF16` round their operands to bfloat16:
what is rounded already stays as it is. A call widens them to float32, which is exact, and rounds what it returns in them, to the
nearest and ties to even. It costs a pass over each of them; arrays of both kinds may be mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl_kernels.precision import BF16, BF16_EMULATED, bf16_bits, from_bf16_bits


def is_half(value: Any) -> bool:
    """Whether it is an array of bfloat16 numbers, or of their bits."""
    return isinstance(value, np.ndarray) and value.dtype.name in ("bfloat16", "uint16")


def holds_halves(names: Sequence[str], args: Sequence[Any]) -> bool:
    """Whether arguments are of an arithmetic that takes bfloat16 arrays, and some are such arrays."""
    if "arithmetic" not in names or len(args) != len(names):
        return False
    arithmetic = args[names.index("arithmetic")]
    return isinstance(arithmetic, (int, np.integer)) and arithmetic in (BF16, BF16_EMULATED) and any(map(is_half, args))


def called_with_halves(
    name: str, names: Sequence[str], outputs: Sequence[str], args: Sequence[Any], call: Callable[..., Any]
) -> None:
    """Call a kernel on what bfloat16 arrays stand for, and round what it has written to those that it was to write.

    Raises TypeError for an output that cannot be written and ValueError for one that overlaps another array; the kernel judges
    the rest, and nothing is written then.
    """
    for key in outputs:
        out = args[names.index(key)]
        if not is_half(out):
            continue
        if not out.flags.writeable:
            raise TypeError(f"{name}: expected {key} to be writable, got a read-only array; use {key}.copy()")
        for other, value in zip(names, args):
            if other != key and isinstance(value, np.ndarray) and np.may_share_memory(out, value):
                raise ValueError(
                    f"{name}: expected {key} in memory of its own, but it overlaps {other}; pass a separate array"
                )
    wide = [_widened(value, key in outputs) if is_half(value) else value for key, value in zip(names, args)]
    call(*wide)
    for key in outputs:
        out, result = args[names.index(key)], wide[names.index(key)]
        if is_half(out):
            out.view(np.uint16)[...] = bf16_bits(result)


def _widened(array: NDArray[Any], is_output: bool) -> NDArray[np.float32]:
    """float32 for bfloat16; of what will be overwritten, without its numbers."""
    return np.empty(array.shape, np.float32) if is_output else from_bf16_bits(array.view(np.uint16))
