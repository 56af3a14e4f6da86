"""From a Python function to an object file, by Numba's compiler; nothing of Numba is needed to run what comes out.

Numba makes machine code of every function on the way, though only the intermediate code of helpers is ever copied into
their callers: 30 % of the time. Here it makes none; the finished module of the one function that is wanted is emitted
once, with all names in it but its own taken away, which makes the bytes the same wherever and whenever it is built.
"""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import binding
from numba.core import codegen, compiler, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import _FunctionCompiler
from numba.core.registry import cpu_target

from fastdl_kernels._store import Code

# What numba's code does with memory for arrays that are made inside; an array from Python comes without a count of references.
# The block starts with that count, and Numba's code finds the address of the numbers 24 bytes behind its start.
_MEMORY = """
declare ptr @malloc(i64)
declare void @free(ptr)
define private ptr @{alloc}(i64 %size, i32 %align) {{
  %wide = zext i32 %align to i64
  %more = add i64 %size, 64
  %all = add i64 %more, %wide
  %block = call ptr @malloc(i64 %all)
  %none = icmp eq ptr %block, null
  br i1 %none, label %end, label %fill
fill:
  store i64 1, ptr %block
  %start = ptrtoint ptr %block to i64
  %above = add i64 %start, 63
  %after = add i64 %above, %wide
  %down = sub i64 0, %wide
  %place = and i64 %after, %down
  %data = inttoptr i64 %place to ptr
  %slot = getelementptr i8, ptr %block, i64 24
  store ptr %data, ptr %slot
  br label %end
end:
  ret ptr %block
}}
define private void @{free}(ptr %block) {{
  call void @free(ptr %block)
  ret void
}}
"""
_ALLOC, _FREE = "NRT_MemInfo_alloc_aligned", "NRT_MemInfo_call_dtor"
_DEFINED_SYMBOL = 'define {kind} @"{name}"'
# Numba writes what a function would raise, with the paths of its sources, into the code; nobody reads it there.
_PICKLED = re.compile(r'^(@"?\.const\.pickledata\.[^=]* = .*?constant \[\d+ x i8\]) c".*?"', re.MULTILINE)


class _Compiler(_FunctionCompiler):
    def _customize_flags(self, flags: Any) -> Any:
        flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        flags.enable_pyobject = False
        return flags


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Python's search for circles of objects, which looks at all of Numba's again and again: a seventh of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def _without_machine_code() -> Iterator[None]:
    """Numba's libraries end with their intermediate code, and are never loaded."""
    library, generator = codegen.JITCodeLibrary, codegen.JITCPUCodegen
    kept = library._finalize_specific, generator._add_module, generator.set_env
    library._finalize_specific = lambda self: None
    generator._add_module = lambda self, module: None
    generator.set_env = lambda self, name, environment: None
    try:
        yield
    finally:
        library._finalize_specific, generator._add_module, generator.set_env = kept


def emit(function: Callable[..., Any], arguments: tuple[types.Type, ...], options: dict[str, Any], name: str,
         more: Callable[[str], str] | None = None, symbol: str = "") -> Code:  # fmt: skip
    """Compile a function of numbers and pointers that returns nothing.

    Parameters
    ----------
    arguments, options : as Numba takes them
    name : what the function is called in the object file
    more : its name -> LLVM's text of what comes beside it
    symbol : what is called from outside, if it is not the function itself but in `more`
    """
    compile_ = _Compiler(function, cpu_target, options, {}, compiler.Compiler).compile
    with global_compiler_lock, _without_collection(), _without_machine_code():
        result = compile_(arguments, types.void)
        module = _finished(result.library._final_module, result.fndesc.llvm_func_name, name, more, symbol or name)
        machine = cpu_target.target_context.codegen()._tm
        data = machine.emit_object(module)
        declared = {f.name for f in (*module.functions, *module.global_variables) if f.is_declaration}
    needs = {need for need in declared if not need.startswith("llvm.")} | _undefined(data)
    return Code(data, symbol or name, tuple(sorted(needs)))


def _finished(module: Any, old: str, name: str, more: Callable[[str], str] | None, symbol: str) -> Any:
    """A copy of the module that holds the function and what it needs."""
    finished = binding.parse_assembly(_PICKLED.sub(r"\1 zeroinitializer", str(module)))
    finished.get_function(old).name = name
    declared = {f.name for f in finished.functions if f.is_declaration}
    for alloc in sorted(n for n in declared if n.startswith(_ALLOC)):
        finished.link_in(binding.parse_assembly(_MEMORY.format(alloc=alloc, free=_FREE).replace("private", "")))
    if _FREE in declared and not any(n.startswith(_ALLOC) for n in declared):
        finished.link_in(binding.parse_assembly(f"define void @{_FREE}(ptr %block) {{ unreachable }}"))
    if more is not None:
        finished.link_in(binding.parse_assembly(more(name)))
    for thing in (*finished.functions, *finished.global_variables):
        if not thing.is_declaration and thing.name != symbol:
            thing.linkage = "private" if thing.linkage != binding.Linkage.common else "internal"
    finished.name = "fastdl"
    passes = binding.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    builder = binding.create_pass_builder(
        cpu_target.target_context.codegen()._tm, binding.create_pipeline_tuning_options(speed_level=0)
    )
    passes.run(finished, builder)
    finished.verify()
    return finished


def _undefined(data: bytes) -> set[str]:
    """The symbols that an object file (ELF, 64 bits, little-endian) asks for: LLVM adds some, such as memset."""
    number = lambda start, size: int.from_bytes(data[start : start + size], "little")  # noqa: E731
    if data[:6] != b"\x7fELF\x02\x01":
        return set()
    table, entry_size, count = number(0x28, 8), number(0x3A, 2), number(0x3C, 2)
    found = set()
    for i in range(count):
        at = table + i * entry_size
        if number(at + 4, 4) != 2:  # not the table of symbols
            continue
        start, size, names_at = number(at + 0x18, 8), number(at + 0x20, 8), table + number(at + 0x28, 4) * entry_size
        names = number(names_at + 0x18, 8)
        for symbol in range(start + 24, start + size, 24):
            if number(symbol + 6, 2) == 0:  # defined nowhere in here
                name = names + number(symbol, 4)
                found.add(data[name : data.index(b"\0", name)].decode())
    return found - {""}
