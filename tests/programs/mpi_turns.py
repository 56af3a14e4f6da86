"""What one rank makes, the others find: `mpiexec -n 3 python mpi_turns.py FOLDER`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from fastdl.cli import parallel
from fastdl.distributed.ranks import Ranks

ranks = parallel._ranks = Ranks()
made = Path(sys.argv[1]) / "made"


def work() -> str:
    """Make the file slowly, or find it."""
    if made.exists():
        return f"found what rank {made.read_text()} made"
    time.sleep(0.2)
    with open(made, "x") as file:  # fails if another is quicker
        file.write(str(ranks.rank))
    os.sync()
    return "made"


told = ranks.all_of((ranks.local_rank, parallel.readers(), parallel.in_turns(work), parallel.agreed(ranks.rank)))
if ranks.is_first:
    print(told)
