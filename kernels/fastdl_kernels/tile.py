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

A full tile runs errands in between: it asks for lines of C, and prepares the next panel of B, see `matmul`.

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
# Errands are run after a multiple of so many steps.
GRAIN = UNROLL if host().isa in UNROLLED else 1
# x86 addresses a row and the two after it by one pointer: base, base + distance, base + 2 * distance. With a pointer for each
# of 14 rows half of them live on the stack, and are worked out anew for each tile: 50 cycles around its multiply-adds, not 15.
ROWS_PER_POINTER = {"avx512": 3, "avx2": 3, "sse": 3}
# Where loads under a mask are one instruction, panels of fewer vectors are read where they are, without a padded copy.
MASKS = host().isa in ("avx512", "avx2")
# Steps from which on a tile asks for the lines of C; into the second cache, since 14 rows may share one set of the first
# (200 cycles around 512 steps of multiply-adds instead of 480 where they are 4 KB apart). Of 64 steps, C is in a cache as a rule.
ASKING_DEPTH = 96
# How many rows before it copies a row a tile asks for it.
ROWS_AHEAD = 4


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
    part: bool = False,
    layout: str = "",
    errands: bool = False,
) -> ir.Function:
    """The LLVM function of one tile shape, made once per module; equal copies of other modules merge at link time.

    void tile(depth, a, a_row, a_step, b, b_step, out, out_row, columns, accumulate, bias, activation, alpha, below,
              below_activation)

    One for a `part` of the last vector of columns reads no more of B than that. The rows of A may lie anywhere, or as `layout`
    says; then UNROLL steps go at a time. One with `errands` has more arguments (every, source, source_step, source_rows, target):
    see `tile`.
    """
    scalar = ir.FloatType() if element is types.float32 else ir.DoubleType()
    pointer = scalar.as_pointer()
    arguments = [I64, pointer, I64, I64, pointer, I64, pointer, I64, I64, I64, pointer, I64, scalar, pointer, I64]
    signature = ir.FunctionType(ir.VoidType(), arguments + [I64, pointer, I64, I64, pointer] * errands)
    name = f"fastdl_tile_{scalar}_{mr}x{nv}{'_part' * part}{layout}{'_errands' * errands}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, signature, name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    (
        depth, a, a_row, a_step, b, b_step, out, out_row, columns, accumulate, bias, activation, alpha, below,
        below_activation, *errand,
    ) = function.args  # fmt: skip
    # No output is ever an operand, and every array is reached through one argument only.
    for argument in (a, b, out, bias, below):
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

    def write(value: ir.Value, base: ir.Value, c: int) -> None:
        """Vector c of a row."""
        unaligned(builder.store(value, builder.bitcast(address(base, c), vector.as_pointer())), element)

    def ask_for_row(base: ir.Value) -> None:
        """Prefetch a tile's width, into the second cache: on one cache line more if it does not start with one."""
        for c in sorted({*range(0, width, 512 // element.bitwidth), width - 1}):
            emit_prefetch(builder, builder.gep(base, [_constant(c)]), level=2)

    def is_null(data: ir.Value) -> ir.Value:
        return builder.icmp_unsigned("==", builder.ptrtoint(data, I64), _constant(0))

    def multiply_add(step: int, a_now: list, distance: ir.Value, b_now: ir.Value, sums: list) -> list:
        """The sums after the step that is `step` steps beyond the given pointers."""
        b_row = builder.gep(b_now, [builder.mul(b_step, _constant(step))])
        b_vectors = [read(b_row, c, part) for c in range(nv)]
        new: list[ir.Value] = []
        for r in range(mr):
            nearest = max(q for q, first in enumerate(first_rows) if first <= r)
            from_there = builder.mul(distance, _constant(r - first_rows[nearest]))
            place = builder.gep(a_now[nearest], [builder.add(from_there, builder.mul(a_step, _constant(step)))])
            a_vector = splat(builder, vector, unaligned(builder.load(place), element))
            for c in range(nv):
                args = [a_vector, b_vectors[c], sums[len(new)]]
                new.append(
                    call_llvm(
                        builder, f"llvm.fmuladd.v{vector.count}f{32 if element is types.float32 else 64}", vector, args
                    )
                )
        return new

    def loop(label: str, goes_on: Any, body: Any, start: list) -> list:
        """While `goes_on` says so of the values, replace them by body(*values); what they are at the end."""
        before = builder.block
        inside = function.append_basic_block(label)
        after = function.append_basic_block(label + "_end")
        builder.cbranch(goes_on(*start), inside, after)
        builder.position_at_end(inside)
        phis = [builder.phi(value.type) for value in start]
        new = body(*phis)
        end = builder.block
        builder.cbranch(goes_on(*new), inside, after)
        builder.position_at_end(after)
        results = [builder.phi(value.type) for value in start]
        for first, phi, following, result in zip(start, phis, new, results, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(following, end)
            result.add_incoming(first, before)
            result.add_incoming(following, end)
        return results

    def steps(stop: ir.Value, unroll: int, values: list) -> list:
        """As many whole times `unroll` steps as there are before `stop`. `values` are the step, the distance between rows of A,
        pointers into B and A, and the sums."""

        def body(k: ir.Value, distance: ir.Value, b_now: ir.Value, *others: ir.Value) -> list:
            a_now = [_opaque(builder, place) for place in others[: len(first_rows)]]
            distance = a_row if layout == ADJACENT else _opaque(builder, distance)
            sums = list(others[len(first_rows) :])
            for step in range(unroll):
                if step:  # LLVM would load several steps ahead, and move sums to the stack to have registers for it
                    builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], side_effect=True)
                sums = multiply_add(step, a_now, distance, b_now, sums)
            a_next = [builder.gep(place, [builder.mul(a_step, _constant(unroll))]) for place in a_now]
            b_next = builder.gep(b_now, [builder.mul(b_step, _constant(unroll))])
            return [builder.add(k, _constant(unroll)), distance, b_next, *a_next, *sums]

        last = builder.and_(stop, _constant(-unroll))
        return loop(f"depth_{unroll}", lambda k, *_: builder.icmp_signed("<", k, last), body, values)

    state = [_constant(0), a_row, b, *starts_of_a, *[zero] * len(cells)]
    if errands:
        every, source, source_step, source_rows, target = errand
        has_source, has_target = builder.not_(is_null(source)), builder.not_(is_null(target))
        ahead = builder.select(has_target, builder.mul(source_step, _constant(ROWS_AHEAD)), _constant(0))
        back = builder.sub(_constant(width), builder.mul(source_step, source_rows))
        last_run = builder.sub(depth, every)

        def run(
            c_row: ir.Value, from_row: ir.Value, left: ir.Value, to_row: ir.Value, k: ir.Value, *others: ir.Value
        ) -> list:
            state = steps(builder.add(k, every), UNROLL if layout else 1, [k, *others])
            ask_for_row(c_row)
            with builder.if_then(has_source):
                ask_for_row(builder.gep(from_row, [ahead]))
                with builder.if_then(has_target):
                    row = [read(from_row, c, False) for c in range(nv)]
                    for c in range(nv):
                        write(row[c], to_row, c)
            left = builder.sub(left, _constant(1))
            turns = builder.icmp_signed("==", left, _constant(0))
            next_row = builder.gep(from_row, [builder.add(source_step, builder.select(turns, back, _constant(0)))])
            left = builder.select(turns, source_rows, left)
            return [builder.gep(c_row, [out_row]), next_row, left, builder.gep(to_row, [_constant(width)]), *state]

        _, _, _, _, *state = loop(
            "run", lambda c, f, n, t, k, *_: builder.icmp_signed("<=", k, last_run), run,
            [out, source, source_rows, target, *state],
        )  # fmt: skip
    else:
        # C is touched at the end only: ask for its lines now, so that the epilogue does not wait for them.
        with builder.if_then(builder.icmp_signed(">=", depth, _constant(ASKING_DEPTH))):
            for r in range(mr):
                ask_for_row(builder.gep(out, [builder.mul(out_row, _constant(r))]))
    if layout:
        state = steps(depth, UNROLL, state)
    state = steps(depth, 1, state)
    values = dict(zip(cells, state[3 + len(first_rows) :], strict=True))

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
    in_branch(builder.not_(is_null(bias)), "bias", plus_bias)
    in_branch(builder.icmp_signed("==", activation, _constant(RELU)), "relu", rectified)
    in_branch(builder.icmp_signed("==", activation, _constant(LEAKY_RELU)), "leaky_relu", leaky)
    for code, factor in ((RELU, rectifier_factor), (SIGMOID, sigmoid_factor), (TANH, tanh_factor)):
        in_branch(builder.icmp_signed("==", below_activation, _constant(code)), "derivative", times(factor))

    # Row by row: where rows share sets of the first cache, a line must not leave it between its two halves.
    is_full = builder.icmp_signed("==", columns, _constant(nv * vector.count))
    with builder.if_else(is_full) as (then, otherwise):
        with then:
            for r, c in cells:
                write(values[r, c], out_rows[r], c)
        with otherwise:
            for r, c in cells:
                if c < nv - 1:
                    write(values[r, c], out_rows[r], c)
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
    every,
    source,
    source_step,
    source_rows,
    target,
):
    """out = A @ B (+ out) (+ bias), rectified, (times the derivative of the activation below): one tile.

    A[r, k] is a[r * a_row + k * a_step], where a_row or a_step is 1; B[k, c] is b[k * b_step + c], C[r, c] is
    out[r * out_row + c]; pointers to float32 or float64, the type of alpha. n_rows is one of 1 .. MR that `has_body`, columns
    1 .. NV * lanes. Whole vectors of B are read, so that a last panel of fewer columns must be padded; but with MASKS, a
    panel of fewer vectors than NV may end with its columns. `accumulate` 0: out is overwritten without being read. `bias` may
    be null. Of the activations only RELU and LEAKY_RELU act here. `below` holds outputs, laid out like `out`, of the
    `below_activation`: IDENTITY reads nothing there, RELU takes alpha for the slope below 0.

    A full tile runs errands between its steps, each time that it has done `every` >= 1 of them, depth // every times in all.
    It asks for the next row of C, and where `source` is not null, for the next of the `source_rows` rows there, source_step
    apart and of a tile's width; after the last one, for what lies to the right of them. Where `target` is not null, it
    copies a row to target, rows without a gap, and asks for the one ROWS_AHEAD further. `every` = depth: nothing of this.
    """
    element = alpha
    if element not in (types.float32, types.float64) or a != types.CPointer(element):
        return None
    if not a == b == out == bias == below == source == target:
        return None
    count = vec_type(element).count
    n = types.int64
    sig = types.none(n, n, a, n, n, a, n, a, n, n, n, a, n, element, a, n, n, a, n, n, a)

    def codegen(context, builder, sig, args):
        n_rows, *rest = args
        plain, errand = rest[:15], rest[15:]
        columns = plain[8]
        end = builder.append_basic_block("tile_end")
        n_vectors = builder.udiv(builder.add(columns, _constant(count - 1)), _constant(count))
        number = builder.add(builder.mul(builder.sub(n_vectors, _constant(1)), _constant(MR)), n_rows)
        switch = builder.switch(number, end)
        for nv in range(1, NV + 1):
            part = MASKS and nv < NV
            for mr in filter(has_body, range(1, MR + 1)):
                block = builder.append_basic_block(f"tile_{mr}x{nv}")
                switch.add_case(_constant((nv - 1) * MR + mr), block)
                builder.position_at_end(block)
                if (mr, nv) == (MR, NV):
                    has_errands = builder.icmp_signed("<", errand[0], plain[0])
                    with builder.if_then(has_errands):
                        if host().isa in UNROLLED:
                            adjacent = builder.icmp_signed("==", plain[2], _constant(1))
                            with builder.if_else(adjacent) as (then, otherwise):
                                for branch, layout in ((then, ADJACENT), (otherwise, APART)):
                                    with branch:
                                        full = _tile_function(
                                            builder.module, element, mr, nv, layout=layout, errands=True
                                        )
                                        builder.call(full, rest)
                        else:
                            builder.call(_tile_function(builder.module, element, mr, nv, errands=True), rest)
                        builder.branch(end)
                builder.call(_tile_function(builder.module, element, mr, nv, part=part), plain)
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return sig, codegen
