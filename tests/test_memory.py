"""Memory: nothing is allocated in a step, and a training needs no more than the README says."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys

import fastdl
from fastdl.engine import Session, Settings
from fastdl.training import rollback

LAYERS, BATCH, ROWS = [300, 600, 600, 10], 64, 640


@pytest.fixture(autouse=True)
def snapshots(monkeypatch):
    """A snapshot after every epoch: these trainings are so short that there would be none."""
    monkeypatch.setattr(rollback, "EPOCHS_PER_SNAPSHOT", 0.0)


def fit_peak(n_rows=ROWS, epochs=2, **options):
    """(peak bytes of fit, bytes of parameters, bytes of the data): NumPy reports its arrays to tracemalloc.

    Without the blocks of the gradient that threads work on: how large they are depends on the tiles.
    """
    model = fastdl.MLP(LAYERS)
    X = np.ones((n_rows, LAYERS[0]), np.float32)
    y = np.arange(n_rows) % LAYERS[-1]
    trainer = fastdl.Trainer(model, batch_size=BATCH, epochs=epochs, n_threads=2, **options)
    fastdl.Trainer(fastdl.MLP([4, 3, 2]), batch_size=4, epochs=1).fit(np.ones((4, 4)), [0, 1, 0, 1])
    tracemalloc.start()
    try:
        trainer.fit(X, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    slots = 0 if options.get("clip_norm") else trainer._session.gradient.nbytes
    return peak - slots, model.parameters.nbytes, X.nbytes + y.nbytes


def workspaces():
    """What one batch needs: outputs and their gradients, and two batches of rows, the next one being gathered."""
    return 4 * BATCH * (2 * sum(LAYERS[1:]) + 2 * LAYERS[0])


@pytest.mark.parametrize(
    ("optimizer", "states"),
    [(fastdl.SGD(), 0), (fastdl.Momentum(), 1), (fastdl.Adam(), 2)],
    ids=["sgd", "momentum", "adam"],
)
def test_a_training_needs_parameters_and_states_twice(optimizer, states):
    """Data, one batch, and the parameters and the optimizer's state, now and of the last good epoch; within 20 %.

    The whole of the gradient is nowhere.
    """
    peak, parameters, data = fit_peak(optimizer=optimizer)
    whole = data + parameters + peak
    wanted = data + parameters * 2 * (1 + states) + workspaces()
    assert 0.8 * wanted < whole < 1.2 * wanted


@pytest.mark.parametrize("options", [{"clip_norm": 1.0}, {"early_stopping": fastdl.EarlyStopping(3, "loss")}])
def test_clipping_and_early_stopping_need_one_more_copy(options):
    peak, parameters, data = fit_peak(**options)
    wanted = data + parameters * (2 * 3 + 1) + workspaces()
    assert 0.8 * wanted < data + parameters + peak < 1.2 * wanted


def test_more_steps_need_no_more_memory():
    """16 bytes a row at most for the order of the rows and 8 for the next one, which is drawn meanwhile, and 8 a step for its
    rate; nothing else grows with the epochs, but for the rows that `trainer.health()` looks at: 512 at most, 320 of few."""
    few, many = fit_peak()[0], fit_peak(n_rows=20 * ROWS)[0]
    looked_at = (512 - ROWS // 2) * (LAYERS[0] + LAYERS[-1]) * 4
    assert many - few < 24 * 19 * ROWS + 8 * 19 * ROWS // BATCH + looked_at + 20_000
    assert abs(fit_peak(epochs=20)[0] - few) < 20_000


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.1, "dropout": (0.5,)}], ids=["plain", "clip-and-dropout"])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_compiled_steps_allocate_nothing(options, n_threads):
    """Counted by Numba's own allocator: as many allocations in a call of 500 steps as in a call of one."""
    model = fastdl.MLP([6, 20, 3])
    X, y = np.ones((8, 6), np.float32), np.arange(8) % 3
    settings = Settings(8, fastdl.Adam(), 0.1, n_threads=n_threads, **options)
    session = Session(model.architecture, model.parameters, settings)

    def allocations(steps):
        session.tuner.steps = steps
        before = rtsys.get_allocation_stats().alloc
        session.epoch(X, y, None, np.tile(np.arange(8), steps), np.full(steps, 1e-3))
        return rtsys.get_allocation_stats().alloc - before

    _nrt_python.memsys_enable_stats()
    try:
        allocations(1)
        assert allocations(500) == allocations(1)
    finally:
        _nrt_python.memsys_disable_stats()
