"""Programs of tests/programs in processes of their own, and the threading layers that this machine can load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "tests" / "programs"


def layers():
    """The threading layers of Numba's that can be loaded here."""
    found = ["workqueue"]
    for layer, module in (("omp", "omppool"), ("tbb", "tbbpool")):
        code = f"from numba.np.ufunc import {module}"
        if subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0:
            found.append(layer)
    return found


def run_program(name, *arguments, paths=(ROOT, ROOT / "kernels", ROOT / "tests"), cwd=None, **environment):
    """Run a program with these folders on its path; it must say that it is fine, and nothing else."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), **environment}
    command = [sys.executable, "-W", "error", str(PROGRAMS / name), *arguments]
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr[-4000:]
