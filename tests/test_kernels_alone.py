"""fastdl_kernels needs numba, numpy, llvmlite and psutil, and nothing else: every public kernel, in a bare process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

KERNELS = Path(__file__).resolve().parent.parent / "kernels"

PROGRAM = """
import importlib.abc, sys

BLOCKED = {"scipy", "sklearn", "pandas", "torch", "rich", "typer", "click", "polars", "pyarrow", "matplotlib",
           "hypothesis", "pytest", "fastdl"}

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Block())

import numpy as np
import fastdl_kernels as fk

called = set()

def call(name, *args):
    called.add(name)
    return getattr(fk, name)(*args)

for dtype in ("float32", "float64"):
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=s).astype(dtype) for s in ((9, 5), (5, 7), (7,)))
    out, d_x, d_w, d_b = np.empty((9, 7), dtype), np.empty_like(x), np.empty_like(w), np.empty_like(b)
    for code in fk.ACTIVATIONS.values():
        call("linear_forward", x, w, b, code, 0.01, out)
        call("linear_backward", x, w, out, np.ones_like(out), code, 0.01, d_x, d_w, d_b)
        assert all(np.isfinite(a).all() for a in (out, d_x, d_w, d_b))
    call("linear_forward", x, w, b, fk.IDENTITY, 0.0, out)
    np.testing.assert_allclose(out, x @ w + b, rtol=1e-4, atol=1e-6)
    p = np.empty_like(out)
    call("softmax", out, p)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    call("log_softmax", out, p)
    np.testing.assert_allclose(np.exp(p).sum(axis=1), 1, rtol=1e-6)
    assert call("softmax_cross_entropy", out, np.arange(9) % 7, p) > 0
    assert call("sigmoid_cross_entropy", out, (out > 0).astype(dtype), p) > 0
    assert call("squared_error", out, out, p) == 0
    theta, g, m, v = np.zeros(101, dtype), np.ones(101, dtype), np.zeros(101, dtype), np.zeros(101, dtype)
    call("sgd_step", theta, g, 0.5)
    call("momentum_step", theta, g, m, 0.5, 0.0)
    np.testing.assert_allclose(theta, -1)
    call("rmsprop_step", theta, g, v, 0.5, 0.0, 1e-8)
    call("adam_step", theta, g, m, v, 1, 0.5, 0.9, 0.999, 1e-8)
    call("nesterov_step", theta, g, m, 0.5, 0.9)
    call("adamw_step", theta, g, m, v, 2, 0.5, 0.9, 0.999, 1e-8, 0.01)
    assert (theta < -1.4).all()

public = {name for name in fk.__all__ if callable(getattr(fk, name))}
assert called == public, called ^ public
loaded = {name.partition(".")[0] for name in sys.modules} & BLOCKED
assert not loaded, loaded
print("ran", len(called))
"""


def test_every_kernel_without_anything_else_installed(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(KERNELS)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ran 13\n"


def test_without_the_compiler_one_sentence():
    environment = {**os.environ, "PYTHONPATH": str(KERNELS), "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "import fastdl_kernels"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "ImportError: fastdl_kernels is compiled by Numba, and NUMBA_DISABLE_JIT=1 turns that off" in done.stderr
