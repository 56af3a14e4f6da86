"""`fastdl train` on a CSV file under a limit of the process's own memory.

Usage: larger_table.py FOLDER MEGABYTES LIMIT [--no-mapped]: a table of about so many MB, and LIMIT MB that may be allocated after
a first small training; with --no-mapped the table is read whole, to show that the limit holds.
"""

from __future__ import annotations

import os
import resource
import sys

import numpy as np
from larger_than_memory import own_memory

from fastdl import cli
from fastdl.tables import csv_file, store

COLUMNS = 50
LINE = [
    "--target",
    "y",
    "--recipe",
    "plain",
    "--hidden",
    "8",
    "--epochs",
    "2",
    "--threads",
    "2",
    "--force",
    "--out",
    "r",
]


def write(path, megabytes):
    rng = np.random.default_rng(0)
    with open(path, "w") as file:
        file.write(",".join([*(f"x{i}" for i in range(COLUMNS)), "y"]) + "\n")
        while file.tell() < megabytes * 10**6:
            X = rng.normal(size=(1000, COLUMNS))
            file.writelines(",".join(f"{v:.6f}" for v in row) + f",{row[0] + row[1]:.5f}\n" for row in X)


def main(folder, megabytes, limit, *more):
    os.chdir(folder)
    csv_file.BLOCK_BYTES = 1 << 20
    store.MOST_CELLS = 1 << 19
    write("small.csv", 3)
    write("large.csv", megabytes)
    assert cli.main(["train", "small.csv", *LINE, "--mapped"]) == 0  # loads compiled code, and starts the threads
    allowed = own_memory() + limit * 10**6
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    return cli.main(["train", "large.csv", *LINE, *(more or ["--mapped"])])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
