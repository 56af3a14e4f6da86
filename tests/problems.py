"""Small problems that the tests of models and trainers share, and the oracle's view of a model."""

from __future__ import annotations

import numpy as np
import reference

import fastdl

TASKS = {  # name: (output unit, number of outputs)
    "linear1": ("linear", 1),
    "linear2": ("linear", 2),
    "sigmoid1": ("sigmoid", 1),
    "sigmoid3": ("sigmoid", 3),
    "softmax3": ("softmax", 3),
}


def make_data(rng, n_rows, layers, output):
    """X [N, I] and targets: labels [N] for softmax, else [N, O]."""
    X = rng.normal(size=(n_rows, layers[0]))
    if output == "softmax":
        return X, rng.integers(0, layers[-1], n_rows)
    if output == "sigmoid":
        return X, rng.integers(0, 2, (n_rows, layers[-1])).astype(np.float64)
    return X, rng.normal(size=(n_rows, layers[-1]))


def make_model(layers, activation="tanh", output="linear", dtype="float64", seed=1):
    """A model whose biases are not 0, so that a mistake in them shows."""
    model = fastdl.MLP(layers, activation, output, seed=seed, dtype=dtype)
    rng = np.random.default_rng(seed)
    for bias in model.biases:
        bias[:] = 0.2 * rng.normal(size=bias.size)
    return model


def oracle_arguments(model):
    """The leading arguments of `reference.network_loss_and_gradient`."""
    return model.layers, [(a.name, a.alpha) for a in model.activations], model.output


def oracle_loss_and_gradient(model, X, y, row_weight=None, l2=0.0, parameters=None):
    flat = model.parameters if parameters is None else parameters
    return reference.network_loss_and_gradient(*oracle_arguments(model), flat, X, y, row_weight, l2)


def distance_to_kinks(model, X) -> float:
    """The smallest |z| of the rectifiers: below it, finite differences are true derivatives."""
    layers, activations, _ = oracle_arguments(model)
    zs, _ = reference.network_forward(layers, activations, model.parameters, X)
    return min([np.abs(z).min() for z, a in zip(zs, model.activations, strict=False) if a.is_rectifier], default=np.inf)


def smooth_model_and_data(layers, activation, output, n_rows=4):
    """A float64 model, X and y such that no rectifier is near its kink and every layer's gradient is alive."""
    for seed in range(1, 500):
        model = make_model(layers, activation, output, seed=seed)
        X, y = make_data(np.random.default_rng(seed), n_rows, layers, output)
        _, gradient = oracle_loss_and_gradient(model, X, y)
        if distance_to_kinks(model, X) > 5e-3 and all(w.any() for w in model.views(gradient)[0]):
            return model, X, y
    raise AssertionError("no such point found")


# --- what order the trainer takes the rows in, seen from outside ---


def batches_seen(n_rows, batch_size, epochs, dtype="float64", targets=None, **trainer_options):
    """For each epoch the list of batches, each an array of row numbers: read off a model that records them.

    X is 0 and the targets are one-hot, so that only biases[0][r] knows of row r. SGD with lr = 3/8 of the number of
    targets takes 3/4 of the way to the batch's mean target: a batch of B rows adds 3/4 / B to the biases of its rows,
    and each later batch divides them by 4. The biases start at 0 in each epoch.
    """
    model = fastdl.MLP([1, n_rows], output="linear", dtype=dtype)
    optimizer = fastdl.SGD(lr=3 / 8 * n_rows)
    trainer = fastdl.Trainer(model, optimizer, batch_size=batch_size, epochs=1, **trainer_options)
    sizes = [len(range(n_rows)[start : start + batch_size]) for start in range(0, n_rows, batch_size)]
    traces = np.array([0.75 / size * 0.25 ** (len(sizes) - 1 - k) for k, size in enumerate(sizes)])
    targets = np.eye(n_rows) if targets is None else targets
    result = []
    for _ in range(epochs):
        model.parameters[:] = 0
        trainer.fit(np.zeros((n_rows, 1)), targets)
        close = np.isclose(model.biases[0][:, None], traces, rtol=1e-3, atol=0)
        assert (close.sum(axis=1) == 1).all(), "a row was not seen exactly once in the epoch"
        result.append([np.flatnonzero(column) for column in close.T])
        assert [len(rows) for rows in result[-1]] == sizes
    return result


def weights_only(model, number):
    """An array like the parameters that holds `number` where there is a weight, and 0 where there is a bias."""
    flat = np.zeros(model.n_parameters)
    for weight in model.views(flat)[0]:
        weight[:] = number
    return flat


def batches_of(n_rows, batch_size, seed, epoch):
    """The rows of each batch of one epoch: a permutation drawn from (seed, epoch), or the rows as they are for one batch."""
    if batch_size >= n_rows:
        return [np.arange(n_rows)]
    order = np.random.default_rng((seed, epoch)).permutation(n_rows)
    return [order[start : start + batch_size] for start in range(0, n_rows, batch_size)]


def train_by_hand(*arguments, **options):
    """(parameters, losses) of `go_on_by_hand`, from the beginning."""
    return go_on_by_hand(*arguments, **options)[:2]


def go_on_by_hand(model, X, y, optimizer, epochs, row_weight=None, l2=0.0, rates=None, clip_norm=np.inf, start=None):
    """(parameters, losses, states) after oracle steps over `epochs`, as `batches_seen` gives them; the model is not changed.

    `rates` are learning rates, one per step; a gradient longer than `clip_norm` is scaled to it. `start` holds parameters,
    states and steps to go on from.
    The row weights are those that the loss uses: mean 1 over all rows. The losses are without the L2 penalty.
    """
    theta, states, step = start or (
        model.parameters.astype(np.float64), [np.zeros(model.n_parameters)] * optimizer.n_states, 0
    )  # fmt: skip
    hyper = optimizer.hyperparameters()
    if "weight_decay" in hyper:
        hyper["weight_decay"] = weights_only(model, hyper["weight_decay"])
    losses = []
    for batches in epochs:
        total = 0.0
        for rows in batches:
            step += 1
            w = None if row_weight is None else row_weight[rows]
            total += len(rows) * oracle_loss_and_gradient(model, X[rows], y[rows], w, 0.0, theta)[0]
            _, g = oracle_loss_and_gradient(model, X[rows], y[rows], w, l2, theta)
            g = g * min(1.0, clip_norm / np.sqrt(g @ g))
            if rates is not None:
                hyper["lr"] = rates[step - 1]
            theta, states = reference.OPTIMIZERS[optimizer.name](theta, g, states, step, **hyper)
        losses.append(total / len(X))
    return theta, losses, states
