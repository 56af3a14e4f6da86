"""Kinds of processors that code is compiled for: the one here, and those that prebuilt code exists for."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import sys
from dataclasses import dataclass

from llvmlite import binding
from numba.core import config

# Names as LLVM gives them to what it finds in a processor.
_V3 = (
    "avx", "avx2", "bmi", "bmi2", "cmov", "cx16", "cx8", "f16c", "fma", "fxsr", "lzcnt", "mmx", "movbe", "popcnt", "sahf",
    "sse", "sse2", "sse3", "sse4.1", "sse4.2", "ssse3", "xsave",
)  # fmt: skip
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
_KB = 1024


@dataclass(frozen=True)
class Target:
    """A kind of processor.

    cpu, features : as LLVM calls them; what code for it may use
    l1_bytes : the L1 data cache that blocks are cut for, which decides in which order sums run; 0: any (AVX-512 has blocks of
        its own)
    tune : the processor whose timing LLVM arranges instructions for
    """

    name: str
    machine: str
    cpu: str
    features: tuple[str, ...]
    l1_bytes: int = 0
    tune: str = ""

    @property
    def triple(self) -> str:
        return f"{self.machine}-unknown-linux-gnu"

    @property
    def feature_string(self) -> str:
        return ",".join(f"+{feature}" for feature in self.features)


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("x86-64-v4-bf16", "x86_64", "x86-64-v4", (*_V4, "avx512bf16")),
        Target("x86-64-v4", "x86_64", "x86-64-v4", _V4),
        Target("x86-64-v3", "x86_64", "x86-64-v3", _V3, 32 * _KB),
        Target("x86-64-v3-l1-48k", "x86_64", "x86-64-v3", _V3, 48 * _KB),
        Target("aarch64", "aarch64", "generic", ("fp-armv8", "neon"), 64 * _KB),
        Target("aarch64-l1-32k", "aarch64", "generic", ("fp-armv8", "neon"), 32 * _KB),
    )
}
"""Those that a wheel holds code for, the most specific first."""

# The target that this process compiles for instead of its own processor, whose code it cannot run.
FOREIGN = "FASTDL_COMPILE_FOR"


@functools.cache
def foreign() -> Target | None:
    """The other kind of processor that this process compiles for; set before the first import of `fastdl_kernels`."""
    name = os.environ.get(FOREIGN)
    if not name:
        return None
    if name not in TARGETS:
        raise ValueError(f"expected {FOREIGN} to be one of {', '.join(TARGETS)}, got {name}")
    target = TARGETS[name]
    config.CPU_NAME, config.CPU_FEATURES = target.cpu, target.feature_string
    if target.machine != machine():
        binding.initialize_all_targets()
        binding.initialize_all_asmprinters()
        binding.get_process_triple = lambda: target.triple
        binding.get_default_triple = lambda: target.triple
    return target


def machine() -> str:
    """ "x86_64", "aarch64", ... of this process."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


@functools.cache
def features() -> frozenset[str]:
    """The enabled features, by the same rules as Numba's code generator."""
    text = config.CPU_FEATURES
    if text is None:
        if config.CPU_NAME == "generic":
            return frozenset()
        from numba.core.codegen import get_host_cpu_features

        text = get_host_cpu_features()
    enabled: set[str] = set()
    for feature in filter(None, (f.strip() for f in text.split(","))):
        if feature.startswith("-"):
            enabled.discard(feature[1:])
        else:
            enabled.add(feature.lstrip("+"))
    return frozenset(enabled)


def cpu_name() -> str:
    """LLVM's name of the processor that is compiled for."""
    return config.CPU_NAME or binding.get_host_cpu_name()


def names(l1_bytes: int, any_l1: bool) -> list[str]:
    """Names under which compiled code for this processor may be kept, the best first: what was compiled for exactly this kind,
    then the targets that it has all features of and whose blocks are cut in the same way."""
    if (target := foreign()) is not None:
        return [target.name]
    exact = hashlib.sha256(" ".join([cpu_name(), str(l1_bytes), str(config.OPT), *sorted(features())]).encode())
    found = [f"{cpu_name()}-{exact.hexdigest()[:8]}"]
    if sys.platform != "linux" or int(config.OPT) != 3:
        return found
    for target in TARGETS.values():
        same_blocks = any_l1 if target.l1_bytes == 0 else not any_l1 and target.l1_bytes == l1_bytes
        has_all = set(target.features) <= features()
        if target.machine == machine() and same_blocks and has_all and os.name == "posix":
            found.append(target.name)
    return found


foreign()  # before Numba makes its code generator
