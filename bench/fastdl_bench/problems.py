"""Inputs of the kernels' benchmarks, and what the results must be, in float64 NumPy that uses nothing of fastdl's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastdl_bench.cases import KernelCase

Arrays = dict[str, NDArray]

LR, BETA1, BETA2, EPS, STEP, DECAY = 1e-3, 0.9, 0.999, 1e-8, 10, 0.01
DELTA = 1.0  # from which error on Huber's loss is linear
TOLERANCE = 1e-5  # greatest error, relative to the greatest result, times the root of the length of the sums


STATE: dict[str, tuple[str, ...]] = {
    "sgd_step": (),
    "momentum_step": ("velocity",),
    "nesterov_step": ("velocity",),
    "rmsprop_step": ("mean_square",),
    "adam_step": ("m", "v"),
    "adamw_step": ("m", "v"),
}
"""The state that an optimizer keeps for each parameter, by the names of the kernels' arguments."""


def inputs(case: KernelCase) -> Arrays:
    """The arrays of a case, float32 (labels int64), the same in every process."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, np.float32)

    if case.is_product:
        b, i, o = case.shape
        arrays = {"x": normal(b, i), "weight": normal(i, o), "bias": normal(o)}
        if case.op == "linear_backward":
            arrays["out"] = np.maximum(arrays["x"] @ arrays["weight"] + arrays.pop("bias"), 0)
            arrays["d_out"] = normal(b, o)
        return arrays
    if len(case.shape) == 2:
        b, n = case.shape
        logits = normal(b, n)
        if case.op == "softmax_cross_entropy":
            return {"logits": logits, "labels": rng.integers(0, n, b)}
        if case.op == "sigmoid_cross_entropy":
            return {"logits": logits, "targets": rng.integers(0, 2, (b, n)).astype(np.float32)}
        if case.op == "poisson_loss":
            return {"log_rates": logits, "targets": rng.poisson(np.exp(logits)).astype(np.float32)}
        if case.op in ("squared_error", "absolute_error", "huber_loss"):
            return {"predictions": logits, "targets": normal(b, n)}
        if case.op == "quantile_loss":
            return {"predictions": logits, "targets": normal(b, n), "q": np.linspace(0.1, 0.9, n, dtype=np.float32)}
        return {"logits": logits}
    (p,) = case.shape
    arrays = {"params": normal(p), "grads": normal(p)}
    for name in STATE[case.op]:
        arrays[name] = normal(p) if name in ("velocity", "m") else normal(p) ** 2
    return arrays


def expected(case: KernelCase, a: Arrays) -> Arrays:
    """The results by name, before any of the inputs is overwritten."""
    a = {name: array if array.dtype == np.int64 else array.astype(np.float64) for name, array in a.items()}
    if case.op == "linear_forward":
        return {"out": np.maximum(a["x"] @ a["weight"] + a["bias"], 0)}
    if case.op == "linear_forward_keep":
        z = a["x"] @ a["weight"] + a["bias"]
        return {"z": z, "out": z / (1 + np.exp(-z))}
    if case.op == "linear_backward":
        d_z = a["d_out"] * (a["out"] > 0)
        return {"d_x": d_z @ a["weight"].T, "d_weight": a["x"].T @ d_z, "d_bias": d_z.sum(axis=0)}
    if len(case.shape) == 2:
        return _expected_rows(case, a)
    p, g = a["params"], a["grads"]
    if case.op == "sgd_step":
        return {"params": p - LR * g}
    if case.op in ("momentum_step", "nesterov_step"):
        velocity = BETA1 * a["velocity"] + (1 - BETA1) * g
        update = velocity if case.op == "momentum_step" else BETA1 * velocity + (1 - BETA1) * g
        return {"params": p - LR * update, "velocity": velocity}
    if case.op == "rmsprop_step":
        mean_square = BETA1 * a["mean_square"] + (1 - BETA1) * g**2
        return {"params": p - LR * g / np.sqrt(mean_square + EPS), "mean_square": mean_square}
    m = BETA1 * a["m"] + (1 - BETA1) * g
    v = BETA2 * a["v"] + (1 - BETA2) * g**2
    step = LR * (m / (1 - BETA1**STEP)) / (np.sqrt(v / (1 - BETA2**STEP)) + EPS)
    keep = 1 - LR * DECAY if case.op == "adamw_step" else 1.0
    return {"params": keep * p - step, "m": m, "v": v}


def _expected_rows(case: KernelCase, a: Arrays) -> Arrays:
    """The results of softmax and of the losses."""
    if "predictions" in a:
        return _expected_errors(case.op, a["predictions"] - a["targets"], a.get("q"))
    if case.op == "poisson_loss":
        z, t = a["log_rates"], a["targets"]
        constant = np.where(t > 0, t * np.log(np.maximum(t, 1)), 0) - t
        return {"loss": (np.exp(z) - t * z + constant).mean(), "d_log_rates": (np.exp(z) - t) / z.size}
    z = a["logits"]
    n_rows = len(z)
    if case.op == "sigmoid_cross_entropy":
        loss = (np.logaddexp(0, z) - a["targets"] * z).sum(axis=1).mean()
        return {"loss": loss, "d_logits": (1 / (1 + np.exp(-z)) - a["targets"]) / n_rows}
    shifted = z - z.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    if case.op in ("softmax", "log_softmax"):
        return {"out": np.exp(log_p) if case.op == "softmax" else log_p}
    rows = np.arange(n_rows)
    d_logits = np.exp(log_p)
    d_logits[rows, a["labels"]] -= 1
    return {"loss": -log_p[rows, a["labels"]].mean(), "d_logits": d_logits / n_rows}


def _expected_errors(op: str, e: NDArray, q: NDArray | None) -> Arrays:
    """Losses of errors e = prediction - target [B, N]; q [N] of the quantile loss."""
    if op == "squared_error":
        rows, d = e**2, 2 * e
    elif op == "absolute_error":
        rows, d = np.abs(e), np.sign(e)
    elif op == "huber_loss":
        rows = np.where(np.abs(e) <= DELTA, e**2 / 2, DELTA * (np.abs(e) - DELTA / 2))
        d = np.clip(e, -DELTA, DELTA)
    else:
        assert q is not None
        rows, d = np.where(e < 0, -q * e, (1 - q) * e), np.where(e < 0, -q, np.where(e > 0, 1 - q, 0))
    return {"loss": rows.mean(), "d_predictions": d / e.size}


def error(results: Arrays, wanted: Arrays) -> float:
    """The greatest error of all results, each relative to the greatest number of its array; NaN counts as infinite."""
    worst = 0.0
    for name, right in wanted.items():
        difference = np.max(np.abs(np.asarray(results[name]) - right))
        worst = max(worst, float(difference / np.max(np.abs(right))) if np.isfinite(difference) else np.inf)
    return worst


def tolerance(case: KernelCase) -> float:
    """The error up to which a result counts as right."""
    return TOLERANCE * max(case.shape[:3]) ** 0.5 if case.is_product else TOLERANCE
