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

Between its steps a full tile works ahead: it prefetches lines of C and packs the next panel of B, see `matmul`.

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

from numba.core import cgutils, types
from numba.extending import intrinsic

from fastdl_kernels.host import host
from fastdl_kernels.precision import Bf16, Bf16Emulated, Float32, kind_of
from fastdl_kernels.simd import lanes
from fastdl_kernels.simd.vector import vec_type
from fastdl_kernels.tile_body import ADJACENT, APART, UNROLLED, tile_function, whole
from fastdl_kernels.tile_steps import DOTS, EMULATED

TILES: dict[str, tuple[int, int]] = {
    "avx512": (14, 2),
    "avx2": (6, 2),
    "neon": (8, 3),
    "sse": (4, 2),
    "generic": (4, 2),
}
"""Rows and vectors of the tile, by `host().isa`. The same for both dtypes: registers count, not lanes."""

MR, NV = TILES[host().isa]
# What a step of the tile does, by the arithmetic.
STEPS = {Float32: "", Bf16: DOTS, Bf16Emulated: EMULATED}
# Where loads under a mask are one instruction, panels of fewer vectors are read where they are, without a padded copy.
MASKS = host().isa in ("avx512", "avx2")


def has_body(n_rows: int) -> bool:
    """Whether there is a tile of that many rows. 9, 11 and 13 are cut in two: their bodies take a tenth of the time in which a
    first product is compiled."""
    return n_rows <= 8 or n_rows % 2 == 0


def panel_width(dtype: Any) -> int:
    """Columns of a full tile."""
    return NV * lanes(dtype)


@intrinsic
def tile(typingctx, arithmetic, n_rows, depth, a, b, out, bias, activation, below, ahead):
    """out = A @ B (+ out) (+ bias), rectified, (times the derivative of the activation below): one tile.

    In the `arithmetic` of `precision`: where it is paired, A and B hold pairs, which a step takes one of, and panels are padded.

    The matrices come as tuples, pointers to float32 or float64 with what describes them:

    | parameter  | tuple                                         | element                                            |
    |------------|-----------------------------------------------|----------------------------------------------------|
    | a          | pointer, row, step                            | A[r, k] = a[r * row + k * step]; row or step is 1  |
    | b          | pointer, step                                 | B[k, c] = b[k * step + c]                          |
    | out        | pointer, row, columns, accumulate             | C[r, c] = out[r * row + c]                         |
    | activation | code, alpha                                   | alpha is of the type of the numbers                |
    | below      | pointer, code of the activation below         | laid out like out                                  |
    | ahead      | every, source, source_step, rows, target      | the next panel of B, see below                     |

    n_rows is one of 1 .. MR that `has_body`, columns 1 .. NV * lanes. Whole vectors of B are read, so that a last panel of
    fewer columns must be padded; but with MASKS, a panel of fewer vectors than NV may end with its columns. `accumulate` 0:
    out is overwritten without being read. `bias` may be null. Of the activations only RELU and LEAKY_RELU act here. `below`
    holds outputs of the activation below: IDENTITY reads nothing there, RELU takes alpha for the slope below 0.

    A full tile works ahead between its steps, each time that it has done `every` >= 1 of them, depth // every times in all.
    It prefetches the next row of C (beyond its own for those of the next tile, or what follows C), and where `source` is not
    null, for the next of the `rows` there, source_step apart and of a tile's width; after the last one, for what lies to the
    right of them. Where `target` is not null, it copies a row to target, rows without a gap, and asks for the one ROWS_AHEAD
    further. `every` = depth: nothing of this.
    """
    element, steps = activation[1], STEPS.get(kind_of(arithmetic))
    if steps is None or element not in ((types.float32,) if steps else (types.float32, types.float64)):
        return None
    p, n = types.CPointer(element), types.int64
    if not a[0] == b[0] == out[0] == bias == below[0] == ahead[1] == ahead[4] == p:
        return None
    count = vec_type(element).count
    sig = types.none(
        arithmetic, n, n, types.Tuple((p, n, n)), types.Tuple((p, n)), types.Tuple((p, n, n, n)), p, types.Tuple((n, element)),
        types.Tuple((p, n)), types.Tuple((n, p, n, n, p)),
    )  # fmt: skip

    def call_full(builder, args, **kind):
        if host().isa not in UNROLLED:
            builder.call(tile_function(builder.module, element, MR, NV, steps=steps, **kind), args)
            return
        with builder.if_else(builder.icmp_signed("==", args[2], whole(1))) as (then, otherwise):
            for branch, layout in ((then, ADJACENT), (otherwise, APART)):
                with branch:
                    builder.call(
                        tile_function(builder.module, element, MR, NV, steps=steps, layout=layout, **kind), args
                    )

    def codegen(context, builder, sig, args):
        _, n_rows, depth, a, b, out, bias, *groups = args
        a, b, out = (cgutils.unpack_tuple(builder, value) for value in (a, b, out))
        activation, below, more = (cgutils.unpack_tuple(builder, value) for value in groups)
        plain = [depth, *a, *b, *out, bias, *activation, *below]
        rest, columns = plain + more, out[2]
        end = builder.append_basic_block("tile_end")
        n_vectors = builder.udiv(builder.add(columns, whole(count - 1)), whole(count))
        number = builder.add(builder.mul(builder.sub(n_vectors, whole(1)), whole(MR)), n_rows)
        switch = builder.switch(number, end)
        for nv in range(1, NV + 1):
            part = MASKS and nv < NV and not steps
            for mr in filter(has_body, range(1, MR + 1)):
                block = builder.append_basic_block(f"tile_{mr}x{nv}")
                switch.add_case(whole((nv - 1) * MR + mr), block)
                builder.position_at_end(block)
                if (mr, nv) == (MR, NV):
                    with builder.if_else(builder.icmp_signed("<", more[0], plain[0])) as (then, otherwise):
                        with then:
                            call_full(builder, rest, ahead=True)
                        with otherwise:
                            call_full(builder, plain)
                else:
                    builder.call(tile_function(builder.module, element, mr, nv, steps=steps, part=part), plain)
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return sig, codegen
