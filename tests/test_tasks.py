"""Targets: which task their values suggest, and how labels become numbers."""

from __future__ import annotations

import numpy as np
import pytest

from fastdl.errors import InputError
from fastdl.tables import tasks


def column(values, boolean=False):
    values = np.array(values)
    return tasks.TargetColumn(
        "t", values if values.dtype.kind == "U" else values.astype(float), "row {}".format, boolean
    )


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([0.5, 1, 2, 3], "regression", None),
        ([0, 1, 1, 0], "binary", [0, 1]),
        ([5, 3, 5, 3], "binary", [3, 5]),
        (["b", "a", "b"], "binary", ["a", "b"]),
        ([0, 1, 2] * 3, "multiclass", [0, 1, 2]),
        (["x", "y", "z"] * 2, "multiclass", ["x", "y", "z"]),
        (list(range(20)) * 2, "multiclass", list(range(20))),
        (list(range(21)) * 2, "regression", None),
        ([1, 2, 3, 4], "regression", None),  # all different: no class comes twice
    ],
)
def test_the_task_is_inferred(values, task, classes):
    targets = tasks.resolve([column(values)], None)
    assert (targets.task, targets.classes) == (task, classes)
    if classes is not None:
        assert [classes[int(i)] for i in targets.y.reshape(-1)] == values


def test_booleans_as_targets_keep_their_names():
    targets = tasks.resolve([column([1, 0, 1], boolean=True)], None)
    assert (targets.task, targets.classes) == ("binary", [False, True])


def test_several_target_columns():
    assert tasks.resolve([column([0, 1]), column([1, 1])], None).task == "multilabel"
    assert tasks.resolve([column([0, 1]), column([1, 2])], None).task == "regression"
    one_hot = tasks.resolve([column([0, 1]), column([1, 0])], "multiclass")
    np.testing.assert_array_equal(one_hot.y, [1, 0])


@pytest.mark.parametrize(
    ("task", "values", "output"),
    [("regression", [0, 1, 2], None), ("binary", [4, 2, 4], [2, 4]), ("multiclass", [0, 1, 1], [0, 1])],
)
def test_the_task_can_be_chosen(task, values, output):
    targets = tasks.resolve([column(values)], task)
    assert (targets.task, targets.classes, targets.reason) == (task, output, tasks.ASKED)


def test_too_many_texts_are_no_classes():
    with pytest.raises(InputError, match="30 different texts in 40 rows"):
        tasks.resolve([column([f"name {i % 30}" for i in range(40)])], None)


def test_unknown_class_names_the_row_and_the_nearest():
    with pytest.raises(
        InputError, match=r"row 1: expected one of the classes 'setosa', 'virginica'.*did you mean 'setosa'"
    ):
        tasks.class_indices(column(["setosa", "setsa"]), ["setosa", "virginica"])
