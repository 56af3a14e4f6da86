"""Rows of large memory-mapped files: shuffled by blocks, and read from the disk before they are needed."""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdl.engine.background import submit
from fastdl.stored import ADDRESS, FIRST_ROW, ROW_STEP, Inputs, StoredRows, mapping_of

MAPPED_BYTES = 1 << 30
"""Inputs in memory-mapped files that are larger than this are shuffled by blocks: in any order, every row would be a seek on the
disk where they do not fit into memory. A fixed size, so that the same data give the same bits on every machine."""
BLOCK_BYTES, WINDOW = 1 << 20, 128
"""Bytes of a block, which is read in one go, and blocks of a window, in which rows are shuffled as if there were nothing else."""

_WILLNEED = 3  # of madvise, on Linux and macOS
_AT_ONCE = 1 << 17  # bytes: of more, Linux reads as much as it would by itself


class Blocks(NamedTuple):
    """Rows of a block, and blocks of a window."""

    rows: int
    window: int


def blocks_of(inputs: Inputs) -> Blocks | None:
    """How inputs are shuffled by blocks, or None if they are shuffled exactly: what is in memory, or not large."""
    if not isinstance(inputs, StoredRows) or inputs.mapped_bytes <= MAPPED_BYTES:
        return None
    return Blocks(max(1, BLOCK_BYTES * len(inputs) // inputs.mapped_bytes), WINDOW)


def block_order(rng: np.random.Generator, n_rows: int, blocks: Blocks) -> NDArray[np.int64]:
    """All rows: blocks in random order, and the rows of each window of them in random order."""
    order, at = np.empty(n_rows, np.int64), 0
    drawn = rng.permutation(-(-n_rows // blocks.rows))
    for first in range(0, len(drawn), blocks.window):
        rows = (drawn[first : first + blocks.window, None] * blocks.rows + np.arange(blocks.rows)).reshape(-1)
        rows = rng.permutation(rows[rows < n_rows])
        order[at : at + len(rows)] = rows
        at += len(rows)
    return order


@contextmanager
def reading_ahead(
    inputs: Inputs, order: NDArray[np.int64], on_progress: Callable[[int], None], n_rows: int
) -> Iterator[Callable[[int], None]]:
    """`on_progress`, which besides has the next window read from the disk by another thread, where inputs come in blocks.

    Meanwhile the system reads nothing else: what it takes from around a page (up to 8 MB) would push out what is needed.

    order : of the rows that this process reads, of `n_rows` that are learned from
    """
    blocks, advise = blocks_of(inputs), _advise()
    if blocks is None or advise is None or not isinstance(inputs, StoredRows):
        yield on_progress
        return
    length, asked = blocks.rows * blocks.window, 0

    def ask(upto: int) -> None:
        nonlocal asked
        while asked < min(upto, len(order)):
            rows = order[asked : asked + length]
            with suppress(RuntimeError):  # no thread can be started
                submit(Future(), functools.partial(_fetch, inputs, rows, blocks.rows, advise))
            asked += length

    def progress(done: int) -> None:
        ask(done * len(order) // n_rows + 2 * length)
        on_progress(done)

    found = [mapping_of(part) for part in inputs.parts]
    mappings = {id(mapping): mapping for mapping in found if mapping is not None}.values()
    for mapping in mappings:
        mapping.madvise(mmap.MADV_RANDOM)
    try:
        ask(2 * length)
        yield progress
    finally:
        for mapping in mappings:
            mapping.madvise(mmap.MADV_NORMAL)


def _fetch(inputs: StoredRows, rows: NDArray[np.int64], block_rows: int, advise: Callable[..., Any]) -> None:
    """Ask for the memory of the blocks that these rows are in."""
    for block in np.unique(rows // block_rows).tolist():
        first, stop = block * block_rows, min(len(inputs), (block + 1) * block_rows)
        for start, length in addresses(inputs, first, stop):
            end = start + length
            for begin in range(start // mmap.PAGESIZE * mmap.PAGESIZE, end, _AT_ONCE):
                advise(begin, min(_AT_ONCE, end - begin), _WILLNEED)


def addresses(inputs: StoredRows, first: int, stop: int) -> list[tuple[int, int]]:
    """(address, bytes) of the memory that the rows first .. stop lie in, for parts whose rows follow each other."""
    table, found = inputs.parts_table, []
    number = int(np.searchsorted(table[:, FIRST_ROW], first, side="right")) - 1
    while number < len(table) and table[number, FIRST_ROW] < stop:
        begin, step = int(table[number, FIRST_ROW]), int(table[number, ROW_STEP])
        low, high = max(first, begin), min(stop, begin + len(inputs.parts[number]))
        if step > 0 and high > low:
            found.append((int(table[number, ADDRESS]) + (low - begin) * step, (high - low) * step))
        number += 1
    return found


@functools.cache
def _advise() -> Callable[..., Any] | None:
    """madvise of the C library, where there is one."""
    if not hasattr(mmap, "MADV_WILLNEED"):
        return None
    with suppress(OSError, AttributeError):
        function = ctypes.CDLL(None).madvise
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        return function
    return None
