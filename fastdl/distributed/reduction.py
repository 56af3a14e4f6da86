"""The sum of a flat array over ranks: each adds up a part of it in the order of the ranks, then all get all parts.

Reduce-scatter and allgather, each with one message from every rank to every other (Thakur, Rabenseifner and Gropp, 2005): of n
bytes, 2 n (P - 1) / P go out of each of P ranks, as in a ring. MPI's own all-reduce takes as long between two ranks, but may
add in another order for another size, placement or version; here the order is that of the ranks, always.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIRES = ("float32", "bfloat16")
"""In which precision gradients travel."""
# Seconds between two looks after messages under way.
_PAUSE = 100e-6
# A rank's part starts on a cache line: no two ranks' parts share one.
_ROUND = 16


class Reduction:
    """Sums of flat arrays [n] of one dtype, cut into blocks that travel one by one.

    Parameters
    ----------
    comm : of mpi4py
    blocks : (first, stop) of each block
    dtype : of the arrays
    wire : "bfloat16": what travels is rounded to 16 bits, and sums are rounded once more before they go to all

    Attributes
    ----------
    array : where the arrays that are added up are best computed, if that matters
    seconds : spent on sending, receiving and adding
    """

    array: NDArray | None = None

    def __init__(self, comm: Any, blocks: list[tuple[int, int]], dtype: np.dtype, wire: str = "float32") -> None:
        self._comm, self.blocks, self._dtype = comm, blocks, dtype
        self.rank, self.size = comm.rank, comm.size
        self.rounds = wire == "bfloat16"
        self._under_way: dict[int, list[Any]] = {}  # by block: messages
        self.seconds = 0.0
        most = max(self._part(block, self.rank)[1] - self._part(block, self.rank)[0] for block in blocks)
        one = sum(self._width(block, self.rank) for block in blocks)
        self._offsets = np.cumsum([0, *(self._width(block, self.rank) for block in blocks)])
        sent = max(stop for _, stop in blocks) if self.rounds else 0
        self._received = np.zeros((self.size, one), np.uint16 if self.rounds else dtype)
        self._sent = np.zeros(sent, np.uint16)
        self._widened = np.zeros(most if self.rounds else 0, np.float32)

    def _width(self, block: tuple[int, int], rank: int) -> int:
        first, stop = self._part(block, rank)
        return stop - first

    def _part(self, block: tuple[int, int], rank: int) -> tuple[int, int]:
        """(first, stop) of a rank's part of a block."""
        first, stop = block
        n = stop - first

        def bound(r: int) -> int:
            return first + (n if r == self.size else min(n, r * n // self.size // _ROUND * _ROUND))

        return bound(rank), bound(rank + 1)

    def own(self, k: int) -> tuple[int, int]:
        """(first, stop) of this rank's part of block k."""
        return self._part(self.blocks[k], self.rank)

    @property
    def _others(self) -> list[int]:
        """The other ranks, the next one first: not all ranks send to the same one at once."""
        return [(self.rank + i) % self.size for i in range(1, self.size)]

    def start(self, k: int, flat: NDArray) -> None:
        """Block k of `flat` is ready: its parts start on their way to the ranks that add them up."""
        begin = time.perf_counter()
        self._start(k, flat)
        self.seconds += time.perf_counter() - begin

    def add(self, k: int, flat: NDArray) -> None:
        """This rank's part of block k of `flat` = the sum over the ranks, in their order."""
        begin = time.perf_counter()
        self._add(k, flat)
        self.seconds += time.perf_counter() - begin

    def spread(self, k: int, flat: NDArray) -> None:
        """All ranks get all parts of block k of `flat`, exactly as they are; `finish` waits for them."""
        begin = time.perf_counter()
        self._spread(k, flat)
        self.seconds += time.perf_counter() - begin

    def finish(self, k: int) -> None:
        """Wait for block k of a `spread`."""
        begin = time.perf_counter()
        self._finish(k)
        self.seconds += time.perf_counter() - begin

    def _start(self, k: int, flat: NDArray) -> None:
        block, at = self.blocks[k], slice(self._offsets[k], self._offsets[k + 1])
        source = flat
        if self.rounds:
            source = self._sent
            source[slice(*block)] = rounded(flat[slice(*block)])
        requests = [self._receive(self._received[other, at], other, k) for other in self._others]
        requests += [self._send(source[slice(*self._part(block, other))], other, k) for other in self._others]
        self._under_way[k] = requests

    @contextlib.contextmanager
    def pushing(self) -> Iterator[None]:
        """While the block computes, another thread lets messages under way get on: MPI does nothing while nobody calls it."""
        from mpi4py import MPI

        if not self._under_way or MPI.Query_thread() < MPI.THREAD_SERIALIZED:
            yield
            return
        ended = threading.Event()

        def push() -> None:
            while not ended.wait(_PAUSE):
                for requests in self._under_way.values():
                    MPI.Request.Testall(requests)

        thread = threading.Thread(target=push, name="fastdl messages", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _add(self, k: int, flat: NDArray) -> None:
        self._wait(k)
        mine, at = flat[slice(*self.own(k))], slice(self._offsets[k], self._offsets[k + 1])
        if not self.rounds:
            add_up([mine if r == self.rank else self._received[r, at] for r in range(self.size)], mine)
            return
        parts = [self._sent[slice(*self.own(k))] if r == self.rank else self._received[r, at] for r in range(self.size)]
        total = self._widened[: mine.size]
        total[:] = 0
        for part in parts:
            total += widened(part)
        mine[:] = total

    def _spread(self, k: int, flat: NDArray) -> None:
        block = self.blocks[k]
        mine = flat[slice(*self.own(k))]
        requests = [self._receive(flat[slice(*self._part(block, other))], other, k) for other in self._others]
        requests += [self._send(mine, other, k) for other in self._others]
        self._under_way[k] = requests

    def _finish(self, k: int) -> None:
        self._wait(k)

    def spread_rounded(self, k: int, flat: NDArray) -> None:
        """All ranks get all parts of block k, rounded to 16 bits, this one too."""
        begin = time.perf_counter()
        block, own = self.blocks[k], slice(*self.own(k))
        self._sent[own] = rounded(flat[own])
        requests = [self._receive(self._sent[slice(*self._part(block, other))], other, k) for other in self._others]
        requests += [self._send(self._sent[own], other, k) for other in self._others]
        _request().Waitall(requests)
        flat[slice(*block)] = widened(self._sent[slice(*block)])
        self.seconds += time.perf_counter() - begin

    def whole(self, flat: NDArray) -> None:
        """All ranks get all parts of all blocks; all have to ask."""
        for k in range(len(self.blocks)):
            self.spread(k, flat)
            self.finish(k)

    def mean(self, flat: NDArray) -> None:
        """flat = its mean over the ranks."""
        for k in range(len(self.blocks)):
            self.start(k, flat)
            self.add(k, flat)
            flat[slice(*self.own(k))] /= flat.dtype.type(self.size)
            self.spread(k, flat)
            self.finish(k)

    def _send(self, array: NDArray, rank: int, k: int) -> Any:
        return self._comm.Isend(array.view(np.uint8), rank, k)

    def _receive(self, array: NDArray, rank: int, k: int) -> Any:
        return self._comm.Irecv(array.view(np.uint8), rank, k)

    def _wait(self, k: int) -> None:
        _request().Waitall(self._under_way.pop(k))


def _request() -> Any:
    from mpi4py import MPI

    return MPI.Request


# Numbers that are added up at a time: they stay in L2.
_PIECE = 1 << 14


def add_up(parts: list[NDArray], out: NDArray) -> None:
    """out = parts[0] + parts[1] + ...; one of them may be out itself."""
    total = np.empty(min(_PIECE, out.size), out.dtype)
    for start in range(0, out.size, _PIECE):
        piece = slice(start, start + _PIECE)
        if len(parts) == 2:
            np.add(parts[0][piece], parts[1][piece], out=out[piece])
            continue
        s = total[: out[piece].size]
        np.add(parts[0][piece], parts[1][piece], out=s)
        for part in parts[2:-1]:
            s += part[piece]
        np.add(s, parts[-1][piece], out=out[piece])


def rounded(x: NDArray) -> NDArray[np.uint16]:
    """float32 (or float64) numbers as bfloat16, to the nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    special = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(special, np.uint32(0x7FC0), nearest).astype(np.uint16)


def widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 as float32, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
