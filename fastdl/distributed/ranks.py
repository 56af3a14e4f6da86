"""The ranks of a training: the processes that share its batches, and how they tell each other what they have."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import threading
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdl.distributed import launch
from fastdl.distributed.reduction import WIRES, Reduction
from fastdl.distributed.shared_reduction import SharedReduction, shared_memory
from fastdl.errors import DivergedError, InputError

if TYPE_CHECKING:
    from fastdl.distributed.watch import Watch


class Ranks:
    """The processes that an MPI launcher has started, for `Trainer(..., communicator=Ranks(...))`.

    Each of them runs the same program. A step's batch is cut into as many slices as there are ranks; each takes the gradient of
    its slice, these are added up in the order of the ranks, each rank updates its part of the parameters, and all of them get
    all parts. The parameters are those of one process at the same batch size, but for rounding; with as many ranks they have the
    same bits each time.

    Parameters
    ----------
    communicator : one of mpi4py; None is MPI.COMM_WORLD
    wire : "float32", or "bfloat16" for gradients that travel with 8 bits of precision: half of the bytes. They are added up in
        the network's own precision
    sync_every : with k > 1 each rank makes k steps on its slices alone, then parameters and optimizer states are averaged (local
        SGD; Stich, 2019): for small networks on slow links. The parameters are no longer those of one process
    overlap : whether the upper layers' gradients travel while those of the lower ones are computed; None: between machines.
        Without it, ranks of one machine read each other's memory, where the system lets them, and send nothing

    Attributes
    ----------
    rank, size : the number of this process, from 0, and how many there are
    nodes : how many machines they are on; local_size : how many of them are on this one; local_rank : the number among these
    sharing : how many of them may run on the cores that this one may run on, itself included

    Raises
    ------
    InputError : a value is not as above
    MissingExtraError : mpi4py is not installed, or finds no MPI library
    """

    def __init__(
        self, communicator: Any = None, wire: str = "float32", sync_every: int = 1, overlap: bool | None = None
    ) -> None:
        if wire not in WIRES:
            raise InputError(f"wire: expected one of {', '.join(WIRES)}, got {wire!r}")
        if not isinstance(sync_every, (int, np.integer)) or isinstance(sync_every, bool) or sync_every < 1:
            raise InputError(f"sync_every: expected a number of steps of at least 1, got {sync_every!r}")
        mpi = launch.mpi()
        if communicator is None:
            communicator = mpi.COMM_WORLD
        if not isinstance(communicator, mpi.Intracomm):
            raise InputError(
                f"communicator: expected one of mpi4py, such as MPI.COMM_WORLD, got {type(communicator).__name__}"
            )
        self.wire, self.sync_every = wire, int(sync_every)
        self._comm = communicator.Dup()  # messages of the program's own do not meet these
        self.rank, self.size = int(self._comm.rank), int(self._comm.size)
        mask = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        known = self._comm.allgather((platform.node(), os.getpid(), mask))
        here = [(host, pid) for host, pid, _ in known]
        self.processes: list[tuple[str, int]] = here
        self.host = here[self.rank][0]
        self.sharing = sum(host == self.host and (mask == other or bool(mask & other)) for host, _, other in known)
        self.nodes = len({host for host, _ in here})
        self.local_size = sum(host == self.host for host, _ in here)
        self.local_rank = sum(host == self.host for host, _ in here[: self.rank])
        self.overlap = self.nodes > 1 if overlap is None else bool(overlap)
        _look_after(self, self._comm.bcast(f"{os.getuid() if hasattr(os, 'getuid') else 0}-{os.urandom(16).hex()}", 0))
        self.ended = False  # nothing will be asked for any more
        self.failed_before = False  # as a rank has failed, which has been said
        self.signal = 0  # that has arrived here and asks for an end
        self.stopping = False  # all ranks know of it

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which prints and writes files."""
        return self.rank == 0

    def __str__(self) -> str:
        ranks, nodes = (f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((self.size, "rank"), (self.nodes, "node")))
        return f"{ranks} on {nodes}"

    def agreed(self, value: Any) -> Any:
        """Rank 0's value, on all ranks; all have to ask."""
        return self.all_of(value)[0]

    def all_of(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order; all have to ask.

        Raises
        ------
        InputError : a rank could not get as far as this; the sentence names it
        """
        if self.size == 1:
            return [value]
        values = self._comm.allgather(value)
        for rank, other in enumerate(values):
            if isinstance(other, Failure) and not isinstance(value, Failure):
                self.ended = self.failed_before = True
                raise InputError(f"rank {rank} of {self.size} on {other.host} has failed: {other.told}")
        return values

    def fail(self, error: BaseException) -> bool:
        """Tell the others, who are about to ask for something, that this rank cannot go on. Whether all say the same."""
        self.ended = True
        found = self.all_of(Failure(self.host, str(error) or type(error).__name__))
        return all(isinstance(other, Failure) and other.told == found[0].told for other in found)

    def any_of(self, value: bool) -> bool:
        """Whether it holds on any rank; all have to ask."""
        return any(self.all_of(bool(value)))

    def numbers_of_all(self, own: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        """out [size, k] = the k numbers of each rank; all have to ask."""
        self._comm.Allgather(own, out)

    def reduction(self, blocks: list[tuple[int, int]], dtype: np.dtype) -> Reduction:
        """What adds up flat arrays of this dtype over the ranks, block by block; all have to ask."""
        if self.size > 1 and self.nodes == 1 and not self.overlap and self.wire == "float32":
            n = max(stop for _, stop in blocks)
            memory = shared_memory(self._comm, [process for _, process in self.processes], 2 * n, dtype)
            if memory is not None:
                return SharedReduction(self._comm, blocks, dtype, memory)
        return Reduction(self._comm, blocks, dtype, self.wire)

    def check_same(self, what: dict[str, Any]) -> None:
        """Raise InputError, on all ranks, unless all have the same; arrays are compared by a checksum. All have to ask."""
        own = {name: _digest(value) for name, value in what.items()}
        known = self.all_of(own)
        for name, value in known[0].items():
            for rank, other in enumerate(known):
                if other.get(name) != value:
                    raise InputError(
                        f"{name}: expected the same on all ranks, got {other.get(name)} on rank {rank} and {value} on rank 0; "
                        f"each rank gives the same model, settings and data, of which it reads its own slices"
                    )

    @contextlib.contextmanager
    def held_together(self) -> Iterator[None]:
        """A training runs in the block. Ctrl-C, or another signal that interrupts, ends it on all ranks after the same step; an
        exception that the others do not have as well ends all processes, with one sentence on stderr that names the rank."""
        global _latest
        _latest = self
        self.signal, self.stopping, self.ended = 0, False, False
        before: dict[int, Any] = {}

        def note(number: int, frame: object) -> None:
            if self.signal:  # a second time: at once
                raise KeyboardInterrupt
            self.signal = number

        if self.size > 1 and threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and callable(signal.getsignal(number)):
                    before[number] = signal.signal(number, note)
        try:
            yield
        except BaseException as error:
            shared = isinstance(error, DivergedError) or (isinstance(error, KeyboardInterrupt) and self.stopping)
            if self.size > 1 and not shared:
                self.abort(error)
            if self.signal and isinstance(error, KeyboardInterrupt):  # as whoever handles the signal would raise it
                before[self.signal](self.signal, None)
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self.ended = True
        if self.signal:  # too late for a step to take note of it
            before[self.signal](self.signal, None)

    def abort(self, error: BaseException) -> None:
        """End the processes of all ranks, and say on stderr which one failed and why."""
        told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        sys.stderr.write(f"fastdl: rank {self.rank} of {self.size} on {self.host} failed, which ends all: {told}\n")
        sys.stderr.flush()
        if _watch is not None:
            _watch.end(told=True)
        self._comm.Abort(1)


class Failure(NamedTuple):
    """A rank that cannot go on, and why."""

    host: str
    told: str


_watch: Watch | None = None
_latest: Ranks | None = None  # whose training was the last to begin


def _look_after(ranks: Ranks, job: str) -> None:
    """From now on, a death of this process and an exception that nobody catches are told, and end all ranks."""
    global _watch
    if _watch is not None or ranks.size == 1:
        return
    from fastdl.distributed.watch import Watch

    _watch = Watch(
        job,
        f"fastdl: rank {ranks.rank} of {ranks.size} on {ranks.host} (process {os.getpid()}) has died, which ends all; the last "
        f"checkpoint is whole",
    )
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        usual(kind, error, trace)
        if not (issubclass(kind, KeyboardInterrupt) and _latest is not None and _latest.stopping):  # which all have
            ranks.abort(error)

    sys.excepthook = hook


def _digest(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype} with checksum {zlib.crc32(np.ascontiguousarray(value).tobytes()):08x}"
    return value
