"""Send signals at random moments while functions are compiled: what each handler raises must come out.

Usage: signals_while_compiling.py SEED FUNCTIONS. Prints how many signals were sent.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time

from fastdl_kernels.serial import entry


class Alarm(TimeoutError):
    """What the program's own handler raises: a TimeoutError, as libraries do."""


def on_alarm(number, frame):
    raise Alarm


def compiled(k):
    """A function of which nothing is in a cache."""

    @entry
    def function(n):
        total = 0.0
        for i in range(n):
            total += (i + k) % 7
        return total

    function._cache = type(function._cache)(None)  # no files
    function._cache._files = None
    return function


def main(seed, n_functions):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's is ignored
    signal.signal(signal.SIGALRM, on_alarm)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)]
    chance, received, sent = random.Random(seed), [], []
    finished = threading.Event()
    compiled(0)(1)  # fills Numba's registries

    def send():
        kinds = {signal.SIGINT: KeyboardInterrupt, signal.SIGALRM: Alarm}
        while not finished.wait(chance.uniform(0.0, 0.2)):
            number = chance.choice(list(kinds))
            sent.append(kinds[number])
            os.kill(os.getpid(), number)
            patience = time.monotonic() + 60
            while len(received) < len(sent):
                time.sleep(0.002)
                if time.monotonic() > patience:
                    print(f"signal {len(sent)} was lost: {kinds[number].__name__}", flush=True)
                    os._exit(1)

    thread = threading.Thread(target=send, daemon=True)
    functions = [compiled(k) for k in range(n_functions)]
    thread.start()
    while thread.is_alive():
        try:
            results = [function(100) for function in functions]
            finished.set()
            thread.join()
        except (KeyboardInterrupt, Alarm) as error:
            received.append(type(error))
    assert received == sent, (received, sent)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)] == before
    assert results == [sum((i + k) % 7 for i in range(100)) for k in range(n_functions)]
    print(len(sent))


main(*map(int, sys.argv[1:]))
