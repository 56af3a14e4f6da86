"""The compiled cache: no code of older sources, and no harm from a folder or file that is not as it should be."""

from __future__ import annotations

import json
import shutil

import numpy as np
import processes
import pytest
from processes import program

from fastdl_kernels._cache import build_id

PACKAGE = processes.KERNELS / "fastdl_kernels"

# (3 - 1)² and (5 - 2)², their mean; 2 (p - t) / 2
RIGHT = [6.5, [2.0, 3.0]]


@pytest.fixture
def copy(tmp_path):
    """A copy of the package without compiled code, for this test to edit."""
    shutil.copytree(PACKAGE, tmp_path / "fastdl_kernels", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "fastdl_kernels"


@pytest.fixture(scope="module", autouse=True)
def caches_beside_the_sources():
    """Not in the one folder that whoever runs the tests may have chosen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("NUMBA_CACHE_DIR", raising=False)
        yield


def start(copy, *arguments, **environment):
    """A fresh process that imports the copy."""
    # Bytecode of Python itself is told by the second of the edit, which is too coarse for a test.
    folder = copy.parent
    return processes.start(*arguments, paths=[folder], cwd=folder, PYTHONDONTWRITEBYTECODE="1", **environment)


def run(copy, **environment):
    """(loss and gradient, whether the kernel came from the cache)."""
    done = start(copy, program("squared_error_once"), **environment)
    assert done.returncode == 0, done.stderr
    loss, gradient, hits = json.loads(done.stdout)
    return [loss, gradient], hits == 1


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_an_edit_is_seen_wherever_it_is(copy):
    """In the kernel's own file, and in a helper of another file, which Numba's own cache would not notice."""
    assert run(copy) == (RIGHT, False)
    assert run(copy) == (RIGHT, True)
    edit(copy / "terms.py", "return d * d, d + d\n", "return d * d, d + d + d + d\n")
    assert run(copy) == ([6.5, [4.0, 6.0]], False)
    assert run(copy) == ([6.5, [4.0, 6.0]], True)
    edit(copy / "simd" / "arithmetic.py", "builder.fsub(a, b, flags=_FLAGS)", "builder.fadd(a, b, flags=_FLAGS)")
    assert run(copy) == ([(16 + 49) / 2, [8.0, 14.0]], False)


def test_cached_code_runs_without_the_compiler(copied_and_compiled):
    """Numba's own cache fills its registries first: 0.3 s of every process, most of it an import of SciPy."""
    done = start(copied_and_compiled, program("warm_calls"))
    assert done.returncode == 0, done.stderr
    refused, result, loaded, from_njit = done.stdout.splitlines()
    assert refused.startswith("squared_error: expected")
    assert result == "6.5 [2.0, 3.0]"
    assert loaded == "set()"
    assert from_njit == "(6.5, 5.0, '1 row')"


def test_first_calls_by_many_threads(copied_and_compiled):
    """Also where no threading layer can be loaded, though the cache holds a region that was compiled for one."""
    for options in ([], [], ["no-threads"]):
        done = start(copied_and_compiled, program("first_calls"), *options, NUMBA_NUM_THREADS="4")
        assert (done.returncode, done.stdout) == (0, "[True, True, True, True]\n"), done.stderr


def test_what_the_cache_holds_is_loaded_at_import(copied_and_compiled):
    """A trampoline would need the GIL, which a user's compiled function may hold while it waits for the threads."""
    start(copied_and_compiled, program("first_calls"))
    done = start(copied_and_compiled, program("loaded_at_import"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "softmax_rows True\n"


def test_every_file_counts(copy):
    """The stamp of every cached function changes with any file of the package, new ones and removed ones included."""

    def stamp():
        return build_id.__wrapped__(str(copy))  # not the answer that it remembers

    stamps = [stamp()]
    assert stamp() == stamps[0]
    for path in sorted(copy.rglob("*.py")):
        before = path.read_text(encoding="utf-8")
        path.write_text(before + "\n# edited\n", encoding="utf-8")
        stamps.append(stamp())
        path.write_text(before, encoding="utf-8")
    assert stamp() == stamps[0]
    (copy / "new.py").write_text("")
    stamps.append(stamp())
    assert len(set(stamps)) == len(stamps) > 15


def test_a_users_cached_function_never_uses_an_old_kernel(copy):
    """What is promised: it says so and does not compute. Numba gives us no way to recompile somebody else's function."""
    shutil.copy(program("users_gradient"), copy.parent / "user.py")
    command = ["-c", "import runpy; runpy.run_module('user', run_name='__main__')"]
    for _ in range(2):
        done = start(copy, *command)
        assert (done.returncode, done.stdout) == (0, "[2.0, 3.0]\n"), done.stderr
    edit(copy / "terms.py", "return d * d, d + d\n", "return d * d, d + d + d + d\n")
    done = start(copy, *command)
    assert done.returncode == 1
    assert "RuntimeError: a cached function holds kernels of another version" in done.stderr
    assert "delete its __pycache__" in done.stderr
    shutil.rmtree(copy.parent / "__pycache__")
    assert start(copy, *command).stdout == "[4.0, 6.0]\n"


def truncate(data):
    return data[: len(data) // 2]


def garble(data):
    return np.random.default_rng(0).bytes(len(data))


@pytest.mark.parametrize("damage", [truncate, garble])
@pytest.mark.parametrize("kind", ["nbi", "nbc"], ids=["index", "data"])
def test_damaged_files_are_replaced(tmp_path, damage, kind, copied_and_compiled):
    copy = tmp_path / "fastdl_kernels"
    shutil.copytree(copied_and_compiled, copy)
    files = list(copy.rglob(f"*.{kind}"))
    assert files
    for path in files:
        path.write_bytes(damage(path.read_bytes()))
    assert run(copy) == (RIGHT, False)
    assert run(copy) == (RIGHT, True)


@pytest.fixture(scope="module")
def copied_and_compiled(tmp_path_factory):
    """A copy of the package that has compiled code."""
    copy = tmp_path_factory.mktemp("compiled") / "fastdl_kernels"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert run(copy) == (RIGHT, False)
    return copy


def test_without_a_folder_to_write_to(copy, tmp_path):
    """Nowhere to put the cache, as for an install of another user's without a home: everything works, compiled anew."""
    (tmp_path / "a_file").write_text("")
    nowhere = {"NUMBA_CACHE_DIR": str(tmp_path / "a_file"), "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    for _ in range(2):
        assert run(copy, **nowhere) == (RIGHT, False)
    assert not list(copy.rglob("*.nbi"))
    report = start(copy, "-m", "fastdl_kernels", **nowhere)
    assert "not in use: no folder can be written" in report.stdout


def test_a_read_only_install(copied_and_compiled, tmp_path):
    """What was compiled before is used, and what was not is kept where the user says."""
    folders = [copied_and_compiled, *(p for p in copied_and_compiled.rglob("*") if p.is_dir())]
    try:
        for folder in folders:
            folder.chmod(0o555)
        results = [run(copied_and_compiled, NUMBA_CACHE_DIR=str(tmp_path / "own")) for _ in range(2)]
        assert results == [(RIGHT, False), (RIGHT, True)]
        assert list((tmp_path / "own").rglob("*.nbi"))
    finally:
        for folder in folders:
            folder.chmod(0o755)
