"""Values as a page keeps them: plain JSON, short names, and few points of long curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST = 60
"""Characters of a name or cell that a page shows."""
DIGITS = 7
"""Significant digits of numbers in charts: more than a screen can show."""


_UNSEEN = dict.fromkeys([*range(32), 127, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd")
"""Control characters, and those that turn the direction of the text around them."""


def short(value: object, most: int = LONGEST) -> str:
    """A name or cell as text of at most so many characters; those that would not be seen are shown as �."""
    text = str(value)[: most + 1].translate(_UNSEEN)
    return text if len(text) <= most else text[: most - 1] + "…"


def plain(value: Any) -> Any:
    """NumPy's values as JSON values: numbers with seven significant digits, None for those that are not finite."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.{DIGITS}g}")
    return value


def thin(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of 0 .. count - 1, evenly, the first and the last among them."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.round(np.linspace(0, count - 1, most)).astype(np.int64))
