"""The engine never touches memory that is not its own: see guard_engine.py, which this runs for some cases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(os.name != "posix", reason="uses mprotect")


def run(*arguments):
    """Standard output of guard_engine.py, which runs as a process of its own: a fault ends it."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels"), str(ROOT / "tests")])}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False)


def test_sixty_cases():
    done = run(str(ROOT / "tests" / "guard_engine.py"), "0", "60")
    last = done.stdout.split()[-1:]
    assert done.returncode == 0, f"case {last}: {done.stderr[-3000:]}"
    assert last == ["59"]


@pytest.mark.parametrize(("at_end", "byte"), [(True, 39), (True, 40), (False, 0), (False, -1)])
def test_the_pages_are_where_they_should_be(at_end, byte):
    """The last byte and the first one can be read, the next one and the one before cannot."""
    code = (
        "import ctypes, guard_engine; a = guard_engine.Memory({}).zeros(5); "
        "print(ctypes.c_byte.from_address(a.ctypes.data + {}).value)"
    )
    done = run("-c", code.format(at_end, byte))
    assert (done.returncode == 0) == (0 <= byte < 40), done.stderr
