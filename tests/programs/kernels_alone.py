"""Every public kernel in a process that can import nothing but numba, llvmlite, numpy and psutil."""

import importlib.abc
import sys

BLOCKED = {
    "scipy",
    "sklearn",
    "pandas",
    "torch",
    "rich",
    "typer",
    "click",
    "polars",
    "pyarrow",
    "matplotlib",
    "hypothesis",
    "pytest",
    "fastdl",
}


class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)


sys.meta_path.insert(0, Block())

import numpy as np  # noqa: E402

import fastdl_kernels as fk  # noqa: E402

called = set()


def call(name, *args):
    called.add(name)
    return getattr(fk, name)(*args)


for dtype in ("float32", "float64"):
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=s).astype(dtype) for s in ((9, 5), (5, 7), (7,)))
    z, out, d_x, d_w, d_b = (
        np.empty((9, 7), dtype),
        np.empty((9, 7), dtype),
        np.empty_like(x),
        np.empty_like(w),
        np.empty_like(b),
    )
    for code in fk.ACTIVATIONS.values():
        call("linear_forward", x, w, b, code, 0.01, out)
        call("linear_forward_keep", x, w, b, code, 0.01, z, out)
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
    assert call("absolute_error", out, out, p) == 0
    assert call("huber_loss", out, out, 1.0, p) == 0
    assert call("quantile_loss", out, out, np.full(7, 0.5, dtype), p) == 0
    assert call("poisson_loss", out, np.exp(out), p) < 1e-5
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
print("fine")
