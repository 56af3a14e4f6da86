"""What Python hands over to compiled code: tuples of arrays and numbers, as Numba sees them for an element type.

`step.train_batches` says what each of them is for; compiled code makes pointers of them at once (`structs`).
"""

from __future__ import annotations

from numba.core import types

from fastdl_kernels.serial import array_type

I64 = types.int64
NUMBERS_1, NUMBERS_2 = array_type(types.float64, 1), array_type(types.float64, 2)
INTS_1, INTS_2 = array_type(types.int64, 1), array_type(types.int64, 2)
PLACES_1, PLACES_2 = array_type(types.int32, 1), array_type(types.int32, 2)


def group(*members: types.Type) -> types.Type:
    """A tuple."""
    return types.BaseTuple.from_types(members)


def floats_1(x: types.Type) -> types.Type:
    """An array of one dimension."""
    return array_type(x, 1)


def floats_2(x: types.Type) -> types.Type:
    """An array of two dimensions."""
    return array_type(x, 2)


def floats_3(x: types.Type) -> types.Type:
    """An array of three dimensions."""
    return array_type(x, 3)


def network_arrays(x: types.Type) -> types.Type:
    """plan, alphas, parameters."""
    return group(INTS_2, floats_1(x), floats_1(x))


def loss_arrays(x: types.Type) -> types.Type:
    """code, per output, parameters."""
    return group(I64, I64, floats_1(x))


def update_arrays(x: types.Type) -> types.Type:
    """code, hyper, state1, state2, gradient, squares, partial gradients, row squares."""
    return group(I64, NUMBERS_1, floats_1(x), floats_1(x), floats_1(x), NUMBERS_1, floats_2(x), NUMBERS_1)


SOURCE = group(INTS_2, NUMBERS_1, NUMBERS_1, NUMBERS_1, NUMBERS_1)
"""parts, shift, scale, inverse, clip: see `structs.source_of`."""


def data_arrays(x: types.Type) -> types.Type:
    """batch size, order, inputs, labels, targets, weights, source."""
    return group(I64, INTS_1, floats_2(x), INTS_1, floats_2(x), floats_1(x), SOURCE)


def places_arrays(x: types.Type) -> types.Type:
    """inputs, labels, targets, weights of all places."""
    return group(floats_3(x), INTS_2, floats_3(x), floats_2(x))


def stored_arrays(x: types.Type) -> types.Type:
    """starts, columns, values."""
    return group(INTS_1, PLACES_1, floats_1(x))


def by_column_arrays(x: types.Type) -> types.Type:
    """count, column, first, rows, values."""
    return group(INTS_2, PLACES_2, INTS_2, PLACES_2, floats_2(x))


def sparse_arrays(x: types.Type) -> types.Type:
    """mode, stored rows, batches by column, scratch, counters, done, rates, zeros."""
    turned = by_column_arrays(x)
    return group(I64, stored_arrays(x), turned, turned, INTS_1, INTS_1, NUMBERS_2, floats_1(x))
