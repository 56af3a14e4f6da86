"""Pointers, loads, stores and constants."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastdl_kernels.simd.vector import (
    VecType,
    element_of,
    element_pointer,
    emit_prefetch,
    first_mask,
    is_vec,
    masked_load,
    splat,
    store_part,
    unaligned,
    vec_type,
)


@intrinsic
def pointer(typingctx, array, index):
    """The address of element `index` of a C-contiguous array (indexed flat) or of another pointer."""
    element = element_of(array)
    if element is None and isinstance(array, types.Array) and array.layout == "C":
        element = array.dtype
    if element is None and isinstance(array, types.CPointer):
        element = array.dtype
    if element is None or not isinstance(index, types.Integer):
        return None

    def codegen(context, builder, sig, args):
        i = context.cast(builder, args[1], sig.args[1], types.intp)
        return element_pointer(context, builder, sig.args[0], args[0], i)

    return types.CPointer(element)(array, index), codegen


@intrinsic
def load(typingctx, a, i):
    """A full vector from a[i], a[i+1], ..."""
    element = element_of(a)
    if element is None or not isinstance(i, types.Integer):
        return None
    result = vec_type(element)

    def codegen(context, builder, sig, args):
        index = context.cast(builder, args[1], sig.args[1], types.intp)
        address = element_pointer(context, builder, sig.args[0], args[0], index)
        ty = context.get_value_type(result)
        return unaligned(builder.load(builder.bitcast(address, ty.as_pointer())), element)

    return result(a, i), codegen


def _load_part(full_where_possible: bool, doc: str) -> Any:
    """`load_first`, or `load_up_to`: with a branch to a plain load where all lanes are wanted."""

    @intrinsic
    def load_part(typingctx, a, i, n):
        element = element_of(a)
        if element is None or not isinstance(i, types.Integer) or not isinstance(n, types.Integer):
            return None
        result = vec_type(element)

        def codegen(context, builder, sig, args):
            index, n_ = (context.cast(builder, args[k], sig.args[k], types.intp) for k in (1, 2))
            address = element_pointer(context, builder, sig.args[0], args[0], index)
            ty = context.get_value_type(result)
            if not full_where_possible:
                return masked_load(builder, ty, address, first_mask(builder, result.count, n_))
            is_full = builder.icmp_signed(">=", n_, ir.Constant(n_.type, result.count))
            with builder.if_else(is_full) as (then, otherwise):
                with then:
                    full = unaligned(builder.load(builder.bitcast(address, ty.as_pointer())), element)
                    then_end = builder.block
                with otherwise:
                    part = masked_load(builder, ty, address, first_mask(builder, result.count, n_))
                    otherwise_end = builder.block
            value = builder.phi(ty)
            value.add_incoming(full, then_end)
            value.add_incoming(part, otherwise_end)
            return value

        return result(a, i, n), codegen

    load_part.__doc__ = doc
    return load_part


load_first = _load_part(
    False, "The first n lanes from a[i], ..., and 0 in the others; memory beyond a[i+n-1] is not touched."
)
load_up_to = _load_part(True, "A vector from a[i] on: full where n allows, else the first n lanes and 0 in the others.")


def _prefetch(level: int, doc: str) -> Any:
    @intrinsic
    def prefetch(typingctx, a, i):
        if (element_of(a) is None and not isinstance(a, types.CPointer)) or not isinstance(i, types.Integer):
            return None

        def codegen(context, builder, sig, args):
            index = context.cast(builder, args[1], sig.args[1], types.intp)
            emit_prefetch(builder, element_pointer(context, builder, sig.args[0], args[0], index), level=level)
            return context.get_dummy_value()

        return types.none(a, i), codegen

    prefetch.__doc__ = doc
    return prefetch


prefetch = _prefetch(
    1, "Ask for the cache line of a[i]; i may lie beyond the end. A pointer may be one to numbers of any type."
)
prefetch_second = _prefetch(2, "As `prefetch`, but into L2: for what is needed later than a microsecond from now.")


@intrinsic
def store(typingctx, a, i, v):
    """a[i], a[i+1], ... = v."""
    element = element_of(a)
    if element is None or v != vec_type(element):
        return None

    def codegen(context, builder, sig, args):
        index = context.cast(builder, args[1], sig.args[1], types.intp)
        address = element_pointer(context, builder, sig.args[0], args[0], index)
        unaligned(builder.store(args[2], builder.bitcast(address, args[2].type.as_pointer())), element)
        return context.get_dummy_value()

    return types.none(a, i, v), codegen


@intrinsic
def store_first(typingctx, a, i, v, n):
    """a[i], ..., a[i+n-1] = the first n lanes of v; nothing else is written."""
    element = element_of(a)
    if element is None or v != vec_type(element) or not isinstance(n, types.Integer):
        return None

    def codegen(context, builder, sig, args):
        index, n_ = (context.cast(builder, args[k], sig.args[k], types.intp) for k in (1, 3))
        address = element_pointer(context, builder, sig.args[0], args[0], index)
        count = ir.Constant(ir.IntType(64), sig.args[2].count)
        with builder.if_else(builder.icmp_signed(">=", n_, count)) as (then, otherwise):
            with then:
                unaligned(builder.store(args[2], builder.bitcast(address, args[2].type.as_pointer())), element)
            with otherwise, builder.if_then(builder.icmp_signed(">", n_, ir.Constant(ir.IntType(64), 0))):
                store_part(builder, [(args[2], address)], n_)
        return context.get_dummy_value()

    return types.none(a, i, v, n), codegen


@intrinsic
def load_strided(typingctx, a, i, stride, n):
    """a[i], a[i + stride], a[i + 2 stride], ...: n of them, 1 or more; the lanes from n on repeat the last one."""
    element = element_of(a)
    if element is None or not all(isinstance(x, types.Integer) for x in (i, stride, n)):
        return None
    result = vec_type(element)

    def codegen(context, builder, sig, args):
        index, stride_, n_ = (context.cast(builder, args[k], sig.args[k], types.intp) for k in (1, 2, 3))
        last = builder.sub(n_, ir.Constant(ir.IntType(64), 1))
        value = ir.Constant(context.get_value_type(result), ir.Undefined)
        for lane in range(result.count):
            row = ir.Constant(ir.IntType(64), lane)
            row = builder.select(builder.icmp_signed("<", row, last), row, last)
            place = builder.add(index, builder.mul(row, stride_))
            address = element_pointer(context, builder, sig.args[0], args[0], place)
            value = builder.insert_element(value, builder.load(address), ir.Constant(ir.IntType(32), lane))
        return value

    return result(a, i, stride, n), codegen


@intrinsic
def store_strided(typingctx, a, i, stride, v, n):
    """a[i], a[i + stride], ... = the first n lanes of v."""
    element = element_of(a)
    if element is None or v != vec_type(element) or not all(isinstance(x, types.Integer) for x in (i, stride, n)):
        return None

    def codegen(context, builder, sig, args):
        index, stride_, n_ = (context.cast(builder, args[k], sig.args[k], types.intp) for k in (1, 2, 4))
        end = builder.append_basic_block("strided_end")
        for lane in range(v.count):
            store_lane = builder.append_basic_block("strided_lane")
            builder.cbranch(builder.icmp_signed("<", ir.Constant(ir.IntType(64), lane), n_), store_lane, end)
            builder.position_at_end(store_lane)
            place = builder.add(index, builder.mul(ir.Constant(ir.IntType(64), lane), stride_))
            number = builder.extract_element(args[3], ir.Constant(ir.IntType(32), lane))
            builder.store(number, element_pointer(context, builder, sig.args[0], args[0], place))
        builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.none(a, i, stride, v, n), codegen


@intrinsic
def broadcast(typingctx, x):
    """The float32 or float64 number x in every lane."""
    if x not in (types.float32, types.float64):
        return None
    result = vec_type(x)

    def codegen(context, builder, sig, args):
        return splat(builder, context.get_value_type(result), args[0])

    return result(x), codegen


@intrinsic
def first_lanes(typingctx, v, n):
    """The mask that is true in the lanes before n: none for n <= 0, all from the width on."""
    if not isinstance(v, VecType) or not isinstance(n, types.Integer):
        return None

    def codegen(context, builder, sig, args):
        n_ = context.cast(builder, args[1], sig.args[1], types.int64)
        # Compared as 32-bit numbers: a count beyond the vector's width, or far below 0, must not wrap around.
        none, most = ir.Constant(ir.IntType(64), 0), ir.Constant(ir.IntType(64), v.count)
        n_ = builder.select(builder.icmp_signed("<", n_, most), n_, most)
        n_ = builder.select(builder.icmp_signed(">", n_, none), n_, none)
        return first_mask(builder, v.count, n_)

    return VecType(types.boolean, v.count)(v, n), codegen


@intrinsic
def first_true(typingctx, mask):
    """The first lane in which the mask is true; the number of lanes where none is."""
    if not isinstance(mask, VecType) or mask.element is not types.boolean:
        return None

    def codegen(context, builder, sig, args):
        bits = builder.zext(builder.bitcast(args[0], ir.IntType(mask.count)), ir.IntType(64))
        beyond = builder.or_(bits, ir.Constant(ir.IntType(64), 1 << mask.count))
        return builder.cttz(beyond, ir.Constant(ir.IntType(1), 1))

    return types.int64(mask), codegen


@intrinsic
def number_like(typingctx, x, value):
    """`value` as a number of x's type: Numba's own arithmetic of float32 with whole numbers goes to float64."""
    if x not in (types.float32, types.float64) or not isinstance(value, types.Number):
        return None

    def codegen(context, builder, sig, args):
        return context.cast(builder, args[1], sig.args[1], sig.return_type)

    return x(x, value), codegen


@intrinsic
def lane_index(typingctx, x):
    """0, 1, 2, ... as numbers of x's type (x itself is not used)."""
    if x not in (types.float32, types.float64):
        return None
    result = vec_type(x)

    def codegen(context, builder, sig, args):
        return ir.Constant(context.get_value_type(result), [float(i) for i in range(result.count)])

    return result(x), codegen


@intrinsic
def lanes_of(typingctx, a):
    """Lanes of a vector of a's numbers, a constant of the compiled code; a is an array, a pointer or a number."""
    element = a if a in (types.float32, types.float64) else element_of(a)
    if element is None:
        return None

    def codegen(context, builder, sig, args):
        return ir.Constant(ir.IntType(64), vec_type(element).count)

    return types.int64(a), codegen


@intrinsic
def null(typingctx, x):
    """The null pointer to numbers of x's type, for optional operands; float32, float64, int32 or int64."""
    if x not in (types.float32, types.float64, types.int32, types.int64):
        return None

    def codegen(context, builder, sig, args):
        return ir.Constant(context.get_value_type(sig.return_type), None)

    return types.CPointer(x)(x), codegen


@intrinsic
def is_null(typingctx, p):
    """True for `null`."""
    if not isinstance(p, types.CPointer):
        return None

    def codegen(context, builder, sig, args):
        return builder.icmp_unsigned("==", builder.ptrtoint(args[0], ir.IntType(64)), ir.Constant(ir.IntType(64), 0))

    return types.boolean(p), codegen


store_up_to = store_first
"""The lanes of v that n allows: all of them, or the first n."""


@intrinsic
def like(typingctx, v, literal):
    """The literal number in every lane of a vector of v's type."""
    if not is_vec(v):
        return None

    def codegen(context, builder, sig, args):
        scalar = context.cast(builder, args[1], sig.args[1], sig.return_type.element)
        return splat(builder, args[0].type, scalar)

    return v(v, literal), codegen
