"""Many networks at once in JAX: vmap over the models of a compiled scan over the batches, each model in an order of its own."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

_compiled: dict[tuple[int, int, int, float], Any] = {}


def in_process(hidden: int, batch: int, rate: float) -> Callable[[NDArray, NDArray, int, int], float]:
    """Seconds of so many models and epochs, measured in a process of its own, which is started once."""
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    def run(X: NDArray, y: NDArray, count: int, epochs: int) -> float:
        return pool.submit(seconds, X, y, count, epochs, hidden, batch, rate).result()

    return run


def seconds(X: NDArray, y: NDArray, count: int, epochs: int, hidden: int, batch: int, rate: float) -> float:
    """One training of all models, orders of rows drawn and nothing compiled meanwhile; rows beyond whole batches are left out."""
    import jax

    key = count, hidden, batch, rate
    if key not in _compiled:
        _compiled[key] = _epoch_of(rate)
        _train(jax, _compiled[key], X, y, count, 1, hidden, batch)  # compiles
    start = time.perf_counter()
    losses = _train(jax, _compiled[key], X, y, count, epochs, hidden, batch)
    taken = time.perf_counter() - start
    if not losses[-1] < losses[0] and epochs > 1:
        raise RuntimeError(f"JAX has not learnt: the loss went from {losses[0]} to {losses[-1]}")
    return taken


def _train(
    jax: Any, epoch: Any, X: NDArray, y: NDArray, count: int, epochs: int, hidden: int, batch: int
) -> list[float]:
    rng = np.random.default_rng(0)
    sizes = (X.shape[1], hidden, int(y.max()) + 1)
    params = [
        (rng.normal(0, (2 / i) ** 0.5, (count, i, o)).astype(np.float32), np.zeros((count, o), np.float32))
        for i, o in pairwise(sizes)
    ]
    zeros = jax.tree.map(np.zeros_like, params)
    state = jax.device_put((params, zeros, zeros, np.zeros(count, np.float32)))
    x, labels = jax.device_put(X), jax.device_put(y.astype(np.int32))
    whole = len(X) // batch
    losses = []
    for k in range(epochs):
        orders = np.stack([np.random.default_rng((seed, k)).permutation(len(X)) for seed in range(count)])
        orders = orders[:, : whole * batch].reshape(count, whole, batch).astype(np.int32)
        state, loss = epoch(state, x, labels, orders.swapaxes(0, 1).copy())
        losses.append(loss)
    jax.block_until_ready((state, losses))
    return [float(loss) for loss in losses]


def _epoch_of(rate: float) -> Any:
    """A compiled epoch: (state of all models, X, y, orders [batches, models, rows]) -> (state, mean loss)."""
    import jax
    import jax.numpy as jnp

    def loss_of(params: Any, x: Any, y: Any) -> Any:
        (weight, bias), (weight2, bias2) = params
        out = jax.nn.relu(x @ weight + bias) @ weight2 + bias2
        return -jnp.mean(jnp.sum(jax.nn.log_softmax(out) * jax.nn.one_hot(y, out.shape[1]), axis=1))

    def adam(state: Any, x: Any, y: Any, rows: Any) -> Any:
        params, m, v, steps = state
        xb, yb = x.at[rows].get(mode="promise_in_bounds"), y.at[rows].get(mode="promise_in_bounds")
        loss, grads = jax.value_and_grad(loss_of)(params, xb, yb)
        steps = steps + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
        first, second = 1 / (1 - 0.9**steps), 1 / (1 - 0.999**steps)
        params = jax.tree.map(lambda p, m, v: p - rate * (m * first) / (jnp.sqrt(v * second) + 1e-8), params, m, v)
        return (params, m, v, steps), loss

    of_all = jax.vmap(adam, in_axes=(0, None, None, 0))

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(state: Any, x: Any, y: Any, orders: Any) -> Any:
        state, losses = jax.lax.scan(lambda state, rows: of_all(state, x, y, rows), state, orders)
        return state, losses.mean()

    return epoch
