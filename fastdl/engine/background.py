"""One thread beside the main one, for what must not keep it waiting."""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

_Work = tuple["Future[Any]", Callable[[], Any]]
_worker: tuple[int, SimpleQueue[_Work]] | None = None


def _serve(queue: SimpleQueue[_Work]) -> None:
    while True:
        future, work = queue.get()
        if future.set_running_or_notify_cancel():
            try:
                result = work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
        del future, work  # and what they hold, which would wait here for the next ones


def submit(future: Future[Any], work: Callable[[], Any]) -> None:
    """Have `work` done on the thread, and its result put into `future`; a child of fork starts its own.

    Not a ThreadPoolExecutor: where Ctrl-C meets it as it starts its thread, Python waits for that thread at the end, for
    good. This one is started in one piece and never waited for.
    """
    global _worker
    if _worker is None or _worker[0] != os.getpid():
        queue: SimpleQueue[_Work] = SimpleQueue()
        _thread.start_new_thread(_serve, (queue,))
        _worker = os.getpid(), queue
    _worker[1].put((future, work))
