"""fastdl_kernels needs numba, numpy, llvmlite and psutil, and nothing else: every public kernel, in a bare process."""

from __future__ import annotations

import os
import subprocess
import sys

from processes import ROOT, run_program


def test_every_kernel_without_anything_else_installed(tmp_path):
    run_program("kernels_alone.py", paths=[ROOT / "kernels"], cwd=tmp_path)


def test_without_the_compiler_one_sentence():
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "kernels"), "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-c", "import fastdl_kernels"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "ImportError: fastdl_kernels is compiled by Numba, and NUMBA_DISABLE_JIT=1 turns that off" in done.stderr
