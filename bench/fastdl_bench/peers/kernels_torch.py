"""The same in PyTorch: products written into tensors that exist, autograd for the loss, the fused optimizer."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch.nn import functional

from fastdl_bench.peers.operations import Operation, Timed, serve_operations
from fastdl_bench.problems import BETA1, BETA2, DECAY, DELTA, EPS, LR, STEP, Arrays


def linear_forward(a: Arrays) -> Timed:
    x, weight, bias = (torch.from_numpy(a[name]) for name in ("x", "weight", "bias"))
    out = torch.empty(x.shape[0], weight.shape[1])
    return lambda: torch.addmm(bias, x, weight, out=out).relu_(), lambda: {"out": out.numpy()}


def linear_forward_keep(a: Arrays) -> Timed:
    x, weight, bias = (torch.from_numpy(a[name]) for name in ("x", "weight", "bias"))
    z = torch.empty(x.shape[0], weight.shape[1])
    out = torch.empty_like(z)

    def call() -> None:
        torch.addmm(bias, x, weight, out=z)
        torch.ops.aten.silu.out(z, out=out)

    return call, lambda: {"z": z.numpy(), "out": out.numpy()}


def linear_backward(a: Arrays) -> Timed:
    x, weight, out, d_out = (torch.from_numpy(a[name]) for name in ("x", "weight", "out", "d_out"))
    d_x, d_weight, d_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty(weight.shape[1])

    def call() -> None:
        d_z = torch.ops.aten.threshold_backward(d_out, out, 0)
        torch.mm(d_z, weight.t(), out=d_x)
        torch.mm(x.t(), d_z, out=d_weight)
        torch.sum(d_z, 0, out=d_bias)

    return call, lambda: {"d_x": d_x.numpy(), "d_weight": d_weight.numpy(), "d_bias": d_bias.numpy()}


def softmax(a: Arrays) -> Timed:
    logits = torch.from_numpy(a["logits"])
    out = torch.empty_like(logits)
    return lambda: torch.softmax(logits, 1, out=out), lambda: {"out": out.numpy()}


def log_softmax(a: Arrays) -> Timed:
    logits = torch.from_numpy(a["logits"])
    out = torch.empty_like(logits)
    return lambda: torch.log_softmax(logits, 1, out=out), lambda: {"out": out.numpy()}


def _loss(outputs: str, targets: str, loss_of: Callable[..., torch.Tensor]) -> Operation:
    """A loss and its gradient by autograd."""

    def operation(a: Arrays) -> Timed:
        z, t = torch.from_numpy(a[outputs]).requires_grad_(), torch.from_numpy(a[targets])
        found: dict[str, torch.Tensor] = {}

        def call() -> None:
            with torch.enable_grad():
                found["loss"] = loss_of(z, t)
                (found[f"d_{outputs}"],) = torch.autograd.grad(found["loss"], z)

        return call, lambda: {name: tensor.detach().numpy() for name, tensor in found.items()}

    return operation


def _sigmoid_loss(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(z, t, reduction="sum") / len(z)


def quantile_loss(a: Arrays) -> Timed:
    q = torch.from_numpy(a["q"])

    def loss_of(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        e = t - p
        return torch.maximum(q * e, (q - 1) * e).mean()

    return _loss("predictions", "targets", loss_of)(a)


def _huber_loss(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return functional.huber_loss(p, t, delta=DELTA)


def _poisson_loss(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return functional.poisson_nll_loss(z, t) + (torch.xlogy(t, t) - t).mean()


def sgd_step(a: Arrays) -> Timed:
    params = torch.from_numpy(a["params"]).requires_grad_()
    params.grad = torch.from_numpy(a["grads"])
    return torch.optim.SGD([params], lr=LR, fused=True).step, lambda: a


def _momentum(nesterov: bool) -> Operation:
    """The exponential average as the kernel has it; `torch.optim.SGD` has a sum, which is another quantity."""

    def operation(a: Arrays) -> Timed:
        params, grads, velocity = (torch.from_numpy(a[name]) for name in ("params", "grads", "velocity"))

        def call() -> None:
            velocity.lerp_(grads, 1 - BETA1)
            params.add_(velocity, alpha=-LR * (BETA1 if nesterov else 1))
            if nesterov:
                params.add_(grads, alpha=-LR * (1 - BETA1))

        return call, lambda: a

    return operation


def rmsprop_step(a: Arrays) -> Timed:
    """With eps inside the root; `torch.optim.RMSprop`, which is no more fused than this, has it outside."""
    params, grads, mean_square = (torch.from_numpy(a[name]) for name in ("params", "grads", "mean_square"))
    scratch = torch.empty_like(params)

    def call() -> None:
        mean_square.mul_(BETA1).addcmul_(grads, grads, value=1 - BETA1)
        torch.add(mean_square, EPS, out=scratch)
        params.addcdiv_(grads, scratch.sqrt_(), value=-LR)

    return call, lambda: a


def _adam(kind: Callable[..., torch.optim.Optimizer], **options: float) -> Operation:
    def operation(a: Arrays) -> Timed:
        params = torch.from_numpy(a["params"]).requires_grad_()
        params.grad = torch.from_numpy(a["grads"])
        optimizer = kind([params], lr=LR, betas=(BETA1, BETA2), eps=EPS, fused=True, **options)
        m, v = torch.from_numpy(a["m"]), torch.from_numpy(a["v"])
        optimizer.state[params] = {"step": torch.tensor(STEP - 1.0), "exp_avg": m, "exp_avg_sq": v}
        return optimizer.step, lambda: a

    return operation


OPERATIONS: dict[str, Operation] = {
    "linear_forward": linear_forward,
    "linear_backward": linear_backward,
    "linear_forward_keep": linear_forward_keep,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "softmax_cross_entropy": _loss("logits", "labels", functional.cross_entropy),
    "sigmoid_cross_entropy": _loss("logits", "targets", _sigmoid_loss),
    "squared_error": _loss("predictions", "targets", functional.mse_loss),
    "absolute_error": _loss("predictions", "targets", functional.l1_loss),
    "huber_loss": _loss("predictions", "targets", _huber_loss),
    "quantile_loss": quantile_loss,
    "poisson_loss": _loss("log_rates", "targets", _poisson_loss),
    "sgd_step": sgd_step,
    "momentum_step": _momentum(nesterov=False),
    "nesterov_step": _momentum(nesterov=True),
    "rmsprop_step": rmsprop_step,
    "adam_step": _adam(torch.optim.Adam),
    "adamw_step": _adam(torch.optim.AdamW, weight_decay=DECAY),
}

if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_grad_enabled(False)
    serve_operations(OPERATIONS)
