"""Ctrl-C during a native call that is too long to wait for.

Python handles a signal when its main thread runs Python code again, which during a native call it does not. Most calls
take 50 ms; a single step of a large network can take seconds. Such a call runs on a thread of its own, while the main
thread waits where a signal wakes it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import numba


def run_interruptibly(call: Callable[[], None], stop: Callable[[], None]) -> None:
    """Run `call`; on Ctrl-C tell it to `stop`, wait until it has, and raise KeyboardInterrupt.

    Starting a thread takes 0.1 ms, so this is for calls of 20 ms and more. Off the main thread, where no signal arrives,
    it is a plain call.
    """
    if threading.current_thread() is not threading.main_thread():
        call()
        return
    errors: list[BaseException] = []
    n_threads = numba.get_num_threads()  # a setting of the thread

    def work() -> None:
        try:
            numba.set_num_threads(n_threads)
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="fastdl", daemon=True)
    try:
        thread.start()
        while thread.is_alive():
            thread.join(0.1)  # without a timeout, Windows would not let the signal through
    except BaseException:
        stop()
        while thread.is_alive():
            with contextlib.suppress(KeyboardInterrupt):
                thread.join()
        raise
    if errors:
        raise errors[0]
