"""`python -m fastdl_kernels --timings [PROGRAM]`: where the seconds of a first call go, part by part.

The program (one `linear_forward` if there is none) runs in a process of its own with an empty cache and no prebuilt code. Parts
are told apart by Numba's events (one for each pass over a function) and by the methods in which Numba hands its work to LLVM.
Seconds are those of the processor, which other programs on the machine change little.
"""

from __future__ import annotations

import collections
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

_DEFAULT = """
import numpy as np, fastdl_kernels as fk
x, w, b, out = np.ones((32, 64), "f4"), np.ones((64, 10), "f4"), np.ones(10, "f4"), np.empty((32, 10), "f4")
fk.linear_forward(x, w, b, fk.RELU, 0.0, out)
"""
_CHILD = """
import sys, time
sys.path[:] = {path!r}
import numba
numba_seconds = time.process_time()
from fastdl_kernels import _timings
_timings.record(numba_seconds, time.process_time() - numba_seconds, {program!r})
"""
_now = time.process_time
PARTS = (
    "import numba", "import the rest", "typing", "lowering", "other passes of Numba's", "its code as text, and read by LLVM",
    "LLVM's passes over functions", "LLVM's passes over modules", "machine code", "loading", "all else",
)  # fmt: skip


def report(program: str | None) -> int:
    """Run a program, a path or None, and print its parts; the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "FASTDL_CACHE_DIR": folder}
        code = _CHILD.format(path=sys.path, program=program)
        return subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode


class Clock:
    """Seconds by part; a part that begins within another one stops it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.functions: dict[str, float] = collections.defaultdict(float)
        self._open: list[str] = ["all else"]
        self._since = _now()

    def begin(self, part: str) -> None:
        self._charge()
        self._open.append(part)

    def end(self) -> None:
        self._charge()
        self._open.pop()

    def _charge(self) -> None:
        now = _now()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def around(self, owner: Any, name: str, part: str) -> None:
        """Charge the time in a method or function to a part."""
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.begin(part)
            try:
                return inner(*args, **kwargs)
            finally:
                self.end()

        setattr(owner, name, timed)


def record(numba_seconds: float, import_seconds: float, program: str | None) -> None:
    """What the process of `report` does."""
    clock = Clock()
    clock.seconds.update({"import numba": numba_seconds, "import the rest": import_seconds})
    clock.begin("import the rest")
    from llvmlite import binding
    from numba.core import codegen, event

    from fastdl_kernels import _emit, _loader, _store, _units

    clock.end()
    _store.PACKAGED = _store.PACKAGED / "none"
    part_of = {"nopython_type_inference": "typing", "native_lowering": "lowering"}

    class Passes(event.Listener):
        def on_start(self, what: Any) -> None:
            name = what.data["name"].split(" ")[0]
            clock.begin(part_of.get(name, "other passes of Numba's"))

        def on_end(self, what: Any) -> None:
            clock.end()

    event.register("numba:run_pass", Passes())
    library = codegen.CPUCodeLibrary
    clock.around(library, "add_ir_module", "its code as text, and read by LLVM")
    clock.around(library, "_optimize_functions", "LLVM's passes over functions")
    clock.around(library, "_optimize_final_module", "LLVM's passes over modules")
    clock.around(codegen.JITCodeLibrary, "_finalize_specific", "machine code")
    clock.around(binding.TargetMachine, "emit_object", "machine code")
    clock.around(_emit, "_finished", "its code as text, and read by LLVM")
    clock.around(_loader, "load", "loading")
    for kind in (_units.Linked, _units.Native):
        _around_units(clock, kind)
    if program is None:
        exec(compile(_DEFAULT, "first call", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_path(program, run_name="__main__")
    clock.begin("all else")
    _print(clock)


def _around_units(clock: Clock, kind: Any) -> None:
    """Note how long each function took, with those that are compiled on the way."""
    inner = kind.compile

    def timed(self: Any, element: Any) -> Any:
        start = _now()
        try:
            return inner(self, element)
        finally:
            clock.functions[self.key(element)] += _now() - start

    kind.compile = timed


def _print(clock: Clock) -> None:
    total = sum(clock.seconds.values())
    for part in PARTS:
        print(f"{clock.seconds[part]:7.2f} s  {clock.seconds[part] / total:4.0%}  {part}")
    print(f"{total:7.2f} s        in all\n")
    print("by function, each with what it made Numba compile for the first time:")
    for name, seconds in sorted(clock.functions.items(), key=lambda item: -item[1]):
        print(f"{seconds:7.2f} s  {name}")
    print("\nregister tiles by shape (LLVM's passes and machine code):")
    for (rows, vectors), seconds in tiles().items():
        print(f"{seconds:7.3f} s  {rows} rows x {vectors} vectors")


def tiles() -> dict[tuple[int, int], float]:
    """Seconds that each shape of a register tile takes alone, in float32."""
    from llvmlite import binding, ir
    from numba.core import types
    from numba.core.registry import cpu_target

    from fastdl_kernels.tile import MASKS, MR, NV, has_body
    from fastdl_kernels.tile_body import tile_function

    machine = cpu_target.target_context.codegen()._tm
    result = {}
    for vectors in range(1, NV + 1):
        for rows in filter(has_body, range(1, MR + 1)):
            start = _now()
            module = ir.Module()
            module.triple = binding.get_process_triple()
            tile_function(module, types.float32, rows, vectors, part=MASKS and vectors < NV).linkage = ""
            parsed = binding.parse_assembly(str(module))
            builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=3))
            builder.getModulePassManager().run(parsed, builder)
            machine.emit_object(parsed)
            result[rows, vectors] = _now() - start
    return result
