"""The same in PyTorch: products written into tensors that exist, autograd for the loss, the fused optimizer."""

from __future__ import annotations

import os

import torch
from torch.nn import functional

from bench.peers.operations import serve_operations
from bench.problems import BETA1, BETA2, EPS, LR, STEP, Arrays


def linear_forward(a: Arrays):
    x, weight, bias = (torch.from_numpy(a[name]) for name in ("x", "weight", "bias"))
    out = torch.empty(x.shape[0], weight.shape[1])
    return lambda: torch.addmm(bias, x, weight, out=out).relu_(), lambda: {"out": out.numpy()}


def linear_backward(a: Arrays):
    x, weight, out, d_out = (torch.from_numpy(a[name]) for name in ("x", "weight", "out", "d_out"))
    d_x, d_weight, d_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty(weight.shape[1])

    def call() -> None:
        d_z = torch.ops.aten.threshold_backward(d_out, out, 0)
        torch.mm(d_z, weight.t(), out=d_x)
        torch.mm(x.t(), d_z, out=d_weight)
        torch.sum(d_z, 0, out=d_bias)

    return call, lambda: {"d_x": d_x.numpy(), "d_weight": d_weight.numpy(), "d_bias": d_bias.numpy()}


def softmax_cross_entropy(a: Arrays):
    logits, labels = torch.from_numpy(a["logits"]).requires_grad_(), torch.from_numpy(a["labels"])
    found: dict[str, torch.Tensor] = {}

    def call() -> None:
        with torch.enable_grad():
            found["loss"] = functional.cross_entropy(logits, labels)
            (found["d_logits"],) = torch.autograd.grad(found["loss"], logits)

    return call, lambda: {name: tensor.detach().numpy() for name, tensor in found.items()}


def adam_step(a: Arrays):
    params = torch.from_numpy(a["params"]).requires_grad_()
    params.grad = torch.from_numpy(a["grads"])
    optimizer = torch.optim.Adam([params], lr=LR, betas=(BETA1, BETA2), eps=EPS, fused=True)
    m, v = torch.from_numpy(a["m"]), torch.from_numpy(a["v"])
    optimizer.state[params] = {"step": torch.tensor(STEP - 1.0), "exp_avg": m, "exp_avg_sq": v}
    return optimizer.step, lambda: a


OPERATIONS = {f.__name__: f for f in (linear_forward, linear_backward, softmax_cross_entropy, adam_step)}

if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_grad_enabled(False)
    serve_operations(OPERATIONS)
