"""How the runner talks to the peers: JSON, one object per line, over the peer's stdin and stdout.

    {"do": "setup", ...}   build the problem; the answer is {} and whatever the peer has to say about it
    {"do": "run", ...}     run it; the answer has "seconds" and, for a training, the "loss" of each epoch
    {"do": "quit"}         or the end of stdin

An answer with "error" means that the request failed. While one peer runs, the others are stopped by a signal where the
system can: the threads of OpenMP keep spinning for a while after their work is done, on cores that are not theirs then.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)  # fmt: skip

Run = Callable[[dict[str, Any]], dict[str, Any]]


class PeerError(RuntimeError):
    """A peer that could not be started, failed, or took too long."""


def first_cores(n: int) -> set[int]:
    """One logical processor of each of the first n cores that this process may use, as far as Linux tells."""
    chosen: list[int] = []
    allowed = sorted(os.sched_getaffinity(0))
    seen: set[str] = set()
    for cpu in allowed:
        try:
            siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
        except OSError:
            siblings = str(cpu)
        if siblings not in seen:
            seen.add(siblings)
            chosen.append(cpu)
    rest = [cpu for cpu in allowed if cpu not in chosen]
    return set((chosen + rest)[:n])


@contextlib.contextmanager
def on_cores(n: int) -> Iterator[None]:
    """Processes started meanwhile run on n cores, where the system can do that: JAX sizes its thread pool by it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, first_cores(n))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def serve(setup: Callable[[dict[str, Any]], Run]) -> None:
    """The peer's side: answer requests until there are no more. `setup` gives the function that "run" calls."""
    if sys.platform == "linux":  # a runner that is killed must not leave stopped processes behind
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints does not belong among the answers
    run: Run | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "quit":
            break
        try:
            if request["do"] == "setup":
                run = None  # free what the problem before it held
                run = setup(request)
                answer = dict(getattr(run, "notes", {}))
            elif run is None:
                raise PeerError("run: expected a successful setup before it")
            else:
                answer = run(request)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:400]}
        answers.write(json.dumps(answer) + "\n")


class Peer:
    """The runner's side of one peer: a process that answers requests.

    Parameters
    ----------
    module : for example "bench.peers.jax"
    threads : how many threads, and cores where the system can limit them, the process gets
    arguments : of the program
    root : the checkout whose code it runs
    """

    def __init__(self, module: str, threads: int, arguments: tuple[str, ...] = (), root: Path = ROOT) -> None:
        self.module = module
        environment = dict(os.environ) | dict.fromkeys(THREAD_VARIABLES, str(threads))
        paths = [str(root), str(root / "kernels"), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `close`)
        with on_cores(threads):
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self._log, text=True, bufsize=1, cwd=root, env=environment,
            )  # fmt: skip
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._stopped = False

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _signal(self, name: str) -> None:
        if hasattr(signal, name) and self._process.poll() is None:
            self._process.send_signal(getattr(signal, name))

    def request(self, do: str, timeout: float = 120.0, **values: Any) -> dict[str, Any]:
        """Send a request and wait for the answer; the process is stopped before and after where that is possible."""
        assert self._process.stdin is not None
        if self._stopped:
            self._signal("SIGCONT")
            self._stopped = False
        try:
            self._process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            self.kill()
            raise PeerError(f"{self.module}: no answer to {do!r} within {timeout:.0f} s") from None
        except OSError:
            line = ""
        if not line:
            raise PeerError(f"{self.module}: the process ended; the last lines it wrote:\n{self.log()}")
        answer = json.loads(line)
        self._signal("SIGSTOP")
        self._stopped = True
        if "error" in answer:
            raise PeerError(f"{self.module}: {answer['error']}")
        return answer

    def log(self, lines: int = 15) -> str:
        """The end of what the process wrote besides its answers."""
        self._log.seek(0)
        return "\n".join(self._log.read().splitlines()[-lines:])

    def kill(self) -> None:
        """End the process at once."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process; it gets a moment to do so by itself."""
        self._signal("SIGCONT")
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reader.join(timeout=5)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


@contextlib.contextmanager
def closing_all(peers: dict[str, Peer]) -> Iterator[dict[str, Peer]]:
    """Close whatever peers the dictionary holds at the end."""
    try:
        yield peers
    finally:
        for peer in peers.values():
            peer.close()
