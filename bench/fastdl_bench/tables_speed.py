"""Reading and encoding a large CSV file, against the time that polars takes to read it and the size of the features.

    python -m fastdl_bench.tables_speed             1,000,000 rows of 30 columns of all kinds
    python -m fastdl_bench.tables_speed --rows N

Each round measures polars and fastdl in processes of their own, by turns. What counts are the ratios: time at most 3 times
that of `polars.read_csv(path, try_parse_dates=True)`, and memory at most 2.5 times the encoded float32 matrix.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MOST_TIME, MOST_MEMORY = 3.0, 2.5


def write_table(path: Path, n_rows: int, seed: int = 0) -> None:
    """A table of 30 columns: numbers, counts, numbers with gaps, categories of 3 to 400 values, booleans, dates and times."""
    import polars as pl

    rng = np.random.default_rng(seed)
    columns: dict[str, object] = {}
    for i in range(14):
        columns[f"number_{i}"] = np.round(rng.standard_normal(n_rows) * 10.0 ** (i % 4), 4)
    for i in range(3):
        columns[f"count_{i}"] = rng.integers(0, 1000, n_rows)
    gaps = np.round(rng.random(n_rows), 3)
    gaps[rng.random(n_rows) < 0.1] = np.nan
    columns["gaps"] = pl.Series(gaps).fill_nan(None)
    for count in (3, 5, 8, 12, 20, 30, 400):
        columns[f"category_{count}"] = rng.choice([f"value {j}" for j in range(count)], n_rows)
    columns["truth"] = rng.choice(["True", "False"], n_rows)
    columns["answer"] = rng.choice(["yes", "no"], n_rows)
    start = np.datetime64("2020-01-01T00:00:00", "us")
    moments = start + (rng.integers(0, 10**8, n_rows) * 10**6).astype("timedelta64[us]")
    columns["moment"] = pl.Series(moments).dt.strftime("%Y-%m-%d %H:%M:%S")
    columns["day"] = pl.Series(moments).dt.strftime("%Y-%m-%d")
    columns["y"] = np.round(rng.standard_normal(n_rows), 4)
    pl.DataFrame(columns).write_csv(path)


def measure(what: str, path: Path) -> dict[str, float]:
    """Seconds of "polars" or "fastdl" for the file, and for the latter the peak of the memory in bytes beyond the start."""
    import polars as pl  # its import is not measured

    if what == "polars":
        start = time.perf_counter()
        pl.read_csv(path, try_parse_dates=True)
        return {"seconds": time.perf_counter() - start}
    from fastdl.tables import data

    before = _resident()
    start = time.perf_counter()
    loaded = data.load_training([str(path)], target="y", validation=0)
    rows = loaded.inputs(loaded.train)
    matrix = rows.matrix(rows.statistics(), np.float32)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {"seconds": seconds, "peak": float(peak), "matrix": float(matrix.nbytes)}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run(n_rows: int, rounds: int) -> dict[str, float]:
    """The medians of some rounds."""
    found: dict[str, list[dict[str, float]]] = {"polars": [], "fastdl": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_table(path, n_rows)
        for _ in range(rounds):
            for what, results in found.items():
                command = [sys.executable, "-m", "fastdl_bench.tables_speed", "--measure", what, str(path)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                results.append(json.loads(done.stdout))
        size = path.stat().st_size
    polars = statistics.median(r["seconds"] for r in found["polars"])
    ours = statistics.median(r["seconds"] for r in found["fastdl"])
    memory = statistics.median(r["peak"] / r["matrix"] for r in found["fastdl"])
    return {
        "rows": float(n_rows),
        "bytes": float(size),
        "polars_seconds": polars,
        "seconds": ours,
        "times_polars": ours / polars,
        "times_matrix": memory,
    }


def main() -> int:
    """Print the result; 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], Path(options.measure[1]))))
        return 0
    result = run(options.rows, options.rounds)
    print(
        f"{result['rows']:,.0f} rows, {result['bytes'] / 1e6:.0f} MB: polars reads them in {result['polars_seconds']:.2f} s, "
        f"fastdl reads and encodes them in {result['seconds']:.2f} s ({result['times_polars']:.2f} x, limit {MOST_TIME:g}); "
        f"peak memory {result['times_matrix']:.2f} x the matrix (limit {MOST_MEMORY:g})"
    )
    return int(result["times_polars"] > MOST_TIME or result["times_matrix"] > MOST_MEMORY)


if __name__ == "__main__":
    sys.exit(main())
