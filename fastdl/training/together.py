"""A training on several ranks: that all have begun with the same, and end together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastdl.engine import Session
from fastdl.errors import DivergedError, InputError
from fastdl.inputs import array_of
from fastdl.sparse import SparseRows
from fastdl.training.chunks import Chunks
from fastdl.training.rows import TrainingRows

_LOOKED_AT = 16
"""Rows of the inputs that ranks compare; each reads the rest of its own slices only."""


@contextlib.contextmanager
def together(trainer: Any, session: Session, data: TrainingRows | Chunks) -> Iterator[None]:
    """The epochs of a `fit` run in the block, on all of a trainer's ranks; nothing of this where it has none.

    Raises
    ------
    InputError : the ranks have different models, settings or data
    """
    ranks = trainer.ranks
    if ranks is None:
        yield
        return
    if isinstance(data, Chunks):
        raise InputError(
            "communicator: expected X and y, of which each rank reads its own rows, got chunks; map the arrays to memory with "
            "numpy.load(..., mmap_mode='r')"
        )
    some = None
    if not isinstance(data.inputs, SparseRows):
        some = array_of(data.inputs[np.linspace(0, len(data.inputs) - 1, _LOOKED_AT).astype(np.int64)])
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


def alone(trainer: Any, what: str) -> None:
    """Raise InputError if a trainer has several ranks, for something that one process does."""
    if trainer.ranks is not None:
        raise InputError(f"{what}: expected a trainer without a communicator, got one of {trainer.ranks}; use fit")
