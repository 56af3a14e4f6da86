"""How the runner talks to the peers: JSON, one object per line, over the peer's stdin and stdout.

    {"do": "setup", ...}   build the problem; the answer is {} and whatever the peer has to say about it
    {"do": "run", ...}     run it; the answer has "seconds" and, for a training, the "loss" of each epoch
    {"do": "memory"}       the answer has the process's "peak_bytes", and "imported_bytes" before the first request
    {"do": "quit"}         or the end of stdin

An answer with "error" means that the request failed. While one peer runs, the others are stopped by a signal where the
system can: the threads of OpenMP keep spinning for a while after their work is done, on cores that are not theirs then.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import queue
import signal
import site
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import psutil

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent.parent if (PACKAGE.parent.parent / "scripts" / "bench").is_file() else None
"""The checkout that this package is part of; None where it is installed without one."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)  # fmt: skip

Run = Callable[[dict[str, Any]], dict[str, Any]]


class Program(Protocol):
    """What answers requests: a process, or something in this one."""

    def request(self, do: str, timeout: float = 120.0, **values: Any) -> dict[str, Any]:
        """The answer to one request."""


class PeerError(RuntimeError):
    """A peer that could not be started, failed, or took too long."""


def search_path(library: Path | None = None) -> list[str]:
    """Where a process finds fastdl, its kernels and these benchmarks.

    library : a tree that holds `fastdl` and `kernels/fastdl_kernels`; the benchmarks stay those that run now, so that
        two versions of the library are measured by the same programs. None means the library that this process has
    """
    if library is not None:
        return [str(library), str(library / "kernels"), str(PACKAGE.parent)]
    found = [importlib.util.find_spec(name) for name in ("fastdl", "fastdl_kernels")]
    folders = [str(Path(spec.origin).parent.parent) for spec in found if spec is not None and spec.origin]
    installed = {str(Path(folder)) for folder in (*site.getsitepackages(), site.getusersitepackages())}
    # What is installed is found anyway, and must not come before the standard library.
    return [folder for folder in dict.fromkeys([*folders, str(PACKAGE.parent)]) if folder not in installed]


def environment_for(threads: int, library: Path | None = None) -> dict[str, str]:
    """The environment of a process that is measured: so many threads for every library, and where to find fastdl."""
    result = dict(os.environ) | dict.fromkeys(THREAD_VARIABLES, str(threads))
    result["PYTHONPATH"] = os.pathsep.join(filter(None, [*search_path(library), result.get("PYTHONPATH", "")]))
    return result


def resident_bytes(kind: str) -> int:
    """Memory of this process now ("VmRSS") or at its highest ("VmHWM"), in bytes; 0 where the system does not say.

    Linux gives both for the program that runs; `getrusage` would count what the parent had at the time of the fork.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(kind + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", 0) if kind == "VmHWM" else memory.rss)


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
    imported = resident_bytes("VmRSS")
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
            elif request["do"] == "memory":
                answer = {"peak_bytes": resident_bytes("VmHWM"), "imported_bytes": imported}
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
    module : for example "fastdl_bench.peers.jax"
    threads : how many threads, and cores where the system can limit them, the process gets
    arguments : of the program
    library : the tree whose fastdl it runs, see `search_path`
    """

    def __init__(self, module: str, threads: int, arguments: tuple[str, ...] = (), library: Path | None = None) -> None:
        self.module = module
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `close`)
        with on_cores(threads):
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self._log, text=True, bufsize=1, cwd=library or CHECKOUT or PACKAGE.parent,
                env=environment_for(threads, library),
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


def by_turns(names: Iterable[str], rounds: int) -> Iterator[list[str]]:
    """The names for each round, in one order and the other by turns: what drifts meets all of them alike."""
    order = list(names)
    for _ in range(rounds):
        yield order
        order = order[::-1]


@contextlib.contextmanager
def closing_all(peers: dict[str, Peer]) -> Iterator[dict[str, Peer]]:
    """Close whatever peers the dictionary holds at the end."""
    try:
        yield peers
    finally:
        for peer in peers.values():
            peer.close()
