"""The same numbers as PyTorch, where it is installed: losses, gradients, ten optimizer steps, clipping and schedules."""

from __future__ import annotations

import numpy as np
import pytest
from checking import DTYPES, assert_close, eps
from problems import TASKS, make_data, make_model

import fastdl
import fastdl_kernels as fk
from fastdl import schedules
from fastdl.losses import OUTPUTS

pytestmark = pytest.mark.usefixtures("torch", "one_thread")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(scope="module")
def torch():
    """Imported when the first test here runs: its threads are not to sit beside the other tests."""
    module = pytest.importorskip("torch")
    module.set_num_threads(1)
    return module


def tensor(array, learn=False):
    import torch

    return torch.tensor(np.asarray(array)).requires_grad_(learn)


def peer_loss_of(output, z, y):
    """Their sigmoid loss is a mean over labels too: ours is the sum over labels."""
    from torch.nn import functional

    y = tensor(y) if output == "softmax" else tensor(y).to(z.dtype)
    if output == "softmax":
        return functional.cross_entropy(z, y)
    if output == "sigmoid":
        return z.shape[1] * functional.binary_cross_entropy_with_logits(z, y)
    return functional.mse_loss(z, y)


def peer_activation(activation, z):
    from torch.nn import functional

    if activation.name == "identity":
        return z
    alpha = (activation.alpha,) if activation.name in ("leaky_relu", "elu") else ()
    return getattr(functional, activation.name)(z, *alpha)


@every_dtype
@pytest.mark.parametrize("output", OUTPUTS)
def test_losses(rng, output, dtype):
    logits = (rng.normal(size=(23, 7)) * 4).astype(dtype)
    targets = rng.integers(0, 7, 23) if output == "softmax" else rng.random((23, 7)).astype(dtype)
    gradient, z = np.empty_like(logits), tensor(logits, learn=True)
    loss, their_loss = getattr(fk, OUTPUTS[output].loss)(logits, targets, gradient), peer_loss_of(output, z, targets)
    their_loss.backward()
    assert loss == pytest.approx(their_loss.item(), rel=8 * eps(dtype))
    assert_close(gradient, z.grad.numpy(), 8 * eps(dtype))


@every_dtype
def test_softmax(rng, torch, dtype):
    logits = (rng.normal(size=(23, 7)) * 4).astype(dtype)
    out = np.empty_like(logits)
    for ours, theirs in ((fk.softmax, torch.softmax), (fk.log_softmax, torch.log_softmax)):
        ours(logits, out)
        assert_close(out, theirs(tensor(logits), dim=1).numpy(), 64 * eps(dtype))


def peer_parameters(model):
    """[weights[0], biases[0], weights[1], ...] as tensors that learn."""
    pairs = zip(model.weights, model.biases, strict=True)
    return [tensor(part.copy(), learn=True) for pair in pairs for part in pair]


def peer_loss(model, parameters, X, y):
    h = tensor(X)
    for l in range(len(model.weights)):
        h = parameters[2 * l + 1] + h @ parameters[2 * l]
        if l < len(model.activations):
            h = peer_activation(model.activations[l], h)
    return peer_loss_of(model.output, h, y)


@every_dtype
@pytest.mark.parametrize("activation", fk.ACTIVATIONS)
@pytest.mark.parametrize("task", TASKS)
def test_network(rng, dtype, activation, task):
    output, n_out = TASKS[task]
    model = make_model([6, 9, 7, n_out], activation, output, dtype)
    X, y = make_data(rng, 20, model.layers, output)
    X = X.astype(dtype)
    parameters = peer_parameters(model)
    their_loss = peer_loss(model, parameters, X, y)
    their_loss.backward()
    theirs = np.concatenate([p.grad.numpy().ravel() for p in parameters])
    loss, gradient = model.loss_and_gradient(X, y)
    assert loss == pytest.approx(their_loss.item(), rel=16 * eps(dtype))
    assert_close(gradient, theirs, 64 * eps(dtype) * max(1, np.abs(theirs).max()))


# Momentum: their buffer is b <- beta b + g, ours v = (1 - beta) b, so their rate is ours times (1 - beta).
# RMSProp: they add epsilon outside of the root: with a tiny epsilon the formulas agree.
PEERS = {
    "sgd": (fastdl.SGD(lr=0.1), lambda optim, p: optim.SGD(p, lr=0.1)),
    "momentum": (fastdl.Momentum(lr=0.1, beta=0.8), lambda optim, p: optim.SGD(p, lr=0.1 * 0.2, momentum=0.8)),
    "rmsprop": (fastdl.RMSProp(lr=1e-3, eps=1e-30), lambda optim, p: optim.RMSprop(p, lr=1e-3, alpha=0.9, eps=1e-15)),
    "nesterov": (
        fastdl.Momentum(lr=0.1, beta=0.8, nesterov=True),
        lambda optim, p: optim.SGD(p, lr=0.1 * 0.2, momentum=0.8, nesterov=True),
    ),
    "adam": (fastdl.Adam(lr=1e-2), lambda optim, p: optim.Adam(p, lr=1e-2)),
    "adamw": (
        fastdl.AdamW(lr=1e-2, weight_decay=0.3),
        lambda optim, p: optim.AdamW(
            [{"params": p[::2], "weight_decay": 0.3}, {"params": p[1::2], "weight_decay": 0.0}], lr=1e-2
        ),
    ),
}


@every_dtype
@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_ten_steps(rng, torch, dtype, name, l2):
    """Full batches, so that the order of rows does not matter; their penalty is written out, on weights only."""
    ours, make_theirs = PEERS[name]
    model = make_model([6, 9, 3], "tanh", "softmax", dtype)
    X, y = make_data(rng, 20, model.layers, "softmax")
    X = X.astype(dtype)
    parameters = peer_parameters(model)
    theirs, their_losses = make_theirs(torch.optim, parameters), []
    for _ in range(10):
        theirs.zero_grad()
        loss = peer_loss(model, parameters, X, y)
        their_losses.append(loss.item())
        (loss + l2 / 2 * sum((w**2).sum() for w in parameters[::2])).backward()
        theirs.step()
    history = fastdl.Trainer(model, ours, batch_size=20, epochs=10, l2=l2).fit(X, y)
    flat = np.concatenate([p.detach().numpy().ravel() for p in parameters])
    assert_close(model.parameters, flat, 1e-10 if dtype == "float64" else 1e-4)
    np.testing.assert_allclose(history.loss, their_losses, rtol=1e-11 if dtype == "float64" else 1e-4)


def test_clipping(rng, torch):
    """The same norm over weights and biases, penalty included; they add 1e-6 to it before they divide."""
    model = make_model([6, 9, 3], "tanh", "softmax")
    X, y = make_data(rng, 20, model.layers, "softmax")
    parameters = peer_parameters(model)
    theirs, norms = torch.optim.Adam(parameters, lr=1e-2), []
    for _ in range(10):
        theirs.zero_grad()
        loss = peer_loss(model, parameters, X, y)
        (loss + 0.05 * sum((w**2).sum() for w in parameters[::2])).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, 0.6).item())
        theirs.step()
    assert min(norms) < 0.6 < max(norms)
    fastdl.Trainer(model, fastdl.Adam(lr=1e-2), batch_size=20, epochs=10, l2=0.1, clip_norm=0.6).fit(X, y)
    flat = np.concatenate([p.detach().numpy().ravel() for p in parameters])
    assert_close(model.parameters, flat, 1e-5)


SCHEDULES = {
    "step": (schedules.Step(4, 0.3), lambda s, o: s.StepLR(o, 4, 0.3)),
    "exponential": (schedules.Exponential(4, 0.3), lambda s, o: s.ExponentialLR(o, 0.3**0.25)),
    "cosine": (schedules.Cosine(30, 0.01), lambda s, o: s.CosineAnnealingLR(o, 30, 0.01)),
    "warmup": (schedules.Warmup(5), lambda s, o: s.LinearLR(o, 1 / 5, 1.0, 4)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_of_30_steps(torch, name):
    ours, make_theirs = SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.2)
    theirs, rates = make_theirs(torch.optim.lr_scheduler, optimizer), []
    for _ in range(30):
        rates.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    np.testing.assert_allclose(ours.rates(0.2, 0, 30), rates, rtol=1e-12)
