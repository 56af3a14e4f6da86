"""fastdl_kernels needs numba, numpy, llvmlite and psutil, and nothing else: every public kernel, in a bare process."""

from __future__ import annotations

from processes import KERNELS, run_program, start


def test_every_kernel_without_anything_else_installed(tmp_path):
    run_program("kernels_alone.py", paths=[KERNELS], cwd=tmp_path)


def test_without_the_compiler_one_sentence():
    done = start("-c", "import fastdl_kernels", paths=[KERNELS], timeout=60, NUMBA_DISABLE_JIT="1")
    assert done.returncode == 1
    assert "ImportError: fastdl_kernels is compiled by Numba, and NUMBA_DISABLE_JIT=1 turns that off" in done.stderr
