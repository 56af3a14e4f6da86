"""Signals that arrive while something is compiled wait until the compiler returns.

Python runs a signal's handler wherever the main thread happens to be. In the middle of a compilation that may be inside
one of the functions through which LLVM calls Python back, and what a handler raises there is printed and forgotten: of 24
Ctrl-C during a compilation 3 were lost. Here handlers are put aside meanwhile, whatever signal they are for; signals that
came are given to them afterwards.
"""

from __future__ import annotations

import _thread
import functools
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_aside = False  # whether the main thread has put handlers aside
_callbacks = 0  # that the main thread is inside of


def handlers_later(function: Callable[..., _Result], *args: Any) -> _Result:
    """function(*args), while signals are only noted; what their handlers raise, they raise when it has returned."""
    global _aside
    if _aside or threading.current_thread() is not threading.main_thread():
        return function(*args)
    noted: list[Any] = []
    handlers: dict[Any, Any] = {}
    try:
        _aside = True
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, lambda number, frame: noted.append(number))
        return function(*args)
    finally:
        raised = None
        for number, handler in handlers.items():
            for _ in range(2):
                try:
                    signal.signal(number, handler)
                    break
                except BaseException as error:  # by a handler that is back already
                    raised = raised or error
        _aside = False
        if _callbacks:
            for number in noted:
                interrupt_later(number)
        else:
            # All at once: a handler that raises may run after any line of Python, and the others after it.
            list(map(_thread.interrupt_main, noted))
        if raised is not None:
            raise raised


def interrupt_later(number: int = signal.SIGINT) -> None:
    """Have a signal's handler run as soon as the main thread has left all callbacks."""
    threading.Thread(target=_wait_and_interrupt, args=(number,), daemon=True).start()


def _wait_and_interrupt(number: Any) -> None:
    quiet = 0
    while quiet < 2:
        time.sleep(0.01)
        quiet = 0 if _callbacks else quiet + 1
    _thread.interrupt_main(number)


def callback(function: Callable[..., None]) -> Callable[..., None]:
    """The function as compiled code may call it through ctypes, which would swallow what a signal's handler raises."""

    @functools.wraps(function)
    def guarded(*args: Any) -> None:
        global _callbacks
        on_main = threading.current_thread() is threading.main_thread()
        _callbacks += on_main
        try:
            handlers_later(function, *args)
        except KeyboardInterrupt:  # before they were put aside
            interrupt_later()
        finally:
            _callbacks -= on_main

    return guarded
