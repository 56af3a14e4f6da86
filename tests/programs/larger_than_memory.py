"""Train on a memory-mapped file under a limit of the process's own memory.

Usage: larger_than_memory.py FOLDER MEGABYTES LIMIT [copy]: a file of so many MB, and LIMIT MB that may be allocated after the
imports and a first small training; with `copy` the file is read into memory, to show that the limit holds.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np

import fastdl
from fastdl.training import read_ahead

COLUMNS = 250


def own_memory():
    """Bytes of data that the process has allocated: what RLIMIT_DATA counts."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData"))


def main(folder, megabytes, limit, copy):
    read_ahead.MAPPED_BYTES = 10**8  # shuffled by blocks, and read ahead
    rows, rng = megabytes * 10**6 // (4 * COLUMNS), np.random.default_rng(0)
    file = np.lib.format.open_memmap(Path(folder) / "X.npy", "w+", np.float32, (rows, COLUMNS))
    for start in range(0, rows, 10_000):
        file[start : start + 10_000] = rng.random((len(file[start : start + 10_000]), COLUMNS), np.float32)
    y = (file[:, 0] > 0.5).astype(np.int64)
    del file
    X = np.load(Path(folder) / "X.npy", mmap_mode="r")

    def train(X, y):
        model = fastdl.MLP([COLUMNS, 8, 2]).standardize(X)
        history = fastdl.Trainer(model, batch_size=512, epochs=1, n_threads=2).fit(X, y, validation_data=(X, y))
        model.predict(X)
        return history

    train(X[:3000], y[:3000])  # loads the compiled code, and starts the threads
    allowed = own_memory() + limit * 10**6
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    history = train(np.array(X) if copy else X, y)
    print(f"trained to an accuracy of {history.metrics['accuracy'][-1]:.2f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), len(sys.argv) > 4)
