"""Labels of any kind, as what the engine learns, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import LabelBinarizer


class Labels:
    """The classes of a classification, found in y (or in a list of all classes).

    kind : "multiclass" (one of three or more classes), "binary" (one of two or fewer), "multilabel-indicator"
    classes : their sorted labels, or 0 .. L-1 for a multilabel problem
    """

    def __init__(self, y: Any) -> None:
        known = _plain_classes(y)
        self._binarizer: LabelBinarizer | None = None
        if known is not None:
            self.classes: NDArray[Any] = known
            self.kind = "multiclass" if len(known) > 2 else "binary"
            return
        self._binarizer = LabelBinarizer().fit(y)  # finds the kind, and refuses what are no labels
        self.classes = self._binarizer.classes_
        self.kind = self._binarizer.y_type_

    @property
    def n_outputs(self) -> int:
        """Outputs of a network for these classes: one per class, or one in all for two of them."""
        return 1 if self.kind == "binary" else len(self.classes)

    @property
    def output(self) -> str:
        """The output unit."""
        return "softmax" if self.kind == "multiclass" else "sigmoid"

    def encode(self, y: Any, dtype: np.dtype) -> NDArray[Any]:
        """y as the engine takes it: places in `classes` [N] as int64 for "multiclass", else 0 and 1 [N, O]."""
        if self.kind == "multilabel-indicator" or np.ndim(y) != 1:
            return np.ascontiguousarray(self._its_binarizer().transform(y), dtype)
        if self.kind == "multiclass":
            return np.searchsorted(self.classes, y).astype(np.int64)
        if len(self.classes) == 1:
            return np.zeros((len(y), 1), dtype)
        return np.ascontiguousarray((y == self.classes[1])[:, None], dtype)

    def decode(self, raw: NDArray[np.floating]) -> NDArray[Any]:
        """Labels of raw outputs [N, O]."""
        if self.kind == "multiclass":
            return self.classes[raw.argmax(axis=1)]
        if self.kind == "binary":
            return self.of_places((raw[:, 0] > 0).astype(np.intp))
        return self._its_binarizer().inverse_transform((raw > 0).astype(np.float64))

    def _its_binarizer(self) -> LabelBinarizer:
        return self._binarizer or LabelBinarizer().fit(self.classes)

    def of_places(self, places: NDArray[np.integer]) -> NDArray[Any]:
        """The labels at these places in `classes`; all the same where there is only one."""
        return self.classes[places] if len(self.classes) > 1 else np.repeat(self.classes, len(places))

    def split_column(self, y: NDArray[Any]) -> NDArray[np.bool_] | None:
        """What an early-stopping split keeps the shares of: the two classes of a binary problem [N, 1], or nothing."""
        return y > 0.5 if self.kind == "binary" else None


def _plain_classes(y: Any) -> NDArray[Any] | None:
    """The sorted labels of a column of whole numbers, booleans or text, which need no second look; None for all others.

    scikit-learn's way sorts them four times, which takes longer than an epoch. It also warns of so many classes that y may be
    the target of a regression: those are left to it.
    """
    if type(y) is not np.ndarray or y.ndim != 1 or y.dtype.kind not in "biuU" or len(y) == 0:
        return None
    classes = np.unique(y)
    return classes if len(classes) <= max(2, len(y) // 2) else None
