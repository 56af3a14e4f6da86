"""Object files into this process, through LLVM's linker; nothing is compiled."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from typing import Any

from llvmlite import binding

from fastdl_kernels._store import Code
from fastdl_kernels._targets import cpu_name, features

_lock = threading.RLock()


@functools.cache
def engine() -> Any:
    """The one that loads; what it has loaded stays."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module = binding.parse_assembly("")
    module.triple = binding.get_process_triple()
    text = ",".join(f"+{feature}" for feature in sorted(features()))
    options = {"cpu": cpu_name(), "features": text, "opt": 3, "codemodel": "jitdefault", "jit": True}
    if "86" in module.triple.split("-")[0]:
        options["reloc"] = "static"
    machine = binding.Target.from_triple(module.triple).create_target_machine(**options)
    return binding.create_mcjit_compiler(module, machine)


def missing(code: Code) -> list[str]:
    """The symbols that the code needs and this process does not have: LLVM would end it."""
    return [name for name in code.needs if binding.address_of_symbol(name) is None and not _found_in_c(name)]


def _found_in_c(name: str) -> bool:
    """Whether the C library has a function that LLVM did not find by itself; it knows it then."""
    if name.startswith("fastdl_"):
        return False
    try:
        library = ctypes.CDLL("msvcrt" if os.name == "nt" else None)
        binding.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)
    except (OSError, AttributeError):
        return False
    return True


def load(code: Code) -> int:
    """The address of the function, once the symbols that it needs are there."""
    with _lock:
        engine().add_object_file(binding.ObjectFileRef.from_data(code.object))
        engine().finalize_object()
        address = engine().get_function_address(code.symbol)
    if not address:
        raise ValueError(f"there is no {code.symbol} in it")
    return address


def assemble(text: str, name: str) -> int:
    """The address of a function that is given in LLVM's language."""
    with _lock:
        module = binding.parse_assembly(text)
        module.verify()
        engine().add_module(module)
        engine().finalize_object()
        return engine().get_function_address(name)
