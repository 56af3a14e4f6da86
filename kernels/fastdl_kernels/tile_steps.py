"""What one step of a register tile does with a number of A and vectors of B, written in LLVM's language.

Each function takes (builder, type of a vector, number of A, vectors of B, sums) and gives the new sums. A number is a float, or a
pair of bfloat16 numbers in its place: see `pairs`.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from fastdl_kernels.simd.vector import call_llvm, splat, suffix

DOTS, EMULATED = "_bf16", "_bf16_emulated"


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


def fused(builder: ir.IRBuilder, vector: ir.VectorType, a: ir.Value, b: list, sums: list) -> list:
    """sums + a * b, in one rounding where the processor can."""
    return _multiply_add(builder, splat(builder, vector, a), b, sums)


def dots(builder: ir.IRBuilder, vector: ir.VectorType, a: ir.Value, b: list, sums: list) -> list:
    """sums + a[1] * b[1] + a[0] * b[0] of pairs, by the instruction for it."""
    pairs = ir.VectorType(_BFloat(), 2 * vector.count)
    name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * vector.count}"
    a_pairs = builder.bitcast(splat(builder, vector, a), pairs)
    return [
        call_llvm(builder, name, vector, [c, a_pairs, builder.bitcast(v, pairs)]) for v, c in zip(b, sums, strict=True)
    ]


def emulated_dots(builder: ir.IRBuilder, vector: ir.VectorType, a: ir.Value, b: list, sums: list) -> list:
    """The same by multiply-adds. Products of bfloat16 numbers are exact in float32: each of the two rounds once."""
    pair = splat(builder, vector, a)
    for half in (_upper, _lower):
        sums = _multiply_add(builder, half(builder, pair), [half(builder, v) for v in b], sums)
    return sums


STEPS: dict[str, Callable[..., list]] = {"": fused, DOTS: dots, EMULATED: emulated_dots}
"""By the end of a tile function's name."""


def _multiply_add(builder: ir.IRBuilder, a: ir.Value, b: list, sums: list) -> list:
    name = f"llvm.fmuladd.{suffix(a.type)}"
    return [call_llvm(builder, name, a.type, [a, v, c]) for v, c in zip(b, sums, strict=True)]


def _upper(builder: ir.IRBuilder, pairs: ir.Value) -> ir.Value:
    """The number above in each pair, as a float."""
    return _of_bits(builder, pairs, lambda bits, every: builder.and_(bits, every(0xFFFF0000)))


def _lower(builder: ir.IRBuilder, pairs: ir.Value) -> ir.Value:
    """The number below in each pair, as a float."""
    return _of_bits(builder, pairs, lambda bits, every: builder.shl(bits, every(16)))


def _of_bits(builder: ir.IRBuilder, pairs: ir.Value, change: Callable[..., ir.Value]) -> ir.Value:
    ints = ir.VectorType(ir.IntType(32), pairs.type.count)
    changed = change(builder.bitcast(pairs, ints), lambda value: ir.Constant(ints, [value] * ints.count))
    return builder.bitcast(changed, pairs.type)
