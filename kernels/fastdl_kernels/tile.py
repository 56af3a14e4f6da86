"""Register tiles: the innermost loop of every matrix product, generated for this processor.

A tile computes MR rows x NV vectors of columns of C = A @ B. All its accumulators stay in registers over the whole
depth; per step it loads NV vectors of B, broadcasts MR numbers of A and does MR * NV fused multiply-adds:

              NV vectors of B
             +---------+---------+
             |  b[k,:] |         |        one row per step k
             +---------+---------+
    +---+    +---------+---------+
    | a |    |   acc   |   acc   |
    | : |    |    :    |    :    |  MR rows
    | a |    |   acc   |   acc   |
    +---+    +---------+---------+

The epilogue adds what C held before (when the depth is split into blocks), adds the bias, applies a rectifier, and
stores once. Every number of rows up to MR and of vectors up to NV has a body of its own and the last vector is stored
under a mask, so the edges of a matrix run at vector speed as well.

| isa    | float32 tile        | registers: accumulators + B + broadcast                                |
|--------|---------------------|-------------------------------------------------------------------------|
| avx512 | 14 x 2 x 16 lanes   | 28 + 2 + broadcasts as memory operands; 15 rows spill                   |
| avx2   | 6 x 2 x 8 lanes     | 12 + 2 + 1 of 16; 7 rows spill                                          |
| neon   | 8 x 3 x 4 lanes     | 24 + 3 + 1 of 32                                                        |
| sse    | 4 x 2 x 4 lanes     | 8 + 2 + 2 of 16: without FMA a product needs a register of its own      |
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastdl_kernels.activations import LEAKY_RELU, RELU, SIGMOID, TANH
from fastdl_kernels.host import host
from fastdl_kernels.simd import (
    lanes,
)
from fastdl_kernels.simd.vector import (
    call_llvm,
    constant,
    emit_prefetch,
    first_mask,
    masked_load,
    splat,
    store_part,
    unaligned,
    vec_type,
)

TILES: dict[str, tuple[int, int]] = {
    "avx512": (14, 2),
    "avx2": (6, 2),
    "neon": (8, 3),
    "sse": (4, 2),
    "generic": (4, 2),
}
"""Rows and vectors of the tile, by `host().isa`. The same for both dtypes: registers count, not lanes."""

MR, NV = TILES[host().isa]


def panel_width(dtype: Any) -> int:
    """Columns of a full tile."""
    return NV * lanes(dtype)


I64 = ir.IntType(64)
# Steps ahead for which a tile that packs asks for rows of B: 200 cycles or more. Into the second cache: in the first one,
# rows of 4 KB would share one set and push each other out before they are read.
PACK_AHEAD = 32


def _constant(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def _opaque(builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
    """The same address with its origin hidden from LLVM.

    Knowing that the rows are equally far apart, it would step one register from row to row: a chain of MR dependent
    additions in each step, as long as the multiply-adds themselves (97 % of the peak falls to 85 %).
    """
    return builder.asm(ir.FunctionType(pointer.type, [pointer.type]), "", "=r,0", [pointer], side_effect=False)


def _tile_function(
    module: ir.Module, element: types.Type, mr: int, nv: int, packs_a: bool = False, packs_b: bool = False
) -> ir.Function:
    """The LLVM function of one tile shape, made once per module; equal copies of other modules merge at link time.

    void tile(depth, a, a_row, a_step, b, b_step, out, out_row, columns, accumulate, bias, activation, alpha, below,
              below_activation)

    One that packs has an argument more for A, then for B, and stores there what it reads.
    """
    scalar = ir.FloatType() if element is types.float32 else ir.DoubleType()
    pointer = scalar.as_pointer()
    arguments = [I64, pointer, I64, I64, pointer, I64, pointer, I64, I64, I64, pointer, I64, scalar, pointer, I64]
    signature = ir.FunctionType(ir.VoidType(), arguments + [pointer] * (packs_a + packs_b))
    name = f"fastdl_tile_{scalar}_{mr}x{nv}{'_packs_a' * packs_a}{'_packs_b' * packs_b}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, signature, name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    (
        depth, a, a_row, a_step, b, b_step, out, out_row, columns, accumulate, bias, activation, alpha, below,
        below_activation, *packed,
    ) = function.args  # fmt: skip
    # No output is ever an operand, and every array is reached through one argument only.
    for argument in (a, b, out, bias, below, *packed):
        argument.add_attribute("noalias")
    vector = ir.VectorType(scalar, vec_type(element).count)
    cells = [(r, c) for r in range(mr) for c in range(nv)]
    zero = constant(vector, 0.0)

    entry = function.append_basic_block("entry")
    loop = function.append_basic_block("depth")
    done = function.append_basic_block("done")
    builder = ir.IRBuilder(entry)
    rows = [_opaque(builder, builder.gep(a, [builder.mul(a_row, _constant(r))])) for r in range(mr)]
    # C is touched at the end only: ask for its lines now, so that the epilogue does not wait for them.
    for r in range(mr):
        for c in range(0, nv * vector.count * element.bitwidth // 8, 64):
            place = builder.add(builder.mul(out_row, _constant(r)), _constant(c * 8 // element.bitwidth))
            emit_prefetch(builder, builder.gep(out, [place]), write=True)
    builder.cbranch(builder.icmp_signed(">", depth, _constant(0)), loop, done)

    builder.position_at_end(loop)
    k, a_place, b_place = (builder.phi(I64) for _ in range(3))
    for phi in (k, a_place, b_place):
        phi.add_incoming(_constant(0), entry)
    sums = {}
    for cell in cells:
        sums[cell] = builder.phi(vector)
        sums[cell].add_incoming(zero, entry)
    b_row = builder.gep(b, [b_place])
    b_vectors = [
        unaligned(
            builder.load(builder.bitcast(builder.gep(b_row, [_constant(c * vector.count)]), vector.as_pointer())),
            element,
        )
        for c in range(nv)
    ]
    if packs_b:
        # Rows of B are far apart: no prefetcher of the hardware follows them.
        ahead = builder.add(b_place, builder.mul(b_step, _constant(PACK_AHEAD)))
        emit_prefetch(builder, builder.gep(b, [ahead]), level=2)
        panel_row = builder.gep(packed[-1], [builder.mul(k, _constant(nv * vector.count))])
        for c in range(nv):
            place = builder.bitcast(builder.gep(panel_row, [_constant(c * vector.count)]), vector.as_pointer())
            unaligned(builder.store(b_vectors[c], place), element)
    new = {}
    for r in range(mr):
        number = unaligned(builder.load(builder.gep(rows[r], [a_place])), element)
        if packs_a:
            place = builder.gep(packed[0], [builder.add(builder.mul(k, _constant(mr)), _constant(r))])
            unaligned(builder.store(number, place), element)
        a_vector = splat(builder, vector, number)
        for c in range(nv):
            args = [a_vector, b_vectors[c], sums[r, c]]
            new[r, c] = call_llvm(
                builder, f"llvm.fmuladd.v{vector.count}f{32 if element is types.float32 else 64}", vector, args
            )
    k_next = builder.add(k, _constant(1))
    k.add_incoming(k_next, loop)
    a_place.add_incoming(builder.add(a_place, a_step), loop)
    b_place.add_incoming(builder.add(b_place, b_step), loop)
    for cell in cells:
        sums[cell].add_incoming(new[cell], loop)
    builder.cbranch(builder.icmp_signed("<", k_next, depth), loop, done)

    builder.position_at_end(done)
    values = {}
    for cell in cells:
        values[cell] = builder.phi(vector)
        values[cell].add_incoming(zero, entry)
        values[cell].add_incoming(new[cell], loop)
    tail = builder.sub(columns, _constant((nv - 1) * vector.count))
    mask = first_mask(builder, vector.count, tail)

    def address(base: ir.Value, c: int) -> ir.Value:
        return builder.gep(base, [_constant(c * vector.count)])

    def read(base: ir.Value, c: int) -> ir.Value:
        """Vector c of a row; the last one under the mask."""
        if c == nv - 1:
            return masked_load(builder, vector, address(base, c), mask)
        return unaligned(builder.load(builder.bitcast(address(base, c), vector.as_pointer())), element)

    def in_branch(condition: ir.Value, label: str, change: Any) -> None:
        """Replace `values` by `change()` where the condition holds."""
        before = builder.block
        then = function.append_basic_block(label)
        after = function.append_basic_block(label + "_end")
        builder.cbranch(condition, then, after)
        builder.position_at_end(then)
        changed = change()
        then_end = builder.block
        builder.branch(after)
        builder.position_at_end(after)
        for cell in cells:
            merged = builder.phi(vector)
            merged.add_incoming(values[cell], before)
            merged.add_incoming(changed[cell], then_end)
            values[cell] = merged

    out_rows = [builder.gep(out, [builder.mul(out_row, _constant(r))]) for r in range(mr)]

    def plus_old() -> dict:
        return {(r, c): builder.fadd(values[r, c], read(out_rows[r], c)) for r, c in cells}

    def plus_bias() -> dict:
        vectors = [read(bias, c) for c in range(nv)]
        return {(r, c): builder.fadd(values[r, c], vectors[c]) for r, c in cells}

    def rectified() -> dict:
        # z where z > 0 or z is NaN, which the comparison "z < 0" leaves alone.
        return {
            cell: builder.select(builder.fcmp_ordered("<", values[cell], zero), zero, values[cell]) for cell in cells
        }

    def leaky() -> dict:
        slope = splat(builder, vector, alpha)
        return {
            cell: builder.select(
                builder.fcmp_ordered("<", values[cell], zero), builder.fmul(values[cell], slope), values[cell]
            )
            for cell in cells
        }

    one = constant(vector, 1.0)

    def rectifier_factor(outputs: ir.Value) -> ir.Value:
        # 1 where below > 0, the slope where it is not; a NaN below is neither, and stays.
        slope = splat(builder, vector, alpha)
        factor = builder.select(builder.fcmp_ordered("<=", outputs, zero), slope, outputs)
        return builder.select(builder.fcmp_ordered(">", outputs, zero), one, factor)

    def sigmoid_factor(outputs: ir.Value) -> ir.Value:
        return builder.fmul(outputs, builder.fsub(one, outputs))

    def tanh_factor(outputs: ir.Value) -> ir.Value:
        return builder.fmul(builder.fsub(one, outputs), builder.fadd(one, outputs))

    def times(factor: Any) -> Any:
        """values * factor(below), as `in_branch` takes it."""

        def changed() -> dict:
            rows = [builder.gep(below, [builder.mul(out_row, _constant(r))]) for r in range(mr)]
            return {(r, c): builder.fmul(values[r, c], factor(read(rows[r], c))) for r, c in cells}

        return changed

    in_branch(builder.icmp_signed("!=", accumulate, _constant(0)), "accumulate", plus_old)
    in_branch(builder.icmp_unsigned("!=", builder.ptrtoint(bias, I64), _constant(0)), "bias", plus_bias)
    in_branch(builder.icmp_signed("==", activation, _constant(RELU)), "relu", rectified)
    in_branch(builder.icmp_signed("==", activation, _constant(LEAKY_RELU)), "leaky_relu", leaky)
    for code, factor in ((RELU, rectifier_factor), (SIGMOID, sigmoid_factor), (TANH, tanh_factor)):
        in_branch(builder.icmp_signed("==", below_activation, _constant(code)), "derivative", times(factor))

    for r, c in cells:
        if c < nv - 1:
            place = builder.bitcast(address(out_rows[r], c), vector.as_pointer())
            unaligned(builder.store(values[r, c], place), element)
    is_full = builder.icmp_signed("==", columns, _constant(nv * vector.count))
    with builder.if_else(is_full) as (then, otherwise):
        with then:
            for r in range(mr):
                place = builder.bitcast(address(out_rows[r], nv - 1), vector.as_pointer())
                unaligned(builder.store(values[r, nv - 1], place), element)
        with otherwise:
            store_part(builder, [(values[r, nv - 1], address(out_rows[r], nv - 1)) for r in range(mr)], tail)
    builder.ret_void()
    return function


@intrinsic
def tile(
    typingctx,
    n_rows,
    depth,
    a,
    a_row,
    a_step,
    b,
    b_step,
    out,
    out_row,
    columns,
    accumulate,
    bias,
    activation,
    alpha,
    below,
    below_activation,
    packed_a,
    packed_b,
):
    """out = A @ B (+ out) (+ bias), rectified, (times the derivative of the activation below): one tile.

    A[r, k] is a[r * a_row + k * a_step], B[k, c] is b[k * b_step + c], C[r, c] is out[r * out_row + c]; pointers to
    float32 or float64, the type of alpha. n_rows is 1 .. MR and columns 1 .. NV * lanes. Whole vectors of B are read,
    so that a last panel of fewer columns must be padded. `accumulate` 0: out is overwritten without being read.
    `bias` may be null. Of the activations only RELU and LEAKY_RELU act here. `below` holds outputs, laid out like `out`, of
    the `below_activation`: IDENTITY reads nothing there, RELU takes alpha for the slope below 0.

    Where `packed_a` is not null, the tile copies A to packed_a[k * MR + r] on its way, and B to packed_b[k * NV * lanes +
    c] likewise; only a full tile can. Its loads and multiply-adds stay as they are, and the stores fit in beside them.
    """
    element = alpha
    if element not in (types.float32, types.float64) or a != types.CPointer(element):
        return None
    if not a == b == out == bias == below == packed_a == packed_b:
        return None
    count = vec_type(element).count
    n = types.int64
    sig = types.none(n, n, a, n, n, a, n, a, n, n, n, a, n, element, a, n, a, a)

    def codegen(context, builder, sig, args):
        n_rows, *rest, to_a, to_b = args
        columns = rest[8]
        end = builder.append_basic_block("tile_end")
        plain = builder.append_basic_block("tile_plain")
        wanted = [
            builder.zext(builder.icmp_unsigned("!=", builder.ptrtoint(to, I64), _constant(0)), I64)
            for to in (to_a, to_b)
        ]
        packing = builder.switch(builder.add(wanted[0], builder.add(wanted[1], wanted[1])), plain)
        for code in (1, 2, 3):
            packs_a, packs_b = code % 2 == 1, code >= 2
            block = builder.append_basic_block(f"tile_packing_{code}")
            packing.add_case(_constant(code), block)
            builder.position_at_end(block)
            function = _tile_function(builder.module, element, MR, NV, packs_a, packs_b)
            builder.call(function, [*rest, *[to_a] * packs_a, *[to_b] * packs_b])
            builder.branch(end)
        builder.position_at_end(plain)
        n_vectors = builder.udiv(builder.add(columns, _constant(count - 1)), _constant(count))
        case = builder.add(builder.mul(builder.sub(n_vectors, _constant(1)), _constant(MR)), n_rows)
        switch = builder.switch(case, end)
        for nv in range(1, NV + 1):
            for mr in range(1, MR + 1):
                block = builder.append_basic_block(f"tile_{mr}x{nv}")
                switch.add_case(_constant((nv - 1) * MR + mr), block)
                builder.position_at_end(block)
                builder.call(_tile_function(builder.module, element, mr, nv), rest)
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return sig, codegen
