"""The sum of a flat array over ranks of one machine: each reads what it adds where the others have it, and nothing is sent.

Every rank lays its array into memory that the others may read; behind a barrier each adds up its part of all arrays, in the order
of the ranks, so to the bits that `Reduction` gives. Between two ranks that takes half the time of messages for 40 KB, 0.6 of it
for 2.7 MB, and as long for 33 MB. The memory is an anonymous file (`memfd_create`), which the limit of /dev/shm, 64 MB in most
containers, does not concern; the others open it under /proc. Where that is not to be had, messages are sent.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl.distributed.reduction import Reduction, add_up


class SharedReduction(Reduction):
    """As `Reduction`, with the ranks' memory at hand.

    Parameters
    ----------
    comm, blocks, dtype : as for `Reduction`
    memory : one array for each rank, of which the own one can be written: twice as long as what is added up

    Attributes
    ----------
    array : the first half of the own memory; what is computed there need not be copied before it is added up
    """

    array: NDArray

    def __init__(self, comm: Any, blocks: list[tuple[int, int]], dtype: np.dtype, memory: Sequence[NDArray]) -> None:
        super().__init__(comm, blocks, dtype)
        n = len(memory[0]) // 2
        # What is to be added up, and what has been: so a rank may begin to write the one while another still reads the other.
        self._terms, self._totals = [m[:n] for m in memory], [m[n:] for m in memory]
        self.array = self._terms[self.rank]
        self._terms_are_read = self._totals_are_read = False  # perhaps, by others

    def _meet(self) -> None:
        self._comm.Barrier()
        self._terms_are_read = self._totals_are_read = False

    def _start(self, k: int, flat: NDArray) -> None:
        if self._terms_are_read:
            self._meet()
        if flat is not self.array:
            (first, stop), (own, end) = self.blocks[k], self.own(k)
            self.array[first:own] = flat[first:own]
            self.array[end:stop] = flat[end:stop]

    def _add(self, k: int, flat: NDArray) -> None:
        self._meet()
        own = slice(*self.own(k))
        add_up([flat[own] if r == self.rank else terms[own] for r, terms in enumerate(self._terms)], flat[own])
        self._terms_are_read = True

    def _spread(self, k: int, flat: NDArray) -> None:
        if self._totals_are_read:
            self._meet()
        own = slice(*self.own(k))
        self._totals[self.rank][own] = flat[own]
        self._under_way[k] = [flat]

    def _finish(self, k: int) -> None:
        self._meet()
        (flat,) = self._under_way.pop(k)
        for other in self._others:
            part = slice(*self._part(self.blocks[k], other))
            flat[part] = self._totals[other][part]
        self._totals_are_read = True

    @contextlib.contextmanager
    def pushing(self) -> Iterator[None]:
        """Nothing is under way."""
        yield


def shared_memory(comm: Any, processes: Sequence[int], n: int, dtype: np.dtype) -> list[NDArray] | None:
    """Arrays [n] that every rank of one machine can read, each written by one; None, on all ranks, if one cannot.

    Parameters
    ----------
    comm : of mpi4py; all ranks have to call
    processes : the number of each rank's process
    """
    memory: list[NDArray] = []
    number, known = -1, os.urandom(16)
    size = max(len(known), n * np.dtype(dtype).itemsize)
    with contextlib.suppress(OSError, AttributeError):
        number = os.memfd_create("fastdl")
        os.ftruncate(number, size)
        os.pwrite(number, known, 0)  # so that nobody takes another file for it
    try:
        for process, (other, mark) in zip(processes, comm.allgather((number, known)), strict=True):
            with contextlib.suppress(OSError, ValueError):
                mine = process == os.getpid()
                seen = number if mine else os.open(f"/proc/{process}/fd/{other}", os.O_RDONLY)
                try:
                    if os.pread(seen, len(mark), 0) == mark:
                        access = mmap.ACCESS_WRITE if mine else mmap.ACCESS_READ
                        memory.append(np.frombuffer(mmap.mmap(seen, size, access=access), dtype, n))
                finally:
                    if not mine:
                        os.close(seen)
        return memory if all(comm.allgather(len(memory) == len(processes))) else None
    finally:
        if number >= 0:
            os.close(number)
