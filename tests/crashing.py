"""Runs of the command line in processes of their own, which are ended in all ways there are."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from processes import environment_of

from fastdl import cli

RUN = "r"
EPOCHS = 120
ARGUMENTS = ["digits", "--hidden", "64", "--epochs", str(EPOCHS), "--schedule", "cosine", "--early-stopping", "200",
             "--threads", "1", "--out", RUN]  # fmt: skip


def start(*arguments, folder, program=("-m", "fastdl")):
    """A process of the command line in a folder; it minds all signals, also where the tests run under nohup or behind a &."""
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)], cwd=folder, env=environment_of(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=_mind_signals if os.name == "posix" else None,
    )  # fmt: skip


def _mind_signals():
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def end(process, code=0):
    """Wait for a process to end with this code; what it wrote: (stdout, stderr)."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


def forked(folder, arguments, before=lambda: None, err="err"):
    """A command in a process that has everything loaded: it begins at once. The process's number.

    before : what it calls first, to have things happen to it
    err : the file, seen from the folder, that gets what it says
    """
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.chdir(folder)
        out = os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        before()
        code = cli.main([str(argument) for argument in arguments])
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child):
    """How a forked process has ended: its code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def until(process, beginning):
    """Wait for a line of stderr that begins like this."""
    for line in process.stderr:
        if line.startswith(beginning):
            return
    raise AssertionError(f"the process ended without a line that begins with {beginning!r}")


@functools.cache
def whole_model(*more: str) -> bytes:
    """The model file of the training, with `more` options, that nobody disturbs."""
    with tempfile.TemporaryDirectory() as folder:
        end(start("train", *ARGUMENTS, *more, folder=folder))
        return (Path(folder) / RUN / "model.fastdl").read_bytes()
