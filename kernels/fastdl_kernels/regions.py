"""Jobs on Numba's threads, for functions that are compiled as serial ones.

`parallel=True` sends a function through passes of Numba that take a second or more, for each of a dozen kernels. Here one
parallel region, a few instructions that are assembled when they are first needed, serves all of them: it launches Numba's
threads as Numba's own code does, and they call an address with the number of a job and a pointer to what the jobs need.
Callers find it through a slot in memory, which says what a region is in this process:

* Numba's threads, under OpenMP and TBB, which give every Python thread regions of its own;
* the same for Numba's work queue, whose launches go through `_launch`: it aborts the process when a second one begins
  before the first one has ended, from another Python thread or from inside;
* a loop on the calling thread in a child of fork, which has none of its parent's threads: OpenMP would end it.

A thread that is inside a region already, such as the body of a user's `prange`, does its jobs by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from typing import Any

import numba
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.ufunc import parallel

from fastdl_kernels._loader import assemble
from fastdl_kernels._signals import callback, handlers_later, interrupt_later

forked = False
"""True in a child of fork: everything runs on the calling thread."""

# Reentrant: a signal handler may call a kernel while its thread is inside.
_lock = threading.RLock()

_I64, _BYTES = ir.IntType(64), ir.IntType(8).as_pointer()
_LINE = 128  # bytes: what threads write to by turns lies on a cache line of its own, and on its neighbour
_JOB = ir.FunctionType(ir.VoidType(), [_I64, _BYTES])
_REGION = ir.FunctionType(ir.VoidType(), [_I64] * 3)
_INSIDE = ir.FunctionType(ir.IntType(32), [])
_COUNT = ir.FunctionType(ir.IntType(types.intp.bitwidth), [])
_CJob = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)
_CRegion = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_CCount = ctypes.CFUNCTYPE(ctypes.c_ssize_t)


# One task for each thread, which does the jobs of its number, and of that plus the number of threads, and so on. Numba's layers
# add steps[0] times the number of a task to args[0], and give a task dims[0] numbers in a row.
_REGION_TEXT = """
define void @fastdl.region(i64 %n, i64 %job, i64 %data) {{
  %args = alloca ptr
  %dims = alloca i64
  %steps = alloca i64
  %shared = alloca [4 x i64]
  %threads = call i64 inttoptr (i64 {count} to ptr)()
  store ptr null, ptr %args
  store i64 %threads, ptr %dims
  store i64 1, ptr %steps
  store i64 %n, ptr %shared
  %s1 = getelementptr i64, ptr %shared, i64 1
  store i64 %threads, ptr %s1
  %s2 = getelementptr i64, ptr %shared, i64 2
  store i64 %job, ptr %s2
  %s3 = getelementptr i64, ptr %shared, i64 3
  store i64 %data, ptr %s3
  %few = trunc i64 %threads to i32
  call void inttoptr (i64 {launch} to ptr)(
    ptr @fastdl.task, ptr %args, ptr %dims, ptr %steps, ptr %shared, i64 0, i64 1, i32 %few)
  ret void
}}
define void @fastdl.task(ptr %args, ptr %dims, ptr %steps, ptr %shared) {{
entry:
  %start = load ptr, ptr %args
  %first = ptrtoint ptr %start to i64
  %many = load i64, ptr %dims
  %behind = add i64 %first, %many
  %n = load i64, ptr %shared
  %s1 = getelementptr i64, ptr %shared, i64 1
  %threads = load i64, ptr %s1
  %s2 = getelementptr i64, ptr %shared, i64 2
  %job = load ptr, ptr %s2
  %s3 = getelementptr i64, ptr %shared, i64 3
  %data = load ptr, ptr %s3
  br label %task
task:
  %k = phi i64 [ %first, %entry ], [ %next_k, %next_task ]
  %has_task = icmp slt i64 %k, %behind
  br i1 %has_task, label %jobs, label %end
jobs:
  %i = phi i64 [ %k, %task ], [ %next_i, %do ]
  %has_job = icmp slt i64 %i, %n
  br i1 %has_job, label %do, label %next_task
do:
  call void %job(i64 %i, ptr %data)
  %next_i = add i64 %i, %threads
  br label %jobs
next_task:
  %next_k = add i64 %k, 1
  br label %task
end:
  ret void
}}
"""


def _on_this_thread(n: int, address: int, data: int) -> None:
    job = _CJob(address)
    for i in range(n):
        job(i, data)


def _first(n: int, address: int, data: int) -> None:
    """The slot's first content: compiles the region, or loads it, and finds out what this process needs."""
    global _compiled
    try:
        numba.get_num_threads()  # starts the threads
        symbols = {"count": "get_num_threads", "launch": "numba_parallel_for"}
        addresses = {key: binding.address_of_symbol(name) for key, name in symbols.items()}
        if None in addresses.values():
            raise LookupError("numba launches its threads in another way")
        function = handlers_later(assemble, _REGION_TEXT.format(**addresses), "fastdl.region")
    except Exception:  # no threading layer can be loaded: the work is done all the same
        _fill(_serial_callback)
        _on_this_thread(n, address, data)
        return
    except KeyboardInterrupt:
        interrupt_later()
        _on_this_thread(n, address, data)
        return
    _compiled = _CRegion(function)
    _fill(_compiled)
    _compiled(n, address, data)


def _fill(function: Any) -> None:
    _slot.value = ctypes.cast(function, ctypes.c_void_p).value


_compiled: Any = None
_first_callback, _serial_callback = (_CRegion(callback(function)) for function in (_first, _on_this_thread))
_slot = ctypes.c_void_p()
_fill(_first_callback)
binding.add_symbol("fastdl_region", ctypes.addressof(_slot))

_one_thread = _CCount(lambda: 1)
_count_slot = ctypes.c_void_p(ctypes.cast(_one_thread, ctypes.c_void_p).value)
binding.add_symbol("fastdl_n_threads", ctypes.addressof(_count_slot))


# Whether the calling thread is inside a region: 0 or not. Null where the layer does not say.
_inside_slot = ctypes.c_void_p()
binding.add_symbol("fastdl_inside", ctypes.addressof(_inside_slot))


def start_threads() -> None:
    """Start Numba's threads, which takes 10 ms; where no threading layer can be loaded, there is one thread, the caller's."""
    with contextlib.suppress(ValueError):
        alone = not parallel._is_initialized or threading.active_count() == 1
        numba.get_num_threads()
        _count_slot.value = binding.address_of_symbol("get_num_threads") or _count_slot.value
        if numba.threading_layer() == "workqueue":
            _guard_work_queue(alone)
        elif numba.threading_layer() == "omp":
            _inside_slot.value = _openmp_function("omp_in_parallel")


def _openmp_function(name: str) -> int | None:
    """The address of a function of the OpenMP library that Numba's layer has loaded."""
    for library in ("libgomp.so.1", "libomp.so", "libiomp5.so", "libomp.dylib", "vcomp140.dll"):
        with contextlib.suppress(OSError, AttributeError):
            return ctypes.cast(getattr(ctypes.CDLL(library), name), ctypes.c_void_p).value
    return None


# --- Numba's work queue ---

_CTask = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)
_CLaunch = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
_launch_work: Any = None
_workers: set[int] = set()


def _guard_work_queue(alone: bool) -> None:
    """Let what is compiled from now on launch its regions through `_launch`.

    The queue keeps one region in global variables. Its threads do all of the work while the one that launched waits, so that
    being one of them and being inside are the same.
    """
    global _launch_work
    from numba.np.ufunc import workqueue

    _launch_work = _CLaunch(workqueue.parallel_for)
    if alone:  # else a region may be under way
        _meet_workers()
    binding.add_symbol("numba_parallel_for", ctypes.cast(_launch_callback, ctypes.c_void_p).value)


def _meet_workers() -> None:
    """Note which threads the queue has: each gets one of as many tasks."""
    n = parallel.get_thread_count()
    note = _CTask(lambda *arguments: _workers.add(threading.get_ident()))
    _launch_work(ctypes.cast(note, ctypes.c_void_p), None, ctypes.byref(ctypes.c_size_t(n)), None, None, 0, 0, n)


def _launch(
    task: int, args: int, dims: int, steps: int, data: int, n_inner: int, n_arrays: int, n_threads: int
) -> None:
    """`numba_parallel_for` of the work queue: one launch after the other, and none by its own threads."""
    if threading.get_ident() in _workers:
        _CTask(task)(args, dims, steps, data)
        return
    with _lock:
        if not _workers and not forked:
            _meet_workers()
        _launch_work(task, args, dims, steps, data, n_inner, n_arrays, n_threads)


_launch_callback = _CLaunch(callback(_launch))


def _note_fork() -> None:
    """The lock may be held by a thread that the child does not have; the queue's threads are not there either."""
    global forked, _lock
    forked, _lock = True, threading.RLock()
    _workers.clear()
    _fill(_serial_callback)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def _emit_slot(builder: ir.IRBuilder, function_type: ir.FunctionType, name: str) -> ir.Value:
    """The function whose address stands in a slot of memory."""
    slot = builder.module.globals.get(name)
    if slot is None:
        slot = cgutils.add_global_variable(builder.module, function_type.as_pointer(), name)
    return builder.load(slot)


def _emit_n_threads(builder: ir.IRBuilder) -> ir.Value:
    """What `get_num_threads` says, or 1 inside a region."""
    count = cgutils.alloca_once_value(builder, builder.call(_emit_slot(builder, _COUNT, "fastdl_n_threads"), []))
    asks = _emit_slot(builder, _INSIDE, "fastdl_inside")
    with builder.if_then(cgutils.is_not_null(builder, asks)):
        inside = builder.icmp_signed("!=", builder.call(asks, []), ir.Constant(_INSIDE.return_type, 0))
        with builder.if_then(inside, likely=False):
            builder.store(ir.Constant(_COUNT.return_type, 1), count)
    return builder.load(count)


@intrinsic
def n_threads(typingctx):
    """How many threads a region may use: `numba.get_num_threads()`, which would keep a function out of the cache; 1 inside a
    region of OpenMP's, and where there are no threads."""

    def codegen(context, builder, sig, args):
        return _emit_n_threads(builder)

    return types.intp(), codegen


@intrinsic
def run_jobs(typingctx, job, n, on_threads, args):
    """job(i, *args) for i in 0 .. n - 1: in a region, or one after the other.

    In a region each thread starts with the job of its own number, so that it finds in its cache what it left there the time
    before, and then claims the next one that nobody has: threads that are held up leave the work to the others. `job` is a
    compiled function that returns nothing and raises nothing; `args` is a tuple.
    """
    if not isinstance(job, types.Dispatcher) or not isinstance(args, types.BaseTuple):
        return None
    call = job.get_call_type(typingctx, (types.int64, *args.types), {})

    def codegen(context, builder, sig, values):
        _, count, wanted, packed = values
        # The next job that nobody has, how many there are, and what they need.
        shared_type = ir.LiteralStructType([_I64, ir.ArrayType(_I64, _LINE // 8), _I64, packed.type])
        shared = cgutils.alloca_once(builder, shared_type)

        def field(build: ir.IRBuilder, data: ir.Value, i: int) -> ir.Value:
            return build.gep(data, [ir.Constant(ir.IntType(32), k) for k in (0, i)], inbounds=True)

        function = ir.Function(builder.module, _JOB, builder.module.get_unique_name("fastdl_jobs"))
        function.linkage = "internal"
        inner = ir.IRBuilder(function.append_basic_block("entry"))
        data = inner.bitcast(function.args[1], shared_type.as_pointer())
        unpacked = cgutils.unpack_tuple(inner, inner.load(field(inner, data, 3)))
        last = inner.load(field(inner, data, 2))
        compiled = job.dispatcher.overloads[call.args]
        context.add_linking_libs([compiled.library])
        before = inner.block
        loop, end = function.append_basic_block("loop"), function.append_basic_block("end")
        inner.cbranch(inner.icmp_signed("<", function.args[0], last), loop, end)
        inner.position_at_end(loop)
        number = inner.phi(_I64)
        context.call_internal_no_propagate(inner, compiled.fndesc, call, [number, *unpacked])
        following = inner.atomic_rmw("add", field(inner, data, 0), ir.Constant(_I64, 1), "monotonic")
        for value, block in ((function.args[0], before), (following, inner.block)):
            number.add_incoming(value, block)
        inner.cbranch(inner.icmp_signed("<", following, last), loop, end)
        inner.position_at_end(end)
        inner.ret_void()

        builder.store(packed, field(builder, shared, 3))
        builder.store(count, field(builder, shared, 2))
        one = ir.Constant(_I64, 1)
        threads = cgutils.alloca_once_value(builder, one)
        with builder.if_then(wanted):
            there = context.cast(builder, _emit_n_threads(builder), types.intp, types.int64)
            builder.store(builder.select(builder.icmp_signed("<", there, count), there, count), threads)
        n = builder.load(threads)
        builder.store(n, field(builder, shared, 0))
        with builder.if_else(builder.icmp_signed(">", n, one)) as (then, otherwise):
            with then:
                address = builder.ptrtoint(function, _I64)
                region = _emit_slot(builder, _REGION, "fastdl_region")
                builder.call(region, [n, address, builder.ptrtoint(shared, _I64)])
            with otherwise:
                builder.store(one, field(builder, shared, 0))
                builder.call(function, [ir.Constant(_I64, 0), builder.bitcast(shared, _BYTES)])
        return context.get_dummy_value()

    return types.none(job, types.int64, types.boolean, args), codegen
