"""Arithmetic lane by lane, and across lanes."""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from fastdl_kernels.simd.vector import (
    VecType,
    call_llvm,
    is_vec,
    suffix,
)

_FLAGS = ("contract", "nsz")


def _binary(name: str, emit: Any) -> Any:
    """An intrinsic of two equal vectors; `emit(builder, a, b)` gives the result."""

    @intrinsic
    def operation(typingctx, a, b):
        if not is_vec(a) or a != b:
            return None

        def codegen(context, builder, sig, args):
            return emit(builder, *args)

        return a(a, b), codegen

    operation._name = name
    return operation


def _unary(emit: Any) -> Any:
    """An intrinsic of one vector."""

    @intrinsic
    def operation(typingctx, v):
        if not is_vec(v):
            return None

        def codegen(context, builder, sig, args):
            return emit(builder, args[0])

        return v(v), codegen

    return operation


def _comparison(symbol: str) -> Any:
    """An intrinsic of two equal vectors whose result is a mask."""

    @intrinsic
    def operation(typingctx, a, b):
        if not is_vec(a) or a != b:
            return None

        def codegen(context, builder, sig, args):
            compare = builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered
            return compare(symbol, *args)

        return VecType(types.boolean, a.count)(a, b), codegen

    return operation


# maxps/minps semantics: the second operand where either is NaN, which is how NaN is made to survive a ReLU.
minimum = _binary("minimum", lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
maximum = _binary("maximum", lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
sqrt = _unary(lambda builder, v: call_llvm(builder, f"llvm.sqrt.{suffix(v.type)}", v.type, [v]))
absolute = _unary(lambda builder, v: call_llvm(builder, f"llvm.fabs.{suffix(v.type)}", v.type, [v]))
floor = _unary(lambda builder, v: call_llvm(builder, f"llvm.floor.{suffix(v.type)}", v.type, [v]))
_negative = _unary(lambda builder, v: builder.fneg(v))


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c; llvm.fmuladd, because llvm.fma becomes library calls on a processor without FMA."""
    if not is_vec(a) or not a == b == c:
        return None

    def codegen(context, builder, sig, args):
        return call_llvm(builder, f"llvm.fmuladd.{suffix(args[0].type)}", args[0].type, list(args))

    return a(a, b, c), codegen


@intrinsic
def select(typingctx, mask, a, b):
    """a where mask, else b."""
    if not is_vec(a) or a != b or mask != VecType(types.boolean, a.count):
        return None

    def codegen(context, builder, sig, args):
        return builder.select(*args)

    return a(mask, a, b), codegen


def _attach(symbol: Any, operation: Any, arity: int) -> None:
    """Make an operator of Python work on vectors."""
    if arity == 1:

        @overload(symbol)
        def unary(v):
            if is_vec(v):
                return lambda v: operation(v)
            return None

    else:

        @overload(symbol)
        def binary(a, b):
            if is_vec(a) and a == b:
                return lambda a, b: operation(a, b)
            return None


_attach(operator.neg, _negative, 1)
_attach(operator.add, _binary("add", lambda builder, a, b: builder.fadd(a, b, flags=_FLAGS)), 2)
_attach(operator.sub, _binary("sub", lambda builder, a, b: builder.fsub(a, b, flags=_FLAGS)), 2)
_attach(operator.mul, _binary("mul", lambda builder, a, b: builder.fmul(a, b, flags=_FLAGS)), 2)
_attach(operator.truediv, _binary("div", lambda builder, a, b: builder.fdiv(a, b)), 2)
for _symbol, _operator in (
    ("<", operator.lt),
    ("<=", operator.le),
    (">", operator.gt),
    (">=", operator.ge),
    ("==", operator.eq),
    ("!=", operator.ne),
):
    _attach(_operator, _comparison(_symbol), 2)


def _fold(builder: ir.IRBuilder, v: ir.Value, combine: Any) -> ir.Value:
    """Halve the vector until one lane is left: a tree whose order depends on the number of lanes only."""
    count = v.type.count
    while count > 1:
        count //= 2
        undefined = ir.Constant(v.type, ir.Undefined)
        index = ir.VectorType(ir.IntType(32), count)
        low = builder.shuffle_vector(v, undefined, ir.Constant(index, list(range(count))))
        high = builder.shuffle_vector(v, undefined, ir.Constant(index, list(range(count, 2 * count))))
        v = combine(low, high)
    return builder.extract_element(v, ir.Constant(ir.IntType(32), 0))


@intrinsic
def hsum(typingctx, v):
    """The sum of all lanes, in a fixed order."""
    if not is_vec(v):
        return None

    def codegen(context, builder, sig, args):
        return _fold(builder, args[0], builder.fadd)

    return v.element(v), codegen


@intrinsic
def hmax(typingctx, v):
    """The greatest of all lanes (a NaN may be passed over: check for it in the sum that follows)."""
    if not is_vec(v):
        return None

    def codegen(context, builder, sig, args):
        return _fold(builder, args[0], lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))

    return v.element(v), codegen
