"""Inputs of the kernels' benchmarks, and what the results must be, in float64 NumPy that uses nothing of fastdl's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.cases import KernelCase

Arrays = dict[str, NDArray]

LR, BETA1, BETA2, EPS, STEP = 1e-3, 0.9, 0.999, 1e-8, 10
TOLERANCE = 1e-5  # greatest error, relative to the greatest result, times the root of the length of the sums


def inputs(case: KernelCase) -> Arrays:
    """The arrays of a case, float32 (labels int64), the same in every process."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, np.float32)

    if case.op in ("linear_forward", "linear_backward"):
        b, i, o = case.shape
        arrays = {"x": normal(b, i), "weight": normal(i, o), "bias": normal(o)}
        if case.op == "linear_backward":
            arrays["out"] = np.maximum(arrays["x"] @ arrays["weight"] + arrays.pop("bias"), 0)
            arrays["d_out"] = normal(b, o)
        return arrays
    if case.op == "softmax_cross_entropy":
        b, n = case.shape
        return {"logits": normal(b, n), "labels": rng.integers(0, n, b)}
    (p,) = case.shape
    return {"params": normal(p), "grads": normal(p), "m": normal(p), "v": normal(p) ** 2}


def expected(case: KernelCase, a: Arrays) -> Arrays:
    """The results by name, before any of the inputs is overwritten."""
    a = {name: array if array.dtype == np.int64 else array.astype(np.float64) for name, array in a.items()}
    if case.op == "linear_forward":
        return {"out": np.maximum(a["x"] @ a["weight"] + a["bias"], 0)}
    if case.op == "linear_backward":
        d_z = a["d_out"] * (a["out"] > 0)
        return {"d_x": d_z @ a["weight"].T, "d_weight": a["x"].T @ d_z, "d_bias": d_z.sum(axis=0)}
    if case.op == "softmax_cross_entropy":
        rows = np.arange(case.shape[0])
        shifted = a["logits"] - a["logits"].max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        d_logits = np.exp(log_p)
        d_logits[rows, a["labels"]] -= 1
        return {"loss": -log_p[rows, a["labels"]].mean(), "d_logits": d_logits / rows.size}
    m = BETA1 * a["m"] + (1 - BETA1) * a["grads"]
    v = BETA2 * a["v"] + (1 - BETA2) * a["grads"] ** 2
    step = LR * (m / (1 - BETA1**STEP)) / (np.sqrt(v / (1 - BETA2**STEP)) + EPS)
    return {"params": a["params"] - step, "m": m, "v": v}


def error(results: Arrays, wanted: Arrays) -> float:
    """The greatest error of all results, each relative to the greatest number of its array; NaN counts as infinite."""
    worst = 0.0
    for name, right in wanted.items():
        difference = np.max(np.abs(np.asarray(results[name]) - right))
        worst = max(worst, float(difference / np.max(np.abs(right))) if np.isfinite(difference) else np.inf)
    return worst


def tolerance(case: KernelCase) -> float:
    """The error up to which a result counts as right."""
    return TOLERANCE * max(case.shape[:3]) ** 0.5 if case.flop else TOLERANCE
