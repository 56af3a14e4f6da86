"""Compiled code made ready: by two processes where nothing is cached, by one where no second one can be had."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from numba import njit, types
from processes import program, run

from fastdl.engine import compile as prepare
from fastdl.engine.prepare import units
from fastdl.network import Architecture, LossTerm, Unit
from fastdl_kernels.serial import linked
from fastdl_kernels.simd import pointer

NETWORK = Architecture((2, 3, 1), (Unit(0, 0.0),), LossTerm(1, takes_labels=False), np.dtype("f4"))


def train(cache):
    return json.loads(run("-W", "error", program("first_training"), cwd=cache, FASTDL_CACHE_DIR=str(cache)))


@pytest.fixture
def cold(monkeypatch):
    """As if nothing were cached."""
    monkeypatch.setattr(prepare.linked_product, "is_cached", lambda element: False)
    monkeypatch.setattr(prepare, "usable_cores", lambda: 2)


class Process:
    """A second process that never ends."""

    def __init__(self, *args, **options):
        self.killed, Process.last = False, self

    def wait(self, patience=None):
        if not self.killed:
            raise subprocess.TimeoutExpired("helper", patience)

    def kill(self):
        self.killed = True


def test_the_first_training_is_compiled_by_two_processes_and_the_second_loads_it(tmp_path):
    first = train(tmp_path)
    assert not any(first["mine"]), "compiled by this process"
    if prepare.usable_cores() > 1:
        assert all(first["helpers"]), "left in the cache by the other one"
    second = train(tmp_path)
    assert all([*second["mine"], *second["helpers"], second["entry"]])
    assert second["bits"] == first["bits"]


PYTHONS = ["/usr/bin/python3", "/opt/venv/bin/python", "python3.11", "python3.13t", r"C:\\Python\\pythonw.exe"]
OTHERS = ["", None, "/usr/sbin/uwsgi", r"C:\\app\\trainer.exe", "/opt/app/mypython-app", "/usr/bin/python3-config"]


@pytest.mark.parametrize(
    ("executable", "frozen", "can"),
    [(e, False, True) for e in PYTHONS] + [(e, False, False) for e in OTHERS] + [(e, True, False) for e in PYTHONS],
)
def test_no_second_process_of_an_application(monkeypatch, executable, frozen, can):
    """An application that PyInstaller froze, or that embeds Python, would start itself, and again, and again."""
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    assert prepare._can_start_python() == can


@pytest.mark.parametrize(
    "reason", ["no right to start it", "one core", "no interpreter", "frozen", "embedded", "cached"]
)
def test_without_a_second_process_everything_is_compiled_here(cold, monkeypatch, reason):
    started = []

    def refuse(*args, **options):
        started.append(args)
        raise OSError

    monkeypatch.setattr(subprocess, "Popen", refuse)
    if reason == "one core":
        monkeypatch.setattr(prepare, "usable_cores", lambda: 1)
    if reason == "no interpreter":
        monkeypatch.setattr(sys, "executable", None)
    if reason == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    if reason == "embedded":
        monkeypatch.setattr(sys, "executable", "/usr/sbin/uwsgi")
    if reason == "cached":
        monkeypatch.setattr(prepare.linked_product, "is_cached", lambda element: True)
    reached = False
    with prepare._helper(NETWORK, types.float32):
        reached = True
    assert reached
    assert len(started) == (reason == "no right to start it")


def test_a_second_process_that_hangs_is_killed_and_one_that_is_not_needed_any_more(cold, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", Process)
    with prepare._helper(NETWORK, types.float32):
        pass
    assert Process.last.killed
    assert not prepare.linked_product.awaited
    with pytest.raises(KeyboardInterrupt), prepare._helper(NETWORK, types.float32):
        raise KeyboardInterrupt
    assert Process.last.killed


@linked(lambda x: (types.CPointer(x), types.int64, types.UniTuple(types.float64, 2)))
def scale(values, n, factors):
    """values[:n] *= the product of the factors."""
    for i in range(n):
        values[i] *= factors[0] * factors[1]


@njit
def scale_array(values, factors):
    scale(pointer(values, 0), values.size, factors)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_linked_function_is_called_like_any_other(dtype):
    values = np.arange(5, dtype=dtype)
    assert scale.linked.ensure(types.float32 if dtype == np.float32 else types.float64) in (False, True)
    scale_array(values, (2.0, 1.5))
    np.testing.assert_array_equal(values, [0, 3, 6, 9, 12])


def test_every_function_has_a_name_of_its_own():
    """By which its machine code is kept."""
    keys = [unit.key(element) for unit, element in units()]
    assert len(set(keys)) == len(keys) > 150
