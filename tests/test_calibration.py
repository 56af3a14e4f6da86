"""calibration.py: temperatures, and intervals that hold as many rows as they promise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastdl import InputError, calibration
from fastdl.calibration import Interval


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_the_temperature_that_made_the_labels():
    """Labels drawn from softmax(z / 3) while the model says softmax(z)."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 4, (20_000, 3))
    y = (softmax(z / 3).cumsum(axis=1) < rng.uniform(size=(20_000, 1))).sum(axis=1)

    def loss(temperature):
        return -np.log(softmax(z / temperature)[np.arange(len(y)), y]).mean()

    found = calibration.best_temperature(loss)
    assert found == pytest.approx(3, rel=0.05)
    assert loss(found) <= min(loss(found * 1.01), loss(found / 1.01))
    assert calibration.best_temperature(lambda t: 0.0) == 1.0


def test_half_widths_are_the_kth_smallest_errors():
    errors = np.array([[-5.0], [1], [2], [-3], [4], [9], [-8], [7], [6]])
    assert calibration.half_widths(errors, 0.9).tolist() == [9]
    assert calibration.half_widths(errors, 0.5).tolist() == [5]
    assert calibration.fewest_rows(0.9) == 9
    with pytest.raises(InputError, match="expected at least 19 rows"):
        calibration.half_widths(errors, 0.95)


def test_intervals_hold_as_many_rows_as_they_promise():
    rng = np.random.default_rng(0)
    y = rng.standard_exponential((4000, 2)) * [1, 10]
    interval = Interval.of(np.zeros((4000, 2)), y, 0.9)
    np.testing.assert_allclose(interval.half_width, np.array([1, 10]) * np.log(10), rtol=0.05)
    assert interval.coverage == pytest.approx(0.9, abs=0.02)
    assert interval.coverage != 0.9
    assert interval.held(np.zeros((4000, 2)), y) == pytest.approx(0.9, abs=0.001)
    low, high = interval.bounds(np.ones((3, 2)))
    np.testing.assert_allclose(high - low, np.tile(2 * np.array(interval.half_width), (3, 1)))
    assert Interval.from_json(json.loads(json.dumps(interval.to_json()))) == interval
    assert Interval.of(np.zeros(12), np.arange(12.0), 0.9).coverage is None
