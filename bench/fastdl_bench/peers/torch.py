"""Trains with PyTorch: tensors in memory, batches by `index_select`, fused Adam; eager or compiled (`--compile`); `--bf16` is its
autocast, with float32 weights."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import torch
from torch import nn

from fastdl_bench.cases import Workload
from fastdl_bench.data import LEARNING_RATE, epoch_order, initial_parameters, training_data, validation_data
from fastdl_bench.protocol import Run, serve


def setup(request: dict[str, Any]) -> Run:
    """The network as `nn.Sequential`."""
    workload = Workload.of(request["workload"])
    x, y = map(torch.from_numpy, training_data(workload))
    initial = initial_parameters(workload)
    layers: list[nn.Module] = []
    for n_in, n_out in zip(workload.layers[:-1], workload.layers[1:]):
        layers += [nn.Linear(n_in, n_out), {"relu": nn.ReLU, "tanh": nn.Tanh}[workload.activation]()]
    network = nn.Sequential(*layers[:-1])
    criterion = nn.CrossEntropyLoss() if workload.output == "softmax" else nn.MSELoss()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return criterion(network(x), y)

    def bf16_loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(x)
        return criterion(outputs.float(), y)

    if "--bf16" in sys.argv:
        loss_of = bf16_loss_of

    if "--compile" in sys.argv:
        torch.compiler.reset()
        loss_of = torch.compile(loss_of, dynamic=False)

    def run(request: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            for layer, (weight, bias) in zip(layers[::2], initial):
                layer.weight.copy_(torch.from_numpy(weight.T))
                layer.bias.copy_(torch.from_numpy(bias))
        optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=True)
        curve = []
        start = time.perf_counter()
        for epoch in range(request["epochs"]):
            losses = []
            if workload.full_batch:
                batches = iter([(x, y)])
            else:
                order = torch.from_numpy(epoch_order(epoch, workload.rows))
                batches = ((x.index_select(0, rows), y.index_select(0, rows)) for rows in order.split(workload.batch))
            for x_batch, y_batch in batches:
                optimizer.zero_grad(set_to_none=True)
                loss = loss_of(x_batch, y_batch)
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            curve.append(torch.stack(losses).mean())
        answer = {"seconds": time.perf_counter() - start, "loss": [float(loss) for loss in curve]}
        if request.get("accuracy"):
            x_valid, y_valid = map(torch.from_numpy, validation_data(workload))
            with torch.inference_mode():
                answer["accuracy"] = float((network(x_valid).argmax(1) == y_valid).double().mean())
        return answer

    return run


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    serve(setup)
