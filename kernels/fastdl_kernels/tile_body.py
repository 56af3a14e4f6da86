"""The code of one register tile, written in LLVM's language: its steps, what it does between them, and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llvmlite import ir
from numba.core import types

from fastdl_kernels.activations import (
    BY_CODE,
    DERIVATIVES_IN_REGISTERS,
    IDENTITY,
    IN_REGISTERS,
    LEAKY_RELU,
    RELU,
    SIGMOID,
    TANH,
)
from fastdl_kernels.host import host
from fastdl_kernels.simd.vector import (
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
from fastdl_kernels.tile_steps import STEPS

I64 = ir.IntType(64)
# Where the numbers of A lie: a step's beside each other (a_row is 1), or a row's (a_step is 1). Knowing which saves the
# arithmetic of addresses. UNROLL steps at a time then take 23 instructions each instead of 25.5 on AVX2, 20 of which do the
# work. On a core of one's own that is hidden; where another thread takes turns in decoding, products take 3 to 9 % less
# time (256x512x512 0.92, 512x1024x1024 0.91, 1024x4096x512 0.93, 128x784x256 0.97 of it).
ADJACENT, APART = "_adjacent", "_apart"
UNROLL = 4
# On AVX-512 a step has more multiply-adds beside the same arithmetic: unrolled bodies gain less than 1 % there.
UNROLLED = ("avx2",)
# A tile works ahead after a multiple of so many steps.
GRAIN = UNROLL if host().isa in UNROLLED else 1
# x86 addresses a row and the two after it by one pointer: base, base + distance, base + 2 * distance. With a pointer for each
# of 14 rows half of them live on the stack, and are worked out anew for each tile: 50 cycles around its multiply-adds, not 15.
ROWS_PER_POINTER = {"avx512": 3, "avx2": 3, "sse": 3}
# Steps from which on a tile prefetches the lines of C; into L2, since 14 rows may share one set of L1
# (200 cycles around 512 steps of multiply-adds instead of 480 where they are 4 KB apart). Of 64 steps, C is in a cache as a rule.
ASKING_DEPTH = 96
# How many rows before it copies a row a tile prefetches it.
ROWS_AHEAD = 4


def whole(value: int) -> ir.Constant:
    """A whole number in LLVM's language."""
    return ir.Constant(I64, value)


def tile_function(
    module: ir.Module,
    element: types.Type,
    mr: int,
    nv: int,
    part: bool = False,
    layout: str = "",
    ahead: bool = False,
    steps: str = "",
) -> ir.Function:
    """The LLVM function of one tile shape, made once per module; equal copies of other modules merge at link time.

    void tile(depth, a, a_row, a_step, b, b_step, out, out_row, columns, accumulate, bias, activation, alpha, below,
              below_activation)

    One for a `part` of the last vector of columns reads no more of B than that. The rows of A may lie anywhere, or as `layout`
    says; then UNROLL steps go at a time. One that works `ahead` has more arguments (every, source, source_step, source_rows,
    target): see `tile.tile`. `steps` is "" for multiply-adds, or says how pairs are multiplied.
    """
    scalar = ir.FloatType() if element is types.float32 else ir.DoubleType()
    pointer = scalar.as_pointer()
    arguments = [I64, pointer, I64, I64, pointer, I64, pointer, I64, I64, I64, pointer, I64, scalar, pointer, I64]
    signature = ir.FunctionType(ir.VoidType(), arguments + [I64, pointer, I64, I64, pointer] * ahead)
    name = f"fastdl_tile_{scalar}_{mr}x{nv}{'_part' * part}{layout}{'_ahead' * ahead}{steps}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, signature, name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    body = _Body(function, element, mr, nv, part, layout, steps)
    sums = body.multiply(*function.args[15:])
    body.finish(sums)
    return function


class _Body:
    """One tile as it is written: the function, where it is being written, and the names of what it works on."""

    def __init__(
        self, function: ir.Function, element: types.Type, mr: int, nv: int, part: bool, layout: str, steps: str
    ) -> None:
        self.function, self.element, self.mr, self.nv, self.part, self.layout = function, element, mr, nv, part, layout
        self.multiplied = STEPS[steps]
        self.builder = builder = ir.IRBuilder(function.append_basic_block("entry"))
        (
            self.depth, self.a, self.a_row, self.a_step, self.b, self.b_step, self.out, self.out_row, self.columns,
            self.accumulate, self.bias, self.activation, self.alpha, self.below, self.below_activation,
        ) = function.args[:15]  # fmt: skip
        # No output is ever an operand, and what is written is reached through one argument only.
        for argument in (self.a, self.b, self.out, self.bias, self.below):
            argument.add_attribute("noalias")
        self.lanes = vec_type(element).count
        self.vector = ir.VectorType(self.alpha.type, self.lanes)
        self.width = nv * self.lanes
        self.cells = [(r, c) for r in range(mr) for c in range(nv)]
        self.zero = constant(self.vector, 0.0)
        # Of which rows a pointer of its own is kept; the others are found from those.
        if layout == ADJACENT:
            self.first_rows, self.a_row = [0], whole(1)
        else:
            self.first_rows = list(range(0, mr, ROWS_PER_POINTER.get(isa(), 1)))
            self.a_step = whole(1) if layout == APART else self.a_step
        self.tail = builder.sub(self.columns, whole((nv - 1) * self.lanes))
        self.mask = first_mask(builder, self.lanes, self.tail)

    # --- words of the language ---

    def after(self, base: ir.Value, *numbers: ir.Value | int) -> ir.Value:
        """The address that lies the product of the numbers behind `base`."""
        distance: ir.Value | None = None
        for number in numbers:
            factor = whole(number) if isinstance(number, int) else number
            distance = factor if distance is None else self.builder.mul(distance, factor)
        return self.builder.gep(base, [distance])

    def is_null(self, data: ir.Value) -> ir.Value:
        return self.builder.icmp_unsigned("==", self.builder.ptrtoint(data, I64), whole(0))

    def hidden(self, value: ir.Value) -> ir.Value:
        """The same address or number with its origin hidden from LLVM.

        Knowing that the rows are equally far apart, LLVM would step one register from row to row, a chain of MR dependent
        additions in each step, as long as the multiply-adds themselves (97 % of the peak falls to 85 %); or it would keep a
        pointer for each row, most of them on the stack.
        """
        return self.builder.asm(ir.FunctionType(value.type, [value.type]), "", "=r,0", [value], side_effect=False)

    def read(self, base: ir.Value, c: int, masked: bool) -> ir.Value:
        """Vector c of a row; the last one under the mask if `masked`."""
        address = self.after(base, c * self.lanes)
        if masked and c == self.nv - 1:
            return masked_load(self.builder, self.vector, address, self.mask)
        return unaligned(self.builder.load(self.builder.bitcast(address, self.vector.as_pointer())), self.element)

    def write(self, value: ir.Value, base: ir.Value, c: int) -> None:
        """Vector c of a row."""
        address = self.builder.bitcast(self.after(base, c * self.lanes), self.vector.as_pointer())
        unaligned(self.builder.store(value, address), self.element)

    def ask_for_row(self, base: ir.Value) -> None:
        """Prefetch a tile's width, into L2: on one cache line more if it does not start with one."""
        for c in sorted({*range(0, self.width, 512 // self.element.bitwidth), self.width - 1}):
            emit_prefetch(self.builder, self.after(base, c), level=2)

    def loop(
        self,
        label: str,
        goes_on: Callable[..., ir.Value],
        body: Callable[..., list[ir.Value]],
        start: list[ir.Value],
    ) -> list[ir.Value]:
        """While `goes_on` says so of the values, replace them by body(*values); what they are at the end."""
        builder, before = self.builder, self.builder.block
        inside = self.function.append_basic_block(label)
        after = self.function.append_basic_block(label + "_end")
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

    # --- the steps over the depth ---

    def multiply(self, *work_ahead: ir.Value) -> dict:
        """The sums of all steps, by (row, vector); with work ahead in between if there are arguments for it."""
        starts_of_a = [self.hidden(self.after(self.a, self.a_row, r)) for r in self.first_rows]
        state = [whole(0), self.a_row, self.b, *starts_of_a, *[self.zero] * len(self.cells)]
        if work_ahead:
            state = self.run_ahead(state, *work_ahead)
        else:
            # C is touched at the end only: ask for its lines now, so that the end does not wait for them.
            with self.builder.if_then(self.builder.icmp_signed(">=", self.depth, whole(ASKING_DEPTH))):
                for r in range(self.mr):
                    self.ask_for_row(self.after(self.out, self.out_row, r))
        if self.layout:
            state = self.steps(self.depth, UNROLL, state)
        state = self.steps(self.depth, 1, state)
        return dict(zip(self.cells, state[3 + len(self.first_rows) :], strict=True))

    def steps(self, stop: ir.Value, unroll: int, state: list) -> list:
        """As many whole times `unroll` steps as there are before `stop`. `state` is the step, the distance between rows of A,
        pointers into B and A, and the sums."""
        builder = self.builder

        def body(k: ir.Value, distance: ir.Value, b_now: ir.Value, *others: ir.Value) -> list:
            a_now = [self.hidden(place) for place in others[: len(self.first_rows)]]
            distance = self.a_row if self.layout == ADJACENT else self.hidden(distance)
            sums = list(others[len(self.first_rows) :])
            for step in range(unroll):
                if step:  # LLVM would load several steps ahead, and move sums to the stack to have registers for it
                    builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], side_effect=True)
                sums = self.multiply_add(step, a_now, distance, b_now, sums)
            a_next = [self.after(place, self.a_step, unroll) for place in a_now]
            return [builder.add(k, whole(unroll)), distance, self.after(b_now, self.b_step, unroll), *a_next, *sums]

        last = builder.and_(stop, whole(-unroll))
        return self.loop(f"depth_{unroll}", lambda k, *_: builder.icmp_signed("<", k, last), body, state)

    def multiply_add(self, step: int, a_now: list, distance: ir.Value, b_now: ir.Value, sums: list) -> list:
        """The sums after the step that is `step` steps beyond the given pointers."""
        builder = self.builder
        b_row = self.after(b_now, self.b_step, step)
        b_vectors = [self.read(b_row, c, self.part) for c in range(self.nv)]
        new: list[ir.Value] = []
        for r in range(self.mr):
            nearest = max(q for q, first in enumerate(self.first_rows) if first <= r)
            from_there = builder.mul(distance, whole(r - self.first_rows[nearest]))
            place = builder.gep(a_now[nearest], [builder.add(from_there, builder.mul(self.a_step, whole(step)))])
            a_number = unaligned(builder.load(place), self.element)
            new += self.multiplied(builder, self.vector, a_number, b_vectors, sums[len(new) : len(new) + self.nv])
        return new

    def run_ahead(
        self,
        state: list,
        every: ir.Value,
        source: ir.Value,
        source_step: ir.Value,
        source_rows: ir.Value,
        target: ir.Value,
    ) -> list:
        """As many whole runs of `every` steps as there are, each followed by work ahead: see `tile.tile`."""
        builder = self.builder
        has_source, has_target = builder.not_(self.is_null(source)), builder.not_(self.is_null(target))
        ahead = builder.select(has_target, builder.mul(source_step, whole(ROWS_AHEAD)), whole(0))
        back = builder.sub(whole(self.width), builder.mul(source_step, source_rows))
        last_run = builder.sub(self.depth, every)

        def run(
            c_row: ir.Value, from_row: ir.Value, left: ir.Value, to_row: ir.Value, k: ir.Value, *others: ir.Value
        ) -> list:
            state = self.steps(builder.add(k, every), UNROLL if self.layout else 1, [k, *others])
            self.ask_for_row(c_row)
            with builder.if_then(has_source):
                self.ask_for_row(self.after(from_row, ahead))
                with builder.if_then(has_target):
                    row = [self.read(from_row, c, False) for c in range(self.nv)]
                    for c in range(self.nv):
                        self.write(row[c], to_row, c)
            left = builder.sub(left, whole(1))
            wraps = builder.icmp_signed("==", left, whole(0))
            from_row = self.after(from_row, builder.add(source_step, builder.select(wraps, back, whole(0))))
            left = builder.select(wraps, source_rows, left)
            return [self.after(c_row, self.out_row), from_row, left, self.after(to_row, self.width), *state]

        start = [self.out, source, source_rows, target, *state]
        return self.loop("run", lambda c, f, n, t, k, *_: builder.icmp_signed("<=", k, last_run), run, start)[4:]

    # --- what becomes of the sums ---

    def finish(self, sums: dict) -> None:
        """Add what C held before and the bias, apply a rectifier or a derivative, and store."""
        builder = self.builder
        out_rows = [self.after(self.out, self.out_row, r) for r in range(self.mr)]
        one = constant(self.vector, 1.0)

        def in_branch(condition: ir.Value, label: str, change: Callable[[dict], Iterable[ir.Value]]) -> None:
            """Replace the sums by `change` of them where the condition holds."""
            before = builder.block
            then = self.function.append_basic_block(label)
            after = self.function.append_basic_block(label + "_end")
            builder.cbranch(condition, then, after)
            builder.position_at_end(then)
            changed = list(change(sums))
            then_end = builder.block
            builder.branch(after)
            builder.position_at_end(after)
            for cell, value in zip(self.cells, changed, strict=True):
                merged = builder.phi(self.vector)
                merged.add_incoming(sums[cell], before)
                merged.add_incoming(value, then_end)
                sums[cell] = merged

        def is_code(argument: ir.Value, code: int) -> ir.Value:
            return builder.icmp_signed("==", argument, whole(code))

        def plus_old(z: dict) -> Iterable[ir.Value]:
            return (builder.fadd(z[r, c], self.read(out_rows[r], c, True)) for r, c in self.cells)

        def plus_bias(z: dict) -> Iterable[ir.Value]:
            vectors = [self.read(self.bias, c, True) for c in range(self.nv)]
            return (builder.fadd(z[r, c], vectors[c]) for r, c in self.cells)

        def rectified(z: dict) -> Iterable[ir.Value]:
            # z where z > 0 or z is NaN, which the comparison "z < 0" leaves alone.
            return (builder.select(builder.fcmp_ordered("<", v, self.zero), self.zero, v) for v in z.values())

        def leaky(z: dict) -> Iterable[ir.Value]:
            slope = splat(builder, self.vector, self.alpha)
            return (
                builder.select(builder.fcmp_ordered("<", v, self.zero), builder.fmul(v, slope), v) for v in z.values()
            )

        def rectifier_factor(outputs: ir.Value) -> ir.Value:
            # 1 where below > 0, the slope where it is not; a NaN below is neither, and stays.
            slope = splat(builder, self.vector, self.alpha)
            factor = builder.select(builder.fcmp_ordered("<=", outputs, self.zero), slope, outputs)
            return builder.select(builder.fcmp_ordered(">", outputs, self.zero), one, factor)

        def sigmoid_factor(outputs: ir.Value) -> ir.Value:
            return builder.fmul(outputs, builder.fsub(one, outputs))

        def tanh_factor(outputs: ir.Value) -> ir.Value:
            return builder.fmul(builder.fsub(one, outputs), builder.fadd(one, outputs))

        def times(factor: Callable[[ir.Value], ir.Value]) -> Callable[[dict], Iterable[ir.Value]]:
            """sums * factor(below), as `in_branch` takes it."""

            def changed(z: dict) -> Iterable[ir.Value]:
                rows = [self.after(self.below, self.out_row, r) for r in range(self.mr)]
                return (builder.fmul(z[r, c], factor(self.read(rows[r], c, True))) for r, c in self.cells)

            return changed

        in_branch(builder.icmp_signed("!=", self.accumulate, whole(0)), "accumulate", plus_old)
        in_branch(builder.not_(self.is_null(self.bias)), "bias", plus_bias)
        changes = {RELU: rectified, LEAKY_RELU: leaky}
        assert {IDENTITY, *changes} == set(IN_REGISTERS)
        for code, change in changes.items():
            in_branch(is_code(self.activation, code), BY_CODE[code].name, change)
        # A leaky rectifier comes as RELU, with its slope.
        factors = {RELU: rectifier_factor, SIGMOID: sigmoid_factor, TANH: tanh_factor}
        assert {IDENTITY, LEAKY_RELU, *factors} == set(DERIVATIVES_IN_REGISTERS)
        for code, factor in factors.items():
            in_branch(is_code(self.below_activation, code), "derivative", times(factor))

        # Row by row: where rows share sets of L1, a line must not leave it between its two halves.
        last = self.nv - 1
        with builder.if_else(is_code(self.columns, self.width)) as (then, otherwise):
            with then:
                for r, c in self.cells:
                    self.write(sums[r, c], out_rows[r], c)
            with otherwise:
                for r, c in self.cells:
                    if c < last:
                        self.write(sums[r, c], out_rows[r], c)
                rest = [(sums[r, last], self.after(out_rows[r], last * self.lanes)) for r in range(self.mr)]
                store_part(builder, rest, self.tail)
        builder.ret_void()
