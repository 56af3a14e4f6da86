"""What `trainer.explain()` says, and that asking changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from problems import make_data, make_model

import fastdl
from fastdl_kernels import host
from fastdl_kernels.host import usable_cores
from fastdl_kernels.peak import fma_flop, run_fma_loops
from fastdl_kernels.tile import MR, panel_width


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("output", ["softmax", "linear", "sigmoid"])
def test_the_numbers_fit_together(dtype, output):
    model = make_model([20, 30, 4], "tanh", output, dtype)
    trainer = fastdl.Trainer(model, fastdl.AdamW(), 32, clip_norm=1.0, dropout=0.1, n_threads=2)
    told = trainer.explain(seconds=0.02)
    assert (told.threads, told.reason, told.batch_size, told.dtype) == (2, "as asked", 32, dtype)
    assert (told.isa, told.tile_rows, told.tile_columns) == (host.host().isa, MR, panel_width(dtype))
    shares = [told.forward, told.backward, told.update, told.gather, told.waiting]
    assert sum(shares) == pytest.approx(1, abs=1e-6)
    assert min(shares) >= 0
    assert min(told.forward, told.backward, told.update) > 0
    # 20 * 30 + 30 * 4 multiply-adds forward and for the gradients, 30 * 4 for the way down; two operations each.
    assert told.gflops * told.step_seconds * 1e9 == pytest.approx(2 * 32 * (2 * 720 + 120))
    assert told.share_of_peak == told.gflops / told.peak_gflops > 0
    text = str(told)
    assert len(text.splitlines()) == 4
    for words in ("2: as asked", host.host().isa, dtype, "GFLOP/s", "for 32 rows", "forward", "waiting", "%"):
        assert words in text


def test_auto_says_why():
    told = fastdl.Trainer(fastdl.MLP([4, 3, 2]), batch_size=4).explain(0.02)
    assert told.threads == 1
    assert told.reason.startswith("auto, of ")
    assert "multiply-adds" in told.reason


@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
def test_auto_says_what_it_tried():
    """Where threads are in question, the time of a step with each number of them."""
    told = fastdl.Trainer(fastdl.MLP([64, 128, 10]), batch_size=64).explain(0.02)
    assert told.threads in (1, 2, usable_cores())
    assert "a step took" in told.reason
    assert "us with 1" in told.reason


@pytest.mark.parametrize("optimizer", [fastdl.AdamW, fastdl.Momentum])
def test_asking_does_not_change_the_training(rng, optimizer):
    """Before, between and after: bit for bit the parameters of a training that nobody asked about."""
    X, y = make_data(rng, 40, [6, 3], "softmax")
    results = []
    for asked in (False, True):
        model = make_model([6, 20, 3], "relu", "softmax", "float32")
        trainer = fastdl.Trainer(model, optimizer(), 8, 2, dropout=0.2, schedule=fastdl.schedules.Step(3))
        for _ in range(2):
            if asked:
                before = model.parameters.copy()
                trainer.explain(0.02)
                np.testing.assert_array_equal(model.parameters, before)
            trainer.fit(X, y)
        results.append(model.parameters)
    np.testing.assert_array_equal(*results)


def test_a_model_that_has_diverged(rng):
    model = make_model([6, 5, 3], "relu", "softmax", "float32")
    model.parameters[:] = np.nan
    assert fastdl.Trainer(model, batch_size=8).explain(0.02).step_seconds > 0
    assert np.isnan(model.parameters).all()


@pytest.mark.parametrize("seconds", [0, -1, None, "1"])
def test_bad_seconds(seconds):
    with pytest.raises(fastdl.InputError, match="seconds: expected how long to measure"):
        fastdl.Trainer(fastdl.MLP([2, 2])).explain(seconds)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_peak_loop_does_its_arithmetic(dtype, threads):
    """a <- a / 2 + 1 / 2 goes to 1 in every lane of every accumulator, on every thread."""
    sums = np.full(threads, np.nan, dtype)
    run_fma_loops(threads, 200, sums)
    per_thread = fma_flop(1, 1, np.dtype(dtype)) / 2
    np.testing.assert_array_equal(sums, np.full(threads, per_thread))
    assert fma_flop(3, 10, np.dtype(dtype)) == 30 * fma_flop(1, 1, np.dtype(dtype))
