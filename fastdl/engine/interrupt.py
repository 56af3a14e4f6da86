"""Ctrl-C during a native call that is too long to wait for.

Python handles a signal when its main thread runs Python code again, which during a native call it does not. Most calls
take 50 ms; a single step of a large network can take seconds. Such a call runs on a thread of its own, while the main
thread waits where a signal wakes it. It is the same thread for all calls: OpenMP gives each Python thread a pool of its
own, whose threads would otherwise be started for every call and come too late for the team.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet

import numba

from fastdl.engine.background import submit


def run_interruptibly(call: Callable[[], None], stop: Callable[[], None]) -> None:
    """Run `call`; on Ctrl-C tell it to `stop`, wait until it has, and raise KeyboardInterrupt.

    Handing a call to the thread takes 0.1 ms, so this is for calls of 20 ms and more. Off the main thread, where no signal
    arrives, it is a plain call.
    """
    if threading.current_thread() is not threading.main_thread():
        call()
        return None
    n_threads = numba.get_num_threads()  # a setting of the thread

    def work() -> None:
        numba.set_num_threads(n_threads)
        call()

    running: Future[None] = Future()
    try:
        submit(running, work)
        while True:
            with contextlib.suppress(NotYet):
                return running.result(0.1)  # without a timeout, Windows would not let the signal through
    except BaseException:
        if not running.cancel():  # it has begun
            stop()
        while not running.done():
            with contextlib.suppress(KeyboardInterrupt, Exception):
                running.result()
        raise
