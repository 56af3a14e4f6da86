"""The register tiles of every instruction set: run where this processor can, compiled and read where it cannot."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from llvmlite import binding, ir
from numba.core import types
from numba.core.codegen import get_host_cpu_features

from fastdl_kernels import tile, tile_body, tile_steps
from fastdl_kernels.host import Host
from fastdl_kernels.simd import vector

ROOT = Path(__file__).resolve().parent.parent
X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
# isa -> (triple, processors, bytes of a vector, name of a vector register)
TARGETS = {
    "avx512": (X86, ("skylake-avx512", "znver4"), 64, "%zmm"),
    "avx2": (X86, ("haswell", "znver2"), 32, "%ymm"),
    "sse": (X86, ("x86-64",), 16, "%xmm"),
    "neon": (ARM, ("neoverse-n1", "apple-m1"), 16, "v"),
}
FULL_AND_PARTS = {isa: [(mr, nv), (mr - 1, nv), (mr, nv - 1)] for isa, (mr, nv) in tile.TILES.items()}


def assembly(monkeypatch, isa, cpu, element, mr, nv, **kind):
    """The assembly of one tile shape for another processor."""
    triple, _, vector_bytes, _ = TARGETS[isa]
    machine = Host(cpu, isa, vector_bytes, 32, isa != "sse", False, 32768, 0, 0)
    monkeypatch.setattr(vector, "host", lambda: machine)
    module = ir.Module()
    module.triple = triple
    tile_body.tile_function(module, element, mr, nv, **kind).linkage = "external"
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    compiled = binding.parse_assembly(str(module))
    compiled.verify()
    builder = binding.create_pass_builder(target, binding.create_pipeline_tuning_options(3))
    builder.getModulePassManager().run(compiled, builder)
    return target.emit_assembly(compiled)


def loops(text):
    """The instructions of each block that jumps back to its own label."""
    for label, body in re.findall(r"^(\.LBB\w+):[^\n]*\n((?:\s+[^\n]*\n)+)", text, re.MULTILINE):
        lines = [line.strip() for line in body.splitlines() if not line.strip().startswith((".", "#", "//"))]
        for i, line in enumerate(lines):
            if re.match(rf"(j\w+|b\.\w+|cbn?z\s+\w+,)\s*{re.escape(label)}\b", line):
                yield lines[: i + 1]


def count(lines, pattern):
    return sum(re.match(pattern, line) is not None for line in lines)


@pytest.mark.parametrize("element", [types.float32, types.float64], ids=str)
@pytest.mark.parametrize(
    ("isa", "cpu", "shape"),
    [(isa, cpu, shape) for isa, t in TARGETS.items() for cpu in t[1] for shape in FULL_AND_PARTS[isa]],
)
def test_the_loop_over_the_depth(monkeypatch, isa, cpu, shape, element):
    """MR x NV vector multiply-adds, no scalar ones, and no vector that leaves its register."""
    mr, nv = shape
    register = TARGETS[isa][3]
    float32 = element is types.float32
    inner = list(loops(assembly(monkeypatch, isa, cpu, element, mr, nv)))
    assert len(inner) == 1
    lines = inner[0]
    if isa == "neon":
        vectors = count(lines, rf"fmla\s+v\d+\.{'4s' if float32 else '2d'}")
        scalars = count(lines, r"fmadd|fmul|fadd")
        stack = [line for line in lines if re.search(r"\[(sp|x29)", line)]
    else:
        kind = "ps" if float32 else "pd"
        if isa == "sse":  # no FMA there: a product and a sum
            vectors = count(lines, rf"mul{kind}\s")
            assert count(lines, rf"add{kind}\s") == vectors
        else:
            vectors = count(lines, rf"vfmadd\d+{kind}\s.*{register}")
        scalars = count(lines, r"v?(mul|add|fmadd\d+)s[sd]\s")
        stack = [line for line in lines if "(%rsp" in line]
    steps = vectors // (mr * nv)
    assert vectors == steps * mr * nv
    assert steps == 1 if nv > 1 else steps in (1, 2)  # LLVM may take two steps at a time where the tile is narrow
    assert scalars == 0
    assert stack == []


@pytest.mark.parametrize("element", [types.float32, types.float64], ids=str)
@pytest.mark.parametrize(("isa", "cpu"), [(isa, cpu) for isa in TARGETS for cpu in TARGETS[isa][1]])
def test_work_ahead_stays_outside_of_the_loop(monkeypatch, isa, cpu, element):
    """Between runs of steps, whose loop is that of a tile that does not work ahead, a row of the next panel is copied and
    prefetched, and no vector is put aside for it where a register is free."""
    mr, nv = tile.TILES[isa]
    text = assembly(monkeypatch, isa, cpu, element, mr, nv, ahead=True)
    register, kind = TARGETS[isa][3], "ps" if element is types.float32 else "pd"
    multiply_add = {"sse": rf"mul{kind}\s", "neon": r"fmla\s"}.get(isa, rf"vfmadd\d+{kind}\s.*{register}")
    ask, on_stack, aside = r"prefetcht1", "(%rsp", rf"{register}\d+, -?\d*\(%rsp"
    if isa == "neon":
        ask, on_stack, aside = r"prfu?m\s+pldl2keep", "[sp", r"st[rp]\s+q\d+,.*\[sp"
    of_steps = [lines for lines in loops(text) if count(lines, multiply_add)]
    assert len(of_steps) == 2  # in a run, and after the last one
    for lines in of_steps:
        assert count(lines, multiply_add) == mr * nv
        assert count(lines, ask) == 0
        assert [line for line in lines if on_stack in line] == []
    lines = [line.strip() for line in text.splitlines()]
    row_bytes = nv * TARGETS[isa][2]
    assert count(lines, ask) == 2 * len({*range(0, row_bytes, 64), row_bytes - 1})
    of_sums = [i for i, line in enumerate(lines) if re.match(multiply_add, line)]
    put_aside = [line for line in lines[of_sums[0] : of_sums[-1]] if re.search(aside, line)]
    assert put_aside == [] or isa == "sse"


@pytest.mark.parametrize("element", [types.float32, types.float64], ids=str)
@pytest.mark.parametrize("layout", [tile_body.ADJACENT, tile_body.APART])
@pytest.mark.parametrize(("isa", "cpu"), [(isa, cpu) for isa in tile_body.UNROLLED for cpu in TARGETS[isa][1]])
def test_the_unrolled_loop(monkeypatch, isa, cpu, layout, element):
    """UNROLL steps with at most 3 instructions each beside the multiply-adds and their loads, and nothing on the stack."""
    mr, nv = tile.TILES[isa]
    text = assembly(monkeypatch, isa, cpu, element, mr, nv, layout=layout)
    lines = max(loops(text), key=lambda lines: count(lines, r"vfmadd"))
    lines = [line for line in lines if not line.startswith("#")]
    register = TARGETS[isa][3]
    assert count(lines, rf"vfmadd\d+p[sd]\s.*{register}") == tile_body.UNROLL * mr * nv
    assert len(lines) <= tile_body.UNROLL * (mr * nv + mr + nv + 3)
    assert [line for line in lines if "(%rsp" in line] == []


def test_the_check_sees_spills(monkeypatch):
    """15 rows do not fit into the registers of AVX-512: the same reading of the assembly says so."""
    text = assembly(monkeypatch, "avx512", "skylake-avx512", types.float32, 16, 2)
    (lines,) = loops(text)
    assert count(lines, r"vfmadd.*%zmm") == 32
    assert [line for line in lines if "(%rsp" in line and "zmm" in line]


@pytest.mark.parametrize(
    ("isa", "cpu", "features"), [("avx2", "haswell", "+avx,+avx2,+fma"), ("sse", "x86-64", "+sse2")]
)
def test_results_on_x86(isa, cpu, features):
    """The linear layers and the vector functions, by the tests of this folder in a process that believes it is smaller."""
    here = get_host_cpu_features().split(",")
    if not set(features.split(",")) <= set(here):
        pytest.skip(f"this processor has no {isa}")
    paths = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "tests")]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": features,
        "FASTDL_EXPECTED_ISA": isa,
    }
    tests = ["test_tiles.py::test_the_isa_is_the_expected_one", "test_linear.py::test_forward",
             "test_linear.py::test_backward", "test_simd_functions.py::test_float32_where_it_is_hard"]  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "unaligned and (relu or tanh) or hard or isa",
    ]
    done = subprocess.run(
        [*command, *(str(ROOT / "tests" / test) for test in tests)],
        env=env, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) > 200
    assert "skipped" not in done.stdout


def test_the_isa_is_the_expected_one():
    """In the processes of `test_results_on_x86`: the settings had their effect."""
    expected = os.environ.get("FASTDL_EXPECTED_ISA")
    if expected is not None:
        from fastdl_kernels.host import host

        assert host().isa == expected
        assert tile.TILES[expected] == (tile.MR, tile.NV)


@pytest.mark.parametrize("shape", FULL_AND_PARTS["avx512"])
@pytest.mark.parametrize("cpu", ["cooperlake", "znver4", "sapphirerapids"])
def test_the_loop_over_pairs(monkeypatch, cpu, shape):
    """In bf16 a step is one dot product of pairs for each vector of sums, and nothing leaves its register."""
    text = assembly(monkeypatch, "avx512", cpu, types.float32, *shape, steps=tile_steps.DOTS)
    (lines,) = loops(text)
    assert count(lines, r"vdpbf16ps\s.*%zmm") == shape[0] * shape[1]
    assert count(lines, r"vfmadd|v?mul|v?add[ps]") == 0
    assert [line for line in lines if "(%rsp" in line] == []


def test_work_ahead_of_pairs_stays_outside_of_the_loop(monkeypatch):
    mr, nv = tile.TILES["avx512"]
    text = assembly(monkeypatch, "avx512", "znver4", types.float32, mr, nv, ahead=True, steps=tile_steps.DOTS)
    of_steps = [lines for lines in loops(text) if count(lines, r"vdpbf16ps")]
    assert len(of_steps) == 2
    for lines in of_steps:
        assert count(lines, r"vdpbf16ps\s.*%zmm") == mr * nv
        assert [line for line in lines if "(%rsp" in line] == []
