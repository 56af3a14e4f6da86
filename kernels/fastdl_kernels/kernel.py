"""What a public kernel is: a compiled function with one clear sentence for every wrong argument.

The compiled code checks shapes and overlaps in a few nanoseconds and refuses before it writes anything. Only then, or
when Numba finds no version for the argument types, is Python asked to find out what was wrong and say it.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, typeof_impl

from fastdl_kernels._jit import jit, parallel_jit

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


# Multiply-adds (or as many other steps) below which a call stays on its thread: 10 us of work. A parallel region costs
# 3 us under OpenMP and 100 us under Numba's own work queue.
SERIAL_WORK = 500_000


_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


class Kernel:
    """A compiled function, callable from Python and from a user's own `@njit` code.

    Parameters
    ----------
    function : the Python function to compile
    shapes : the dimensions of each array argument, such as {"x": "B I", "weight": "I O"}
    outputs : the arrays that are written; they must not overlap any other argument
    optional : arrays that may have no rows at all, to leave them out
    integers : arrays of int64 labels
    """

    __name__: str

    def __init__(
        self,
        function: Callable[..., Any],
        shapes: dict[str, str],
        outputs: Iterable[str],
        optional: Iterable[str] = (),
        integers: Iterable[str] = (),
    ) -> None:
        functools.update_wrapper(self, function)
        self.dispatcher = parallel_jit(function)
        self.shapes = {name: dims.split() for name, dims in shapes.items()}
        self.outputs = frozenset(outputs)
        self.optional = frozenset(optional)
        self.integers = frozenset(integers)
        self._names = list(inspect.signature(function).parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _forked:
            return self._serial(*args, **kwargs)
        if kwargs:
            args = inspect.signature(self.dispatcher.py_func).bind(*args, **kwargs).args
        try:
            return self.dispatcher(*args)
        except Exception as error:  # Numba raises many kinds for types that it cannot take
            message = self._what_is_wrong(args)
            if message is None:
                raise
            raise (ValueError if isinstance(error, ValueError) else TypeError)(message) from None

    @functools.cached_property
    def _serial(self) -> Any:
        """The same function without threads, for a child of fork, where OpenMP ends a process that enters a region."""
        return jit(self.dispatcher.py_func)

    def __repr__(self) -> str:
        return f"<kernel {self.__name__}{inspect.signature(self.dispatcher.py_func)}>"

    def _what_is_wrong(self, args: tuple[Any, ...]) -> str | None:
        """One sentence about the first wrong argument, or None when nothing is found."""
        name = self.__name__
        if len(args) != len(self._names):
            return f"{name}: expected {len(self._names)} arguments ({', '.join(self._names)}), got {len(args)}"
        given = dict(zip(self._names, args, strict=True))
        sizes: dict[str, tuple[int, str]] = {}
        dtype: tuple[np.dtype, str] | None = None
        for key, value in given.items():
            if key not in self.shapes:
                if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
                    return f"{name}: expected a number for {key}, got {type(value).__name__}"
                continue
            if not isinstance(value, np.ndarray):
                return f"{name}: expected a NumPy array for {key}, got {type(value).__name__}; use np.asarray({key})"
            if key in self.integers:
                if value.dtype != np.int64:
                    return f"{name}: expected int64 for {key}, got {value.dtype}; use {key}.astype(np.int64)"
            else:
                if value.dtype not in DTYPES:
                    return f"{name}: expected float32 or float64 for {key}, got {value.dtype}; use {key}.astype(np.float32)"
                if dtype is None:
                    dtype = value.dtype, key
                elif value.dtype != dtype[0]:
                    return (
                        f"{name}: expected one dtype for all arrays, got {dtype[0]} for {dtype[1]} and {value.dtype} for "
                        f"{key}; use {key}.astype(np.{dtype[0]})"
                    )
            if not value.flags.c_contiguous:
                return f"{name}: expected {key} to be C-contiguous; use np.ascontiguousarray({key})"
            dims = self.shapes[key]
            if value.ndim != len(dims):
                return (
                    f"{name}: expected {len(dims)} dimension(s) [{', '.join(dims)}] for {key}, got shape {value.shape}"
                )
            if key in self.optional and value.shape[0] == 0:
                continue
            for dim, size in zip(dims, value.shape, strict=True):
                known, where = sizes.setdefault(dim, (size, key))
                if known != size:
                    return (
                        f"{name}: expected {dim} = {known} (from {where}) in {key} [{', '.join(dims)}], "
                        f"got shape {value.shape}"
                    )
            if key in self.outputs and not value.flags.writeable:
                return f"{name}: expected {key} to be writable, got a read-only array"
        for key in self.outputs & given.keys():
            for other, value in given.items():
                if other != key and isinstance(value, np.ndarray) and np.may_share_memory(given[key], value):
                    return (
                        f"{name}: expected {key} in memory of its own, but it overlaps {other}; pass a separate array"
                    )
        return None


@typeof_impl.register(Kernel)
def _typeof_kernel(value: Kernel, context: Any) -> types.Type:
    """Inside compiled code a kernel is its dispatcher."""
    return types.Dispatcher(value.dispatcher)


def kernel(
    shapes: dict[str, str], outputs: Iterable[str], optional: Iterable[str] = (), integers: Iterable[str] = ()
) -> Callable[[Callable[..., Any]], Kernel]:
    """Decorator form of `Kernel`."""
    return lambda function: Kernel(function, shapes, outputs, optional, integers)


@intrinsic
def n_threads(typingctx):
    """How many threads a parallel region may use: `numba.get_num_threads()`, which would keep a function out of the cache."""

    def codegen(context, builder, sig, args):
        function_type = ir.FunctionType(ir.IntType(types.intp.bitwidth), [])
        return builder.call(cgutils.get_or_insert_function(builder.module, function_type, "get_num_threads"), [])

    return types.intp(), codegen


@intrinsic
def _address(typingctx, array):
    if not isinstance(array, types.Array):
        return None

    def codegen(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, context.get_value_type(types.intp))

    return types.intp(array), codegen


@jit
def overlap(a, b):
    """Whether two C-contiguous arrays share memory; empty ones do not."""
    a0, b0 = _address(a), _address(b)
    return a0 < b0 + b.size * b.itemsize and b0 < a0 + a.size * a.itemsize and a.size > 0 and b.size > 0
