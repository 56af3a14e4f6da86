"""Jobs on Numba's threads, from functions that are compiled as serial ones.

`parallel=True` sends a function through passes of Numba that take a second or more, for each of a dozen kernels. Here one
region is compiled for all of them: it calls an address with the number of a job and a pointer to what the job needs.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastdl_kernels._jit import Linked, jit, parallel_jit

_I64, _BYTES = ir.IntType(64), ir.IntType(8).as_pointer()
_JOB = ir.FunctionType(ir.VoidType(), [_I64, _BYTES])


@intrinsic
def _call_job(typingctx, address, job, data):
    """Call void job(i64, i8*) at an address."""

    def codegen(context, builder, sig, args):
        function = builder.inttoptr(args[0], _JOB.as_pointer())
        builder.call(function, [args[1], builder.inttoptr(args[2], _BYTES)])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64), codegen


@parallel_jit
def region(n, address, data):
    """Jobs 0 .. n - 1 on Numba's threads."""
    for job in numba.prange(n):
        _call_job(address, job, data)


@intrinsic
def parallel_for(typingctx, job, n, args):
    """job(i, *args) for i in 0 .. n - 1, on Numba's threads; `job` is a compiled function that returns nothing."""
    if not isinstance(job, types.Dispatcher) or not isinstance(args, types.BaseTuple):
        return None
    call = job.get_call_type(typingctx, (types.int64, *args.types), {})

    def codegen(context, builder, sig, values):
        _, count, packed = values
        data = cgutils.alloca_once_value(builder, packed)
        module = builder.module
        name = module.get_unique_name("fastdl_job")
        function = ir.Function(module, _JOB, name)
        function.linkage = "internal"
        inner = ir.IRBuilder(function.append_basic_block("entry"))
        again = inner.load(inner.bitcast(function.args[1], packed.type.as_pointer()))
        compiled = job.dispatcher.overloads[call.args]
        context.add_linking_libs([compiled.library])
        # A job has no exceptions to hand on.
        context.call_internal_no_propagate(
            inner, compiled.fndesc, call, [function.args[0], *cgutils.unpack_tuple(inner, again)]
        )
        inner.ret_void()
        address = builder.ptrtoint(function, _I64)
        region_type = types.Dispatcher(region)
        region_call = region_type.get_call_type(typingctx, (types.int64,) * 3, {})
        run = context.get_function(region_type, region_call)
        run(builder, [count, address, builder.ptrtoint(data, _I64)])
        return context.get_dummy_value()

    return types.none(job, types.int64, args), codegen
