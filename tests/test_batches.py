"""Mini-batches: every row once an epoch, the short last batch too, in an order drawn anew from the seed."""

from __future__ import annotations

import numpy as np
import pytest
from checking import DTYPES
from problems import batches_seen

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = [(1, 1), (7, 7), (5, 1), (10, 3), (37, 5), (64, 16), (65, 16), (100, 64)]  # rows, batch size


@pytest.mark.parametrize(("n_rows", "batch_size"), SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_row_is_seen_once_an_epoch(n_rows, batch_size, dtype):
    for batches in batches_seen(n_rows, batch_size, epochs=3, dtype=dtype):
        np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(n_rows))
        assert len(batches) == -(-n_rows // batch_size)
        assert len(batches[-1]) == (n_rows - 1) % batch_size + 1


def as_lists(epochs):
    return [[list(rows) for rows in batches] for batches in epochs]


def test_each_epoch_has_its_own_order():
    first, second, third = as_lists(batches_seen(60, 7, epochs=3))
    assert first != second != third != first
    assert first[0] != list(range(7))


def test_the_order_comes_from_the_seed():
    one, again, other = (as_lists(batches_seen(60, 7, epochs=2, seed=seed)) for seed in (1, 1, 2))
    assert one == again
    assert one[0] != other[0]
    assert one[1] != other[0]  # seed 2 is not seed 1 an epoch later


def test_the_order_does_not_depend_on_threads_or_dtype():
    want = as_lists(batches_seen(60, 7, epochs=2))
    assert as_lists(batches_seen(60, 7, epochs=2, n_threads=1)) == want
    assert as_lists(batches_seen(60, 7, epochs=2, dtype="float32")) == want


def test_rows_are_shuffled_evenly():
    """Over 400 epochs each of 8 rows is in the first batch of 2 about 100 times (standard deviation 8.7)."""
    counts = np.zeros(8)
    for batches in batches_seen(8, 2, epochs=400):
        counts[batches[0]] += 1
    assert np.abs(counts - 100).max() < 5 * 8.7


@pytest.mark.parametrize(("n_rows", "batch_size"), [(6, 2), (7, 2), (7, 7), (30, 1)])
@pytest.mark.parametrize("times", [0, 2, 3])
def test_the_recorder_has_teeth(n_rows, batch_size, times):
    """A row that is left out, or seen twice or three times, is noticed."""
    targets = np.eye(n_rows)
    targets[1] = 0
    targets[:, 0] = 0
    targets[:times, 0] = 1
    with pytest.raises(AssertionError, match="exactly once"):
        batches_seen(n_rows, batch_size, 1, targets=targets)
