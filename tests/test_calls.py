"""Compiled functions called from Python without Numba's wrappers: what they take, what they refuse, and what they leave alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numba.core import types

from fastdl_kernels import _calls
from fastdl_kernels.serial import array_type, native


@native(
    lambda x: (
        types.int64,
        x,
        types.boolean,
        types.BaseTuple.from_types((array_type(x, 2), array_type(types.int64, 1))),
    )
)
def weighted_sum(n, factor, adds, arrays):
    """(sum of n numbers of the first array times factor, plus the second array's if wanted; n); writes the sum to [0, 0]."""
    values, more = arrays
    total = 0.0
    for i in range(n):
        total += values[i // values.shape[1], i % values.shape[1]] * factor
    if adds:
        for number in more:
            total += number
    values[0, 0] = total
    return total, n


def arguments(dtype=np.float64, **changes):
    values = {
        "n": 6,
        "factor": 2.0,
        "adds": True,
        "first": np.arange(6.0).reshape(2, 3).astype(dtype),
        "second": np.arange(4),
    }
    values.update(changes)
    return values["n"], values["factor"], values["adds"], (values["first"], values["second"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arguments_arrive_and_results_come_back(dtype):
    given = arguments(dtype)
    assert weighted_sum.of(np.dtype(dtype))(*given) == (36.0, 6)
    assert given[3][0][0, 0] == 36.0
    assert weighted_sum.of(np.dtype(dtype))(*arguments(dtype, adds=False)) == (30.0, 6)
    assert weighted_sum.of(np.dtype(dtype))(*arguments(dtype, n=0)) == (6.0, 0)


@pytest.mark.parametrize(
    "good", [{"factor": 2}, {"factor": np.float64(2)}, {"n": np.int64(6)}, {"n": np.int32(6)}], ids=str
)
def test_numbers_of_other_kinds_that_mean_the_same(good):
    assert weighted_sum.of(np.dtype("f8"))(*arguments(**good)) == (36.0, 6)


class Sub(np.ndarray):
    """A class of arrays that may mean something else by the same numbers."""


WRONG = {
    "a number for a number of another kind": {"n": 6.0},
    "text": {"factor": "2"},
    "none": {"factor": None},
    "a complex number": {"factor": 2j},
    "a bool for a number": {"n": True},
    "an array for a number": {"n": np.array(6)},
    "a number for a bool": {"adds": 1},
    "beyond 64 bits": {"n": 2**63},
    "a whole number beyond 64 bits for a fraction": {"factor": 2**70},
    "a list": {"first": [[1.0]]},
    "another dtype": {"first": np.zeros((2, 3), np.float32)},
    "another byte order": {"first": np.zeros((2, 3), ">f8")},
    "another dimension": {"first": np.zeros(6)},
    "not contiguous": {"first": np.zeros((3, 2)).T},
    "a subclass": {"first": np.zeros((2, 3)).view(Sub)},
    "small whole numbers": {"second": np.arange(4, dtype=np.int32)},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=list(WRONG))
def test_what_it_was_not_made_for_is_refused_and_nothing_is_written(wrong):
    given = arguments(**wrong)
    before = np.array(given[3][0], copy=True)
    with pytest.raises(TypeError, match="arguments that this code is not made of"):
        weighted_sum.of(np.dtype("f8"))(*given)
    np.testing.assert_array_equal(given[3][0], before)


@pytest.mark.parametrize(
    "change", [lambda a: a[:3], lambda a: (*a, 1), lambda a: (*a[:3], a[3][:1]), lambda a: (*a[:3], a[3][0])]
)
def test_other_numbers_of_arguments_are_refused(change):
    with pytest.raises(TypeError):
        weighted_sum.of(np.dtype("f8"))(*change(arguments()))


def test_no_reference_is_kept_or_lost():
    call, given = weighted_sum.of(np.dtype("f8")), arguments()
    things = [*given, *given[3], None]
    before = [sys.getrefcount(thing) for thing in things]
    for _ in range(1000):
        call(*given)
        with pytest.raises(TypeError):
            call(None, *given[1:])
    assert np.abs(np.subtract([sys.getrefcount(thing) for thing in things], before)).max() < 50


def test_where_objects_are_laid_out_otherwise_numba_wraps(monkeypatch):
    """Other interpreters, or a NumPy to come."""
    assert _calls.offsets_hold() == (sys.implementation.name == "cpython" and object.__basicsize__ == 16)
    monkeypatch.setattr(_calls, "offsets_hold", lambda: False)
    monkeypatch.setattr(weighted_sum, "_callables", {})
    given = arguments()
    assert weighted_sum.callable(types.float64)(*given) == (36.0, 6)


def test_an_array_that_looks_different_is_noticed(monkeypatch):
    monkeypatch.setattr(_calls, "_FLAGS", _calls._FLAGS + 8)
    assert not _calls.offsets_hold.__wrapped__()
