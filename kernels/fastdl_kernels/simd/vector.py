"""The vector type, and what emits LLVM for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import models, register_model

from fastdl_kernels.host import host


def isa() -> str:
    """`host().isa`: the instruction set that code is emitted for."""
    return host().isa


def lanes(dtype: Any) -> int:
    """How many numbers of `dtype` (float32 or float64) one `Vec` holds on this machine."""
    return host().lanes(np.dtype(dtype).itemsize)


class VecType(types.Type):
    """Numba type of a register of `count` floats, or of a mask (`element` boolean) with as many lanes."""

    def __init__(self, element: types.Type, count: int) -> None:
        self.element = element
        self.count = count
        super().__init__(name=f"Vec({element}, {count})")


@register_model(VecType)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: VecType) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(_llvm_element(fe_type.element), fe_type.count))


def _llvm_element(element: types.Type) -> ir.Type:
    return {types.float32: ir.FloatType(), types.float64: ir.DoubleType(), types.boolean: ir.IntType(1)}[element]


def vec_type(element: types.Type) -> VecType:
    """The full-width vector type of float32 or float64."""
    return VecType(element, host().lanes(element.bitwidth // 8))


def element_of(ty: types.Type) -> types.Type | None:
    """float32 or float64 for something that `load` can read from, else None."""
    if isinstance(ty, types.Array) and ty.layout == "C" and ty.dtype in (types.float32, types.float64):
        return ty.dtype
    if isinstance(ty, types.CPointer) and ty.dtype in (types.float32, types.float64):
        return ty.dtype
    return None


def element_pointer(context: Any, builder: ir.IRBuilder, ty: types.Type, value: ir.Value, index: ir.Value) -> ir.Value:
    """The address of element `index` of an array or pointer."""
    if isinstance(ty, types.Array):
        value = context.make_array(ty)(context, builder, value).data
    return builder.gep(value, [index])


def suffix(ty: ir.VectorType) -> str:
    return f"v{ty.count}f{32 if isinstance(ty.element, ir.FloatType) else 64}"


def call_llvm(builder: ir.IRBuilder, name: str, result: ir.Type, args: list[ir.Value]) -> ir.Value:
    """Call an LLVM intrinsic by its full name (`declare_intrinsic` cannot name the vector forms)."""
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(function, args)


def unaligned(instruction: ir.Instruction, element: types.Type) -> ir.Instruction:
    """Element alignment: NumPy arrays start anywhere."""
    instruction.align = element.bitwidth // 8
    return instruction


def constant(ty: ir.VectorType, value: float) -> ir.Constant:
    """The same number in every lane."""
    return ir.Constant(ty, [ir.Constant(ty.element, value)] * ty.count)


def splat(builder: ir.IRBuilder, ty: ir.VectorType, scalar: ir.Value) -> ir.Value:
    """A scalar in every lane."""
    one = builder.insert_element(ir.Constant(ty, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), ty.count), [0] * ty.count)
    return builder.shuffle_vector(one, ir.Constant(ty, ir.Undefined), zeros)


def first_mask(builder: ir.IRBuilder, count: int, n: ir.Value) -> ir.Value:
    """<count x i1>, true in the lanes before n (an i64)."""
    ints = ir.VectorType(ir.IntType(32), count)
    index = ir.Constant(ints, list(range(count)))
    return builder.icmp_signed("<", index, splat(builder, ints, builder.trunc(n, ir.IntType(32))))


def masked_load(builder: ir.IRBuilder, ty: ir.VectorType, address: ir.Value, mask: ir.Value) -> ir.Value:
    """Lanes under the mask, 0 in the others."""
    bytes_ = 4 if isinstance(ty.element, ir.FloatType) else 8
    address = builder.bitcast(address, ty.as_pointer())
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ty, [address.type, ir.IntType(32), mask.type, ty]),
        f"llvm.masked.load.{suffix(ty)}.p0",
    )
    return builder.call(function, [address, ir.Constant(ir.IntType(32), bytes_), mask, constant(ty, 0.0)])


def store_part(builder: ir.IRBuilder, pieces: list[tuple[ir.Value, ir.Value]], n: ir.Value) -> None:
    """Store the first n lanes, 0 < n < all (an i64), of each (vector, address); nothing else is written.

    By halves, quarters, ... as the bits of n say, except on AVX-512: a masked store of AVX2 takes 12 cycles or more on
    some processors (AMD Zen), and the other instruction sets have none.
    """
    ty = pieces[0][0].type
    if host().isa == "avx512":
        mask = first_mask(builder, ty.count, n)
        bytes_ = 4 if isinstance(ty.element, ir.FloatType) else 8
        for value, address in pieces:
            address = builder.bitcast(address, ty.as_pointer())
            function = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(ir.VoidType(), [ty, address.type, ir.IntType(32), mask.type]),
                f"llvm.masked.store.{suffix(ty)}.p0",
            )
            builder.call(function, [value, address, ir.Constant(ir.IntType(32), bytes_), mask])
        return
    index = ir.VectorType(ir.IntType(32), ty.count)
    part = ty.count // 2
    while part:
        before = builder.block
        bit = builder.icmp_unsigned("!=", builder.and_(n, ir.Constant(n.type, part)), ir.Constant(n.type, 0))
        moved = []
        with builder.if_then(bit):
            low = ir.Constant(ir.VectorType(ir.IntType(32), part), list(range(part)))
            rest = ir.Constant(index, [min(lane + part, ty.count - 1) for lane in range(ty.count)])
            for value, address in pieces:
                lanes_ = builder.shuffle_vector(value, value, low)
                store = builder.store(lanes_, builder.bitcast(address, lanes_.type.as_pointer()))
                store.align = 4 if isinstance(ty.element, ir.FloatType) else 8
                step = ir.Constant(ir.IntType(64), part)
                moved.append((builder.shuffle_vector(value, value, rest), builder.gep(address, [step])))
            then = builder.block
        merged = []
        for old, new in zip(pieces, moved, strict=True):
            phis = tuple(builder.phi(x.type) for x in old)
            for phi, x, y in zip(phis, old, new, strict=True):
                phi.add_incoming(x, before)
                phi.add_incoming(y, then)
            merged.append(phis)
        pieces = merged
        part //= 2


def emit_prefetch(builder: ir.IRBuilder, address: ir.Value, write: bool = False, level: int = 1) -> None:
    """Ask for the cache line at an address, in the cache of that level; an address that is not mapped does no harm."""
    anything = ir.IntType(8).as_pointer()
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [anything] + [ir.IntType(32)] * 3), "llvm.prefetch.p0"
    )
    builder.call(
        function,
        [builder.bitcast(address, anything)] + [ir.Constant(ir.IntType(32), v) for v in (int(write), 4 - level, 1)],
    )


def read_register(builder: ir.IRBuilder, name: str) -> ir.Value:
    """An i64 register of the processor by its name.

    Not by inline assembly: LLVM reads that of the processor it runs on only, and code for AArch64 is built on x86, too.
    """
    read = ir.FunctionType(ir.IntType(64), [ir.MetaDataType()])
    function = cgutils.get_or_insert_function(builder.module, read, "llvm.read_volatile_register.i64")
    return builder.call(function, [builder.module.add_metadata([name])])


def is_vec(ty: types.Type) -> bool:
    """True for a vector of numbers, not for a mask."""
    return isinstance(ty, VecType) and ty.element is not types.boolean
