"""How many threads an estimator may use where others of its kind work beside it.

joblib tells its processes (loky) through NUMBA_NUM_THREADS, which the engine follows by itself; a forked process runs on one
thread. What nobody tells is worked out here: threads of a pool share the cores, and a daemonic process is one of many.
"""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing.dummy import DummyProcess

from fastdl.engine import most_threads


def allowed_threads(n_threads: int | str) -> int | str:
    """`n_threads`; instead of "auto", a fair share of the cores in a thread of a pool, and 1 in a process of a pool."""
    if n_threads != "auto":
        return n_threads
    if isinstance(threading.current_thread(), DummyProcess):
        pool = sum(isinstance(thread, DummyProcess) for thread in threading.enumerate())
        share = max(1, most_threads() // pool)
        return share if share < most_threads() else "auto"
    return 1 if multiprocessing.current_process().daemon and not _is_loky() else "auto"


def _is_loky() -> bool:
    """Whether this is a process of loky's: those are told how many threads to use."""
    return type(multiprocessing.current_process()).__module__.startswith(("joblib.externals.loky", "loky"))
