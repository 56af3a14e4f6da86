"""Jobs on Numba's threads, for functions that are compiled as serial ones.

`parallel=True` sends a function through passes of Numba that take a second or more, for each of a dozen kernels. Here one
parallel region is compiled for all of them: it calls an address with the number of a job and a pointer to what the job
needs. Callers find it through a slot in memory, which says what a region is in this process:

* Numba's threads, under OpenMP and TBB, which give every Python thread regions of its own;
* the same under one lock for Numba's work queue, which aborts the process when two Python threads are inside at once;
* a loop on the calling thread in a child of fork, which has none of its parent's threads: OpenMP would end it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Any

import numba
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastdl_kernels._jit import callback, compile_for_c, parallel_jit, postpone_interrupt

forked = False
"""True in a child of fork: everything runs on the calling thread."""

# Reentrant: a signal handler may call a kernel while its thread is inside.
_lock = threading.RLock()

_I64, _BYTES = ir.IntType(64), ir.IntType(8).as_pointer()
_JOB = ir.FunctionType(ir.VoidType(), [_I64, _BYTES])
_REGION = ir.FunctionType(ir.VoidType(), [_I64] * 3)
_CJob = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)
_CRegion = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


@intrinsic
def _call_job(typingctx, address, job, data):
    """Call void job(i64, i8*) at an address."""

    def codegen(context, builder, sig, args):
        function = builder.inttoptr(args[0], _JOB.as_pointer())
        builder.call(function, [args[1], builder.inttoptr(args[2], _BYTES)])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64), codegen


@parallel_jit
def _on_threads(n, address, data):
    for job in numba.prange(n):
        _call_job(address, job, data)


def _region(n, address, data):
    _on_threads(n, address, data)


def _on_this_thread(n: int, address: int, data: int) -> None:
    job = _CJob(address)
    for i in range(n):
        job(i, data)


def _locked(n: int, address: int, data: int) -> None:
    with _lock:
        _compiled(n, address, data)


def _first(n: int, address: int, data: int) -> None:
    """The slot's first content: compiles the region, or loads it, and finds out what this process needs."""
    global _compiled
    try:
        numba.get_num_threads()  # starts the threads, without which a region from the cache finds no symbols
        function = compile_for_c(_region, (types.int64,) * 3)
        layer = numba.threading_layer()
    except Exception:  # no threading layer can be loaded, or no compiler: the work is done all the same
        _fill(_serial_callback)
        _on_this_thread(n, address, data)
        return
    except KeyboardInterrupt:
        postpone_interrupt()
        _on_this_thread(n, address, data)
        return
    _compiled = _CRegion(function.address)
    _keep.append(function)
    _fill(_locked_callback if layer == "workqueue" else _compiled)
    (_locked if layer == "workqueue" else _compiled)(n, address, data)


def _fill(function: Any) -> None:
    _slot.value = ctypes.cast(function, ctypes.c_void_p).value


_compiled: Any = None
_keep: list[Any] = []
_first_callback, _locked_callback, _serial_callback = (
    _CRegion(callback(function)) for function in (_first, _locked, _on_this_thread)
)
_slot = ctypes.c_void_p()
_fill(_first_callback)
binding.add_symbol("fastdl_region", ctypes.addressof(_slot))


def _note_fork() -> None:
    """The lock may be held by a thread that the child does not have."""
    global forked, _lock
    forked, _lock = True, threading.RLock()
    _fill(_serial_callback)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


@intrinsic
def n_threads(typingctx):
    """How many threads a region may use: `numba.get_num_threads()`, which would keep a function out of the cache."""

    def codegen(context, builder, sig, args):
        function_type = ir.FunctionType(ir.IntType(types.intp.bitwidth), [])
        return builder.call(cgutils.get_or_insert_function(builder.module, function_type, "get_num_threads"), [])

    return types.intp(), codegen


@intrinsic
def run_jobs(typingctx, job, n, on_threads, args):
    """job(i, *args) for i in 0 .. n - 1: in a region, or one after the other.

    `job` is a compiled function that returns nothing and raises nothing; `args` is a tuple.
    """
    if not isinstance(job, types.Dispatcher) or not isinstance(args, types.BaseTuple):
        return None
    call = job.get_call_type(typingctx, (types.int64, *args.types), {})

    def codegen(context, builder, sig, values):
        _, count, wanted, packed = values
        data = cgutils.alloca_once_value(builder, packed)
        function = ir.Function(builder.module, _JOB, builder.module.get_unique_name("fastdl_job"))
        function.linkage = "internal"
        inner = ir.IRBuilder(function.append_basic_block("entry"))
        unpacked = cgutils.unpack_tuple(inner, inner.load(inner.bitcast(function.args[1], packed.type.as_pointer())))
        compiled = job.dispatcher.overloads[call.args]
        context.add_linking_libs([compiled.library])
        context.call_internal_no_propagate(inner, compiled.fndesc, call, [function.args[0], *unpacked])
        inner.ret_void()
        with builder.if_else(wanted) as (then, otherwise):
            with then:
                slot = builder.module.globals.get("fastdl_region")
                if slot is None:
                    slot = cgutils.add_global_variable(builder.module, _REGION.as_pointer(), "fastdl_region")
                address = builder.ptrtoint(function, _I64)
                builder.call(builder.load(slot), [count, address, builder.ptrtoint(data, _I64)])
            with otherwise, cgutils.for_range(builder, count) as loop:
                builder.call(function, [loop.index, builder.bitcast(data, _BYTES)])
        return context.get_dummy_value()

    return types.none(job, types.int64, types.boolean, args), codegen
