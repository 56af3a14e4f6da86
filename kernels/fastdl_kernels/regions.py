"""Who may enter a parallel region: one Python thread at a time under Numba's work queue, and nobody in a forked child.

Numba's work queue aborts the process when two Python threads enter a region at once, so that there is one lock for
everything in this process that enters regions: kernels, and engines built from them. OpenMP and TBB give every Python
thread regions of its own, and need no lock; but OpenMP ends a child of fork that enters one, and the child has none of
the parent's threads in any case.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

import numba

free = False
"""True when a region may be entered without `region()`: all that a call has to look at on most machines."""

forked = False
"""True in a child of fork: everything has to run on the calling thread."""

# Reentrant: a finaliser or a signal handler may call a kernel while its thread waits for a compilation under the lock.
_lock = threading.RLock()
_layer_known = False


def look() -> None:
    """Learn Numba's threading layer, which is known once its threads have been started and does not change then."""
    global free, _layer_known
    with contextlib.suppress(ValueError):
        free = not forked and numba.threading_layer() != "workqueue"
        _layer_known = True


def region() -> contextlib.AbstractContextManager[Any]:
    """What must be held while compiled code may be inside a parallel region."""
    if not _layer_known:
        look()
    return contextlib.nullcontext() if free or forked else _lock


def _note_fork() -> None:
    """The lock may be held by a thread that the child does not have."""
    global free, forked, _lock
    free, forked, _lock = False, True, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
