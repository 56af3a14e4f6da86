"""A training on several ranks: that all have begun with the same, and end together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastdl.engine import Session
from fastdl.errors import DivergedError
from fastdl.training.rows import TrainingRows

_LOOKED_AT = 16
"""Rows of the inputs that ranks compare; each reads the rest of its own slices only."""


@contextlib.contextmanager
def together(trainer: Any, session: Session, data: TrainingRows) -> Iterator[None]:
    """The epochs of a `fit` run in the block, on all of a trainer's ranks; nothing of this where it has none.

    Raises
    ------
    InputError : the ranks have different models, settings or data
    """
    ranks = trainer.ranks
    if ranks is None:
        yield
        return
    rows = data.inputs if isinstance(data.inputs, np.ndarray) else None
    some = None if rows is None else np.ascontiguousarray(rows[:: max(1, len(rows) // _LOOKED_AT)][:_LOOKED_AT])
    ranks.check_same(
        {
            "rows": len(data),
            "X": some,
            "y": data.targets,
            "sample_weight": data.weight,
            "model": trainer.model.parameters,
            "settings": str(trainer.record()),
            "steps done": session.steps_done,
        }
    )
    with ranks.held_together():
        try:
            yield
        except (DivergedError, KeyboardInterrupt):
            session.settle()
            raise
        session.settle()
