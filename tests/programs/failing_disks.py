"""A disk that gets full, and one that becomes read-only, while a run trains there: failing_disks.py FOLDER.

Run it where `mount` is allowed: as root, or under `unshare --user --map-root-user --mount`.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

from crashing import ARGUMENTS, RUN, ended, forked

from fastdl.cli import checkpoints
from fastdl.training import checkpoint_file

folder = Path(sys.argv[1])
disk = folder / "disk"
disk.mkdir()
checkpoints.PAUSES_PER_WRITE = 0.0


def mount(*options):
    subprocess.run(["mount", *options, str(disk)], check=True)


def fill():
    """Leave no room at all."""
    with contextlib.suppress(OSError), open("filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))


def at_epoch(number, happens):
    """What lets something happen after an epoch, before its checkpoint is written."""

    def before():
        usual = checkpoints.Keeper.on_epoch_end

        def on_epoch_end(self, result):
            if result.epoch == number:
                happens()
            usual(self, result)

        checkpoints.Keeper.on_epoch_end = on_epoch_end

    return before


def run(*arguments, before=lambda: None):
    """(exit code, what was said); one sentence at the end if it failed."""
    code = ended(forked(disk, arguments, before, err=str(folder / "err")))
    said = (folder / "err").read_text()
    assert "Traceback" not in said, said
    return code, said


def fails_and_goes_on(happens, mend, words):
    code, said = run("train", *ARGUMENTS, "--force", before=at_epoch(3, happens))
    assert code == 1, said
    assert "goes on without a new checkpoint" in said, said
    assert said.count("goes on without") == 1, said
    assert words in said.splitlines()[-1], said
    assert 1 <= len(checkpoint_file.read(disk / RUN / "checkpoint.fastdl").history) <= 3
    assert not [path for path in (disk / RUN).iterdir() if path.name.startswith(".")]
    mend()
    code, said = run("resume", RUN)
    assert code == 0, said
    assert (disk / RUN / "model.fastdl").read_bytes() == whole


mount("-t", "tmpfs", "-o", "size=2m", "none")
try:
    code, said = run("train", *ARGUMENTS)
    assert code == 0, said
    whole = (disk / RUN / "model.fastdl").read_bytes()
    shutil.rmtree(disk / RUN)
    fails_and_goes_on(fill, (disk / "filler").unlink, "No space left on device")
    shutil.rmtree(disk / RUN)
    fails_and_goes_on(
        lambda: mount("-o", "remount,ro"), lambda: mount("-o", "remount,rw"), "Read-only file system"
    )  # fmt: skip
    code, said = run("train", *ARGUMENTS[:-1], "new", before=fill)  # no room for anything, from the start
    assert (code, said.count("No space left on device")) == (1, 1), said
    assert not (disk / "new").exists()
    (disk / "filler").unlink()
    mount("-o", "remount,ro")
    before = {path.name: path.read_bytes() for path in (disk / RUN).iterdir()}
    for arguments in (["resume", RUN, "--epochs", "999"], ["train", *ARGUMENTS, "--force"]):
        code, said = run(*arguments)
        assert code == 1, said
        assert "cannot be written to" in said.splitlines()[-1], said
    assert {path.name: path.read_bytes() for path in (disk / RUN).iterdir()} == before
finally:
    subprocess.run(["umount", "-l", str(disk)], check=True)
print("fine")
