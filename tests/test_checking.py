"""Teeth: the helpers that all comparisons go through must fail when a result is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checking import DTYPES, Arena, Guarded, assert_close, differences, eps, relative_error


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", [1e-3, -1.0, np.nan, np.inf, -np.inf])
def test_one_wrong_element_fails(rng, dtype, wrong):
    x, weight, bias = rng.normal(size=(13, 37)), rng.normal(size=(37, 29)), np.zeros(29)
    expected = reference.linear_forward(x, weight, bias, "identity", 0.0)
    tolerance = 4 * eps(dtype) * np.sqrt(37) * np.sqrt(x**2 @ weight**2)
    result = expected.copy()
    assert_close(result, expected, tolerance)
    result[7, 11] = result[7, 11] * (1 + wrong)
    with pytest.raises(AssertionError, match=r"1 of 377 elements differ, first at \(7, 11\)"):
        assert_close(result, expected, tolerance)


def test_a_missing_term_fails(rng):
    """A K loop that stops one short is far outside of the tolerance, in float32 too."""
    x, weight = rng.normal(size=(7, 64)), rng.normal(size=(64, 10))
    tolerance = 4 * eps("float32") * np.sqrt(64) * np.sqrt(x**2 @ weight**2)
    with pytest.raises(AssertionError):
        assert_close(x[:, :-1] @ weight[:-1], x @ weight, tolerance)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_expected_nan_or_infinity_must_come(value):
    assert_close([value], [value], 0.0)
    for other in (0.0, np.nan, np.inf, -np.inf):
        if not np.array_equal(other, value, equal_nan=True):
            with pytest.raises(AssertionError):
                assert_close([other], [value], np.inf)


def test_shape_counts():
    with pytest.raises(AssertionError, match="shape"):
        assert_close(np.zeros((3, 1)), np.zeros(3), 1.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [-1, 0, 12, 40])
def test_guard_cells(dtype, place):
    """A write outside of an output, or anywhere into an input, is noticed; one inside an output is not."""
    for values in (None, np.zeros((3, 4))):
        guarded = Guarded((3, 4), dtype, 1, values)
        guarded.check()
        guarded.buffer[guarded.inside.start + place] = 7.0
        if values is None and 0 <= place < 12:
            guarded.check()
        else:
            with pytest.raises(AssertionError, match="written outside"):
                guarded.check()


def test_arena_checks_every_member():
    arena = Arena("float32")
    x, _ = arena.input(np.ones(5)), arena.output(5)
    arena.check()
    x[2] = 0
    with pytest.raises(AssertionError):
        arena.check()


@pytest.mark.parametrize("offset", [0, 1])
def test_alignment_of_guarded_arrays(offset):
    assert Guarded((5,), "float32", offset).array.ctypes.data % 64 == 4 * offset


def test_outputs_start_as_nan():
    assert np.isnan(Arena("float64").output(3, 3)).all()


def test_differences_and_relative_error():
    theta = np.array([1.0, -2.0, 0.5])
    numeric = differences(lambda: float((theta**3).sum()), theta)
    assert relative_error(numeric, 3 * theta**2) < 1e-10
    np.testing.assert_array_equal(theta, [1.0, -2.0, 0.5])
    for wrong in ([3.0, 12.0, 0.7500015], [3.0, -12.0, 0.75], [3.0, 12.0, 0.0]):
        assert relative_error(wrong, 3 * theta**2) > 1e-6


def test_oracles_against_numbers_worked_by_hand():
    np.testing.assert_allclose(reference.softmax([[0.0, np.log(3.0)]]), [[0.25, 0.75]], rtol=1e-15)
    losses, gradient = reference.squared_error_rows([[1.0, 3.0]], [[0.0, 0.0]])
    assert losses[0] == 5.0
    np.testing.assert_array_equal(gradient, [[1.0, 3.0]])
    losses, gradient = reference.sigmoid_cross_entropy_rows([[0.0, np.log(3.0)]], [[1.0, 0.0]])
    assert losses[0] == pytest.approx(np.log(2.0) + np.log(4.0))
    np.testing.assert_allclose(gradient, [[-0.5, 0.75]])
