"""The one place that calls Numba's compilers: flags, and calls between separately compiled functions."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.core.registry import CPUDispatcher
from numba.extending import intrinsic

from fastdl_kernels._cache import KernelCache, build_id
from fastdl_kernels._signals import handlers_later

# Only contraction (a * b + c in one rounding). "reassoc" would undo the range reductions of `simd` (Numba sets the flag
# on every instruction of a function, those of intrinsics included) and let the order of a sum differ between a loop's
# body and its tail; "nnan" and "ninf" would remove the checks that notice a loss that became NaN. Loops that gain from
# reordering are written with explicit vectors instead.
FASTMATH = frozenset({"contract", "nsz"})


class _Compiled(CPUDispatcher):
    """A function whose compilation no signal interrupts."""

    def compile(self, sig: Any) -> Any:
        return handlers_later(super().compile, sig)


class _Internal(_Compiled):
    """A function for compiled code only: it has no wrapper for Python, and a call from there must not try one."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{self.py_func.__name__} works inside compiled code only; call it from an @njit function")


def _compile(function: Callable[..., Any], is_kept: bool = True, **options: Any) -> Any:
    dispatcher = numba.njit(fastmath=set(FASTMATH), error_model="numpy", nogil=True, no_cfunc_wrapper=True, **options)(
        function
    )
    if not numba.config.DISABLE_JIT:
        dispatcher.__class__ = _Compiled
        if is_kept:
            dispatcher._cache = KernelCache(function)
    return dispatcher


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that is called from Python as well."""
    return _compile(function)


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function for other compiled functions: without a wrapper for Python, and a copy in the cache of its own."""
    dispatcher = _compile(function, is_kept=False, no_cpython_wrapper=True)
    dispatcher.__class__ = _Internal
    return dispatcher


def parallel_jit(function: Callable[..., Any]) -> Any:
    """Compile a function whose `prange` loops run on Numba's threads."""
    return _compile(function, parallel=True)


def _marks(attribute: str) -> Any:
    """An intrinsic that gives the compiled function it is called in an attribute of LLVM's."""

    @intrinsic
    def mark(typingctx):
        def codegen(context, builder, sig, args):
            builder.function.attributes.add(attribute)
            return context.get_dummy_value()

        return types.none(), codegen

    return mark


# LLVM keeps the function out of its callers, where each copy would cost compile time.
noinline = _marks("noinline")
# LLVM copies the function into its callers, whose vectors then stay in registers.
inlined = _marks("alwaysinline")


_numbers: list[ctypes.c_int64] = []


def number_in_memory(name: str, value: int) -> Any:
    """An intrinsic that reads a number where this process keeps it: code that does is the same whatever the number."""
    _numbers.append(ctypes.c_int64(value))
    binding.add_symbol(name, ctypes.addressof(_numbers[-1]))

    @intrinsic
    def number(typingctx):
        def codegen(context, builder, sig, args):
            slot = builder.module.globals.get(name)
            if slot is None:
                slot = cgutils.add_global_variable(builder.module, ir.IntType(64), name)
            return builder.load(slot)

        return types.int64(), codegen

    return number


# A user's own cached function holds a copy of the kernels that it calls. The copy knows the number of its build, and
# finds the number of the loaded one at this address.
_BUILD = int(build_id(str(Path(__file__).parent))[:15], 16)
_build = number_in_memory("fastdl_build", _BUILD)


@jit
def is_current():
    """Whether this code was compiled from the sources that are loaded; false in a user's cache after an upgrade."""
    return _build() == _BUILD
