"""The data set that ships with fastdl: the UCI optical recognition of handwritten digits."""

from __future__ import annotations

from importlib import resources

import numpy as np
from numpy.typing import NDArray


def load_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """1,797 handwritten digits: X float32 [1797, 64], 8x8 images with pixels 0 to 16 row by row, and y int64 [1797].

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998, https://doi.org/10.24432/C50P49, CC BY 4.0. See LICENSE-digits.txt beside this file.
    """
    with (resources.files(__package__) / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as data:
        return data["X"].astype(np.float32), data["y"].astype(np.int64)
