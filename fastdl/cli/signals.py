"""SIGTERM and SIGHUP end a command as Ctrl-C does: what was learned is saved."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_NAMES = ("SIGTERM", "SIGHUP")


class Stopped(KeyboardInterrupt):
    """A signal has asked the process to end.

    code : the exit code that says so, 128 and the signal's number
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


def exit_code(error: BaseException) -> int:
    """That of a command that ended like this; 130 is Ctrl-C."""
    return error.code if isinstance(error, Stopped) else 130


@contextlib.contextmanager
def as_interrupts() -> Iterator[None]:
    """In the block, the first SIGTERM or SIGHUP raises `Stopped`, and others are ignored; one that is ignored already, as by
    nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    terminals = [stream for stream in (1, 2) if _is_terminal(stream)]

    def stop(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        if number != signal.SIGTERM:  # the terminal has gone: what is said from now on goes nowhere
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in terminals:
                os.dup2(nowhere, stream)
            os.close(nowhere)
        raise Stopped(number)

    try:
        for number in numbers:
            signal.signal(number, stop)
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _is_terminal(stream: int) -> bool:
    try:
        return os.isatty(stream)
    except OSError:
        return False
