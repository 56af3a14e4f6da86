"""Numbers of any type at any address: what `CPointer` and vectors of floats do not reach."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastdl_kernels.host import host

_BYTE, _I64 = ir.IntType(8), ir.IntType(64)


@intrinsic
def bytes_at(typingctx, address):
    """The memory at an address (an int64), as a pointer to bytes."""
    if address != types.int64:
        return None

    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[0], _BYTE.as_pointer())

    return types.CPointer(types.uint8)(address), codegen


@intrinsic
def number_in(typingctx, memory, offset, like):
    """The number of the type of `like` that starts `offset` bytes behind a pointer to bytes, aligned or not."""
    if (
        memory != types.CPointer(types.uint8)
        or not isinstance(offset, types.Integer)
        or not isinstance(like, types.Number)
    ):
        return None

    def codegen(context, builder, sig, args):
        i = context.cast(builder, args[1], sig.args[1], types.intp)
        address = builder.gep(args[0], [i])
        number = builder.load(builder.bitcast(address, context.get_value_type(sig.return_type).as_pointer()))
        number.align = 1
        return number

    return like(memory, offset, like), codegen


@intrinsic
def size_of(typingctx, number):
    """How many bytes a number of this type takes, a constant of the compiled code."""
    if not isinstance(number, types.Number):
        return None

    def codegen(context, builder, sig, args):
        return ir.Constant(_I64, sig.args[0].bitwidth // 8)

    return types.int64(number), codegen


@intrinsic
def float64_of_bits(typingctx, bits):
    """The float64 whose bits are those of an int64."""
    if bits != types.int64:
        return None

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(bits), codegen


@intrinsic
def quotient(typingctx, x, divisor, inverse):
    """x / divisor of float64, from the divisor's inverse, in a third of the time that a division takes.

    A first guess x * inverse, and what it leaves of x, without rounding (Markstein, 1990): within 2^-52 of a unit in the last
    place of the quotient, before it is rounded. Divisors of 2^-400 to 2^400; where x or the quotient is not finite, neither is
    what comes out, but it may be NaN; -0 becomes 0. Without fused multiply-add it is a division.
    """
    if not x == divisor == inverse == types.float64:
        return None

    def codegen(context, builder, sig, args):
        x, divisor, inverse = args
        if not host().has_fma:
            return builder.fdiv(x, divisor)
        guess = builder.fmul(x, inverse)
        rest = builder.fma(builder.fneg(guess), divisor, x)
        return builder.fma(rest, inverse, guess)

    return types.float64(x, divisor, inverse), codegen
