"""Wheels with prebuilt code, installed where nothing is compiled, and what happens where their code does not fit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numba
import pytest
from processes import LIBRARY, ROOT, environment_of, program, start

from fastdl_kernels import prebuilt

TARGETS = [name for name in prebuilt.fitting() if name in prebuilt.target_names()]
pytestmark = pytest.mark.skipif(not TARGETS, reason="there is no prebuilt code for such a processor")

# What the epoch of the digits calls, and a kernel.
NEEDED = [
    "engine.backward.add_partial", "engine.backward.backward", "engine.forward.forward", "engine.gather.gather",
    "engine.loss.loss_rows", "engine.permutation.draw", "engine.step.train_batches", "engine.step.work",
    "engine.update.clipped_update", "engine.update.cut_updates", "engine.update.penalised_block", "engine.update.update_block",
    "kernels.loss_rows.softmax_cross_entropy_rows", "kernels.matmul._product",
]  # fmt: skip
ONLY = [f"{name}-float32" for name in NEEDED] + [
    "kernels.losses.squared_error-float64",
    "kernels.loss_rows.squared_error_rows-float64",
]
RIGHT = [6.5, [2.0, 3.0]]


def build(folder):
    """The path of a wheel for this machine, with the code that these tests need."""
    machine = "aarch64" if TARGETS[0].startswith("aarch64") else "x86_64"
    settings = {
        "FASTDL_PREBUILT": machine,
        "FASTDL_PREBUILT_TARGETS": TARGETS[0],
        "FASTDL_PREBUILT_ONLY": " ".join(ONLY),
    }
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    # Another package of the same name may stand in the way of `hatchling` only if it is on the path before it.
    environment = {**os.environ, **settings}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """(interpreter, site-packages) of an environment with the wheel; what it depends on is lent by this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    names = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv" if "venv" in sysconfig.get_scheme_names() else None, names))
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (site / "lent.pth").write_text(str(Path(numba.__file__).parent.parent))
    return Path(sysconfig.get_path("scripts", "venv", names)) / "python", site


def run(python, *arguments, cache, **changes):
    """A program in an environment, with a cache of its own and nothing of this checkout on the path."""
    environment = {**environment_of(paths=[]), "FASTDL_CACHE_DIR": str(cache), **changes}
    environment.pop("PYTHONPATH")
    return subprocess.run(
        [str(python), *arguments], env=environment, cwd=cache.parent, capture_output=True, text=True, check=False
    )


def changed(installed, folder):
    """A copy of what is installed, to be changed, as a path to import from."""
    copy = folder / "changed"
    shutil.copytree(installed[1], copy)
    return copy


def once(installed, copy, cache, **changes):
    """([loss, gradient], whether nothing was compiled, lines on stderr) of `squared_error_once` with the changed copy."""
    code = f"import sys, runpy; sys.path.insert(0, {str(copy)!r}); runpy.run_path({program('squared_error_once')!r})"
    done = run(installed[0], "-c", code, cache=cache, **changes)
    assert done.returncode == 0, done.stderr
    *result, kept = json.loads(done.stdout)
    return result, kept, done.stderr.splitlines()


def test_what_is_in_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    code = [name for name in names if name.startswith("fastdl_kernels/native/")]
    assert sorted(Path(name).name for name in code) == sorted(f"{name}.code" for name in ONLY)
    (about,) = [name for name in names if name.endswith("/WHEEL")]
    text = zipfile.ZipFile(wheel).read(about).decode()
    assert "Root-Is-Purelib: false" in text
    assert f"Tag: {wheel.stem.split('-', 2)[2]}" in text
    assert "manylinux_2_17" in text
    assert wheel.stat().st_size < 8e6


def test_it_trains_without_compiling_to_the_same_bits(installed, tmp_path):
    """Those of code that was compiled on the spot, for exactly this processor."""
    done = run(installed[0], program("first_epoch"), "--forbid", cache=tmp_path / "cache")
    assert (done.returncode, done.stderr) == (0, "")
    where, digest, compiled = json.loads(done.stdout)
    assert (Path(where), compiled) == (installed[1], [])
    assert not (tmp_path / "cache").exists()
    here = start(program("first_epoch"))
    assert json.loads(here.stdout)[:2] == [str(LIBRARY[0]), digest], here.stderr


def test_another_processor_compiles_and_says_so(installed, tmp_path):
    cpu = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}
    if TARGETS[0].startswith("aarch64"):
        cpu = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "-neon"}
    for kept in (False, True):
        result, was_kept, lines = once(installed, installed[1], tmp_path / "cache", **cpu)
        assert (result, was_kept) == (RIGHT, kept)
        assert len(lines) == (not kept)
    assert not lines


def test_altered_code_is_refused_and_compiled_again(installed, tmp_path):
    """One bit of the machine code is enough; one line says so."""
    copy = changed(installed, tmp_path)
    (path,) = copy.glob("fastdl_kernels/native/*/kernels.losses.squared_error-float64.code")
    data = path.read_bytes()
    path.write_bytes(data[:-700] + bytes([data[-700] ^ 1]) + data[-699:])
    result, kept, lines = once(installed, copy, tmp_path / "cache")
    assert (result, kept, len(lines)) == (RIGHT, False, 1)
    assert lines[0] == f"fastdl: {path} is not used, and compiled again: its hash is another one"


def test_code_of_other_sources_is_not_used(installed, tmp_path):
    copy = changed(installed, tmp_path)
    path = copy / "fastdl_kernels" / "terms.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("return d * d, d + d\n", "return d * d, d + d + d + d\n"), encoding="utf-8")
    result, kept, _ = once(installed, copy, tmp_path / "cache")
    assert (result, kept) == ([6.5, [4.0, 6.0]], False)


def test_the_same_wheel_twice(wheel, tmp_path):
    assert build(tmp_path).read_bytes() == wheel.read_bytes()


def test_the_same_code_from_other_paths_and_in_another_order(tmp_path):
    """Compiled anew by two processes: names, addresses, hashes and paths leave no trace."""
    digests = []
    for seed in ("1", "2"):
        folder = tmp_path / f"place{seed * 3}"
        shutil.copytree(ROOT / "kernels" / "fastdl_kernels", folder / "fastdl_kernels")
        names = ["loss_rows.squared_error_rows", "losses.squared_error"]
        code = (
            "from numba.core import types; from fastdl_kernels import losses; from fastdl_kernels._units import UNITS\n"
            f"names = {names if seed == '1' else names[::-1]!r}\n"
            "for name in names:\n"
            "    [unit] = [u for u in UNITS if u.name == 'kernels.' + name]\n"
            "    unit.code(types.float64)\n"
        )
        cache = folder / "cache"
        settings = {"FASTDL_CACHE_DIR": str(cache), "FASTDL_COMPILE_FOR": TARGETS[0], "PYTHONHASHSEED": seed}
        done = start("-c", code, paths=[folder], **settings)
        assert done.returncode == 0, done.stderr
        found = sorted(cache.rglob("*.code"))
        digests.append([(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in found])
    assert len(digests[0]) == 2
    assert digests[0] == digests[1]
