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


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("delay", [0.0, 0.7])
def test_control_c(case, delay):
    """The process gets SIGINT when the training begins, or in the middle of it."""
    command = [sys.executable, program("interrupted_training"), json.dumps(CASES[case])]
    child = subprocess.Popen(command, env=environment_of(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert child.stdout.readline() == "begun\n"
        threading.Event().wait(delay)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=600)
    finally:
        child.kill()
    assert (child.returncode, out) == (0, "interrupted\nusable\n"), err


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
