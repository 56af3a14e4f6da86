"""Copies of models and trainers (pickle, deepcopy, joblib, processes) have memory of their own and go on with the same bits."""

from __future__ import annotations

import copy
import multiprocessing
import pickle

import joblib
import numpy as np
import pytest
from problems import TASKS, make_data, make_model

import fastdl
from fastdl.optimizers import OPTIMIZERS

pytestmark = pytest.mark.usefixtures("one_thread")


def out_of_band(value, read_only=True):
    """A pickle whose arrays travel apart, as between the processes of joblib and Dask: immutable bytes."""
    buffers = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    kept = [bytes(buffer.raw()) if read_only else bytearray(buffer.raw()) for buffer in buffers]
    before = [bytes(buffer) for buffer in kept]
    result = pickle.loads(data, buffers=kept)
    result_owner.append((kept, before))
    return result


result_owner: list = []


def by_joblib(value, tmp_path, mode):
    joblib.dump(value, tmp_path / "kept")
    return joblib.load(tmp_path / "kept", mmap_mode=mode)


WAYS = {
    "copy": lambda value, tmp_path: copy.copy(value),
    "deepcopy": lambda value, tmp_path: copy.deepcopy(value),
    **{f"pickle{p}": lambda value, tmp_path, p=p: pickle.loads(pickle.dumps(value, p)) for p in range(2, 6)},
    "out-of-band": lambda value, tmp_path: out_of_band(value),
    "out-of-band-writable": lambda value, tmp_path: out_of_band(value, read_only=False),
    "joblib": lambda value, tmp_path: by_joblib(value, tmp_path, None),
    "joblib-mmap-r": lambda value, tmp_path: by_joblib(value, tmp_path, "r"),
    "joblib-mmap-c": lambda value, tmp_path: by_joblib(value, tmp_path, "c"),
    "joblib-mmap-r+": lambda value, tmp_path: by_joblib(value, tmp_path, "r+"),
}


def is_whole(model):
    """Views are views, and the memory is the model's own, aligned and writable."""
    flat = np.concatenate([a.ravel() for pair in zip(model.weights, model.biases, strict=True) for a in pair])
    np.testing.assert_array_equal(flat, model.parameters)
    for view in (*model.weights, *model.biases):
        assert np.shares_memory(view, model.parameters)
        assert view.flags.writeable
    assert model.parameters.ctypes.data % 64 == 0
    assert model.parameters.flags.writeable
    base = model.parameters
    while isinstance(base, np.ndarray):
        assert not isinstance(base, np.memmap)
        base = base.base
    assert base is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_copy_of_a_model_is_a_model(rng, tmp_path, way, dtype):
    model = make_model([5, 7, 3], "leaky_relu", "softmax", dtype)
    X, y = make_data(rng, 30, model.layers, "softmax")
    model.standardize(X)
    model.classes, model.metadata = ["a", "b", "c"], {"note": [1, 2]}
    clone = WAYS[way](model, tmp_path)
    is_whole(clone)
    is_whole(model)
    assert repr(clone) == repr(model)
    assert (clone.classes, clone.metadata, clone.seed) == (model.classes, model.metadata, model.seed)
    np.testing.assert_array_equal(clone.forward(X), model.forward(X))
    assert not np.shares_memory(clone.parameters, model.parameters)
    before = model.parameters.copy()
    clone.weights[0][:] = 0  # the copy's, through its views
    assert not clone.parameters[:35].any()
    np.testing.assert_array_equal(model.parameters, before)
    clone = WAYS[way](model, tmp_path)
    for each in (model, clone):
        fastdl.Trainer(each, batch_size=8, epochs=2).fit(X, y)
    np.testing.assert_array_equal(clone.parameters, model.parameters)
    assert all(list(kept) == list(old) for kept, old in result_owner)  # what was unpickled is not written to
    result_owner.clear()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_copy_of_a_used_trainer_goes_on_with_the_same_bits(rng, tmp_path, way, name):
    model = make_model([5, 7, 3], "tanh", "softmax", "float32")
    X, y = make_data(rng, 30, model.layers, "softmax")
    trainer = fastdl.Trainer(model, OPTIMIZERS[name](), batch_size=8, epochs=2, dropout=0.2, early_stopping=5)
    trainer.fit(X, y, validation_data=(X, y))
    clone = WAYS[way](trainer, tmp_path)
    if way != "copy":  # a shallow copy shares the model
        is_whole(clone.model)
        assert clone.model is not model
        assert (clone.epochs_done, clone.steps_done, clone.history) == (2, 8, trainer.history)
        first = clone.fit(X, y, validation_data=(X, y))
        second = trainer.fit(X, y, validation_data=(X, y))
        assert first.loss == second.loss
        np.testing.assert_array_equal(clone.model.parameters, model.parameters)
        for a, b in zip(clone._session.states, trainer._session.states, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.size == 0 or not np.shares_memory(a, b)
    result_owner.clear()


def test_a_copy_before_the_first_fit(rng):
    model = make_model([5, 7, 3], "tanh", "softmax")
    X, y = make_data(rng, 30, model.layers, "softmax")
    trainer = fastdl.Trainer(model, batch_size=8, epochs=1)
    clone = copy.deepcopy(trainer)
    trainer.fit(X, y)
    clone.fit(X, y)
    np.testing.assert_array_equal(clone.model.parameters, model.parameters)


def test_a_copy_of_a_copy(rng):
    """The second one is made before the first has trained."""
    model = make_model([5, 7, 3], "tanh", "softmax")
    X, y = make_data(rng, 30, model.layers, "softmax")
    trainer = fastdl.Trainer(model, batch_size=8, epochs=1)
    trainer.fit(X, y)
    clone = copy.deepcopy(copy.deepcopy(trainer))
    trainer.fit(X, y)
    clone.fit(X, y)
    np.testing.assert_array_equal(clone.model.parameters, model.parameters)


@pytest.mark.parametrize("layers", [[5, 7, 3], [5, 4, 3]])
def test_a_copy_of_a_trainer_with_another_model(rng, layers):
    """What the optimizer kept belongs to the model of before, whatever its size: the copy starts anew, as does the trainer."""
    X, y = make_data(rng, 30, layers, "softmax")
    trainer = fastdl.Trainer(make_model([5, 7, 3], "tanh", "softmax"), batch_size=8, epochs=1)
    trainer.fit(X, y)
    trainer.model = make_model(layers, "tanh", "softmax")
    clone = copy.deepcopy(trainer)
    for each in (trainer, clone):
        each.fit(X, y)
        assert (each.epochs_done, each.steps_done) == (1, 4)
    np.testing.assert_array_equal(clone.model.parameters, trainer.model.parameters)


@pytest.mark.parametrize("task", TASKS)
def test_worker_processes(rng, task):
    """joblib sends models of more than 1 MB as memory maps that may not be written to."""
    output, n_out = TASKS[task]
    model = make_model([30, 600, 600, n_out], "relu", output, "float32")
    X, y = make_data(rng, 40, model.layers, output)
    before = model.parameters.copy()
    results = joblib.Parallel(n_jobs=2)(joblib.delayed(train)(model, X, y) for _ in range(2))
    want = train(model, X, y)
    for parameters in results:
        np.testing.assert_array_equal(parameters, want)
    np.testing.assert_array_equal(model.parameters, before)


def train(model, X, y):
    """In a process of its own: the parameters after two epochs of a copy."""
    trained = copy.deepcopy(model)
    fastdl.Trainer(trained, batch_size=16, epochs=2, n_threads=1).fit(X, y)
    return trained.parameters


def test_a_process_pool(rng):
    model = make_model([5, 7, 3], "tanh", "softmax")
    X, y = make_data(rng, 30, model.layers, "softmax")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        got = pool.apply(train, (model, X, y))
    np.testing.assert_array_equal(got, train(model, X, y))
