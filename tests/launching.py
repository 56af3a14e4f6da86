"""Programs of several ranks, started by a real MPI launcher."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).resolve().parent / "programs"
PATIENCE = 900.0  # seconds; the first start compiles, and ranks that wait take the cores from those that work


def launcher():
    """The command that starts programs of several ranks: that of this environment, or one on the PATH."""
    here = str(Path(sys.executable).parent)
    found = shutil.which("mpiexec", path=os.pathsep.join([here, os.environ.get("PATH", "")]))
    lacks = [name for name, there in (("mpiexec", found), ("mpi4py", importlib.util.find_spec("mpi4py"))) if not there]
    if lacks:
        names = " and ".join(lacks)
        pytest.skip(
            f"training on several ranks is NOT tested: {names} missing; scripts/test installs both (extra `test`)"
        )
    return [found]


def start(ranks, *arguments, **options):
    """A process that runs `python ARGUMENTS` on so many ranks; tests have no say over how many cores there are."""
    freely = {  # Open MPI: as root in a container, and more ranks than cores
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    options["env"] = {**os.environ, **freely, **options.get("env", {})}
    command = [*launcher(), "-n", str(ranks), sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def run(ranks, *arguments, code=0, **options):
    """(stdout, stderr) of such a program, which has to end with this code; None is any but 0."""
    process = start(ranks, *arguments, **options)
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode if code is None else process.returncode == code, f"{process.returncode}\n{out}\n{err}"
    return out, err
