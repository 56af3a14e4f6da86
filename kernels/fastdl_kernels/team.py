"""One parallel region, many steps: the threads that arrive form a team and meet at barriers in memory.

Entering a parallel region of Numba costs 3 us under OpenMP and 100 us under its own work queue; a barrier of two
spinning threads costs 0.3 us. A region is entered with T iterations, and each calls `check_in`. How many threads really
come, and when, is up to the threading layer (tbb, nesting and containers give fewer): the first one waits a moment and
then closes the team. Whoever comes later finds the door shut and leaves; the work is done by those who are in.

Nothing here depends on the number of threads but speed: jobs own their outputs, and sums run in an order of their own.
"""

from __future__ import annotations

import sys
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastdl_kernels._jit import jit
from fastdl_kernels.host import host
from fastdl_kernels.simd.vector import call_llvm, element_pointer

# Fields of a team's state, an int64 array: each on its own 128 bytes, since neighbours of a cache line come with it.
_DOOR, _SIZE, _ARRIVED, _PHASE, _NEXT, STOP = (16 * i for i in range(6))
STATE_SIZE = 16 * 6
"""`state[STOP] = 1`, from any thread at any time: no job is given out any more, and the team runs through its barriers."""

_NO_JOB = 1 << 62

_CLOSED = 1 << 32
# Rounds of waiting for the others to check in: about 1 ms, against the 50 ms of work that a region is entered for. A
# thread that has to be started first takes 0.1 ms or more.
_PATIENCE = 25_000
# Rounds of spinning at a barrier before the thread lets others run: with more threads than cores they need its core.
_SPINS = 2_000


def _emit_pause(builder: ir.IRBuilder) -> None:
    """Tell the processor that this is a waiting loop."""
    if host().isa in ("avx512", "avx2", "sse"):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"
        )
        builder.call(function, [])
    elif host().isa == "neon":
        call_llvm(builder, "llvm.aarch64.hint", ir.VoidType(), [ir.Constant(ir.IntType(32), 1)])  # yield


@intrinsic
def pause(typingctx):
    """A moment's rest inside a waiting loop."""

    def codegen(context, builder, sig, args):
        _emit_pause(builder)
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic
def give_way(typingctx):
    """Let another thread have this core."""

    def codegen(context, builder, sig, args):
        name, result = (
            ("SwitchToThread", ir.IntType(32)) if sys.platform == "win32" else ("sched_yield", ir.IntType(32))
        )
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, []), name)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.none(), codegen


def _atomic(emit: Any, n_args: int) -> Any:
    """An intrinsic over element i of int64 numbers, an array or a pointer; `emit(builder, address, *numbers)` gives an i64."""
    if n_args == 0:

        @intrinsic
        def operation(typingctx, array, i):
            def codegen(context, builder, sig, args):
                return emit(builder, _place(context, builder, sig, args))

            return types.int64(array, types.int64), codegen

    else:

        @intrinsic
        def operation(typingctx, array, i, value):
            def codegen(context, builder, sig, args):
                return emit(builder, _place(context, builder, sig, args), args[2])

            return types.int64(array, types.int64, types.int64), codegen

    return operation


def _place(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
    return element_pointer(context, builder, sig.args[0], args[0], args[1])


def _emit_store(builder: ir.IRBuilder, address: ir.Value, value: ir.Value) -> ir.Value:
    builder.store_atomic(value, address, "release", 8)
    return value


atomic_load = _atomic(lambda builder, address: builder.load_atomic(address, "acquire", 8), 0)
atomic_store = _atomic(_emit_store, 1)
atomic_add = _atomic(lambda builder, address, value: builder.atomic_rmw("add", address, value, "acq_rel"), 1)
atomic_or = _atomic(lambda builder, address, value: builder.atomic_rmw("or", address, value, "acq_rel"), 1)


@jit
def check_in(state, wanted):
    """(rank, size of the team), or (-1, 0) for a thread that comes when the team is closed. State starts as zeros."""
    before = atomic_add(state, _DOOR, 1)
    if before >= _CLOSED:
        return -1, 0
    if before == 0:
        rounds = 0
        while atomic_load(state, _DOOR) < wanted and rounds < _PATIENCE:
            pause()
            rounds += 1
        size = min(atomic_or(state, _DOOR, _CLOSED), wanted)
        atomic_store(state, _NEXT, size)
        atomic_store(state, _SIZE, size)
        return 0, size
    size = atomic_load(state, _SIZE)
    rounds = 0
    while size == 0:
        pause()
        rounds += 1
        if rounds > _SPINS:
            give_way()
        size = atomic_load(state, _SIZE)
    return (before, size) if before < size else (-1, 0)


@jit
def barrier(state, size):
    """Wait until all threads of the team are here; what they wrote before is visible after."""
    if size == 1:
        state[_NEXT] = 1
        return
    phase = atomic_load(state, _PHASE)
    if atomic_add(state, _ARRIVED, 1) == size - 1:
        atomic_store(state, _ARRIVED, 0)
        atomic_store(state, _NEXT, size)
        atomic_store(state, _PHASE, phase + 1)
        return
    rounds = 0
    while atomic_load(state, _PHASE) == phase:
        pause()
        rounds += 1
        if rounds > _SPINS:
            give_way()


@jit
def first_job(state, rank):
    """The job of a thread's own with which it starts a phase, before it claims others; a huge one after STOP.

    Its data are what its core has seen in the step before, and nobody waits for a counter.
    """
    return _NO_JOB if atomic_load(state, STOP) else rank


@jit
def claim(state, size):
    """The number of the next job since the last barrier that nobody has, from `size` on; a huge one after STOP.

    Who sees a phase with jobs left out sees STOP in the next one as well, so that no job works on what is not there.
    """
    if atomic_load(state, STOP):
        return _NO_JOB
    if size == 1:
        job = state[_NEXT]
        state[_NEXT] = job + 1
        return job
    return atomic_add(state, _NEXT, 1)
