"""Blocks of a bf16 product by AMX tiles (`tdpbf16ps`), as LLVM's text: generated, and not called by the products yet.

Intel's processors since Sapphire Rapids have eight tile registers of 16 rows of 64 bytes. One `tdpbf16ps` adds the product of
16 x 32 and 32 x 16 bfloat16 numbers to 16 x 16 sums in float32: 8,192 multiply-adds in 16 cycles, where a `vdpbf16ps` in each
cycle makes 512. A block of 32 x 32 sums takes four of the registers, and each step over 32 numbers of the depth loads two tiles
of A and two of B for four products.

The operands are those that `pairs` packs: rows of A as pairs that follow each other, and panels of B of 32 columns, a row for
each pair of the depth. A depth that is no multiple of 32 ends with zeros. The sums of a tile are added in another order than
those of `vdpbf16ps`, even and odd numbers apart, so their bits differ in the last place.

No processor with AMX has run this. `tests/test_amx.py` reads its assembly, and runs the same text with functions in place of
the instructions. A process must ask its kernel for the registers first (on Linux `arch_prctl(ARCH_REQ_XCOMP_PERM, 18)`).
Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, TDPBF16PS and LDTILECFG.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROWS, ROW_BYTES = 16, 64
"""Of a tile register."""
MOST = 2
"""Tiles of a block along its rows, and along its columns: with four for the sums, the other four are their operands."""
FIRST_A, FIRST_B = MOST * MOST, MOST * MOST + MOST
"""The registers of A's tiles, and of B's; those of the sums come before."""
DEPTH = ROW_BYTES // 2
"""Numbers of the depth in a step."""
PANEL_BYTES = MOST * ROW_BYTES
"""A row of B's panel: 32 pairs."""
INTRINSICS = "llvm.x86."


def block_text(name: str, row_tiles: int, column_tiles: int, instructions: str = INTRINSICS) -> str:
    """The function `name`, for blocks of so many tiles, 1 or 2 each way.

    Its arguments are steps (of 32 numbers of the depth), a and how many bytes its rows are apart, b (a panel), c and how many
    bytes its rows are apart, adds (0: c is overwritten), and a configuration of the tiles (`configuration`). `instructions` is
    what the names of the instructions begin with.
    """
    sums = [(i, j) for i in range(row_tiles) for j in range(column_tiles)]

    def sum_of(i: int, j: int) -> int:
        return i * column_tiles + j

    def call(instruction: str, *arguments: str) -> str:
        return f"  call void @{instructions}{instruction}({', '.join(arguments)})"

    def tile(number: int) -> str:
        return f"i8 {number}"

    def for_sums(instruction: str) -> list[str]:
        """One for each tile of sums."""
        return [call(instruction, tile(sum_of(i, j)), f"ptr %c{i}{j}", "i64 %c_row") for i, j in sums]

    lines = [
        f"define void @{name}(i64 %steps, ptr %a, i64 %a_row, ptr %b, ptr %c, i64 %c_row, i64 %adds, ptr %tiles) {{",
        "entry:",
        call("ldtilecfg", "ptr %tiles"),
        f"  %a_down = mul i64 %a_row, {ROWS}",
        f"  %c_down = mul i64 %c_row, {ROWS}",
    ]
    for i, j in sums:
        lines += [
            f"  %cr{i}{j} = getelementptr i8, ptr %c, i64 {j * ROW_BYTES}",
            f"  %co{i}{j} = mul i64 %c_down, {i}",
            f"  %c{i}{j} = getelementptr i8, ptr %cr{i}{j}, i64 %co{i}{j}",
        ]
    lines += ["  %fresh = icmp eq i64 %adds, 0", "  br i1 %fresh, label %zeros, label %before"]
    lines += ["zeros:", *(call("tilezero", tile(sum_of(i, j))) for i, j in sums), "  br label %test"]
    lines += ["before:", *for_sums("tileloadd64"), "  br label %test"]
    lines += [
        "test:",
        "  %some = icmp sgt i64 %steps, 0",
        "  br i1 %some, label %step, label %end",
        "step:",
        "  %k = phi i64 [0, %test], [%next, %step]",
        f"  %a_at = mul i64 %k, {ROW_BYTES}",
        f"  %b_at = mul i64 %k, {ROWS * PANEL_BYTES}",
        "  %a0 = getelementptr i8, ptr %a, i64 %a_at",
        "  %b0 = getelementptr i8, ptr %b, i64 %b_at",
    ]
    for j in range(column_tiles):
        if j:
            lines.append(f"  %b{j} = getelementptr i8, ptr %b0, i64 {j * ROW_BYTES}")
        lines.append(call("tileloadd64", tile(FIRST_B + j), f"ptr %b{j}", f"i64 {PANEL_BYTES}"))
    for i in range(row_tiles):
        if i:
            lines.append(f"  %a{i} = getelementptr i8, ptr %a0, i64 %a_down")
        lines.append(call("tileloadd64", tile(FIRST_A + i), f"ptr %a{i}", "i64 %a_row"))
        lines += [
            call("tdpbf16ps", tile(sum_of(i, j)), tile(FIRST_A + i), tile(FIRST_B + j)) for j in range(column_tiles)
        ]
    lines += [
        "  %next = add i64 %k, 1",
        "  %more = icmp slt i64 %next, %steps",
        "  br i1 %more, label %step, label %end, !llvm.loop !0",
        "end:",
        *for_sums("tilestored64"),
        call("tilerelease"),
        "  ret void",
        "}",
    ]
    declared = {
        "ldtilecfg": "ptr", "tilezero": "i8 immarg", "tileloadd64": "i8 immarg, ptr, i64", "tilestored64": "i8 immarg, ptr, i64",
        "tdpbf16ps": "i8 immarg, i8 immarg, i8 immarg", "tilerelease": "",
    }  # fmt: skip
    own = instructions != INTRINSICS  # functions know no constants that must be written in place
    declarations = [
        f"declare void @{instructions}{instruction}({kinds.replace(' immarg', '') if own else kinds})"
        for instruction, kinds in declared.items()
    ]
    # LLVM would write four steps after another; one has 16 cycles for each product, and needs no help.
    as_it_is = ["!0 = distinct !{!0, !1}", '!1 = !{!"llvm.loop.unroll.disable"}']
    return "\n".join([*lines, *declarations, *as_it_is])


def tiles_of(rows: int, columns: int) -> tuple[int, int]:
    """(row_tiles, column_tiles) of a block of up to 32 x 32 sums."""
    return -(-rows // ROWS), -(-columns // ROWS)


def configuration(rows: int, columns: int) -> NDArray[np.uint8]:
    """The 64 bytes that `ldtilecfg` takes for a block of rows x columns sums, from 1 to 32 each: what is beyond them is neither
    read nor written in A and C."""
    row_tiles, column_tiles = tiles_of(rows, columns)
    widths, heights = np.zeros(16, np.uint16), np.zeros(16, np.uint8)

    def shape(number: int, height: int, width: int) -> None:
        heights[number], widths[number] = height, width

    tall = [min(ROWS, rows - ROWS * i) for i in range(row_tiles)]
    wide = [4 * min(ROWS, columns - ROWS * j) for j in range(column_tiles)]
    for i, height in enumerate(tall):
        shape(FIRST_A + i, height, ROW_BYTES)
        for j, width in enumerate(wide):
            shape(i * column_tiles + j, height, width)
    for j, width in enumerate(wide):
        shape(FIRST_B + j, ROWS, width)
    told = np.zeros(64, np.uint8)
    told[0] = 1  # the palette
    told[16:48], told[48:64] = widths.view(np.uint8), heights
    return told
