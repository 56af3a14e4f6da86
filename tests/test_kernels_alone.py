"""fastdl_kernels needs numba, numpy, llvmlite and psutil, and nothing else: every public kernel, in a bare process."""

from __future__ import annotations

from processes import ROOT, run_program


def test_every_kernel_without_anything_else_installed(tmp_path):
    run_program("kernels_alone.py", paths=[ROOT / "kernels"], cwd=tmp_path)
