"""Oracles: naive float64 NumPy for everything that fastdl computes. It imports nothing of ours.

Dims: B rows, I inputs, O outputs (or N classes). Every function takes any float dtype and answers in float64.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np


def f64(array):
    return np.asarray(array, dtype=np.float64)


# --- bfloat16 ---


def rounded(x):
    """bfloat16(x) as float64: the nearer of the two neighbours with 8 significant bits, of two as near the even one."""
    x = np.asarray(x, np.float64)
    _, exponent = np.frexp(x)
    step = np.ldexp(1.0, np.maximum(exponent, -125) - 8)
    return np.rint(x / step) * step  # rint takes the even one


# --- activations: value from z, and derivative from z (the kernels take theirs from the output) ---


def sigmoid(z):
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, e) / (1.0 + e) + 0.0 * np.where(np.isnan(z), z, 0.0)


def at_minus_infinity(z, value, limit=0.0):
    """`value` with the limit where z is -infinity, which the formula of a product gives as NaN."""
    return np.where(np.isneginf(z), limit, value)


erfc = np.vectorize(math.erfc, otypes=[float])
SELU = 1.0507009873554804934193349852946, 1.0507009873554804934193349852946 * 1.6732632423543772848170429916717


def softplus(z):
    return np.logaddexp(0.0, z)


def normal_cdf(z):
    return 0.5 * erfc(-np.asarray(z, np.float64) / math.sqrt(2))


def elu(z, depth, slope=1.0):
    return np.where(z > 0, slope * z, depth * np.expm1(np.minimum(z, 0.0)))


VALUES = {
    "identity": lambda z, alpha: z,
    "relu": lambda z, alpha: np.maximum(z, 0.0),
    "leaky_relu": lambda z, alpha: np.where(z > 0, z, alpha * z),
    "sigmoid": lambda z, alpha: sigmoid(z),
    "tanh": lambda z, alpha: np.tanh(z),
    "elu": lambda z, alpha: elu(z, alpha),
    "selu": lambda z, alpha: elu(z, SELU[1], SELU[0]),
    "softplus": lambda z, alpha: softplus(z),
    "gelu": lambda z, alpha: at_minus_infinity(z, z * normal_cdf(z)),
    "silu": lambda z, alpha: at_minus_infinity(z, z * sigmoid(z)),
    "mish": lambda z, alpha: at_minus_infinity(z, z * np.tanh(softplus(z))),
}

DERIVATIVES = {
    "identity": lambda z, alpha: np.ones_like(z),
    "relu": lambda z, alpha: np.where(z > 0, 1.0, 0.0),
    "leaky_relu": lambda z, alpha: np.where(z > 0, 1.0, alpha),
    "sigmoid": lambda z, alpha: sigmoid(z) * sigmoid(-z),
    "tanh": lambda z, alpha: 1.0 - np.tanh(z) ** 2,
    "elu": lambda z, alpha: np.where(z > 0, 1.0, alpha * np.exp(np.minimum(z, 0.0))),
    "selu": lambda z, alpha: np.where(z > 0, SELU[0], SELU[1] * np.exp(np.minimum(z, 0.0))),
    "softplus": lambda z, alpha: sigmoid(z),
    "gelu": lambda z, alpha: normal_cdf(z) + z * np.exp(-np.minimum(z * z, 1e4) / 2) / math.sqrt(2 * math.pi),
    "silu": lambda z, alpha: sigmoid(z) * (1.0 + z * sigmoid(-z)),
    "mish": lambda z, alpha: np.tanh(softplus(z)) + z * sigmoid(z) / np.cosh(np.minimum(softplus(z), 300.0)) ** 2,
}

# The largest slope of each: what errors in z are multiplied by.
STEEPEST = {name: 1.76 if name == "selu" else 1.13 if name in ("gelu", "silu", "mish") else 1.0 for name in VALUES}

# Those whose derivative the kernels take from z; of all others they take it from the output.
FROM_Z = ("gelu", "silu", "mish")


def where_number(a, derivative):
    """The derivative, NaN where a is."""
    return np.where(np.isnan(a), a, derivative)


DERIVATIVES_FROM_OUTPUT = {
    "identity": lambda a, alpha: np.ones_like(a),
    "relu": lambda a, alpha: where_number(a, np.where(a > 0, 1.0, 0.0)),
    "leaky_relu": lambda a, alpha: where_number(a, np.where(a > 0, 1.0, alpha)),
    "sigmoid": lambda a, alpha: a * (1.0 - a),
    "tanh": lambda a, alpha: 1.0 - a * a,
    "elu": lambda a, alpha: where_number(a, np.where(a > 0, 1.0, a + alpha)),
    "selu": lambda a, alpha: where_number(a, np.where(a > 0, SELU[0], a + SELU[1])),
    "softplus": lambda a, alpha: -np.expm1(-a),
}
SOURCE_DERIVATIVES = DERIVATIVES_FROM_OUTPUT | {name: DERIVATIVES[name] for name in FROM_Z}


def source(activation, z, alpha):
    """What the kernels take the derivative from."""
    return f64(z) if activation in FROM_Z else VALUES[activation](f64(z), alpha)


# --- the linear layer ---


def linear_forward(x, weight, bias, activation, alpha):
    with np.errstate(invalid="ignore", over="ignore"):
        return VALUES[activation](f64(x) @ f64(weight) + f64(bias), alpha)


def linear_backward(x, weight, out, d_out, activation, alpha):
    """(d_x, d_weight, d_bias); `out` is the `source` of the derivative, d_out the gradient of the activated output."""
    with np.errstate(invalid="ignore", over="ignore"):
        d_z = f64(d_out) * SOURCE_DERIVATIVES[activation](f64(out), alpha)
        return d_z @ f64(weight).T, f64(x).T @ d_z, d_z.sum(axis=0)


# --- losses from logits: row losses, and their gradients before the mean over rows ---


def log_softmax(logits):
    shifted = f64(logits) - f64(logits).max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def softmax(logits):
    return np.exp(log_softmax(logits))


def onehot(labels, n):
    return (np.asarray(labels)[:, None] == np.arange(n)).astype(np.float64)


def softmax_cross_entropy_rows(logits, labels, smoothing=0.0):
    """(loss of each row [B], its gradient [B, N])."""
    n = np.shape(logits)[1]
    wanted = (1 - smoothing) * onehot(labels, n) + smoothing / n
    with np.errstate(invalid="ignore"):
        terms = np.where(wanted == 0, 0.0, wanted * log_softmax(logits))
    return -terms.sum(axis=1), softmax(logits) - wanted


def sigmoid_cross_entropy_rows(logits, targets, smoothing=0.0):
    """A row's loss is the sum over its labels."""
    z, t = f64(logits), (1 - smoothing) * f64(targets) + smoothing / 2
    return (np.logaddexp(0.0, z) - t * z).sum(axis=1), sigmoid(z) - t


def squared_error_rows(predictions, targets):
    """A row's loss is the mean over its targets."""
    e = f64(predictions) - f64(targets)
    return (e**2).mean(axis=1), 2.0 * e / e.shape[1]


def absolute_error_rows(predictions, targets):
    e = f64(predictions) - f64(targets)
    return np.abs(e).mean(axis=1), np.sign(e) / e.shape[1]


def huber_rows(predictions, targets, delta):
    e = f64(predictions) - f64(targets)
    losses = np.where(np.abs(e) <= delta, e**2 / 2, delta * (np.abs(e) - delta / 2))
    return losses.mean(axis=1), np.clip(e, -delta, delta) / e.shape[1]


def quantile_rows(predictions, targets, q):
    e = f64(predictions) - f64(targets)
    return np.maximum((1 - f64(q)) * e, -f64(q) * e).mean(axis=1), np.where(
        e > 0, 1 - f64(q), -f64(q) * (e < 0)
    ) / e.shape[1]


def poisson_rows(log_rates, targets):
    z, t = f64(log_rates), f64(targets)
    losses = np.exp(z) - t * z + t * np.log(np.where(t > 0, t, 1.0)) - t
    return losses.mean(axis=1), (np.exp(z) - t) / z.shape[1]


LOSS_ROWS = {
    "linear": squared_error_rows,
    "sigmoid": sigmoid_cross_entropy_rows,
    "softmax": softmax_cross_entropy_rows,
}


def mean_loss(rows, *args):
    """(loss, gradient) of the mean over rows, for one of the `*_rows` functions."""
    losses, gradient = rows(*args)
    return losses.mean(), gradient / len(losses)


# --- the whole network ---


def split(layers, flat):
    """Weights (in, out) and biases (out,) from a flat buffer: weights[0] row by row, biases[0], weights[1], ..."""
    weights, biases, rest = [], [], f64(flat)
    for n_in, n_out in pairwise(layers):
        weights.append(rest[: n_in * n_out].reshape(n_in, n_out))
        biases.append(rest[n_in * n_out : (n_in + 1) * n_out])
        rest = rest[(n_in + 1) * n_out :]
    assert rest.size == 0
    return weights, biases


def network_forward(layers, activations, flat, x):
    """(z of every layer, a of every layer with the inputs first); `activations` are (name, alpha) per hidden layer."""
    weights, biases = split(layers, flat)
    zs, outs = [], [f64(x)]
    for l, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        zs.append(outs[-1] @ weight + bias)
        name, alpha = activations[l] if l < len(activations) else ("identity", 0.0)
        outs.append(VALUES[name](zs[-1], alpha))
    return zs, outs


def network_loss_and_gradient(layers, activations, output, flat, x, y, row_weight=None, l2=0.0):
    """((1/B) Σ w_b loss_b + (l2/2) Σ weights², gradient); the row weights are used as they are."""
    return network_backward(layers, activations, output, flat, x, y, row_weight, l2)[:2]


def network_backward(layers, activations, output, flat, x, y, row_weight=None, l2=0.0):
    """The same, and the gradient of the inputs."""
    weights, _ = split(layers, flat)
    zs, outs = network_forward(layers, activations, flat, x)
    losses, d_z = LOSS_ROWS[output](outs[-1], y)
    w = np.ones(len(losses)) if row_weight is None else f64(row_weight)
    loss = (w * losses).mean() + l2 / 2 * sum((weight**2).sum() for weight in weights)
    d_z = d_z * w[:, None] / len(losses)
    pieces = []
    for l in reversed(range(len(weights))):
        pieces[:0] = [(outs[l].T @ d_z + l2 * weights[l]).ravel(), d_z.sum(axis=0)]
        if l > 0:
            name, alpha = activations[l - 1]
            d_z = (d_z @ weights[l].T) * DERIVATIVES[name](zs[l - 1], alpha)
    return loss, np.concatenate(pieces), d_z @ weights[0].T


# --- the input stage: columns that become x and linear maps of cosines, and a scale of every output ---


def split_stage(n_inputs, embedded, waves, size, scaled, flat):
    """(frequencies [E, J], phases [E, J], weights [E, size - 1, J], biases [E, size - 1], scale [outputs])."""
    rows, rest, maps = [], f64(flat), size - 1
    for _ in embedded:
        w, b, v, a = np.split(rest[: 2 * waves + maps * waves + maps], np.cumsum([waves, waves, maps * waves]))
        rows.append((w, b, v.reshape(maps, waves), a))
        rest = rest[2 * waves + maps * waves + maps :]
    scale = rest if scaled else np.ones(n_inputs + len(embedded) * maps)
    assert scale.size == n_inputs + len(embedded) * maps
    return rows, scale


def stage_forward(x, embedded, rows, scale):
    """(outputs before they are scaled, outputs): the numbers of each embedded column, then the other columns."""
    x = f64(x)
    pieces = []
    for column, (w, b, v, a) in zip(embedded, rows, strict=True):
        cosines = np.cos(2 * np.pi * x[:, [column]] * w + b)
        pieces += [cosines @ v.T + a, x[:, [column]]]
    pieces.append(np.delete(x, embedded, axis=1))
    plain = np.concatenate(pieces, axis=1)
    return plain, plain * scale


def stage_backward(x, embedded, rows, scale, scaled, d_out):
    """The gradient of the stage's numbers, flat."""
    x, pieces, at = f64(x), [], 0
    plain, _ = stage_forward(x, embedded, rows, scale)
    for column, (w, b, v, _) in zip(embedded, rows, strict=True):
        size = len(v) + 1
        d_maps = (d_out * scale)[:, at : at + size - 1]
        at += size
        angle = 2 * np.pi * x[:, [column]] * w + b
        d_angle = -np.sin(angle) * (d_maps @ v)
        d_w = (d_angle * 2 * np.pi * x[:, [column]]).sum(axis=0)
        pieces += [d_w, d_angle.sum(axis=0), (d_maps.T @ np.cos(angle)).ravel(), d_maps.sum(axis=0)]
    if scaled:
        pieces.append((d_out * plain).sum(axis=0))
    return np.concatenate(pieces) if pieces else np.zeros(0)


# --- optimizers: new (parameters, states) from the old ones; step counts from 1 ---


def sgd(theta, g, states, step, lr):
    return theta - lr * g, []


def momentum(theta, g, states, step, lr, beta, nesterov=False):
    v = beta * states[0] + (1 - beta) * g
    return theta - lr * (beta * v + (1 - beta) * g if nesterov else v), [v]


def rmsprop(theta, g, states, step, lr, beta, eps):
    s = beta * states[0] + (1 - beta) * g**2
    return theta - lr * g / np.sqrt(s + eps), [s]


def adam(theta, g, states, step, lr, beta1, beta2, eps):
    m = beta1 * states[0] + (1 - beta1) * g
    v = beta2 * states[1] + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return theta - lr * m_hat / (np.sqrt(v_hat) + eps), [m, v]


def adamw(theta, g, states, step, lr, beta1, beta2, eps, weight_decay):
    """`weight_decay` is a number, or an array like theta that is 0 where theta is a bias."""
    stepped, states = adam(theta, g, states, step, lr, beta1, beta2, eps)
    return stepped - lr * weight_decay * theta, states


def nesterov(theta, g, states, step, lr, beta):
    return momentum(theta, g, states, step, lr, beta, nesterov=True)


OPTIMIZERS = {"sgd": sgd, "momentum": momentum, "nesterov": nesterov, "rmsprop": rmsprop, "adam": adam, "adamw": adamw}
