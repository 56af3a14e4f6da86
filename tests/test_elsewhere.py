"""`fit_many` with an executor: trainings in other processes come back with the bits that they have here."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import fastdl

joblib = pytest.importorskip("joblib", reason="comes with scikit-learn")
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((120, 6)).astype(np.float32), RNG.integers(0, 3, 120)
ROWS = [None, np.arange(80), np.arange(40, 120)]


def trainers():
    made = [fastdl.Trainer(fastdl.MLP([6, 8, 3], seed=i), batch_size=16, epochs=4, seed=i) for i in range(3)]
    made[1].early_stopping = 2
    return made


def fitted(**options):
    found = trainers()
    weights = np.linspace(0.5, 1.5, len(X))
    results = fastdl.fit_many(found, X, Y, ROWS, validation_data=(X[:30], Y[:30]), sample_weight=weights, **options)
    return found, results


def executors():
    context = multiprocessing.get_context("spawn")
    return {
        "threads": lambda: ThreadPoolExecutor(2),
        "processes": lambda: ProcessPoolExecutor(2, mp_context=context),
        "joblib": lambda: joblib.Parallel(n_jobs=2, backend="loky"),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(executors()))
def test_the_same_bits(name):
    here, expected = fitted()
    seen = []
    executor = executors()[name]()
    there, results = fitted(executor=executor, progress=seen.append)
    for one, other, result, known in zip(here, there, results, expected, strict=True):
        assert result.trainer is other
        assert result.error is None
        assert other.model.parameters.tobytes() == one.model.parameters.tobytes()
        assert other.history.loss == one.history.loss == result.history.loss
        assert other.history.best_epoch == one.history.best_epoch
        assert other.steps_done == one.steps_done
        assert known.history.val_loss == result.history.val_loss
        one.fit(X, Y, (X, Y))
        other.fit(X, Y, (X, Y))  # a further training goes on from there
        assert other.model.parameters.tobytes() == one.model.parameters.tobytes()
    assert seen[-1].finished == 3
    if hasattr(executor, "shutdown"):
        executor.shutdown()


def test_what_fails_there_is_told_here():
    found = trainers()
    found[0].optimizer = fastdl.SGD(1e30)
    found[0].model = fastdl.MLP([6, 3], output="linear", dtype="float32")
    with ThreadPoolExecutor(1) as executor:
        results = fastdl.fit_many(found[:1], X * 1e3, RNG.standard_normal((120, 3)), executor=executor)
    assert isinstance(results[0].error, fastdl.DivergedError)


def test_what_is_no_executor():
    with pytest.raises(fastdl.InputError, match="executor: expected an object with a method submit"):
        fastdl.fit_many(trainers()[:1], X, Y, executor=3)
