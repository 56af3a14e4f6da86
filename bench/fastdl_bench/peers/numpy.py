"""Trains with NumPy, as one would by hand with its BLAS: a peer for who wants it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fastdl_bench.cases import Workload
from fastdl_bench.data import LEARNING_RATE, epoch_order, initial_parameters, training_data, validation_data
from fastdl_bench.protocol import Run, serve


def setup(request: dict[str, Any]) -> Run:
    """All parameters in one buffer, so that Adam is a few calls; products are written into arrays that exist."""
    workload = Workload.of(request["workload"])
    x, y = training_data(workload)
    initial = np.concatenate([a.ravel() for pair in initial_parameters(workload) for a in pair])
    params, grads, m, v, scratch = (np.empty_like(initial) for _ in range(5))

    def views(flat: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        result, at = [], 0
        for n_in, n_out in zip(workload.layers[:-1], workload.layers[1:]):
            weight = flat[at : at + n_in * n_out].reshape(n_in, n_out)
            result.append((weight, flat[at + n_in * n_out : at + (n_in + 1) * n_out]))
            at += (n_in + 1) * n_out
        return result

    layers, gradients = views(params), views(grads)
    outs = [np.empty((workload.batch, n), np.float32) for n in workload.layers[1:]]
    d_outs = [np.empty_like(out) for out in outs]
    every = np.arange(workload.batch)

    def forward(a: np.ndarray, outs: list[np.ndarray]) -> None:
        for k, (weight, bias) in enumerate(layers):
            np.matmul(a, weight, out=outs[k])
            outs[k] += bias
            if k < len(layers) - 1:
                if workload.activation == "relu":
                    np.maximum(outs[k], 0, out=outs[k])
                else:
                    np.tanh(outs[k], out=outs[k])
            a = outs[k]

    def step(x: np.ndarray, y: np.ndarray, count: int) -> float:
        forward(x, outs)
        out, d_out = outs[-1], d_outs[-1]
        if workload.output == "linear":
            np.subtract(out, y, out=d_out)
            loss = float(np.vdot(d_out, d_out)) / d_out.size
            d_out *= np.float32(2 / d_out.size)
        else:
            np.subtract(out, out.max(axis=1, keepdims=True), out=d_out)
            right = d_out[every, y]
            np.exp(d_out, out=d_out)
            total = d_out.sum(axis=1, keepdims=True)
            loss = float((np.log(total[:, 0]) - right).mean())
            d_out /= total
            d_out[every, y] -= 1
            d_out *= np.float32(1 / len(y))
        for k in reversed(range(len(layers))):
            below = outs[k - 1] if k else x
            np.matmul(below.T, d_outs[k], out=gradients[k][0])
            d_outs[k].sum(axis=0, out=gradients[k][1])
            if k:
                np.matmul(d_outs[k], layers[k][0].T, out=d_outs[k - 1])
                d_outs[k - 1] *= (below > 0) if workload.activation == "relu" else 1 - below * below
        np.multiply(m, 0.9, out=m)
        np.multiply(grads, 0.1, out=scratch)
        np.add(m, scratch, out=m)
        np.multiply(grads, grads, out=grads)
        np.multiply(grads, 0.001, out=grads)
        np.multiply(v, 0.999, out=v)
        np.add(v, grads, out=v)
        np.divide(v, 1 - 0.999**count, out=scratch)
        np.sqrt(scratch, out=scratch)
        np.add(scratch, 1e-8, out=scratch)
        np.divide(m, scratch, out=scratch)
        np.multiply(scratch, LEARNING_RATE / (1 - 0.9**count), out=scratch)
        np.subtract(params, scratch, out=params)
        return loss

    def run(request: dict[str, Any]) -> dict[str, Any]:
        params[:] = initial
        m[:], v[:] = 0, 0
        curve, count = [], 0
        start = time.perf_counter()
        for epoch in range(request["epochs"]):
            losses = []
            order = None if workload.full_batch else epoch_order(epoch, workload.rows)
            for first in range(0, workload.rows, workload.batch):
                count += 1
                if order is None:
                    losses.append(step(x, y, count))
                else:
                    rows = order[first : first + workload.batch]
                    losses.append(step(x[rows], y[rows], count))
            curve.append(float(np.mean(losses)))
        answer: dict[str, Any] = {"seconds": time.perf_counter() - start, "loss": curve}
        if request.get("accuracy"):
            x_valid, y_valid = validation_data(workload)
            scores = [np.empty((len(x_valid), n), np.float32) for n in workload.layers[1:]]
            forward(x_valid, scores)
            answer["accuracy"] = float((scores[-1].argmax(axis=1) == y_valid).mean())
        return answer

    return run


if __name__ == "__main__":
    serve(setup)
