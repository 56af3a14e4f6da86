"""Optimizer steps: one spec for each, and one pass over flat buffers, in place.

Each step is a loop over a range of the buffers (`*_range`, serial, which the engine runs on the block of gradients that
it has just computed) and a public kernel that spreads ranges over threads. P is the number of parameters. L2 is the
decay l2 of the penalty (l2/2) p², whose gradient l2 p is added on the way; the public kernels take the gradient as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastdl_kernels._jit import jit, noinline
from fastdl_kernels.kernel import kernel, overlap, require
from fastdl_kernels.regions import n_threads, run_jobs
from fastdl_kernels.simd import (
    broadcast,
    flush_subnormals,
    fma,
    lanes_of,
    load_up_to,
    number_like,
    pointer,
    restore_mode,
    sqrt,
    store_up_to,
)

# The fewest parameters per job: 64 KB of each float32 buffer, less than waking a second thread is worth. Large buffers go
# in so many jobs per thread: ranges next to each other mix the threads' streams (10 million parameters took 1.2 x as long in
# jobs of 16,000), and with one job per thread all wait for the slowest.
RANGE, JOBS_PER_THREAD = 16 * 1024, 16

# The bodies: Nesterov's momentum and AdamW share one with momentum and Adam.
SGD, MOMENTUM, RMSPROP, ADAM = range(4)


@jit
def sgd_range(params, grads, start, stop, l2, lr):
    """theta <- theta - lr g on a range; params and grads are pointers, numbers are of their dtype."""
    lanes = lanes_of(params)
    for i in range(start, stop, lanes):
        n = stop - i
        p = load_up_to(params, i, n)
        g = fma(broadcast(l2), p, load_up_to(grads, i, n))
        store_up_to(params, i, fma(broadcast(-lr), g, p), n)


@jit
def momentum_range(params, grads, velocity, start, stop, l2, lr, beta, rest, nesterov):
    """v <- beta v + rest g; theta <- theta - lr u, with rest = 1 - beta rounded once.

    u is v, or with `nesterov` what v will be if the next gradient is the same: beta v + rest g.
    """
    lanes = lanes_of(params)
    for i in range(start, stop, lanes):
        n = stop - i
        p = load_up_to(params, i, n)
        g = broadcast(rest) * fma(broadcast(l2), p, load_up_to(grads, i, n))
        v = fma(broadcast(beta), load_up_to(velocity, i, n), g)
        store_up_to(velocity, i, v, n)
        # The same for all of the range: the processor predicts it, and LLVM can take it out of the loop.
        u = fma(broadcast(beta), v, g) if nesterov else v
        store_up_to(params, i, fma(broadcast(-lr), u, p), n)


@jit
def rmsprop_range(params, grads, mean_square, start, stop, l2, lr, beta, rest, eps):
    """s <- beta s + rest g²; theta <- theta - lr g / sqrt(s + eps)."""
    lanes = lanes_of(params)
    for i in range(start, stop, lanes):
        n = stop - i
        p = load_up_to(params, i, n)
        g = fma(broadcast(l2), p, load_up_to(grads, i, n))
        s = fma(broadcast(beta), load_up_to(mean_square, i, n), broadcast(rest) * g * g)
        store_up_to(mean_square, i, s, n)
        store_up_to(params, i, p - broadcast(lr) * g / sqrt(s + broadcast(eps)), n)


@jit
def adam_range(params, grads, m, v, start, stop, l2, keep, lr, beta1, rest1, beta2, rest2, eps, unbias1, unbias2):
    """m <- beta1 m + rest1 g; v <- beta2 v + rest2 g²; theta <- keep theta - lr (unbias1 m) / (sqrt(unbias2 v) + eps).

    keep is 1, or 1 - lr weight_decay: as a factor of a fused multiply-add it costs no instruction, and 1 changes no bit.
    """
    lanes = lanes_of(params)
    for i in range(start, stop, lanes):
        n = stop - i
        p = load_up_to(params, i, n)
        g = fma(broadcast(l2), p, load_up_to(grads, i, n))
        m_ = fma(broadcast(beta1), load_up_to(m, i, n), broadcast(rest1) * g)
        v_ = fma(broadcast(beta2), load_up_to(v, i, n), broadcast(rest2) * g * g)
        store_up_to(m, i, m_, n)
        store_up_to(v, i, v_, n)
        step = broadcast(lr * unbias1) * m_ / (sqrt(broadcast(unbias2) * v_) + broadcast(eps))
        store_up_to(params, i, fma(broadcast(keep), p, -step), n)


@jit
def _range_size(n):
    """Parameters per job, in whole pages of float32."""
    if n <= RANGE:
        return RANGE
    shared = (n // (JOBS_PER_THREAD * n_threads()) + 1023) // 1024 * 1024
    return max(RANGE, shared)


# --- one job of each public kernel: a range of the buffers, on which subnormal numbers count as 0 ---


@jit
def _sgd_job(job, n, size, params, grads, lr):
    noinline()
    start, stop = job * size, min(n, (job + 1) * size)
    mode = flush_subnormals()
    sgd_range(params, grads, start, stop, number_like(lr, 0), lr)
    restore_mode(mode)


@jit
def _momentum_job(job, n, size, params, grads, velocity, lr, beta, rest, nesterov):
    noinline()
    start, stop = job * size, min(n, (job + 1) * size)
    mode = flush_subnormals()
    momentum_range(params, grads, velocity, start, stop, number_like(lr, 0), lr, beta, rest, nesterov)
    restore_mode(mode)


@jit
def _rmsprop_job(job, n, size, params, grads, mean_square, lr, beta, rest, eps):
    noinline()
    start, stop = job * size, min(n, (job + 1) * size)
    mode = flush_subnormals()
    rmsprop_range(params, grads, mean_square, start, stop, number_like(lr, 0), lr, beta, rest, eps)
    restore_mode(mode)


@jit
def _adam_job(job, n, size, params, grads, m, v, step, lr, beta1, beta2, eps, weight_decay):
    """The numbers are float64: what is rounded once is computed here."""
    noinline()
    start, stop = job * size, min(n, (job + 1) * size)
    one = params[0]
    keep, rate = number_like(one, 1.0 - lr * weight_decay), number_like(one, lr)
    b1, rest1 = number_like(one, beta1), number_like(one, 1.0 - beta1)
    b2, rest2 = number_like(one, beta2), number_like(one, 1.0 - beta2)
    unbias1, unbias2 = number_like(one, 1.0 / (1.0 - beta1**step)), number_like(one, 1.0 / (1.0 - beta2**step))
    zero, eps_ = number_like(one, 0), number_like(one, eps)
    mode = flush_subnormals()
    adam_range(params, grads, m, v, start, stop, zero, keep, rate, b1, rest1, b2, rest2, eps_, unbias1, unbias2)
    restore_mode(mode)


@kernel({"params": "P", "grads": "P"}, outputs=["params"])
def sgd_step(params, grads, lr):
    """theta <- theta - lr g.

    Parameters
    ----------
    params : float32 or float64 [P], C-contiguous, updated in place
    grads : same dtype [P], read; must not overlap params
    lr : learning rate

    Cost: 2 P flop; 3 P itemsize bytes (2 read, 1 written).
    """
    require("sgd_step", grads.size == params.size, not overlap(params, grads))
    n, size, rate = params.size, _range_size(params.size), params.dtype.type(lr)
    run_jobs(_sgd_job, (n + size - 1) // size, n > RANGE, (n, size, pointer(params, 0), pointer(grads, 0), rate))


@jit
def _same_size(params, grads, state):
    return grads.size == params.size and state.size == params.size


@jit
def _apart(params, grads, state):
    return not (overlap(params, grads) or overlap(params, state) or overlap(state, grads))


@jit
def _momentum(params, grads, velocity, lr, beta, nesterov):
    """`momentum_step` or `nesterov_step`, after their checks."""
    x = params.dtype.type
    n, size, rate, kept, rest = params.size, _range_size(params.size), x(lr), x(beta), x(1.0 - beta)
    run_jobs(
        _momentum_job,
        (n + size - 1) // size,
        n > RANGE,
        (n, size, pointer(params, 0), pointer(grads, 0), pointer(velocity, 0), rate, kept, rest, nesterov),
    )


@kernel({"params": "P", "grads": "P", "velocity": "P"}, outputs=["params", "velocity"])
def momentum_step(params, grads, velocity, lr, beta):
    """v <- beta v + (1 - beta) g; theta <- theta - lr v.

    Parameters
    ----------
    params, velocity : float32 or float64 [P], C-contiguous, updated in place; velocity starts as zeros
    grads : same dtype [P], read; no array may overlap another
    lr : learning rate
    beta : how much of the old velocity stays, 0.9 is usual

    Cost: 5 P flop; 5 P itemsize bytes (3 read, 2 written). Source: Polyak (1964), as an exponential average.
    """
    require("momentum_step", _same_size(params, grads, velocity), _apart(params, grads, velocity))
    _momentum(params, grads, velocity, lr, beta, False)


@kernel({"params": "P", "grads": "P", "velocity": "P"}, outputs=["params", "velocity"])
def nesterov_step(params, grads, velocity, lr, beta):
    """v <- beta v + (1 - beta) g; theta <- theta - lr (beta v + (1 - beta) g), with the new v.

    Parameters
    ----------
    params, velocity : float32 or float64 [P], C-contiguous, updated in place; velocity starts as zeros
    grads : same dtype [P], read; no array may overlap another
    lr : learning rate
    beta : how much of the old velocity stays, 0.9 is usual

    Cost: 7 P flop; 5 P itemsize bytes (3 read, 2 written). Source: Nesterov (1983), in the form of Sutskever et al.
    (2013) that takes the gradient at theta, as an exponential average.
    """
    require("nesterov_step", _same_size(params, grads, velocity), _apart(params, grads, velocity))
    _momentum(params, grads, velocity, lr, beta, True)


@kernel({"params": "P", "grads": "P", "mean_square": "P"}, outputs=["params", "mean_square"])
def rmsprop_step(params, grads, mean_square, lr, beta, eps):
    """s <- beta s + (1 - beta) g²; theta <- theta - lr g / sqrt(s + eps), eps inside the root.

    Parameters
    ----------
    params, mean_square : float32 or float64 [P], C-contiguous, updated in place; mean_square starts as zeros
    grads : same dtype [P], read; no array may overlap another
    lr : learning rate
    beta : how much of the old mean square stays, 0.9 is usual
    eps : keeps the root away from 0

    Cost: 8 P flop; 5 P itemsize bytes (3 read, 2 written). Source: Tieleman and Hinton (2012).
    """
    require("rmsprop_step", _same_size(params, grads, mean_square), _apart(params, grads, mean_square))
    x = params.dtype.type
    n, size, rate, kept, rest, eps_ = params.size, _range_size(params.size), x(lr), x(beta), x(1.0 - beta), x(eps)
    run_jobs(
        _rmsprop_job,
        (n + size - 1) // size,
        n > RANGE,
        (n, size, pointer(params, 0), pointer(grads, 0), pointer(mean_square, 0), rate, kept, rest, eps_),
    )


@jit
def _adam(params, grads, m, v, step, lr, beta1, beta2, eps, weight_decay):
    """`adam_step` or `adamw_step`, after their checks."""
    n, size = params.size, _range_size(params.size)
    p, g, m_, v_ = pointer(params, 0), pointer(grads, 0), pointer(m, 0), pointer(v, 0)
    run_jobs(
        _adam_job,
        (n + size - 1) // size,
        n > RANGE,
        (n, size, p, g, m_, v_, step, float(lr), float(beta1), float(beta2), float(eps), float(weight_decay)),
    )


@kernel({"params": "P", "grads": "P", "m": "P", "v": "P"}, outputs=["params", "m", "v"])
def adam_step(params, grads, m, v, step, lr, beta1, beta2, eps):
    """m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) g²;
    theta <- theta - lr m̂ / (sqrt(v̂) + eps), with m̂ = m / (1 - beta1^step) and v̂ = v / (1 - beta2^step).

    Parameters
    ----------
    params, m, v : float32 or float64 [P], C-contiguous, updated in place; m and v start as zeros
    grads : same dtype [P], read; no array may overlap another
    step : counts from 1
    lr, beta1, beta2, eps : 1e-3, 0.9, 0.999 and 1e-8 are usual

    Cost: 12 P flop; 7 P itemsize bytes (4 read, 3 written). Source: Kingma and Ba (2015), https://arxiv.org/abs/1412.6980.
    """
    require(
        "adam_step",
        _same_size(params, grads, m) and v.size == params.size,
        _apart(params, grads, m) and _apart(params, v, m) and not overlap(grads, v),
    )
    if step < 1:
        raise ValueError("adam_step: expected step of at least 1; it counts the steps, this one included")
    _adam(params, grads, m, v, step, lr, beta1, beta2, eps, 0.0)


@kernel({"params": "P", "grads": "P", "m": "P", "v": "P"}, outputs=["params", "m", "v"])
def adamw_step(params, grads, m, v, step, lr, beta1, beta2, eps, weight_decay):
    """`adam_step` with decoupled weight decay: theta <- (1 - lr weight_decay) theta - lr m̂ / (sqrt(v̂) + eps).

    Parameters
    ----------
    params, m, v : float32 or float64 [P], C-contiguous, updated in place; m and v start as zeros
    grads : same dtype [P], read; no array may overlap another
    step : counts from 1
    lr, beta1, beta2, eps : 1e-3, 0.9, 0.999 and 1e-8 are usual
    weight_decay : 0.01 is usual; biases are stepped apart, with 0

    Cost: 13 P flop; 7 P itemsize bytes (4 read, 3 written). Source: Loshchilov and Hutter (2019),
    https://arxiv.org/abs/1711.05101, with lr as a factor of the decay.
    """
    require(
        "adamw_step",
        _same_size(params, grads, m) and v.size == params.size,
        _apart(params, grads, m) and _apart(params, v, m) and not overlap(grads, v),
    )
    if step < 1:
        raise ValueError("adamw_step: expected step of at least 1; it counts the steps, this one included")
    _adam(params, grads, m, v, step, lr, beta1, beta2, eps, weight_decay)


@dataclass(frozen=True)
class OptimizerSpec:
    """One optimizer.

    code, name : which body it has, as engines write it down, and what people call it
    step : its public kernel; takes (params, grads, *states, [step,] lr, the numbers of `hyperparameters` in order)
    states : the names of the buffers as large as the parameters that it keeps, which start as zeros
    hyperparameters : the names of its numbers beside the learning rate, with what is usual
    counts_steps : whether it is told the number of the step, from 1
    range : its serial body for part of the buffers
    """

    code: int
    name: str
    step: Callable[..., Any]
    states: tuple[str, ...]
    hyperparameters: dict[str, float]
    counts_steps: bool
    range: Callable[..., Any]


OPTIMIZERS: dict[str, OptimizerSpec] = {
    spec.name: spec
    for spec in (
        OptimizerSpec(SGD, "sgd", sgd_step, (), {}, False, sgd_range),
        OptimizerSpec(MOMENTUM, "momentum", momentum_step, ("velocity",), {"beta": 0.9}, False, momentum_range),
        OptimizerSpec(MOMENTUM, "nesterov", nesterov_step, ("velocity",), {"beta": 0.9}, False, momentum_range),
        OptimizerSpec(RMSPROP, "rmsprop", rmsprop_step, ("mean_square",), {"beta": 0.9, "eps": 1e-8}, False, rmsprop_range),
        OptimizerSpec(
            ADAM, "adam", adam_step, ("m", "v"), {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}, True, adam_range
        ),
        OptimizerSpec(
            ADAM, "adamw", adamw_step, ("m", "v"), {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}, True,
            adam_range,
        ),
    )
}  # fmt: skip
"""Registry: everything about each optimizer by its name."""
