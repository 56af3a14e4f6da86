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

from fastdl_kernels.arguments import Rules, seen_value
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


def called_with_halves(rules: Rules, args: Sequence[Any], call: Callable[..., Any]) -> None:
    """Call a kernel on what bfloat16 arrays stand for, and round what it has written to those that it was to write.

    Raises as the kernel does, and nothing is written then.
    """
    given = dict(zip(rules.names, args, strict=True))
    wide = {key: _widened(value, key in rules.outputs) if is_half(value) else value for key, value in given.items()}
    message = rules.wrong_types([seen_value(value) for value in wide.values()])
    halves = [key for key in rules.outputs if is_half(given[key])]
    for key in halves:
        if message is None and not given[key].flags.writeable:
            message = f"{rules.kernel}: expected {rules.read_only(key)}"
    if message is not None:
        raise TypeError(message)
    message = rules.overlapping(given)
    if message is not None:
        raise ValueError(message)
    call(*wide.values())
    for key in halves:
        given[key].view(np.uint16)[...] = bf16_bits(wide[key])


def _widened(array: NDArray[Any], is_output: bool) -> NDArray[np.float32]:
    """float32 for bfloat16; of what will be overwritten, without its numbers."""
    return np.empty(array.shape, np.float32) if is_output else from_bf16_bits(array.view(np.uint16))
