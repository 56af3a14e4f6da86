"""Wheels with prebuilt machine code, by a hook of Hatch's.

`FASTDL_PREBUILT=x86_64` (or aarch64, also on x86) while a wheel is built makes it one for that platform, with the code of all
functions for each of its kinds of processors; `scripts/wheel` does. Without it the wheel is the pure one, which compiles.
What the packages depend on must be installed: `--no-isolation`. Where the code is in the user's folder already, it is taken
from there, and only compiled where it is not. The same sources and versions give the same bytes.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "FASTDL_PREBUILT"
# For tests: only functions whose names start with one of these, of these kinds of processors.
ONLY, TARGETS = "FASTDL_PREBUILT_ONLY", "FASTDL_PREBUILT_TARGETS"


class CustomBuildHook(BuildHookInterface):
    """Puts `fastdl_kernels/native` into the wheel, and names the platform that it is for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by Hatch before a wheel is put together."""
        machine = os.environ.get(VARIABLE)
        if not machine or version == "editable":
            return
        root = Path(self.root)
        sys.path[:0] = [str(root), str(root / "kernels")]
        from fastdl.engine import prepare

        known = prepare.machines()
        if machine not in known:
            raise ValueError(f"expected {VARIABLE} to be one of {', '.join(known)}, got {machine}")
        self._folder = tempfile.mkdtemp(prefix="fastdl-native-")
        only = os.environ.get(ONLY, "").split()
        targets = os.environ.get(TARGETS, "").split() or prepare.targets_for(machine)
        self.app.display_info(f"compiling for {', '.join(targets)}")
        prepare.pack(Path(self._folder), targets, only)
        build_data["force_include"][self._folder] = "fastdl_kernels/native"
        build_data["pure_python"] = False
        # Nothing in it depends on the version of Python; what it calls of the C library every Linux of the last ten years has.
        build_data["tag"] = f"py3-none-manylinux_2_17_{machine}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called by Hatch when the wheel is written."""
        if hasattr(self, "_folder"):
            shutil.rmtree(self._folder, ignore_errors=True)
