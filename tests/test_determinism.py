"""The same seed gives the same bits: over reruns, thread counts and processes. And nothing is compiled twice."""

from __future__ import annotations

import hashlib
import json

import numba
import numpy as np
import processes
import pytest
from problems import make_data
from processes import program, run

import fastdl
import fastdl_kernels as fk
from fastdl.engine import workspace
from fastdl.optimizers import OPTIMIZERS

# layers, activation, output, rows, batch size: from one that no second thread helps with to one that is split; with a
# last batch that has fewer rows than a tile, too; and one whose blocks of rows take partial gradients, in the last batch
# most of them without rows
CASES = {
    "tiny": ([8, 32, 2], "tanh", "linear", 100, 7),
    "digits": ([64, 128, 10], "relu", "softmax", 400, 64),
    "labels": ([30, 65, 33, 5], "sigmoid", "sigmoid", 150, 50),
    "rest": ([6, 12, 3], "relu", "softmax", 45, 40),
    "wide": ([200, 300, 250, 10], "leaky_relu", "softmax", 600, 256),
    "partial": ([5, 20, 9, 3], "tanh", "softmax", 2205, 1100),
}


def train(case, optimizer="adam", dtype="float32", seed=0, **options):
    """A digest of the trained parameters, the losses and some predictions."""
    layers, activation, output, n_rows, batch_size = CASES[case]
    model = fastdl.MLP(layers, activation, output, seed=seed, dtype=dtype)
    rng = np.random.default_rng(5)
    X, y = make_data(rng, n_rows, layers, output)
    trainer = fastdl.Trainer(model, OPTIMIZERS[optimizer](), batch_size=batch_size, epochs=2, l2=1e-4, **options)
    history = trainer.fit(X, y, validation_data=(X[:50], y[:50]), sample_weight=rng.random(n_rows))
    numbers = [model.parameters, model.forward(X), np.array(history.loss + history.val_loss)]
    return hashlib.sha256(b"".join(n.tobytes() for n in numbers)).hexdigest()


every_case = pytest.mark.parametrize("case", CASES)


@every_case
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reruns(case, dtype):
    assert train(case, dtype=dtype) == train(case, dtype=dtype)


@every_case
@pytest.mark.parametrize("n_threads", [1, 2, 3, "auto"])
def test_trainer_threads(case, n_threads):
    """More threads than there are processors are allowed, too."""
    assert train(case, n_threads=n_threads) == train(case, n_threads=1)


class Wheel:
    """In the place of a `ThreadTuner`: another number of threads for each call, of one to three steps."""

    def __init__(self):
        self.counts, self.choice, self.steps = [1, 2, 3, 8], 2, 1

    def took(self, steps, seconds):
        self.choice, self.steps = (self.choice + 1) % len(self.counts), self.steps % 3 + 1


@every_case
@pytest.mark.parametrize("options", [{}, {"dropout": 0.25, "clip_norm": 0.1}], ids=["plain", "dropout-clipped"])
def test_threads_that_change_in_the_middle_of_an_epoch(monkeypatch, case, options):
    """As they do when a number of threads is tried."""
    want = train(case, n_threads=1, **options)
    monkeypatch.setattr(workspace, "tuner_for", lambda *_: Wheel())
    assert train(case, **options) == want


@pytest.mark.parametrize("case", [case for case in CASES if case != "partial"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"dropout": 0.25}, {"clip_norm": 0.1}], ids=["plain", "dropout", "clipped"])
def test_rows_through_all_layers_or_layer_by_layer(monkeypatch, case, dtype, options):
    """How a step is cut into phases is a matter of speed alone; also for networks that are too large for the one way.

    Where blocks of rows take partial gradients, the sum over the rows runs in blocks.
    """
    digests = set()
    for most in (0, 2**40):
        monkeypatch.setattr(workspace, "FUSED_BYTES", most)
        digests |= {train(case, dtype=dtype, n_threads=n, **options) for n in (1, 2, 3)}
    assert len(digests) == 1


@every_case
def test_numba_threads(case, thread_counts):
    digests = set()
    for n in thread_counts:
        numba.set_num_threads(n)
        digests.add(train(case))
    assert len(digests) == 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer(optimizer):
    assert train("digits", optimizer, n_threads=1) == train("digits", optimizer)


def test_the_trainer_leaves_numbas_thread_count_alone(thread_counts):
    for n in thread_counts:
        numba.set_num_threads(n)
        train("tiny", n_threads=1)
        assert numba.get_num_threads() == n


def test_seeds_matter():
    assert train("tiny", seed=1) != train("tiny", seed=2)


def kernel_results(name, rng):
    """The bytes of every output of one kernel, on arrays large enough to be split among threads."""
    x, w, a, d = (rng.normal(size=s).astype("float32") for s in ((301, 203), (203, 157), (301, 157), (301, 157)))
    b, p, g = rng.normal(size=157).astype("float32"), *rng.normal(size=(2, 100_003)).astype("float32")
    m, v = np.zeros_like(p), np.zeros_like(p)
    outputs = out, d_x, d_w, d_b = [np.zeros_like(like) for like in (a, x, w, b)]
    labels, loss = rng.integers(0, 157, 301), 0.0
    if name == "linear_forward":
        fk.linear_forward(x, w, b, fk.TANH, 0.0, out)
    elif name == "linear_forward_keep":
        fk.linear_forward_keep(x, w, b, fk.GELU, 0.0, np.zeros_like(out), out)
    elif name == "linear_backward":
        fk.linear_backward(x, w, np.tanh(a), d, fk.TANH, 0.0, d_x, d_w, d_b)
    elif name in ("softmax", "log_softmax"):
        getattr(fk, name)(a, out)
    elif name == "softmax_cross_entropy":
        loss = fk.softmax_cross_entropy(a, labels, out)
    elif name in ("sigmoid_cross_entropy", "squared_error", "absolute_error", "poisson_loss"):
        loss = getattr(fk, name)(a, np.abs(d), out)
    elif name in ("huber_loss", "quantile_loss"):
        loss = getattr(fk, name)(a, d, 0.3 if name == "huber_loss" else rng.uniform(0.1, 0.9, 157).astype("f4"), out)
    else:
        hyper = OPTIMIZERS[name.removesuffix("_step").replace("nesterov", "momentum")]().hyperparameters()
        hyper.pop("nesterov", None)
        states = [m, v, 1] if name.startswith("adam") else [m] if len(hyper) > 1 else []
        getattr(fk, name)(p, g, *states, *hyper.values())
    return b"".join(r.tobytes() for r in (*outputs, p, m, v, np.float64(loss)))


KERNELS = [name for name in fk.__all__ if callable(getattr(fk, name))]


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_do_not_depend_on_the_thread_count(name, thread_counts):
    results = set()
    for n in [*thread_counts, 1]:
        numba.set_num_threads(n)
        results.add(kernel_results(name, np.random.default_rng(1)))
    assert len(results) == 1


PATHS = [processes.ROOT, processes.KERNELS, processes.ROOT / "tests"]  # also the tests' helpers


@pytest.mark.parametrize("environment", [{}, {"NUMBA_NUM_THREADS": "1"}], ids=["as-here", "one-thread"])
def test_a_fresh_process(environment):
    code = "import json, test_determinism as t; print(json.dumps({case: t.train(case) for case in t.CASES}))"
    assert json.loads(run("-c", code, paths=PATHS, **environment)) == {case: train(case) for case in CASES}


def test_one_training_compiles_all_that_any_training_needs():
    """Architecture, optimizer, weights and penalty are data, not types; so are activation and loss once each has been used.

    Counted in a fresh process, as functions compiled and as versions loaded from the cache.
    """
    assert json.loads(run(program("count_compilations"), paths=PATHS)) == {"compiled": 0, "grown": {}}
