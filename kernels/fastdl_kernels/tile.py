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
stores once. Numbers of rows up to MR (`has_body`) and of vectors up to NV have bodies of their own and the last vector is
stored under a mask, so the edges of a matrix run at vector speed as well.

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
    isa,
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


def has_body(n_rows: int) -> bool:
    """Whether there is a tile of that many rows. 9, 11 and 13 are cut in two: their bodies take a tenth of the time in which a
    first product is compiled."""
    return n_rows <= 8 or n_rows % 2 == 0


def panel_width(dtype: Any) -> int:
    """Columns of a full tile."""
    return NV * lanes(dtype)


I64 = ir.IntType(64)
# Where the numbers of A lie: a step's beside each other (a_row is 1), or a row's (a_step is 1). Knowing which saves the
# arithmetic of addresses. UNROLL steps at a time then take 23 instructions each instead of 25.5 on AVX2, 20 of which do the
# work. On a core of one's own that is hidden; where another thread takes turns in decoding, products take 3 to 9 % less
# time (256x512x512 0.92, 512x1024x1024 0.91, 1024x4096x512 0.93, 128x784x256 0.97 of it).
ADJACENT, APART = "_adjacent", "_apart"
UNROLL = 4
# On AVX-512 a step has more multiply-adds beside the same arithmetic: unrolled bodies gain less than 1 % there.
UNROLLED = ("avx2",)
# x86 addresses a row and the two after it by one pointer: base, base + distance, base + 2 * distance. With a pointer for each
# of 14 rows half of them live on the stack, and are worked out anew for each tile: 50 cycles around its multiply-adds, not 15.
ROWS_PER_POINTER = {"avx512": 3, "avx2": 3, "sse": 3}
# Where loads under a mask are one instruction, panels of fewer vectors are read where they are, without a padded copy.
MASKS = host().isa in ("avx512", "avx2")
# Steps from which on a tile asks for the lines of C when it begins; into the second cache, since 14 rows may share one set of
# the first (200 cycles around 512 steps of multiply-adds instead of 480 where they are 4 KB apart).
ASKING_DEPTH = 64


def _constant(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def _opaque(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """The same address or number with its origin hidden from LLVM.

    Knowing that the rows are equally far apart, LLVM would step one register from row to row, a chain of MR dependent
    additions in each step, as long as the multiply-adds themselves (97 % of the peak falls to 85 %); or it would keep a
    pointer for each row, most of them on the stack.
    """
    return builder.asm(ir.FunctionType(value.type, [value.type]), "", "=r,0", [value], side_effect=False)


def _tile_function(
    module: ir.Module,
    element: types.Type,
    mr: int,
    nv: int,
    packs: bool = False,
    part: bool = False,
    layout: str = "",
) -> ir.Function:
    """The LLVM function of one tile shape, made once per module; equal copies of other modules merge at link time.

    void tile(depth, a, a_row, a_step, b, b_step, out, out_row, columns, accumulate, bias, activation, alpha, below,
              below_activation)

    One that `packs` has an argument more, and stores there the rows of B that it reads. One for a `part` of the last vector of
    columns reads no more of B than that. The rows of A may lie anywhere, or as `layout` says; then UNROLL steps go at a time.
    """
    scalar = ir.FloatType() if element is types.float32 else ir.DoubleType()
    pointer = scalar.as_pointer()
    arguments = [I64, pointer, I64, I64, pointer, I64, pointer, I64, I64, I64, pointer, I64, scalar, pointer, I64]
    signature = ir.FunctionType(ir.VoidType(), arguments + [pointer] * packs)
    name = f"fastdl_tile_{scalar}_{mr}x{nv}{'_packs' * packs}{'_part' * part}{layout}"
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
    builder = ir.IRBuilder(entry)
    # Of which rows a pointer of its own is kept; the others are found from those.
    if layout == ADJACENT:
        first_rows, a_row = [0], _constant(1)
    else:
        first_rows = list(range(0, mr, ROWS_PER_POINTER.get(isa(), 1)))
        a_step = _constant(1) if layout == APART else a_step
    starts_of_a = [_opaque(builder, builder.gep(a, [builder.mul(a_row, _constant(r))])) for r in first_rows]
    width = nv * vector.count
    tail = builder.sub(columns, _constant((nv - 1) * vector.count))
    mask = first_mask(builder, vector.count, tail)

    def address(base: ir.Value, c: int) -> ir.Value:
        return builder.gep(base, [_constant(c * vector.count)])

    def read(base: ir.Value, c: int, masked: bool) -> ir.Value:
        """Vector c of a row; the last one under the mask if `masked`."""
        if masked and c == nv - 1:
            return masked_load(builder, vector, address(base, c), mask)
        return unaligned(builder.load(builder.bitcast(address(base, c), vector.as_pointer())), element)

    def ask_for_row(base: ir.Value, start: ir.Value, **how: Any) -> None:
        """Prefetch a tile's width from `start` on: on one cache line more if it does not start with one."""
        for c in sorted({*range(0, width, 512 // element.bitwidth), width - 1}):
            emit_prefetch(builder, builder.gep(base, [builder.add(start, _constant(c))]), **how)

    # C is touched at the end only: ask for its lines now, so that the epilogue does not wait for them.
    with builder.if_then(builder.icmp_signed(">=", depth, _constant(ASKING_DEPTH))):
        for r in range(mr):
            ask_for_row(out, builder.mul(out_row, _constant(r)), level=2)

    def multiply_add(step: int, k: ir.Value, a_now: list, distance: ir.Value, b_now: ir.Value, sums: dict) -> dict:
        """The sums after the step that is `step` steps beyond the given pointers."""
        b_row = builder.gep(b_now, [builder.mul(b_step, _constant(step))])
        b_vectors = [read(b_row, c, part) for c in range(nv)]
        if packs:
            panel_row = builder.gep(packed[0], [builder.mul(builder.add(k, _constant(step)), _constant(width))])
            for c in range(nv):
                place = builder.bitcast(builder.gep(panel_row, [_constant(c * vector.count)]), vector.as_pointer())
                unaligned(builder.store(b_vectors[c], place), element)
        new = {}
        for r in range(mr):
            nearest = max(q for q, first in enumerate(first_rows) if first <= r)
            from_there = builder.mul(distance, _constant(r - first_rows[nearest]))
            place = builder.gep(a_now[nearest], [builder.add(from_there, builder.mul(a_step, _constant(step)))])
            a_vector = splat(builder, vector, unaligned(builder.load(place), element))
            for c in range(nv):
                args = [a_vector, b_vectors[c], sums[r, c]]
                new[r, c] = call_llvm(
                    builder, f"llvm.fmuladd.v{vector.count}f{32 if element is types.float32 else 64}", vector, args
                )
        return new

    def steps(unroll: int, start: tuple, sums: dict) -> tuple[tuple, dict]:
        """A loop that takes `unroll` steps at a time from (k, pointers into A, pointer into B) on, while as many are left.

        Returns where it ends, and the sums.
        """
        before = builder.block
        loop = function.append_basic_block(f"depth_{unroll}")
        after = function.append_basic_block(f"after_{unroll}")
        stop = builder.and_(depth, _constant(-unroll))
        k_start, a_start, distance_start, b_start = start
        builder.cbranch(builder.icmp_signed("<", k_start, stop), loop, after)
        builder.position_at_end(loop)

        def phi_of(value: ir.Value) -> ir.Value:
            phi = builder.phi(value.type)
            phi.add_incoming(value, before)
            return phi

        k, b_now = phi_of(k_start), phi_of(b_start)
        a_phis, distance_phi = [phi_of(place) for place in a_start], phi_of(distance_start)
        old = {cell: phi_of(sums[cell]) for cell in cells}
        a_now = [_opaque(builder, place) for place in a_phis]
        distance = a_row if layout == ADJACENT else _opaque(builder, distance_phi)
        new = old
        for step in range(unroll):
            if step:  # LLVM would load several steps ahead, and move sums to the stack to have registers for it
                builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], side_effect=True)
            new = multiply_add(step, k, a_now, distance, b_now, new)
        k_next = builder.add(k, _constant(unroll))
        b_next = builder.gep(b_now, [builder.mul(b_step, _constant(unroll))])
        a_next = [builder.gep(place, [builder.mul(a_step, _constant(unroll))]) for place in a_now]
        pairs = [(k, k_next), (b_now, b_next), (distance_phi, distance), *zip(a_phis, a_next, strict=True)]
        pairs += [(old[cell], new[cell]) for cell in cells]
        for phi, following in pairs:
            phi.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", k_next, stop), loop, after)
        builder.position_at_end(after)

        def merged(phi: ir.Value, following: ir.Value) -> ir.Value:
            result = builder.phi(phi.type)
            result.add_incoming(phi.incomings[0][0], before)
            result.add_incoming(following, loop)
            return result

        k_end, b_end, distance_end, *rest = (merged(*pair) for pair in pairs)
        return (k_end, rest[: len(a_now)], distance_end, b_end), dict(zip(cells, rest[len(a_now) :], strict=True))

    place, values = (_constant(0), starts_of_a, a_row, b), dict.fromkeys(cells, zero)
    if layout:
        place, values = steps(UNROLL, place, values)
    _, values = steps(1, place, values)

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
        return {(r, c): builder.fadd(values[r, c], read(out_rows[r], c, True)) for r, c in cells}

    def plus_bias() -> dict:
        vectors = [read(bias, c, True) for c in range(nv)]
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
            return {(r, c): builder.fmul(values[r, c], factor(read(rows[r], c, True))) for r, c in cells}

        return changed

    in_branch(builder.icmp_signed("!=", accumulate, _constant(0)), "accumulate", plus_old)
    in_branch(builder.icmp_unsigned("!=", builder.ptrtoint(bias, I64), _constant(0)), "bias", plus_bias)
    in_branch(builder.icmp_signed("==", activation, _constant(RELU)), "relu", rectified)
    in_branch(builder.icmp_signed("==", activation, _constant(LEAKY_RELU)), "leaky_relu", leaky)
    for code, factor in ((RELU, rectifier_factor), (SIGMOID, sigmoid_factor), (TANH, tanh_factor)):
        in_branch(builder.icmp_signed("==", below_activation, _constant(code)), "derivative", times(factor))

    def put(r: int, c: int) -> None:
        place = builder.bitcast(address(out_rows[r], c), vector.as_pointer())
        unaligned(builder.store(values[r, c], place), element)

    # Row by row: where rows share sets of the first cache, a line must not leave it between its two halves.
    is_full = builder.icmp_signed("==", columns, _constant(nv * vector.count))
    with builder.if_else(is_full) as (then, otherwise):
        with then:
            for r, c in cells:
                put(r, c)
        with otherwise:
            for r, c in cells:
                if c < nv - 1:
                    put(r, c)
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
    packed,
):
    """out = A @ B (+ out) (+ bias), rectified, (times the derivative of the activation below): one tile.

    A[r, k] is a[r * a_row + k * a_step], where a_row or a_step is 1; B[k, c] is b[k * b_step + c], C[r, c] is
    out[r * out_row + c]; pointers to float32 or float64, the type of alpha. n_rows is one of 1 .. MR that `has_body`, columns
    1 .. NV * lanes. Whole vectors of B are read, so that a last panel of fewer columns must be padded; but with MASKS, a
    panel of fewer vectors than NV may end with its columns. `accumulate` 0: out is overwritten without being read. `bias` may
    be null. Of the activations only RELU and LEAKY_RELU act here. `below` holds outputs, laid out like `out`, of the
    `below_activation`: IDENTITY reads nothing there, RELU takes alpha for the slope below 0.

    Where `packed` is not null, the tile copies B to packed[k * NV * lanes + c] on its way; only a full tile can. Its loads and
    multiply-adds stay as they are, and the stores fit in beside them.
    """
    element = alpha
    if element not in (types.float32, types.float64) or a != types.CPointer(element):
        return None
    if not a == b == out == bias == below == packed:
        return None
    count = vec_type(element).count
    n = types.int64
    sig = types.none(n, n, a, n, n, a, n, a, n, n, n, a, n, element, a, n, a)

    def codegen(context, builder, sig, args):
        n_rows, *rest, to = args
        columns = rest[8]
        end = builder.append_basic_block("tile_end")
        plain = builder.append_basic_block("tile_plain")
        packing = builder.append_basic_block("tile_packing")
        wanted = builder.icmp_unsigned("!=", builder.ptrtoint(to, I64), _constant(0))
        builder.cbranch(wanted, packing, plain)
        builder.position_at_end(packing)
        builder.call(_tile_function(builder.module, element, MR, NV, packs=True), [*rest, to])
        builder.branch(end)
        builder.position_at_end(plain)
        n_vectors = builder.udiv(builder.add(columns, _constant(count - 1)), _constant(count))
        number = builder.add(builder.mul(builder.sub(n_vectors, _constant(1)), _constant(MR)), n_rows)
        switch = builder.switch(number, end)
        for nv in range(1, NV + 1):
            part = MASKS and nv < NV
            for mr in filter(has_body, range(1, MR + 1)):
                block = builder.append_basic_block(f"tile_{mr}x{nv}")
                switch.add_case(_constant((nv - 1) * MR + mr), block)
                builder.position_at_end(block)
                if (mr, nv) == (MR, NV) and host().isa in UNROLLED:
                    adjacent = builder.icmp_signed("==", rest[2], _constant(1))
                    with builder.if_else(adjacent) as (then, otherwise):
                        for branch, layout in ((then, ADJACENT), (otherwise, APART)):
                            with branch:
                                builder.call(_tile_function(builder.module, element, mr, nv, layout=layout), rest)
                else:
                    builder.call(_tile_function(builder.module, element, mr, nv, part=part), rest)
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return sig, codegen
