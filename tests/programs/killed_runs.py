"""Kill trainings at random moments, half of them within a write, and go on with them: killed_runs.py FOLDER KILLS SEED.

After each kill the checkpoint is whole or there is none yet, it has lost no epoch, and what comes out in the end are the bytes
of a training that was never disturbed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
import zipfile
from pathlib import Path

from crashing import ARGUMENTS, EPOCHS, RUN, ended, forked

import fastdl
from fastdl import cli
from fastdl.cli import checkpoints
from fastdl.training import checkpoint_file

folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
checkpoints.PAUSES_PER_WRITE = 0.0  # writes after each call of compiled code
model, checkpoint = folder / RUN / "model.fastdl", folder / RUN / "checkpoint.fastdl"


def killer(number):
    """What ends the process within its writes: at the `number`-th of the moments that a write has."""
    left = [number]

    def at(function):
        def killing(*arguments, **named):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return killing

    def before():
        os.fsync, os.replace, os.chmod = at(os.fsync), at(os.replace), at(os.chmod)
        zipfile.ZipFile.writestr = at(zipfile.ZipFile.writestr)

    return before


def kill_after(child, wait):
    """Kill a process after so many seconds, unless it has ended before."""
    last = time.monotonic() + wait
    while time.monotonic() < last:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)


def silent(arguments):
    child = forked(folder, arguments)
    assert ended(child) == 0, (folder / "err").read_text()


silent(["train", *ARGUMENTS])  # compiles
os.chdir(folder)
start = time.monotonic()
with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
    assert cli.main(["train", *ARGUMENTS, "--force"]) == 0  # loads what the forked processes then have
seconds = time.monotonic() - start
whole = model.read_bytes()

killed = finished = done = 0
fresh = True
while killed < kills or not fresh:
    arguments = ["train", *ARGUMENTS, "--force"] if fresh else ["resume", RUN]
    if fresh:
        for path in (folder / RUN).iterdir():
            path.unlink()
        done = 0
    within = rng.random() < 0.5
    calm = killed >= kills
    child = forked(folder, arguments, killer(rng.randrange(1, 60)) if within and not calm else lambda: None)
    if not calm and not within:
        kill_after(child, rng.random() * seconds)
    code = ended(child)
    said = (folder / "err").read_text()
    assert code in (0, -signal.SIGKILL), said
    assert "Traceback" not in said, said
    if code == 0:
        assert model.read_bytes() == whole, "the bits differ"
        finished, fresh = finished + 1, True
        continue
    killed += 1
    if checkpoint.exists():
        epochs = len(checkpoint_file.read(checkpoint).history)
        assert done <= epochs <= EPOCHS, f"{done} epochs were done, {epochs} are left"
        done, fresh = epochs, False
    else:
        assert fresh, "the checkpoint has gone"
    if model.exists():
        fastdl.load(model)
assert finished >= 1
print("fine")
