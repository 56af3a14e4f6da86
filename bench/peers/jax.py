"""Trains with JAX: a whole epoch is one compiled `lax.scan` with donated buffers; rows are gathered by index in it."""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from bench.cases import Workload
from bench.data import LEARNING_RATE, epoch_order, initial_parameters, training_data
from bench.protocol import Run, serve


def setup(request: dict[str, Any]) -> Run:
    """Compile the epoch for the workload's shapes; the first run does so."""
    workload = Workload.of(request["workload"])
    x, y = map(jnp.asarray, training_data(workload))
    initial = initial_parameters(workload)
    activate = {"relu": jax.nn.relu, "tanh": jnp.tanh}[workload.activation]

    def loss_of(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        for weight, bias in params[:-1]:
            x = activate(x @ weight + bias)
        out = x @ params[-1][0] + params[-1][1]
        if workload.output == "linear":
            return jnp.mean((out - y) ** 2)
        return -jnp.mean(jnp.sum(jax.nn.log_softmax(out) * jax.nn.one_hot(y, out.shape[1]), axis=1))

    def adam(state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        params, m, v, count = state
        loss, grads = jax.value_and_grad(loss_of)(params, x, y)
        count = count + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
        unbias1, unbias2 = 1 / (1 - 0.9**count), 1 / (1 - 0.999**count)
        params = jax.tree.map(
            lambda p, m, v: p - LEARNING_RATE * (m * unbias1) / (jnp.sqrt(v * unbias2) + 1e-8), params, m, v
        )
        return (params, m, v, count), loss

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(state: Any, x: jax.Array, y: jax.Array, order: jax.Array) -> tuple[Any, jax.Array]:
        def step(state: Any, rows: jax.Array) -> tuple[Any, jax.Array]:
            take = {"mode": "promise_in_bounds"}
            return adam(state, x.at[rows].get(**take), y.at[rows].get(**take))

        state, losses = jax.lax.scan(step, state, order)
        return state, losses.mean()

    @functools.partial(jax.jit, donate_argnums=0, static_argnums=3)
    def full_batch_epochs(state: Any, x: jax.Array, y: jax.Array, epochs: int) -> tuple[Any, jax.Array]:
        return jax.lax.scan(lambda state, _: adam(state, x, y), state, length=epochs)

    def run(request: dict[str, Any]) -> dict[str, Any]:
        params = [tuple(map(jnp.array, pair)) for pair in initial]
        state = (params, *(jax.tree.map(jnp.zeros_like, params) for _ in range(2)), jnp.zeros((), jnp.float32))
        jax.block_until_ready(state)
        start = time.perf_counter()
        if workload.full_batch:
            state, losses = full_batch_epochs(state, x, y, request["epochs"])
        else:
            losses = []
            for k in range(request["epochs"]):
                order = epoch_order(k, workload.rows).astype("int32").reshape(-1, workload.batch)
                state, loss = epoch(state, x, y, order)
                losses.append(loss)
        jax.block_until_ready((state, losses))
        return {"seconds": time.perf_counter() - start, "loss": [float(loss) for loss in losses]}

    return run


if __name__ == "__main__":
    serve(setup)
