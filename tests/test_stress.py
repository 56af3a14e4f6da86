"""Many trainings at once: 4 Python threads, more threads than cores, every threading layer that can be loaded here."""

from __future__ import annotations

import importlib

import pytest
from processes import program, run

PACKAGES = {"omp": "omppool", "workqueue": "workqueue", "tbb": "tbbpool"}


def loadable(layer):
    try:
        importlib.import_module(f"numba.np.ufunc.{PACKAGES[layer]}")
    except ImportError:
        return False
    return True


LAYERS = [layer for layer in PACKAGES if loadable(layer)]


@pytest.mark.parametrize("layer", LAYERS)
def test_200_trainings_from_4_threads(layer):
    """The same bits as alone, also from a ThreadPool, in a forked child and inside another parallel region."""
    shown = run(program("many_trainings"), timeout=900, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="8")
    assert shown == f"{layer}\n"


def test_which_layers_were_tested():
    """The work queue is part of Numba: there is at least that."""
    print("threading layers that can be loaded here:", ", ".join(LAYERS))
    assert "workqueue" in LAYERS
