"""A short form of `python -m fastdl_bench.scores`: the same scores as scikit-learn's estimators after some epochs."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn.neural_network as theirs

import fastdl as ours
from fastdl_bench.scores import DATA_SETS, SOLVERS, scores


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("data_set", DATA_SETS)
def test_scores(data_set, solver):
    """The courses agree to rounding for some epochs; a prediction or two may fall on the other side of a boundary."""
    mine, wanted = (scores(module, data_set, solver, [0, 1], max_iter=8) for module in (ours, theirs))
    np.testing.assert_allclose(mine, wanted, atol=0.015)
