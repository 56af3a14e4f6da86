"""`fastdl doctor` and `fastdl prepare`: what they see, what they find wrong, and exit codes."""

from __future__ import annotations

import json
import os

import numba
import pytest
from processes import program, start

from fastdl.engine import doctor, prepare
from fastdl_kernels import prebuilt
from fastdl_kernels.serial import host, linked_product

LANES = host().lanes(4)
GOOD = doctor.Peak(one=2 * 2 * LANES * 3e9, all=2 * 2 * 2 * LANES * 3e9, threads=2, hertz=3e9)


@pytest.fixture
def sound(monkeypatch, tmp_path):
    """An installation in which nothing is wrong."""
    monkeypatch.setattr(doctor, "measure", lambda: GOOD)
    monkeypatch.setattr(doctor, "_layer", lambda: "omp")
    monkeypatch.setattr(doctor, "usable_cores", lambda: 1)
    monkeypatch.setenv("FASTDL_CACHE_DIR", str(tmp_path))
    for name in ("OMP_THREAD_LIMIT", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"):
        monkeypatch.delenv(name, raising=False)


def the_problem():
    """The only thing that is wrong."""
    (problem,) = doctor.problems(GOOD)
    assert problem.mend
    return problem


def test_nothing_is_wrong(sound, run):
    done = run("doctor")
    assert done.code == 0
    for word in ("processor", "cores", "threading layer", "cache", "numba", "GFLOP/s", "nothing is wrong"):
        assert word in done.out


def test_what_it_measures():
    """The peak is that of a core with vectors of so many lanes, within what any processor has; on a busy machine it is less."""
    peak = doctor.measure()
    assert 0.1 < peak.per_cycle < 4.5
    assert 1e8 < peak.hertz < 1e10
    assert peak.one > 0


@pytest.mark.parametrize(
    ("layer", "what"), [(None, "no threading layer"), ("workqueue", "there is no libgomp")], ids=["none", "workqueue"]
)
def test_threading_layers(sound, monkeypatch, run, layer, what):
    monkeypatch.setattr(doctor, "_layer", lambda: layer)
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    assert what in the_problem().what
    assert "libgomp1" in the_problem().mend
    done = run("doctor")
    assert done.code == 1
    assert f"wrong: {the_problem().what}" in done.out
    assert "mend: install" in done.out


@pytest.mark.parametrize("name", ["OMP_PLACES", "GOMP_CPU_AFFINITY", "OMP_PROC_BIND"])
def test_threads_bound_by_the_environment(sound, monkeypatch, name):
    monkeypatch.setenv(name, "true" if name == "OMP_PROC_BIND" else "0")
    assert f"unset {name}" in the_problem().mend or name in the_problem().mend


def test_too_few_threads(sound, monkeypatch):
    monkeypatch.setattr(doctor, "usable_cores", lambda: numba.config.NUMBA_NUM_THREADS + 1)
    monkeypatch.setattr(doctor, "distinct_cores", lambda: None)
    assert f"Numba has {numba.config.NUMBA_NUM_THREADS} of" in the_problem().what
    monkeypatch.setattr(doctor, "usable_cores", lambda: 1)
    monkeypatch.setenv("OMP_THREAD_LIMIT", "0")
    assert "OMP_THREAD_LIMIT" in the_problem().mend


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux says which processors are one core")
def test_hyper_threads(sound, monkeypatch, tmp_path):
    for number in os.sched_getaffinity(0):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text("0-63\n")
    assert doctor.distinct_cores(tmp_path) == 1
    assert doctor.distinct_cores(tmp_path / "nowhere") is None
    monkeypatch.setattr(doctor, "usable_cores", lambda: 2)
    monkeypatch.setattr(doctor, "distinct_cores", lambda: 1)
    monkeypatch.setattr(doctor.numba.config, "NUMBA_NUM_THREADS", 2)
    assert "hyper-threads" in the_problem().what


def test_caches(sound, monkeypatch, tmp_path):
    seen = {**prebuilt.cache(), "writable": False}
    monkeypatch.setattr(doctor.prebuilt, "cache", lambda: seen)
    monkeypatch.setattr(linked_product, "is_cached", lambda element: False)
    assert "is read-only and holds no code" in the_problem().what
    monkeypatch.setattr(linked_product, "is_cached", lambda element: True)
    assert doctor.problems(GOOD) == []
    seen["distrust"] = "may be written to by others (mode 777)"
    assert "chmod 700" in the_problem().mend


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [("OPT", 0, "NUMBA_OPT"), ("CPU_NAME", "haswell", "NUMBA_CPU_NAME"), ("ENABLE_AVX", 0, "NUMBA_ENABLE_AVX")],
)
def test_settings_of_numba(sound, monkeypatch, name, value, mend):
    monkeypatch.setattr(doctor.numba.config, name, value)
    assert mend in the_problem().mend


def test_peaks_that_are_not_reached(sound):
    (slow,) = doctor.problems(GOOD._replace(one=GOOD.one / 4, all=GOOD.all / 4))
    assert "0.50 vectors of multiply-adds a cycle" in slow.what
    (shared,) = doctor.problems(GOOD._replace(all=GOOD.one))
    assert "2 threads reach 50% of 2 times one" in shared.what


def test_prepare_names_the_folder_and_what_it_cannot_do(run, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setenv("FASTDL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(prepare, "prepare", lambda dtypes, cpu: asked.append((list(dtypes), cpu)))
    done = run("prepare", "--cpu", "x86-64-v4", "--dtype", "float32")
    assert (done.code, done.out) == (0, f"{tmp_path}\n")
    assert asked == [(["float32"], "x86-64-v4")]
    wrong = run("prepare", "--cpu", "pentium")
    assert (wrong.code, wrong.out) == (2, "")
    assert "expected one of x86-64-v4-bf16, x86-64-v4, x86-64-v3" in wrong.err
    assert run("prepare", "--dtype", "float16").code == 2


def test_what_was_prepared_is_not_compiled(monkeypatch, tmp_path):
    """By two processes, for this processor; and `--clean` removes it."""
    monkeypatch.setenv("FASTDL_CACHE_DIR", str(tmp_path))
    only = ["kernels.losses.squared_error-", "kernels.loss_rows.squared_error_rows-"]
    prepare.prepare(["float64"], only=only, processes=2)
    files = sorted(path.name for path in tmp_path.rglob("*.code"))
    assert files == sorted(f"{name}float64.code" for name in only)
    done = start(program("squared_error_once"))
    assert json.loads(done.stdout) == [6.5, [2.0, 3.0], True]
    assert prebuilt.cache()["files"] == 2
    assert prepare.remove_all() == 1
    assert prebuilt.cache()["files"] == 0


def test_a_process_that_fails_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTDL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(prepare.sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="a process that compiles failed"):
        prepare.prepare(["float32"], only=["kernels.losses"], processes=1)
