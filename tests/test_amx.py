"""AMX tiles: the assembly for processors that have them, and the same text run with functions in place of instructions."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest
from llvmlite import binding

from fastdl_kernels import amx
from fastdl_kernels.precision import bf16_bits, from_bf16_bits

SHAPES = [(1, 1), (1, 2), (2, 1), (2, 2)]


def assembly(row_tiles, column_tiles, cpu="sapphirerapids"):
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(cpu=cpu, opt=3)
    module = binding.parse_assembly(amx.block_text("block", row_tiles, column_tiles))
    module.verify()
    builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(3))
    builder.getModulePassManager().run(module, builder)
    return machine.emit_assembly(module)


def count(text, pattern):
    return len(re.findall(pattern, text))


@pytest.mark.parametrize("cpu", ["sapphirerapids", "graniterapids"])
@pytest.mark.parametrize(("row_tiles", "column_tiles"), SHAPES)
def test_the_loop_over_the_depth(row_tiles, column_tiles, cpu):
    """A load for each tile of the operands, a product for each tile of sums, and sums that stay in their registers."""
    text = assembly(row_tiles, column_tiles, cpu)
    label, body = re.search(
        r"^(\.LBB\w+):[^\n]*\n((?:\t[^\n]*\n)*?\ttdpbf16ps(?:\t[^\n]*\n)+)", text, re.MULTILINE
    ).groups()
    assert re.search(rf"\tj\w+\s+{re.escape(label)}\b", body)
    assert count(body, r"\ttdpbf16ps\s") == row_tiles * column_tiles
    assert count(body, r"\ttileloadd\s") == row_tiles + column_tiles
    assert count(body, r"\ttile(stored|zero)") == 0
    assert count(body, r"%rsp") == 0
    products = re.findall(r"\ttdpbf16ps\s+%tmm(\d), %tmm(\d), %tmm(\d)", body)
    assert len({c for _, _, c in products}) == row_tiles * column_tiles
    assert {b for b, _, _ in products} == {str(6 + j) for j in range(column_tiles)}
    assert {a for _, a, _ in products} == {str(4 + i) for i in range(row_tiles)}
    outside = text.replace(body, "")
    assert count(outside, r"\ttilestored\s") == count(outside, r"\ttilezero\s") == row_tiles * column_tiles
    assert count(outside, r"\tldtilecfg\s") == count(outside, r"\ttilerelease") == 1


class Registers:
    """Eight tile registers, and functions that do to them what the instructions do."""

    def __init__(self):
        self.tiles = np.zeros((8, 16, 64), np.uint8)
        self.rows = self.bytes = None
        p, i8, i64 = ctypes.c_void_p, ctypes.c_int8, ctypes.c_int64
        kinds = {"ldtilecfg": (p,), "tilezero": (i8,), "tileloadd64": (i8, p, i64), "tilestored64": (i8, p, i64),
                 "tdpbf16ps": (i8, i8, i8), "tilerelease": ()}  # fmt: skip
        self.kept = {name: ctypes.CFUNCTYPE(None, *kinds[name])(getattr(self, name)) for name in kinds}
        for name, function in self.kept.items():
            binding.add_symbol(f"fastdl_test_amx_{name}", ctypes.cast(function, p).value)

    def ldtilecfg(self, at):
        told = np.frombuffer(ctypes.string_at(at, 64), np.uint8)
        assert told[0] == 1
        assert not told[1:16].any()
        self.bytes, self.rows = told[16:32].view(np.uint16).astype(int), told[48:56].astype(int)
        assert (self.bytes <= 64).all()
        assert (self.rows <= 16).all()

    def area(self, tile):
        assert self.rows[tile] > 0 < self.bytes[tile], f"tile {tile} is not configured"
        return self.tiles[tile, : self.rows[tile], : self.bytes[tile]]

    def tilezero(self, tile):
        self.area(tile)
        self.tiles[tile] = 0

    def tileloadd64(self, tile, at, stride):
        area = self.area(tile)
        self.tiles[tile] = 0
        for row in range(len(area)):
            area[row] = np.frombuffer(ctypes.string_at(at + row * stride, area.shape[1]), np.uint8)

    def tilestored64(self, tile, at, stride):
        for row, values in enumerate(self.area(tile)):
            ctypes.memmove(at + row * stride, values.tobytes(), len(values))

    def tdpbf16ps(self, c, a, b):
        left = from_bf16_bits(self.area(a).copy().view(np.uint16))  # rows x 32
        pairs = self.area(b).copy().view(np.uint16).reshape(self.rows[b], -1, 2)  # pairs of the depth x columns x 2
        right = from_bf16_bits(np.ascontiguousarray(pairs.transpose(0, 2, 1)).reshape(-1, pairs.shape[1]))
        assert left.shape[1] == len(right)
        sums = self.area(c)
        sums[:] = (sums.copy().view(np.float32) + left @ right).astype(np.float32).view(np.uint8)

    def tilerelease(self):
        self.rows = self.bytes = None


@pytest.fixture(scope="module")
def blocks():
    """The generated functions, with functions for instructions: {(row_tiles, column_tiles): callable}."""
    registers = Registers()
    text = {shape: amx.block_text("block_{}_{}".format(*shape), *shape, "fastdl_test_amx_") for shape in SHAPES}
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    engines, found = [], {}
    for (i, j), module in text.items():
        machine = binding.Target.from_default_triple().create_target_machine()
        engine = binding.create_mcjit_compiler(binding.parse_assembly(module), machine)
        engine.finalize_object()
        p, i64 = ctypes.c_void_p, ctypes.c_int64
        function = ctypes.CFUNCTYPE(None, i64, p, i64, p, p, i64, i64, p)
        found[i, j] = function(engine.get_function_address(f"block_{i}_{j}"))
        engines.append(engine)
    yield found
    del registers


def packed(rng, rows, columns, depth):
    """(A rounded, B rounded, A's pairs with rows apart, B's panel of 32 columns), as `pairs` packs them."""
    a = from_bf16_bits(bf16_bits(rng.standard_normal((rows, depth)).astype(np.float32)))
    b = from_bf16_bits(bf16_bits(rng.standard_normal((depth, columns)).astype(np.float32)))
    steps = -(-depth // amx.DEPTH)
    pairs_of_a = np.zeros((rows, steps * 32 + 6), np.uint16)
    pairs_of_a[:, :depth] = bf16_bits(a)
    panel = np.zeros((steps * 16, 32, 2), np.uint16)
    for k in range(depth):
        panel[k // 2, :columns, k % 2] = bf16_bits(b[k])
    return a, b, pairs_of_a, panel, steps


@pytest.mark.parametrize("adds", [0, 1])
@pytest.mark.parametrize(
    ("rows", "columns", "depth"),
    [(32, 32, 64), (32, 32, 33), (1, 1, 1), (16, 16, 32), (17, 16, 70), (5, 31, 96), (31, 17, 2), (20, 27, 0)],
)
def test_the_products(blocks, rows, columns, depth, adds):
    """What the text computes, at whole and ragged edges, and that nothing beyond them is written."""
    rng = np.random.default_rng(rows)
    a, b, pairs_of_a, panel, steps = packed(rng, rows, columns, depth)
    c = np.full((rows + 2, columns + 3), 7, np.float32)
    c[:rows, :columns] = rng.standard_normal((rows, columns))
    before, tiles = c.copy(), amx.configuration(rows, columns)
    blocks[amx.tiles_of(rows, columns)](
        steps, pairs_of_a.ctypes.data, pairs_of_a.strides[0], panel.ctypes.data, c.ctypes.data, c.strides[0], adds,
        tiles.ctypes.data,
    )  # fmt: skip
    expected = a.astype(np.float64) @ b.astype(np.float64) + (before[:rows, :columns] if adds else 0)
    np.testing.assert_allclose(c[:rows, :columns], expected, rtol=1e-5, atol=1e-5)
    c[:rows, :columns] = before[:rows, :columns]
    np.testing.assert_array_equal(c, before)


def test_the_check_sees_a_wrong_address(blocks):
    """A panel whose second half is another's gives another product: the test above looks at all of it."""
    rng = np.random.default_rng(0)
    a, b, pairs_of_a, panel, steps = packed(rng, 32, 32, 64)
    panel[20, 17, 1] ^= 1 << 8  # twice or half the number
    c, tiles = np.zeros((32, 32), np.float32), amx.configuration(32, 32)
    blocks[2, 2](
        steps,
        pairs_of_a.ctypes.data,
        pairs_of_a.strides[0],
        panel.ctypes.data,
        c.ctypes.data,
        128,
        0,
        tiles.ctypes.data,
    )
    wrong = ~np.isclose(c, a @ b, rtol=1e-5, atol=1e-5)
    assert wrong[:, 17].all()
    assert not np.delete(wrong, 17, axis=1).any()
