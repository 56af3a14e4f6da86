"""`fastdl train FILE --target NAME` as a whole process, beside a whole process of LightGBM on the same file.

    python -m fastdl_bench.commands --data FOLDER          with titanic.csv and diamonds.csv; houses are generated
    python -m fastdl_bench.commands --tables houses --rounds 5

Houses are as large as California housing: 20,640 rows of 9 columns. A process imports, reads, learns and exits; ours writes a
model and a report besides, LightGBM's reads with pandas, takes text as categories, and fits its defaults. By turns, after one
round that fills the caches; both on the same cores, with as many threads.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fastdl_bench import quality
from fastdl_bench.startup import seconds_of
from fastdl_bench.statistics import ratio, summary

TARGETS = {"titanic": 1.0, "houses": 10.0, "diamonds": 20.0}
"""Seconds that each may take on two cores."""
HOUSES = 20_640
_LIGHTGBM = """
import sys
import lightgbm, pandas
path, threads, target, classes, *ignored = sys.argv[1:]
frame = pandas.read_csv(path).drop(columns=ignored)
for name in frame.columns.difference([target]):
    if not pandas.api.types.is_numeric_dtype(frame[name]):
        frame[name] = frame[name].astype("category")
kind = lightgbm.LGBMClassifier if classes == "True" else lightgbm.LGBMRegressor
kind(verbosity=-1, n_jobs=int(threads)).fit(frame.drop(columns=target), frame[target])
"""


def measure(names: Sequence[str], data: Path | None, rounds: int, threads: int) -> dict[str, dict[str, list[float]]]:
    """{table: {"fastdl" and "lightgbm": seconds of each round}}."""
    found: dict[str, dict[str, list[float]]] = {}
    for name in names:
        table = quality.TABLES[name]
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, f"{name}.csv")
            if isinstance(table.load, str):
                shutil.copy(Path(data or "", table.load), path)
            else:
                quality.houses(HOUSES).to_csv(path, index=False)
            ignored = [word for column in table.ignored for word in ("--ignore", column)]
            commands = {
                "fastdl": ["-m", "fastdl", "train", str(path), "--target", table.target, *ignored,
                           "--threads", str(threads), "--out", os.path.join(scratch, "run")],
                "lightgbm": ["-c", _LIGHTGBM, str(path), str(threads), table.target, str(table.classes), *table.ignored],
            }  # fmt: skip
            found[name] = {key: [] for key in commands}
            for number in range(rounds + 1):
                for key, command in commands.items():
                    shutil.rmtree(os.path.join(scratch, "run"), ignore_errors=True)
                    seconds = seconds_of(command, threads)
                    if number:
                        found[name][key].append(seconds)
        print(row(name, found[name]), flush=True)
    return found


def row(name: str, seconds: dict[str, list[float]]) -> str:
    """One line of the table: both times, the target, and how often ours goes into LightGBM's."""
    ours, theirs = (summary(seconds[key])["median"] for key in ("fastdl", "lightgbm"))
    against = ratio(seconds["lightgbm"], seconds["fastdl"])["median"]
    return f"| {name} | {ours:.2f} | {TARGETS[name]:g} | {theirs:.2f} | {against:.2f} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", default=",".join(TARGETS), help="some of these, separated by commas")
    parser.add_argument("--data", type=Path, help="a folder with the CSV files of the tables that are not generated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    names = options.tables.split(",")
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        parser.error(f"--tables: expected some of {', '.join(TARGETS)}, got {unknown[0]}")
    for name in names:
        file = quality.TABLES[name].load
        if isinstance(file, str) and not Path(options.data or "", file).is_file():
            parser.error(f"--data: expected a folder with {file}, got {options.data}")
    print(
        "| table | `fastdl train`, s | target | LightGBM, s | LightGBM / fastdl |\n|---|---:|---:|---:|---:|",
        flush=True,
    )
    measure(names, options.data, options.rounds, options.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
