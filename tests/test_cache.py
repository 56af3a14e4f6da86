"""The compiled cache: no code of older sources, and no harm from a folder or file that is not as it should be."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import processes
import pytest
from processes import program

from fastdl_kernels._cache import build_id

PACKAGE = processes.KERNELS / "fastdl_kernels"

# (3 - 1)² and (5 - 2)², their mean; 2 (p - t) / 2
RIGHT = [6.5, [2.0, 3.0]]


@pytest.fixture(scope="module", autouse=True)
def users_caches_beside_their_sources():
    """Not in the one folder that whoever runs the tests may have chosen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("NUMBA_CACHE_DIR", raising=False)
        yield


@pytest.fixture
def copy(tmp_path):
    """A copy of the package without compiled code, for this test to edit."""
    shutil.copytree(PACKAGE, tmp_path / "fastdl_kernels", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "fastdl_kernels"


def start(copy, *arguments, **environment):
    """A fresh process that imports the copy."""
    # Bytecode of Python itself is told by the second of the edit, which is too coarse for a test.
    folder = copy.parent
    settings = {"PYTHONDONTWRITEBYTECODE": "1", "FASTDL_CACHE_DIR": str(cache_of(copy)), **environment}
    return processes.start(*arguments, paths=[folder], cwd=folder, **settings)


def cache_of(copy):
    """The folder of the copy's compiled code."""
    return copy.parent / "cache"


def run(copy, **environment):
    """(loss and gradient, whether the kernel came from the cache)."""
    done = start(copy, program("squared_error_once"), **environment)
    assert done.returncode == 0, done.stderr
    loss, gradient, hits = json.loads(done.stdout)
    return [loss, gradient], hits


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


def one_bit(data):
    """Of the machine code: what a hash is for."""
    return data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:]


@pytest.mark.parametrize("damage", [truncate, garble, one_bit], ids=["truncated", "garbled", "one bit"])
def test_damaged_files_are_replaced(tmp_path, damage, copied_and_compiled):
    """One line says which, and the code is compiled again."""
    copy = tmp_path / "fastdl_kernels"
    shutil.copytree(copied_and_compiled.parent, tmp_path, dirs_exist_ok=True)
    files = list(cache_of(copy).rglob("*.code"))
    assert files
    for path in files:
        path.write_bytes(damage(path.read_bytes()))
    done = start(copy, program("squared_error_once"))
    assert json.loads(done.stdout) == [*RIGHT, False]
    lines = done.stderr.splitlines()
    assert all(line.startswith("fastdl: ") and "is not used, and compiled again" in line for line in lines)
    assert 1 <= len(lines) <= len(files)
    assert run(copy) == (RIGHT, True)


@pytest.fixture(scope="module")
def copied_and_compiled(tmp_path_factory):
    """A copy of the package that has compiled code."""
    copy = tmp_path_factory.mktemp("compiled") / "fastdl_kernels"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert run(copy) == (RIGHT, False)
    return copy


def test_without_a_folder_to_write_to(copy, tmp_path):
    """Nowhere to put the cache: everything works, compiled anew."""
    (tmp_path / "a_file").write_text("")
    nowhere = {"FASTDL_CACHE_DIR": str(tmp_path / "a_file")}
    for _ in range(2):
        assert run(copy, **nowhere) == (RIGHT, False)
    report = start(copy, "-m", "fastdl_kernels", **nowhere)
    assert "to which nothing can be written" in report.stdout


def test_a_cache_that_was_copied_and_is_read_only(copied_and_compiled, tmp_path):
    """Other paths and other times of the sources and of the cache: its code is used where it is, and nothing is written."""
    shutil.copytree(copied_and_compiled, tmp_path / "elsewhere" / "fastdl_kernels")
    copy = tmp_path / "elsewhere" / "fastdl_kernels"
    for path in copy.rglob("*.py"):
        os.utime(path, (1e9, 1e9))
    moved = tmp_path / "moved"
    shutil.copytree(cache_of(copied_and_compiled), moved)
    folders = [moved, *(path for path in moved.rglob("*") if path.is_dir())]
    before = sorted(moved.rglob("*"))
    try:
        for folder in folders:
            folder.chmod(0o555)
        for _ in range(2):
            assert run(copy, FASTDL_CACHE_DIR=str(moved)) == (RIGHT, True)
        assert sorted(moved.rglob("*")) == before
    finally:
        for folder in folders:
            folder.chmod(0o755)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_folder_that_others_may_write_to_is_not_used(copied_and_compiled, tmp_path):
    """Its code might be anybody's; one line says so."""
    shutil.copytree(cache_of(copied_and_compiled), tmp_path / "cache")
    (tmp_path / "cache").chmod(0o777)
    done = start(copied_and_compiled, program("squared_error_once"), FASTDL_CACHE_DIR=str(tmp_path / "cache"))
    assert json.loads(done.stdout) == [*RIGHT, False]
    assert len(done.stderr.splitlines()) == 1
    assert "may be written to by others (mode 777)" in done.stderr


def test_the_folder_is_for_the_user_alone(copied_and_compiled):
    cache = cache_of(copied_and_compiled)
    for path in (cache, *filter(Path.is_dir, cache.rglob("*"))):
        assert path.stat().st_mode & 0o077 == 0, path


def test_two_versions_side_by_side_and_old_ones_make_room(tmp_path, copied_and_compiled):
    """Both are loaded by turns, without one replacing the other; what nobody has used for long goes when a new one comes."""
    first, second = (tmp_path / name / "fastdl_kernels" for name in ("first", "second"))
    for copy in (first, second):
        shutil.copytree(copied_and_compiled, copy)
    cache = tmp_path / "cache"
    shutil.copytree(cache_of(copied_and_compiled), cache)
    forgotten = cache / "0123-numba-0.1-llvmlite-0.1"
    forgotten.mkdir(mode=0o700)
    os.utime(forgotten, (1e9, 1e9))
    edit(second / "terms.py", "return d * d, d + d\n", "return d * d, d + d + d + d\n")
    settings = {"FASTDL_CACHE_DIR": str(cache)}
    other = [6.5, [4.0, 6.0]]
    assert run(second, **settings) == (other, False)
    assert not forgotten.exists()
    for _ in range(2):
        assert run(first, **settings) == (RIGHT, True)
        assert run(second, **settings) == (other, True)
    assert len(list(cache.iterdir())) == 2
