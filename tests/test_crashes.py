"""Runs that are killed, and disks that fail: never a broken file, never a lost epoch, always a sentence.

FASTDL_KILLS=200 scripts/test tests/test_crashes.py     so many kills at new random moments
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys

import pytest
from processes import LIBRARY, PROGRAMS, ROOT, environment_of, run_program

KILLS = int(os.environ.get("FASTDL_KILLS", "0"))
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes that have everything loaded")


def test_killed_at_random_moments(tmp_path):
    seed = random.randrange(10**6) if KILLS else 1
    run_program("killed_runs.py", str(tmp_path), str(KILLS or 8), str(seed))


def may_mount():
    """The command under which `mount` is allowed here, or None."""
    for command in (["unshare", "--user", "--map-root-user", "--mount"], []):
        if command and not shutil.which(command[0]):
            continue
        if not command and os.geteuid() != 0:
            continue
        done = subprocess.run([*command, "true"], capture_output=True)
        if done.returncode == 0:
            return command
    return None


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_and_a_read_only_one(tmp_path):
    command = may_mount()
    if command is None:
        pytest.skip("mounting is not allowed here")
    paths = (*LIBRARY, ROOT / "tests")
    done = subprocess.run(
        [*command, sys.executable, "-W", "error", str(PROGRAMS / "failing_disks.py"), str(tmp_path)],
        env=environment_of(paths), capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr[-4000:]
