"""Print which kernels of the cache can be called without a trampoline, as they are after an import."""

from __future__ import annotations

import ctypes

from llvmlite import binding

from fastdl_kernels import _units

for target, element in _units._lazy:
    if target.is_cached(element):
        slot = ctypes.c_void_p.from_address(binding.address_of_symbol(target._symbol(element)))
        print(target.function.__name__, slot.value == target._addresses.get(element))
