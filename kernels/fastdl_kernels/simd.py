"""Explicit SIMD for Numba: a vector of as many lanes as one register of this processor holds.

Numba's loops are vectorised by LLVM when it can prove that it may; a `Vec` is a register by construction. Kernels are
written once against `lanes(dtype)` and run with 16 (AVX-512), 8 (AVX2) or 4 (SSE, NEON) float32 lanes, half of that in
float64. The functions work inside `@njit` code only:

    >>> import numba, numpy as np
    >>> from fastdl_kernels import simd
    >>> LANES = simd.lanes(np.float32)
    >>> @numba.njit
    ... def scaled_exp(a, factor, out):            # out = factor * exp(a), any length
    ...     f = simd.broadcast(factor)
    ...     full = a.size - a.size % LANES
    ...     for i in range(0, full, LANES):
    ...         simd.store(out, i, f * simd.exp(simd.load(a, i)))
    ...     rest = a.size - full
    ...     if rest:
    ...         simd.store_first(out, full, f * simd.exp(simd.load_first(a, full, rest)), rest)
    >>> a = np.linspace(-1, 1, 11, dtype=np.float32)
    >>> out = np.empty_like(a)
    >>> scaled_exp(a, np.float32(2), out)
    >>> bool(np.allclose(out, 2 * np.exp(a)))
    True

| function                                | per lane                                                                |
|-----------------------------------------|-------------------------------------------------------------------------|
| `load(a, i)`, `store(a, i, v)`          | a[i], a[i+1], ...: no alignment needed, no bounds check                 |
| `load_first(a, i, n)`                   | the first n lanes, 0 in the others; nothing beyond a[i+n-1] is touched  |
| `store_first(a, i, v, n)`               | only the first n lanes                                                  |
| `broadcast(x)`, `lane_index(x)`         | x in every lane; 0, 1, 2, ... of x's type                               |
| `+ - * /`, unary `-`, `< <= > >= == !=` | arithmetic; comparisons give a mask                                     |
| `fma(a, b, c)`                          | a * b + c in one rounding where the processor can, else in two          |
| `minimum(a, b)`, `maximum(a, b)`        | of numbers: b where either is NaN                                       |
| `select(mask, a, b)`                    | a where the mask is true, else b                                        |
| `sqrt(v)`, `absolute(v)`, `floor(v)`    | exact                                                                   |
| `exp(v)`, `log(v)`, `tanh(v)`, `sigmoid(v)` | at most 2 units in the last place from the exact value, NaN stays NaN |
| `hsum(v)`, `hmax(v)`                    | one number: the sum in a fixed tree order; the maximum                  |

`a` is a C-contiguous array of any shape, indexed flat, or a `pointer(a, i)`, which passes through functions without
touching reference counts. A pointer does not keep its array alive: hold the array while you use it.
"""

from __future__ import annotations

import operator
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, overload, register_model

from fastdl_kernels._jit import jit
from fastdl_kernels.host import host

__all__ = [
    "absolute",
    "broadcast",
    "exp",
    "floor",
    "fma",
    "hmax",
    "hsum",
    "lane_index",
    "lanes",
    "load",
    "load_first",
    "log",
    "maximum",
    "minimum",
    "pointer",
    "select",
    "sigmoid",
    "sqrt",
    "store",
    "store_first",
    "tanh",
]


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


# --- helpers for the intrinsics below ---------------------------------------------------------------------------------


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


def _suffix(ty: ir.VectorType) -> str:
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
        f"llvm.masked.load.{_suffix(ty)}.p0",
    )
    return builder.call(function, [address, ir.Constant(ir.IntType(32), bytes_), mask, constant(ty, 0.0)])


def masked_store(builder: ir.IRBuilder, value: ir.Value, address: ir.Value, mask: ir.Value) -> None:
    """Only the lanes under the mask."""
    ty = value.type
    bytes_ = 4 if isinstance(ty.element, ir.FloatType) else 8
    address = builder.bitcast(address, ty.as_pointer())
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [ty, address.type, ir.IntType(32), mask.type]),
        f"llvm.masked.store.{_suffix(ty)}.p0",
    )
    builder.call(function, [value, address, ir.Constant(ir.IntType(32), bytes_), mask])


# --- memory -----------------------------------------------------------------------------------------------------------


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


@intrinsic
def load_first(typingctx, a, i, n):
    """The first n lanes from a[i], ..., and 0 in the others; memory beyond a[i+n-1] is not touched."""
    element = element_of(a)
    if element is None or not isinstance(i, types.Integer) or not isinstance(n, types.Integer):
        return None
    result = vec_type(element)

    def codegen(context, builder, sig, args):
        index, n_ = (context.cast(builder, args[k], sig.args[k], types.intp) for k in (1, 2))
        address = element_pointer(context, builder, sig.args[0], args[0], index)
        return masked_load(builder, context.get_value_type(result), address, first_mask(builder, result.count, n_))

    return result(a, i, n), codegen


def emit_prefetch(builder: ir.IRBuilder, address: ir.Value, write: bool = False) -> None:
    """Ask for the cache line at an address; an address that is not mapped does no harm."""
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [address.type] + [ir.IntType(32)] * 3),
        "llvm.prefetch.p0",
    )
    builder.call(function, [address] + [ir.Constant(ir.IntType(32), v) for v in (int(write), 3, 1)])


@intrinsic
def prefetch(typingctx, a, i):
    """Ask for the cache line of a[i]; i may lie beyond the end."""
    if element_of(a) is None or not isinstance(i, types.Integer):
        return None

    def codegen(context, builder, sig, args):
        index = context.cast(builder, args[1], sig.args[1], types.intp)
        emit_prefetch(builder, element_pointer(context, builder, sig.args[0], args[0], index))
        return context.get_dummy_value()

    return types.none(a, i), codegen


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
        masked_store(builder, args[2], address, first_mask(builder, sig.args[2].count, n_))
        return context.get_dummy_value()

    return types.none(a, i, v, n), codegen


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
    """The null pointer to numbers of x's type, for optional operands."""
    if x not in (types.float32, types.float64):
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


@jit
def load_up_to(a, i, n):
    """A vector from a[i] on: full where n allows, else the first n lanes and 0 in the others."""
    if n >= lanes_of(a):
        return load(a, i)
    return load_first(a, i, n)


@jit
def store_up_to(a, i, v, n):
    """The lanes of v that n allows: all of them, or the first n."""
    if n >= lanes_of(a):
        store(a, i, v)
    else:
        store_first(a, i, v, n)


# --- the processor's treatment of subnormal numbers -------------------------------------------------------------------


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


@intrinsic
def flush_subnormals(typingctx):
    """Treat subnormal numbers as 0 on this thread from now on; returns what `restore_mode` takes.

    Arithmetic on subnormal numbers is 10 to 100 times slower on many processors.
    """

    def codegen(context, builder, sig, args):
        old = _control_register(builder, None)
        # x86: FTZ is bit 15 and DAZ bit 6 of MXCSR; AArch64: FZ is bit 24 of FPCR.
        bits = 1 << 24 if host().isa == "neon" else 0x8040
        _control_register(builder, builder.or_(old, ir.Constant(ir.IntType(64), bits)))
        return old

    return types.int64(), codegen


@intrinsic
def restore_mode(typingctx, mode):
    """Set the mode that `flush_subnormals` found."""
    if mode != types.int64:
        return None

    def codegen(context, builder, sig, args):
        _control_register(builder, args[0])
        return context.get_dummy_value()

    return types.none(mode), codegen


# --- arithmetic, lane by lane -----------------------------------------------------------------------------------------

_FLAGS = ("contract", "nsz")


def _is_vec(ty: types.Type) -> bool:
    return isinstance(ty, VecType) and ty.element is not types.boolean


def _binary(name: str, emit: Any) -> Any:
    """An intrinsic of two equal vectors; `emit(builder, a, b)` gives the result."""

    @intrinsic
    def operation(typingctx, a, b):
        if not _is_vec(a) or a != b:
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
        if not _is_vec(v):
            return None

        def codegen(context, builder, sig, args):
            return emit(builder, args[0])

        return v(v), codegen

    return operation


def _comparison(symbol: str) -> Any:
    """An intrinsic of two equal vectors whose result is a mask."""

    @intrinsic
    def operation(typingctx, a, b):
        if not _is_vec(a) or a != b:
            return None

        def codegen(context, builder, sig, args):
            compare = builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered
            return compare(symbol, *args)

        return VecType(types.boolean, a.count)(a, b), codegen

    return operation


# maxps/minps semantics: the second operand where either is NaN, which is how NaN is made to survive a ReLU.
minimum = _binary("minimum", lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
maximum = _binary("maximum", lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
sqrt = _unary(lambda builder, v: call_llvm(builder, f"llvm.sqrt.{_suffix(v.type)}", v.type, [v]))
absolute = _unary(lambda builder, v: call_llvm(builder, f"llvm.fabs.{_suffix(v.type)}", v.type, [v]))
floor = _unary(lambda builder, v: call_llvm(builder, f"llvm.floor.{_suffix(v.type)}", v.type, [v]))
_negative = _unary(lambda builder, v: builder.fneg(v))


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c; llvm.fmuladd, because llvm.fma becomes library calls on a processor without FMA."""
    if not _is_vec(a) or not a == b == c:
        return None

    def codegen(context, builder, sig, args):
        return call_llvm(builder, f"llvm.fmuladd.{_suffix(args[0].type)}", args[0].type, list(args))

    return a(a, b, c), codegen


@intrinsic
def select(typingctx, mask, a, b):
    """a where mask, else b."""
    if not _is_vec(a) or a != b or mask != VecType(types.boolean, a.count):
        return None

    def codegen(context, builder, sig, args):
        return builder.select(*args)

    return a(mask, a, b), codegen


def _attach(symbol: Any, operation: Any, arity: int) -> None:
    """Make an operator of Python work on vectors."""
    if arity == 1:

        @overload(symbol)
        def unary(v):
            if _is_vec(v):
                return lambda v: operation(v)
            return None

    else:

        @overload(symbol)
        def binary(a, b):
            if _is_vec(a) and a == b:
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


# --- across lanes -----------------------------------------------------------------------------------------------------


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
    if not _is_vec(v):
        return None

    def codegen(context, builder, sig, args):
        return _fold(builder, args[0], builder.fadd)

    return v.element(v), codegen


@intrinsic
def hmax(typingctx, v):
    """The greatest of all lanes (a NaN may be passed over: check for it in the sum that follows)."""
    if not _is_vec(v):
        return None

    def codegen(context, builder, sig, args):
        return _fold(builder, args[0], lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))

    return v.element(v), codegen


# --- powers of two, for the range reductions --------------------------------------------------------------------------


@intrinsic
def _scale_by_power(typingctx, v, n):
    """v * 2^n for whole numbers n with 2^n normal: n is added to the exponent of 1."""
    if not _is_vec(v) or v != n:
        return None
    bits, mantissa, bias = (32, 23, 127) if v.element is types.float32 else (64, 52, 1023)

    def codegen(context, builder, sig, args):
        ints = ir.VectorType(ir.IntType(bits), v.count)
        # Adding 1.5 * 2^mantissa puts a small whole number into the low bits: no conversion instruction, which AVX2
        # does not have for 64 bits.
        magic = 1.5 * 2.0**mantissa
        shifted = builder.bitcast(builder.fadd(args[1], constant(args[1].type, magic)), ints)
        exponent = builder.add(shifted, ir.Constant(ints, [bias] * v.count))
        power = builder.bitcast(builder.shl(exponent, ir.Constant(ints, [mantissa] * v.count)), args[0].type)
        return builder.fmul(args[0], power)

    return v(v, n), codegen


@intrinsic
def _exponent_and_mantissa(typingctx, v):
    """(e, m) of normal positive v = m * 2^e with sqrt(1/2) <= m < sqrt(2), both as vectors."""
    if not _is_vec(v):
        return None
    bits, mantissa, bias = (32, 23, 127) if v.element is types.float32 else (64, 52, 1023)

    def codegen(context, builder, sig, args):
        floats = args[0].type
        ints = ir.VectorType(ir.IntType(bits), v.count)

        def whole(value: int) -> ir.Constant:
            return ir.Constant(ints, [value] * v.count)

        word = builder.bitcast(args[0], ints)
        exponent = builder.lshr(word, whole(mantissa))
        # The exponent's bits as the low bits of a large number: subtracting its base converts them.
        base = {32: 2.0**23, 64: 2.0**52}[bits]
        base_bits = {32: 0x4B000000, 64: 0x4330000000000000}[bits]
        e = builder.fsub(builder.bitcast(builder.or_(exponent, whole(base_bits)), floats), constant(floats, base + bias))
        m = builder.or_(builder.and_(word, whole((1 << mantissa) - 1)), whole(bias << mantissa))
        m = builder.bitcast(m, floats)
        high = builder.fcmp_ordered(">", m, constant(floats, 2.0**0.5))
        m = builder.select(high, builder.fmul(m, constant(floats, 0.5)), m)
        e = builder.select(high, builder.fadd(e, constant(floats, 1.0)), e)
        return context.make_tuple(builder, sig.return_type, (e, m))

    return types.UniTuple(v, 2)(v), codegen


@intrinsic
def _copysign(typingctx, magnitude, sign):
    """magnitude with the sign of sign."""
    if not _is_vec(magnitude) or magnitude != sign:
        return None

    def codegen(context, builder, sig, args):
        return call_llvm(builder, f"llvm.copysign.{_suffix(args[0].type)}", args[0].type, list(args))

    return magnitude(magnitude, sign), codegen


@intrinsic
def like(typingctx, v, literal):
    """The literal number in every lane of a vector of v's type."""
    if not _is_vec(v):
        return None

    def codegen(context, builder, sig, args):
        scalar = context.cast(builder, args[1], sig.args[1], sig.return_type.element)
        return splat(builder, args[0].type, scalar)

    return v(v, literal), codegen


# --- exp, log, tanh, sigmoid ------------------------------------------------------------------------------------------
#
# Range reduction and a polynomial, because LLVM turns vector forms of its own `exp` into one library call per lane.
# Coefficients per dtype; each polynomial is evaluated by Horner's rule with fma, highest power first.


def _polynomial(float32: list[float], float64: list[float]) -> Any:
    """An intrinsic p(v) with the given coefficients, highest power first."""

    @intrinsic
    def polynomial(typingctx, v):
        if not _is_vec(v):
            return None
        coefficients = float32 if v.element is types.float32 else float64

        def codegen(context, builder, sig, args):
            ty = args[0].type
            result = constant(ty, coefficients[0])
            for c in coefficients[1:]:
                result = call_llvm(builder, f"llvm.fmuladd.{_suffix(ty)}", ty, [result, args[0], constant(ty, c)])
            return result

        return v(v), codegen

    return polynomial


def _per_dtype(float32: float, float64: float) -> Any:
    """An intrinsic c(v): a constant that differs between the dtypes, in every lane."""
    return _polynomial([float32], [float64])


def _inverse_factorials(last: int, first: int) -> list[float]:
    values = [1.0]
    for n in range(1, last + 1):
        values.append(values[-1] / n)
    return values[last : first - 1 if first else None : -1]


# exp(r) = 1 + r + r² (1/2! + r/3! + ...) for |r| <= ln(2)/2: the next term is 0.1 ULP in float32 and 0.02 in float64.
_exp_tail = _polynomial(_inverse_factorials(7, 2), _inverse_factorials(13, 2))
# ln 2 in two parts, the first so short that n * _LN2_HIGH is exact: needed where there is no fma.
_ln2_high = _per_dtype(0.693359375, 6.93145751953125e-1)
_ln2_low = _per_dtype(-2.12194440e-4, 1.42860682030941723212e-6)
# Below and above these the result is 0 or infinite.
_exp_lowest = _per_dtype(-104.0, -746.0)
_exp_highest = _per_dtype(89.0, 710.0)
_round_magic = _per_dtype(1.5 * 2.0**23, 1.5 * 2.0**52)


@intrinsic
def _round(typingctx, v, magic):
    """The nearest whole number: (v + magic) - magic, without flags that would let it be simplified."""
    if not _is_vec(v) or v != magic:
        return None

    def codegen(context, builder, sig, args):
        return builder.fsub(builder.fadd(args[0], args[1]), args[1])

    return v(v, magic), codegen


@jit
def _exp(v):
    # The constant comes first in minimum and maximum, so that a NaN in v is what remains.
    v = minimum(_exp_highest(v), maximum(_exp_lowest(v), v))
    n = _round(v * like(v, 1.4426950408889634), _round_magic(v))
    r_high = fma(n, -_ln2_high(v), v)
    r = fma(n, -_ln2_low(v), r_high)
    r_low = fma(n, -_ln2_low(v), r_high - r)
    # 1 + r + r_low + r² tail(r), with what 1 + r rounds away carried along: 0.6 ULP instead of 1.03, which sigmoid needs.
    one = like(v, 1.0)
    leading = one + r
    y = leading + (fma(r * r, _exp_tail(r), r_low) + (r - (leading - one)))
    # Two steps, because 2^n itself is not a normal number for the largest and smallest results.
    half = _round(n * like(v, 0.5), _round_magic(v))
    return _scale_by_power(_scale_by_power(y, half), n - half)


# log(1 + f) = f - (f²/2 - s (f²/2 + R(s²))), s = f / (2 + f): the series of fdlibm's log and logf.
_log_series = _polynomial(
    [0.24279078841, 0.28498786688, 0.40000972152, 0.66666662693],
    [
        1.479819860511658591e-01,
        1.531383769920937332e-01,
        1.818357216161805012e-01,
        2.222219843214978396e-01,
        2.857142874366239149e-01,
        3.999999999940941908e-01,
        6.666666666666735130e-01,
    ],
)
_smallest_normal = _per_dtype(2.0**-126, 2.0**-1022)
_subnormal_shift = _per_dtype(2.0**25, 2.0**54)
_subnormal_exponent = _per_dtype(25.0, 54.0)


@jit
def _log(v):
    zero = like(v, 0.0)
    tiny = v < _smallest_normal(v)
    e, m = _exponent_and_mantissa(select(tiny, v * _subnormal_shift(v), v))
    e = e - select(tiny, _subnormal_exponent(v), zero)
    f = m - like(v, 1.0)
    s = f / (f + like(v, 2.0))
    z = s * s
    half = f * f * like(v, 0.5)
    r = z * _log_series(z)
    y = f - (half - fma(s, half + r, e * _ln2_low(v)))
    y = fma(e, _ln2_high(v), y)
    infinity = like(v, np.inf)
    y = select(v < infinity, y, v)  # infinity and NaN
    y = select(v == zero, -infinity, y)
    return select(v < zero, like(v, np.nan), y)


# tanh(x) = x + x³ P(x²) / Q(x²) for |x| < 0.625 (Cephes), where 1 - 2 / (exp(2x) + 1) would lose digits.
_tanh_p = _polynomial(
    [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1],
    [-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3],
)
_tanh_q = _polynomial(
    [1.0], [1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3]
)


@jit
def _tanh(v):
    one = like(v, 1.0)
    magnitude = absolute(v)
    z = v * v
    small = fma(v * z, _tanh_p(z) / _tanh_q(z), v)
    large = one - like(v, 2.0) / (_exp(magnitude + magnitude) + one)
    return select(magnitude < like(v, 0.625), small, _copysign(large, v))


@jit
def _sigmoid(v):
    # exp(-|v|) never overflows, and exp(v) / (1 + exp(v)) keeps the relative accuracy of small results.
    one = like(v, 1.0)
    e = _exp(-absolute(v))
    total = one + e
    q = select(v >= like(v, 0.0), one, e) / total
    # What 1 + e rounds away, to first order; 1 / total is needed to a few per cent only. 1.7 ULP instead of 2.2.
    rounded_away = e - (total - one)
    return fma(-q, rounded_away * fma(total, like(v, -0.5), like(v, 1.457)), q)


def _public(name: str, implementation: Any, doc: str) -> Any:
    """A function of one vector that resolves to the compiled implementation."""

    def function(v):
        raise TypeError(f"fastdl_kernels.simd.{name} works inside @njit code only")

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc

    @overload(function)
    def resolve(v):
        return (lambda v: implementation(v)) if _is_vec(v) else None

    return function


exp = _public("exp", _exp, "e^v, at most 1 ULP off; 0 and infinity beyond the range; subnormal results are exact.")
log = _public("log", _log, "The natural logarithm, at most 1 ULP off; log(0) is -infinity, of less it is NaN.")
tanh = _public("tanh", _tanh, "The hyperbolic tangent, at most 2 ULP off; exactly -1 and 1 for large arguments.")
sigmoid = _public("sigmoid", _sigmoid, "1 / (1 + e^-v), at most 2 ULP off; exactly 0 and 1 for large arguments.")
