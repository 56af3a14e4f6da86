"""Signals during a native call that is too long to wait for.

Python handles a signal when its main thread runs Python code again, which during a native call it does not. Most calls
take 50 ms; a single step of a large network can take seconds. Such a call runs on a thread of its own, while the main
thread waits where a signal wakes it. It is the same thread for all calls: OpenMP gives each Python thread a pool of its
own, whose threads would otherwise be started for every call and come too late for the team.
"""

from __future__ import annotations

import _thread
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future

import numba

from fastdl.engine.background import submit

# Without a limit, Windows would not let a signal through to a thread that waits.
_SECONDS = 0.1


def run_interruptibly(call: Callable[[], None], stop: Callable[[], None]) -> None:
    """Run `call`; on an exception of a signal handler, Ctrl-C's or another, tell it to `stop`, wait for it, and raise that.

    Handing a call to the thread takes 0.1 ms, so this is for calls of 20 ms and more. Off the main thread, where no signal
    arrives, it is a plain call.
    """
    if threading.current_thread() is not threading.main_thread():
        call()
        return
    n_threads = numba.get_num_threads()  # a setting of the thread

    def work() -> None:
        numba.set_num_threads(n_threads)
        call()

    running: Future[None] = Future()
    ended: list[bool] = []
    finished = _thread.allocate_lock()
    finished.acquire()

    def note(_: Future[None]) -> None:
        ended.append(True)
        finished.release()

    running.add_done_callback(note)
    try:
        submit(running, work)
        # A lock says by what it returns whether time is up. A future would raise TimeoutError, as handlers may, too.
        while not finished.acquire(timeout=_SECONDS):
            pass
    except BaseException:
        told = False
        while not ended:
            with contextlib.suppress(BaseException):  # the first one is raised
                if not told:
                    if not running.cancel():  # it has begun
                        stop()
                    told = True
                finished.acquire(timeout=_SECONDS)
        raise
    running.result()
