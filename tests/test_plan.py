"""How a network is written down: offsets, strides, and places in the workspaces that do not overlap."""

from __future__ import annotations

import numpy as np
import pytest

from fastdl.engine import structs
from fastdl.engine.plan import Layout, row_stride
from fastdl.network import Architecture, LossTerm, Unit, aligned_zeros, n_parameters, offsets, views
from fastdl_kernels import GELU, RELU

LAYERS = (5, 256, 7, 512, 3)


def layout_of(keeps, dtype="float32"):
    hidden = tuple(Unit(GELU if keep else RELU) for keep in keeps)
    return Layout(Architecture(LAYERS, hidden, LossTerm(0), np.dtype(dtype)))


@pytest.mark.parametrize("keeps", [(False,) * 3, (True, False, True), (False, True, False), (True,) * 3])
@pytest.mark.parametrize("rows", [1, 6])
def test_places_in_the_buffer_of_outputs_do_not_overlap(keeps, rows):
    """Outputs of all layers, and z of those that keep it, fill the buffer once; prediction keeps nothing."""
    layout = layout_of(keeps)
    plan = layout.plan(rows)
    size = rows * layout.numbers_per_row
    used = np.zeros(size, int)
    for layer, row in enumerate(plan):
        for place in (row[structs.OUTPUT], row[structs.Z]):
            if place >= 0:
                used[place : place + rows * row[structs.STRIDE]] += 1
        assert (row[structs.Z] >= 0) == ([*keeps, False][layer])
    assert (used == 1).all()
    assert (layout.plan(rows, trains=False)[:, structs.Z] == -1).all()


def test_offsets_and_views_agree():
    flat = np.arange(n_parameters(LAYERS), dtype=np.float64)
    weights, biases = views(LAYERS, flat)
    assert np.array_equal(np.concatenate([np.r_[w.ravel(), b] for w, b in zip(weights, biases, strict=True)]), flat)
    for w, b, (weight, bias) in zip(weights, biases, offsets(LAYERS), strict=True):
        assert (w[0, 0], b[0]) == (weight, bias)
        assert np.shares_memory(w, flat)
        assert np.shares_memory(b, flat)
    plan = layout_of((False,) * 3).plan(1)
    assert [tuple(row) for row in plan[:, [structs.WEIGHT, structs.BIAS]]] == offsets(LAYERS)


@pytest.mark.parametrize("dtype", [np.dtype("f4"), np.dtype("f8")])
def test_strides_and_alignment(dtype):
    """Rows do not fall into few cache sets, and what is aligned starts on a cache line."""
    assert row_stride(64 // dtype.itemsize, dtype) == 64 // dtype.itemsize
    assert row_stride(4096 // dtype.itemsize, dtype) == (4096 + 64) // dtype.itemsize
    for n in (1, 15, 1000):
        array = aligned_zeros(n, dtype)
        assert array.shape == (n,)
        assert array.ctypes.data % 64 == 0
        assert not array.any()
