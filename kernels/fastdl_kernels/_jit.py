"""The one place that calls Numba's compilers: flags, and calls between separately compiled functions."""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.typing import signature
from numba.core.typing.ctypes_utils import to_ctypes
from numba.extending import intrinsic

from fastdl_kernels._cache import KernelCache, build_id
from fastdl_kernels._signals import callback, handlers_later, interrupt_later

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


def _compile(function: Callable[..., Any], **options: Any) -> Any:
    dispatcher = numba.njit(fastmath=set(FASTMATH), error_model="numpy", nogil=True, no_cfunc_wrapper=True, **options)(
        function
    )
    if not numba.config.DISABLE_JIT:
        dispatcher.__class__ = _Compiled
        dispatcher._cache = KernelCache(function)
    return dispatcher


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that is called from Python as well."""
    return _compile(function)


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function for other compiled functions: without a wrapper for Python, in a third less time."""
    dispatcher = _compile(function, no_cpython_wrapper=True)
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


# A user's own cached function holds a copy of the kernels that it calls. The copy knows the number of its build, and
# finds the number of the loaded one at this address.
_BUILD = int(build_id(str(Path(__file__).parent))[:15], 16)
_build_slot = ctypes.c_int64(_BUILD)
binding.add_symbol("fastdl_build", ctypes.addressof(_build_slot))


@intrinsic
def is_current(typingctx):
    """Whether this code was compiled from the sources that are loaded; false in a user's cache after an upgrade."""

    def codegen(context, builder, sig, args):
        number = ir.IntType(64)
        slot = builder.module.globals.get("fastdl_build")
        if slot is None:
            slot = cgutils.add_global_variable(builder.module, number, "fastdl_build")
        return builder.icmp_signed("==", builder.load(slot), ir.Constant(number, _BUILD))

    return types.boolean(), codegen


def compile_for_c(function: Callable[..., Any], arguments: tuple[types.Type, ...]) -> CFunc:
    """A function of numbers and pointers that returns nothing, compiled (or loaded) to be called by its `address`."""
    options = {"fastmath": set(FASTMATH), "error_model": "numpy", "nogil": True}
    compiled = CFunc(function, (arguments, types.void), {}, options)
    compiled._cache = KernelCache(function)
    handlers_later(compiled.compile)
    return compiled


def native_address(compiled: CFunc) -> int:
    """Where the function itself is, behind the wrapper that a C program would call: for callers that Numba compiles.

    The wrapper copies all arguments once more: 3 % of a step of a tiny network.
    """
    return compiled._library.get_pointer_to_function(compiled.native_name.removeprefix("cfunc."))


_lazy: list[tuple[Linked, types.Type]] = []


def load_cached() -> None:
    """Fill the slots of all functions that are made ready lazily, as far as the cache holds them; compile nothing.

    A trampoline needs the GIL. A user's compiled function may hold it while it waits for threads that ask for it there.
    """
    for target, element in _lazy:
        if target.is_cached(element):
            target.ensure(element)


class Linked:
    """A function that is compiled once per dtype and called by address.

    Numba copies the code of every function that is called into the library of every caller, optimises it anew and
    generates it anew: with register tiles that is a second or more for each of a dozen callers. A caller of a `Linked`
    function holds only the name of a slot in memory, which this class keeps filled with the function's address.

    Parameters
    ----------
    function : returns nothing
    signature_of : element type -> Numba types of the arguments
    lazily : for arguments that are numbers, pointers and tuples of them. The slot starts as a trampoline that compiles the
        function (or loads it from the cache) on its first call. Otherwise `ensure` must come before any call.
    at_first_call : as `lazily`, but the function is not made ready with its callers either: for what few of them ever call
    """

    def __init__(
        self,
        function: Callable[..., Any],
        signature_of: Callable[[types.Type], tuple[types.Type, ...]],
        lazily: bool = False,
        at_first_call: bool = False,
    ) -> None:
        self.function = function
        self.signature_of = signature_of
        self.lazily = lazily
        # Another process is compiling it: whoever set this calls `ensure` before the function is called.
        self.awaited = False
        self._slots: dict[types.Type, ctypes.c_void_p] = {}
        self._compiled: dict[types.Type, CFunc] = {}
        self._trampolines = []
        for element in (types.float32, types.float64):
            slot = self._slots[element] = ctypes.c_void_p()
            if lazily:
                _lazy.append((self, element))
            if lazily or at_first_call:
                trampoline = self._trampoline(element)
                self._trampolines.append(trampoline)
                slot.value = ctypes.cast(trampoline, ctypes.c_void_p).value
            binding.add_symbol(self._symbol(element), ctypes.addressof(slot))

    def _trampoline(self, element: types.Type) -> Any:
        numbers = [to_ctypes(leaf) for ty in self.signature_of(element) for leaf in _leaves(ty)]
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, *numbers)

        def trampoline(*args: Any) -> None:
            try:
                self.ensure(element)
            except KeyboardInterrupt:
                interrupt_later()
                self.ensure(element)
            prototype(native_address(self._compiled[element]))(*args)

        return prototype(callback(trampoline))

    def _symbol(self, element: types.Type) -> str:
        return f"fastdl_{self.function.__module__}_{self.function.__name__}_{element}"

    def ensure(self, element: types.Type) -> bool:
        """Compile the function for an element type, or load it, and fill the slot; True if the cache had it."""
        with global_compiler_lock:  # all threads of a region may come through the trampoline at once
            if element not in self._compiled:
                compiled = self._compiled[element] = compile_for_c(self.function, self.signature_of(element))
                self._slots[element].value = native_address(compiled)
        return self._compiled[element].cache_hits > 0

    def is_cached(self, element: types.Type) -> bool:
        """Whether the cache holds the function for an element type."""
        key = signature(types.void, *self.signature_of(element))
        return KernelCache(self.function).holds(key, CFunc._targetdescr.target_context)

    def emit_call(self, context: Any, builder: ir.IRBuilder, element: types.Type, args: list[ir.Value]) -> None:
        """Emit a call through the slot."""
        if self.lazily and not self.awaited:
            self.ensure(element)
        signature_ = self.signature_of(element)
        pointer_type = context.call_conv.get_function_type(types.none, signature_).as_pointer()
        name = self._symbol(element)
        slot = builder.module.globals.get(name)
        if slot is None:
            slot = cgutils.add_global_variable(builder.module, pointer_type, name)
        context.call_conv.call_function(builder, builder.load(slot), types.none, signature_, args)


def named_type(kind: type, *members: types.Type) -> types.Type:
    """A NamedTuple as Numba sees it, for `linked`."""
    return types.BaseTuple.from_types(members, kind)


def _leaves(ty: types.Type) -> list[types.Type]:
    """The numbers and pointers of an argument, one after the other, as compiled code passes a tuple."""
    return [leaf for member in ty.types for leaf in _leaves(member)] if isinstance(ty, types.BaseTuple) else [ty]


def _element_in(ty: types.Type) -> types.Type | None:
    """The type of the floats that an argument points to, or that one of its members does."""
    if isinstance(ty, types.CPointer) and ty.dtype in (types.float32, types.float64):
        return ty.dtype
    members = ty.types if isinstance(ty, types.BaseTuple) else ()
    return next((element for element in map(_element_in, members) if element), None)


def linked(
    signature_of: Callable[[types.Type], tuple[types.Type, ...]], lazily: bool = False, at_first_call: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function of compiled code, some of whose arguments point to floats, to be called by address.

    Unless it is made ready `lazily` or `at_first_call`, callers must have called `ensure` of the result's attribute `linked`:
    see `Linked`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        target = Linked(function, signature_of, lazily, at_first_call)

        def call(typingctx: Any, *args: Any) -> Any:
            element = next((element for element in map(_element_in, args) if element), None)
            if element is None:
                return None

            def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> Any:
                target.emit_call(context, builder, element, list(values))
                return context.get_dummy_value()

            return types.none(*signature_of(element)), codegen

        parameters = [inspect.Parameter("typingctx", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        parameters += inspect.signature(function).parameters.values()
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__name__, call.__doc__ = function.__name__, function.__doc__
        result = intrinsic(call)
        result.linked = target
        return result

    return decorate
