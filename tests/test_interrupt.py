"""Ctrl-C in the middle of a training: KeyboardInterrupt, and a model that can be used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from processes import environment_of, program

import fastdl
from fastdl.engine import interrupt

CASES = {
    "small-steps": {"layers": [8, 16, 3], "rows": 640, "batch": 32, "again": True},
    "steps-of-a-second": {"layers": [512, 1024, 1024, 10], "rows": 8192, "batch": 8192, "again": False},
    "slow-clipped-steps": {"layers": [512, 1024, 1024, 10], "rows": 8192, "batch": 8192, "again": False, "clip": 0.1},
    "long-validation": {"layers": [64, 256, 10], "rows": 64, "batch": 32, "again": True, "validation": 2000},
}


def start(name, *arguments):
    command = [sys.executable, program(name), *arguments]
    return subprocess.Popen(command, env=environment_of(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("delay", [0.0, 0.7])
def test_control_c(case, delay):
    """The process gets SIGINT when the training begins, or in the middle of it."""
    child = start("interrupted_training", json.dumps(CASES[case]))
    try:
        assert child.stdout.readline() == "begun\n"
        threading.Event().wait(delay)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=600)
    finally:
        child.kill()
    assert (child.returncode, out) == (0, "interrupted\nusable\n"), err


@pytest.mark.skipif(os.name != "posix", reason="uses setitimer")
@pytest.mark.parametrize("case", CASES)
def test_a_timeout_of_the_callers_own(case):
    """TimeoutError, raised by a handler of SIGALRM, is the class that futures use for "not yet" from Python 3.11 on."""
    child = start("interrupted_training", json.dumps({**CASES[case], "alarm": 0.6}))
    try:
        out, err = child.communicate(timeout=600)
    finally:
        child.kill()
    assert (child.returncode, out) == (0, "begun\ninterrupted\nusable\n"), err


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT and SIGALRM")
@pytest.mark.parametrize("seed", [1, 2])
def test_signals_while_something_is_compiled(seed):
    """Some 40 signals at random moments: each handler's exception comes out."""
    child = start("signals_while_compiling", str(seed), "60")
    out, err = child.communicate(timeout=600)
    assert child.returncode == 0, out + err
    assert int(out) >= 5


@pytest.mark.parametrize("error", [TimeoutError, KeyboardInterrupt, ValueError, SystemExit])
@pytest.mark.parametrize("twice", [False, True])
def test_what_a_handler_raises_comes_out_when_the_call_has_stopped(error, twice):
    """The first one does; the call is told to stop, and is waited for."""
    stopped, seen = threading.Event(), []
    main = threading.main_thread().ident

    def handler(number, frame):
        raise error if not seen or error is KeyboardInterrupt else OSError

    def call():
        signal.pthread_kill(main, signal.SIGUSR1)
        assert stopped.wait(60)
        if twice:
            seen.append(1)
            signal.pthread_kill(main, signal.SIGUSR1)
            threading.Event().wait(0.3)
        seen.append("ended")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(error):
            interrupt.run_interruptibly(call, stopped.set)
        assert seen[-1] == "ended"
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_error_on_the_other_thread_is_raised_here():
    def call():
        raise ValueError("from inside")

    with pytest.raises(ValueError, match="from inside"):
        interrupt.run_interruptibly(call, lambda: None)


def test_on_another_thread_it_is_a_plain_call():
    seen = []
    thread = threading.Thread(
        target=lambda: interrupt.run_interruptibly(lambda: seen.append(threading.current_thread()), lambda: None)
    )
    thread.start()
    thread.join()
    assert seen == [thread]


def test_slow_steps_give_the_same_bits(rng, monkeypatch):
    """On a thread of their own or not."""
    X, y = rng.normal(size=(40, 6)), rng.integers(0, 3, 40)
    results = []
    for limit in (10**12, 0):
        monkeypatch.setattr("fastdl.engine.session.SLOW_STEP", limit)
        model = fastdl.MLP([6, 20, 3])
        fastdl.Trainer(model, batch_size=7, epochs=3).fit(X, y)
        results.append(model.parameters)
    np.testing.assert_array_equal(*results)
