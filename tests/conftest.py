"""Fixtures of all tests: seeded numbers, and Numba's thread count put back."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import settings

from fastdl import cli

# The same examples on every run, and no deadline: a first call compiles for seconds.
settings.register_profile("fastdl", derandomize=True, deadline=None, max_examples=30, database=None)
settings.load_profile("fastdl")


@pytest.fixture
def rng():
    """The same numbers in every test, whatever runs before it."""
    return np.random.default_rng(20240501)


@pytest.fixture
def thread_counts():
    """The thread counts that Numba can be set to here: 1, and more where there are more. Restored afterwards."""
    before = numba.get_num_threads()
    yield sorted({1, min(2, numba.config.NUMBA_NUM_THREADS), numba.config.NUMBA_NUM_THREADS})
    numba.set_num_threads(before)


@pytest.fixture
def one_thread():
    """For thousands of tiny calls: no threads to wake, which takes milliseconds each where the cores are busy.

    The kernels' own tests and test_determinism.py use all threads.
    """
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


@pytest.fixture
def write(tmp_path):
    """Write text or bytes to a file of the test's folder and return its path as text."""

    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_file


class Result(NamedTuple):
    """What a command gave."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run a command in the test's folder and give back what it printed; it must not print a traceback."""
    monkeypatch.chdir(tmp_path)

    def run_command(*args):
        capsys.readouterr()
        code = cli.main([str(arg) for arg in args])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return run_command
