"""A rank that is killed says nothing any more: a small shell beside each rank does it, on the stderr that it had.

The shell waits for a line on a pipe. A process that ends in good order writes one; if the pipe just closes, the process is gone.
A file that only one can make lets the first shell of a machine speak: launchers kill the other ranks a moment later.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

_SCRIPT = """trap '' INT TERM HUP PIPE
read -r word
[ "$word" = done ] && exit 0
if [ "$word" != told ]; then
    set -C
    { : > "$1"; } 2>/dev/null || exit 0
    printf '%s\\n' "$2" >&2
fi
exec 2>/dev/null
sleep 3
rm -f "$1"
"""


class Watch:
    """Has `sentence` written to stderr if this process ends without a word.

    Parameters
    ----------
    name : the same for all ranks of a program, and no other's
    """

    def __init__(self, name: str, sentence: str) -> None:
        self._marker = Path(tempfile.gettempdir()) / f"fastdl-{name}"
        self._shell: subprocess.Popen[bytes] | None = None
        shell = shutil.which("sh")
        if shell is None:  # not a POSIX system: the launcher's own words must do
            return
        with contextlib.suppress(OSError):
            command = [shell, "-c", _SCRIPT, "fastdl-watch", str(self._marker), sentence]
            self._shell = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
            )
            atexit.register(self.end)

    def end(self, told: bool = False) -> None:
        """All is well; or `told`: what has happened is said, and the other ranks' shells are to be silent."""
        shell, self._shell = self._shell, None
        if shell is None or shell.stdin is None:
            return
        if told:
            with contextlib.suppress(OSError):
                self._marker.touch()
        with contextlib.suppress(OSError):
            shell.stdin.write(b"told\n" if told else b"done\n")
            shell.stdin.close()
        if not told:
            with contextlib.suppress(subprocess.TimeoutExpired):
                shell.wait(5)
