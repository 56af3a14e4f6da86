"""Functions that are compiled once, each for itself, kept as machine code, and called by address.

A `Linked` function is called by compiled code, through a slot in memory; a `Native` one by Python. Both take what machine
code alone can take, so that theirs travels: it is looked for in the package and in the user's folder (`_store`), and compiled
(`_emit`) where neither has it.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.typing.ctypes_utils import to_ctypes
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from fastdl_kernels import _calls, _loader
from fastdl_kernels._cache import build_id
from fastdl_kernels._jit import FASTMATH, entry, jit
from fastdl_kernels._signals import callback, handlers_later, interrupt_later
from fastdl_kernels._store import PACKAGED, Code, Store, say
from fastdl_kernels._targets import foreign, names
from fastdl_kernels.host import host

SignatureOf = Callable[[types.Type], tuple[types.Type, ...]]
ELEMENTS = (types.float32, types.float64)
UNITS: list[Unit] = []
"""All functions that there is machine code of, in the order of their modules' imports."""
_by_symbol: dict[str, tuple[Linked, types.Type]] = {}


class Unit:
    """A function that is compiled once per dtype.

    Parameters
    ----------
    function : of numbers and pointers, or for Python of arrays, numbers and tuples of them
    signature_of : element type -> Numba types of the arguments

    elements : those that it can be compiled for
    """

    def __init__(self, function: Callable[..., Any], signature_of: SignatureOf) -> None:
        self.function, self.signature_of = function, signature_of
        self.name = f"{function.__module__}.{function.__qualname__}".removeprefix("fastdl.").removeprefix("fastdl_")
        self.elements: tuple[types.Type, ...] = ELEMENTS
        self._addresses: dict[types.Type, int] = {}
        self._kept: dict[types.Type, bool] = {}
        UNITS.append(self)

    def key(self, element: types.Type) -> str:
        """The name of its code for an element type."""
        return f"{self.name}-{element}"

    @property
    def sources(self) -> str:
        """A hash of the sources that its code depends on."""
        return build_id(str(Path(inspect.getfile(self.function)).parent))

    def _store(self) -> Store:
        return Store(self.sources, names(host().l1_bytes, host().isa == "avx512"))

    def is_cached(self, element: types.Type) -> bool:
        """Whether there is machine code for an element type."""
        return element in self._addresses or self._store().holds(self.key(element))

    def compile(self, element: types.Type) -> Code:
        """Machine code for an element type, compiled now."""
        raise NotImplementedError

    def code(self, element: types.Type) -> tuple[Code, bool]:
        """(machine code for an element type, whether it was there already)."""
        store, key = self._store(), self.key(element)
        found = store.find(key)
        if found is not None:
            return found, True
        _say_why(store.targets)
        code = handlers_later(self.compile, element)
        store.save(key, code)
        return code, False

    def address(self, element: types.Type) -> int:
        """Where the function is, loaded if it was not, compiled if there is none."""
        with global_compiler_lock:  # all threads of a region may come through a trampoline at once
            if element not in self._addresses:
                code, self._kept[element] = self.code(element)
                for name in code.needs:
                    if name in _by_symbol:
                        _by_symbol[name][0].make_ready_for_callers(_by_symbol[name][1])
                lacking = _loader.missing(code) if foreign() is None else []
                if lacking:
                    raise LookupError(f"{self.name} needs {', '.join(lacking)}, which this process does not have")
                self._addresses[element] = _loader.load(code) if foreign() is None else 0
        return self._addresses[element]

    def ensure(self, element: types.Type) -> bool:
        """Make it ready for an element type; True if nothing had to be compiled."""
        self.address(element)
        return self._kept[element]


def _say_why(names_here: list[str]) -> None:
    """One line where there is prebuilt code, but none that this processor can run."""
    if foreign() is None and PACKAGED.is_dir():
        packaged = sorted(path.name for path in PACKAGED.iterdir())
        if packaged and not set(packaged) & set(names_here):
            say(f"the prebuilt code is for {', '.join(packaged)} and does not fit {host().cpu}: compiling, once")


def _options() -> dict[str, Any]:
    return {"fastmath": set(FASTMATH), "error_model": "numpy", "nogil": True}


_lazy: list[tuple[Linked, types.Type]] = []


def load_cached() -> None:
    """Fill the slots of all functions that are made ready lazily, as far as there is machine code; compile nothing.

    A trampoline needs the GIL. A user's compiled function may hold it while it waits for threads that ask for it there.
    """
    for target, element in _lazy:
        if target.is_cached(element):
            target.ensure(element)


class Linked(Unit):
    """A function of compiled code that is called by address.

    Numba copies the code of every function that is called into the library of every caller, optimises it anew and
    generates it anew: with register tiles that is a second or more for each of a dozen callers. A caller of a `Linked`
    function holds only the name of a slot in memory, which this class keeps filled with the function's address.

    Parameters
    ----------
    function : returns nothing
    signature_of : element type -> Numba types of the arguments
    lazily : for arguments that are numbers, pointers and tuples of them. The slot starts as a trampoline that loads the
        function (or compiles it) on its first call. Otherwise `ensure` must come before any call.
    at_first_call : as `lazily`, but the function is not made ready with its callers either: for what few of them ever call
    """

    def __init__(
        self,
        function: Callable[..., Any],
        signature_of: SignatureOf,
        lazily: bool = False,
        at_first_call: bool = False,
    ) -> None:
        super().__init__(function, signature_of)
        self.lazily = lazily
        # Another process is compiling it: whoever set this calls `ensure` before the function is called.
        self.awaited = False
        self._slots: dict[types.Type, ctypes.c_void_p] = {}
        self._trampolines = []
        for element in ELEMENTS:
            slot = self._slots[element] = ctypes.c_void_p()
            if lazily:
                _lazy.append((self, element))
            if lazily or at_first_call:
                trampoline = self._trampoline(element)
                self._trampolines.append(trampoline)
                slot.value = ctypes.cast(trampoline, ctypes.c_void_p).value
            binding.add_symbol(self._symbol(element), ctypes.addressof(slot))
            _by_symbol[self._symbol(element)] = self, element

    def _trampoline(self, element: types.Type) -> Any:
        numbers = [to_ctypes(leaf) for ty in self.signature_of(element) for leaf in _calls.leaves(ty)]
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, *numbers)

        def trampoline(*args: Any) -> None:
            try:
                self.ensure(element)
            except KeyboardInterrupt:
                interrupt_later()
                self.ensure(element)
            prototype(self.address(element))(*args)

        return prototype(callback(trampoline))

    def _symbol(self, element: types.Type) -> str:
        return f"fastdl_{self.name}_{element}"

    def compile(self, element: types.Type) -> Code:
        from fastdl_kernels._emit import emit

        return emit(self.function, self.signature_of(element), _options(), f"fastdl.{self.key(element)}")

    def ensure(self, element: types.Type) -> bool:
        """Load the function for an element type, or compile it, and fill the slot; True if nothing had to be compiled."""
        self._slots[element].value = self.address(element)
        return self._kept[element]

    def make_ready_for_callers(self, element: types.Type) -> None:
        """What a caller's code asks for before it is called."""
        if self.lazily and not self.awaited:
            self.ensure(element)

    def emit_call(self, context: Any, builder: ir.IRBuilder, element: types.Type, args: list[ir.Value]) -> None:
        """Emit a call through the slot."""
        if foreign() is None:
            self.make_ready_for_callers(element)
        signature_ = self.signature_of(element)
        pointer_type = context.call_conv.get_function_type(types.none, signature_).as_pointer()
        name = self._symbol(element)
        slot = builder.module.globals.get(name)
        if slot is None:
            slot = cgutils.add_global_variable(builder.module, pointer_type, name)
        context.call_conv.call_function(builder, builder.load(slot), types.none, signature_, args)


class Native(Unit):
    """A function that Python calls, of arrays, numbers and tuples of them.

    Parameters
    ----------
    function : returns nothing, a number, or a tuple of numbers
    signature_of : element type -> Numba types of the arguments
    written : places of arguments that must be writable arrays
    """

    def __init__(
        self, function: Callable[..., Any], signature_of: SignatureOf, written: frozenset[int] = frozenset()
    ) -> None:
        super().__init__(function, signature_of)
        self.written = written
        self.inside = jit(function)
        self._callables: dict[types.Type, Callable[..., Any]] = {}
        self._by_dtype: dict[np.dtype, Callable[..., Any]] = {}

    def compile(self, element: types.Type) -> Code:
        from fastdl_kernels._emit import emit

        arguments, symbol = self.signature_of(element), f"fastdl.{self.key(element)}"

        def more(name: str) -> str:
            result = self.inside.overloads[arguments].signature.return_type
            return _calls.wrapper(symbol, arguments, self.written, result)(name)

        return emit(
            _calls.in_words(self.inside, arguments), (_calls.WORDS,), _options(), f"{symbol}-words", more, symbol
        )

    def callable(self, element: types.Type) -> Callable[..., Any]:
        """What Python calls for an element type; it raises TypeError for any other arguments than those of the signature."""
        if element not in self._callables:
            self._callables[element] = self._own(element) or entry(self.function).compile(self.signature_of(element))
        return self._callables[element]

    def _own(self, element: types.Type) -> Callable[..., Any] | None:
        """What is called without Numba's wrapper; None where Python or the C library is not as it expects."""
        if not _calls.offsets_hold():
            return None
        try:
            return _calls.callable_at(self.address(element), self.function.__name__)
        except LookupError:
            return None

    def of(self, dtype: np.dtype) -> Callable[..., Any]:
        """`callable` for arrays of a dtype."""
        return self._by_dtype.get(dtype) or self._by_dtype.setdefault(dtype, self.callable(from_dtype(dtype)))


def native(signature_of: SignatureOf) -> Callable[[Callable[..., Any]], Native]:
    """Decorator form of `Native`."""
    return lambda function: Native(function, signature_of)


def named_type(kind: type, *members: types.Type) -> types.Type:
    """A NamedTuple as Numba sees it, for `linked`."""
    return types.BaseTuple.from_types(members, kind)


def array_type(element: types.Type, ndim: int) -> types.Type:
    """A C-contiguous array, for `native`."""
    return types.Array(element, ndim, "C")


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
