"""The processor's treatment of subnormal numbers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastdl_kernels.host import host


def _control_register(builder: ir.IRBuilder, new: ir.Value | None) -> ir.Value | None:
    """Read the floating-point control register as an i64, or write it; nothing on processors that are not known."""
    i32, i64 = ir.IntType(32), ir.IntType(64)
    isa = host().isa
    if isa in ("avx512", "avx2", "sse"):
        with builder.goto_entry_block():
            cell = builder.alloca(i32)
        address = builder.bitcast(cell, ir.IntType(8).as_pointer())
        name = "llvm.x86.sse.stmxcsr" if new is None else "llvm.x86.sse.ldmxcsr"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [address.type]), name)
        if new is not None:
            builder.store(builder.trunc(new, i32), cell)
        builder.call(function, [address])
        return builder.zext(builder.load(cell), i64) if new is None else None
    if isa == "neon":
        if new is None:
            return builder.asm(ir.FunctionType(i64, []), "mrs $0, fpcr", "=r", [], side_effect=True)
        builder.asm(ir.FunctionType(ir.VoidType(), [i64]), "msr fpcr, $0", "r", [new], side_effect=True)
        return None
    return ir.Constant(i64, 0) if new is None else None


def _flush_bits() -> ir.Constant:
    """x86: FTZ is bit 15 and DAZ bit 6 of MXCSR; AArch64: FZ is bit 24 of FPCR."""
    return ir.Constant(ir.IntType(64), 1 << 24 if host().isa == "neon" else 0x8040)


def _unless_flushing(builder: ir.IRBuilder, mode: ir.Value) -> Any:
    """A branch for a mode without the bits: writing the register takes the time of 20 multiply-adds."""
    return builder.if_then(builder.icmp_unsigned("!=", builder.and_(mode, _flush_bits()), _flush_bits()))


@intrinsic
def flush_subnormals(typingctx):
    """Treat subnormal numbers as 0 on this thread from now on; returns what `restore_mode` takes.

    Arithmetic on subnormal numbers is 10 to 100 times slower on many processors.
    """

    def codegen(context, builder, sig, args):
        old = _control_register(builder, None)
        with _unless_flushing(builder, old):
            _control_register(builder, builder.or_(old, _flush_bits()))
        return old

    return types.int64(), codegen


@intrinsic
def keep_subnormals(typingctx):
    """Have this thread compute with subnormal numbers as they are, until `flush_subnormals` is called again."""

    def codegen(context, builder, sig, args):
        old = _control_register(builder, None)
        rest = builder.and_(old, builder.not_(_flush_bits()))
        with builder.if_then(builder.icmp_unsigned("!=", old, rest)):
            _control_register(builder, rest)
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic
def restore_mode(typingctx, mode):
    """Set the mode that `flush_subnormals` found."""
    if mode != types.int64:
        return None

    def codegen(context, builder, sig, args):
        with _unless_flushing(builder, args[0]):
            _control_register(builder, args[0])
        return context.get_dummy_value()

    return types.none(mode), codegen
