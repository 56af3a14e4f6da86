"""shuffling.py: the order of an epoch is a function of seed and epoch, whoever draws it."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import fastdl
from fastdl.engine.permutation import permutation
from fastdl.training import shuffling
from fastdl.training.shuffling import MANY_ROWS, Orders, order_of


def test_an_order_is_a_permutation_of_its_own():
    orders = [order_of(seed, epoch, 1000) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert len({order.tobytes() for order in orders}) == 4
    np.testing.assert_array_equal(orders[0], order_of(0, 0, 1000))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 64, 65, 1797, 1 << 16, (1 << 16) + 1])
@pytest.mark.parametrize("key", [(0, 0), (3, 5), (2**40 + 1, 7), (2**70, 1), (5,), (1, 2, 3, 4, 5, 6)])
def test_permutations_are_those_of_numpy(key, n):
    """Seeds of one word and of several, more words than the pool of the seeding holds, sizes about powers of 2."""
    np.testing.assert_array_equal(permutation(key, n), np.random.default_rng(key).permutation(n))


def test_many_permutations_are_those_of_numpy():
    rng = np.random.default_rng(0)
    for _ in range(200):
        key, n = tuple(rng.integers(0, 1 << 62, 2).tolist()), int(rng.integers(0, 500))
        np.testing.assert_array_equal(permutation(key, n), np.random.default_rng(key).permutation(n))


@pytest.mark.parametrize("n_rows", [10, MANY_ROWS, MANY_ROWS + 1])
def test_drawn_beforehand_or_not(n_rows):
    orders = Orders(7)
    orders.draw_next(3, n_rows)
    np.testing.assert_array_equal(orders.take(3, n_rows), order_of(7, 3, n_rows))


def test_what_was_drawn_for_something_else_is_not_taken():
    """Another epoch (a fit that was interrupted), or other rows (a second fit)."""
    for epoch, n_rows in ((4, MANY_ROWS), (3, MANY_ROWS + 1)):
        orders = Orders(7)
        orders.draw_next(3, MANY_ROWS)
        np.testing.assert_array_equal(orders.take(epoch, n_rows), order_of(7, epoch, n_rows))
        np.testing.assert_array_equal(orders.take(3, MANY_ROWS), order_of(7, 3, MANY_ROWS))


def test_many_rows_are_drawn_by_another_thread(monkeypatch):
    """In a training on one thread of several cores; with the same result as one that draws for itself."""
    drawn_by = []

    def watched(*args):
        drawn_by.append(threading.current_thread() is threading.main_thread())
        return order_of(*args)

    def submit_and_wait(future, job):
        """The other thread is there before the order is asked for, which would be drawn here otherwise."""
        submit(future, job)
        future.result(timeout=60)

    submit = shuffling.submit
    monkeypatch.setattr(shuffling, "submit", submit_and_wait)
    monkeypatch.setattr(shuffling, "order_of", watched)
    X = np.random.default_rng(0).normal(size=(MANY_ROWS, 3)).astype("float32")
    y = (X[:, 0] > 0).astype(int)
    results = []
    for leaves_a_core in (True, False):
        monkeypatch.setattr(fastdl.engine.Session, "leaves_a_core", leaves_a_core)
        model = fastdl.MLP([3, 4, 2])
        trainer = fastdl.Trainer(model, batch_size=512, epochs=3, n_threads=1)
        losses = trainer.fit(X, y).loss + trainer.fit(X, y).loss
        results.append((losses, model.parameters.tobytes()))
    assert results[0] == results[1]
    assert drawn_by == [True, False, False] * 2 + [True] * 6
