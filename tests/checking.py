"""What the tests share: comparison with a stated tolerance, buffers with guard cells, finite differences."""

from __future__ import annotations

import numpy as np

DTYPES = ("float32", "float64")
GUARD = 256  # cells on each side: several vectors, and the tail of a row
SENTINEL = -12345.0


def eps(dtype) -> float:
    return float(np.finfo(dtype).eps)


def tiny(dtype) -> float:
    """Below this a kernel may flush to zero."""
    return float(np.finfo(dtype).tiny)


def assert_close(actual, expected, tolerance, what: str = "result") -> None:
    """Same shape, NaN and infinities in the same places, and |actual - expected| <= tolerance element by element."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    finite = np.isfinite(expected)
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        good = np.where(finite, np.abs(actual - expected) <= tolerance, same)
    if not good.all():
        where = np.unravel_index(int(np.argmin(good)), good.shape)
        limit = np.broadcast_to(tolerance, good.shape)[where]
        raise AssertionError(
            f"{what}: {np.count_nonzero(~good)} of {good.size} elements differ, first at {tuple(map(int, where))}: "
            f"got {actual[where]!r}, expected {expected[where]!r}, tolerance {limit:.3g}"
        )


class Guarded:
    """An array inside a larger buffer whose other cells must stay as they are.

    `offset` shifts the array by so many elements from a 64-byte boundary. Guards of inputs are NaN, so that a kernel
    that reads past the end shows it; guards of outputs are finite, and the output itself starts as NaN, so that a cell
    that is not written shows too.
    """

    def __init__(self, shape, dtype, offset: int = 0, values=None) -> None:
        dtype = np.dtype(dtype)
        n = int(np.prod(shape))
        raw = np.zeros((n + offset + 2 * GUARD) * dtype.itemsize + 64, np.uint8)
        start = -raw.ctypes.data % 64
        self.buffer = raw[start : start + (n + offset + 2 * GUARD) * dtype.itemsize].view(dtype)
        guard = SENTINEL if values is None else np.nan
        self.buffer[...] = guard if dtype.kind == "f" else int(SENTINEL)
        self.inside = slice(GUARD + offset, GUARD + offset + n)
        self.array = self.buffer[self.inside].reshape(shape)
        self.array[...] = (np.nan if dtype.kind == "f" else 0) if values is None else values
        self.is_input = values is not None
        self.before = self.buffer.copy()

    def check(self, what: str = "array") -> None:
        """Assert that no guard cell changed, and, of an input, no cell at all."""
        changed = self.buffer.view(np.uint8) != self.before.view(np.uint8)
        changed = changed.reshape(len(self.buffer), -1).any(axis=1)
        if not self.is_input:
            changed[self.inside] = False
        places = np.flatnonzero(changed) - self.inside.start
        assert places.size == 0, f"{what}: written outside of an output, at flat positions {places[:5]}"


class Arena:
    """Makes the guarded arrays of one kernel call and checks them all together."""

    def __init__(self, dtype, offset: int = 0) -> None:
        self.dtype, self.offset = np.dtype(dtype), offset
        self.members: list[Guarded] = []

    def _add(self, member: Guarded):
        self.members.append(member)
        return member.array

    def input(self, values, dtype=None):
        values = np.asarray(values)
        return self._add(Guarded(values.shape, dtype or self.dtype, self.offset, values))

    def output(self, *shape):
        return self._add(Guarded(shape, self.dtype, self.offset))

    def check(self) -> None:
        for i, member in enumerate(self.members):
            member.check(f"array {i} of shape {member.array.shape}")


def differences(f, theta, h: float = 1e-4):
    """Gradient of f at theta (float64, changed in place and restored) by central differences of fourth order."""
    gradient = np.empty(theta.size)
    for i in range(theta.size):
        middle = theta[i]
        values = []
        for k in (-2, -1, 1, 2):
            theta[i] = middle + k * h
            values.append(f())
        theta[i] = middle
        gradient[i] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    return gradient


def relative_error(a, b) -> float:
    """max |a - b| / max(|a|, |b|); elements below 1e-2 of the largest, or 1e-5, count relative to that: what is left
    there is the rounding noise of the differences."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    scale = np.maximum(np.abs(a), np.abs(b))
    floor = max(1e-2 * scale.max(initial=0.0), 1e-5)
    return float((np.abs(a - b) / np.maximum(scale, floor)).max(initial=0.0))
