"""Ctrl-C during a native call that is too long to wait for.

Python handles a signal when its main thread runs Python code again, which during a native call it does not. Most calls
take 50 ms; a single step of a large network can take seconds. Such a call runs on a thread of its own, while the main
thread waits where a signal wakes it. It is the same thread for all calls: OpenMP gives each Python thread a pool of its
own, whose threads would otherwise be started for every call and come too late for the team.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from queue import SimpleQueue

import numba

_Work = tuple["Future[None]", Callable[[], None]]
_worker: tuple[int, SimpleQueue[_Work]] | None = None


def _serve(queue: SimpleQueue[_Work]) -> None:
    while True:
        future, work = queue.get()
        if future.set_running_or_notify_cancel():
            try:
                work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)


def _submit(future: Future[None], work: Callable[[], None]) -> None:
    """Run `work` on the one thread; a child of fork starts its own.

    Not a ThreadPoolExecutor: where Ctrl-C meets it as it starts its thread, Python waits for that thread at the end, for
    good. This one is started in one piece and never waited for.
    """
    global _worker
    if _worker is None or _worker[0] != os.getpid():
        queue: SimpleQueue[_Work] = SimpleQueue()
        _thread.start_new_thread(_serve, (queue,))
        _worker = os.getpid(), queue
    _worker[1].put((future, work))


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
        _submit(running, work)
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
