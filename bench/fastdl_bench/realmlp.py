"""RealMLP here and in pytabkit: the same recipe for as many epochs on the same rows, how good and in what time.

    python -m fastdl_bench.realmlp                                       3 tables, 64 epochs, one split, 2 threads each
    python -m fastdl_bench.realmlp --epochs 256 --splits 3 --tables houses,clusters
    python -m fastdl_bench.realmlp --python VENV/bin/python              where pytabkit is installed elsewhere

Each fit runs in a process of its own, by turns, and holds out a fifth of its rows to choose the epoch by. Times are those of
`fit` from the frame on, with kernels compiled and libraries imported; on a busy machine CPU time says more. RealMLP-TD-S of
pytabkit is its simpler version; `fastdl` is what is done without options. Errors are those of `fastdl_bench.quality`; ratios are
to RealMLP-TD.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastdl_bench import quality

REFERENCE = "RealMLP-TD"
TABLES = ("houses", "clusters", "shop")
SEED = 0


def _fastdl(classes: bool, epochs: int | None, threads: int, recipe: str) -> Any:
    import fastdl

    kind = fastdl.TabularClassifier if classes else fastdl.TabularRegressor
    return kind(recipe=recipe, seed=SEED, threads=threads, epochs=epochs)


def _pytabkit(classes: bool, epochs: int | None, threads: int, name: str) -> Any:
    import pytabkit  # type: ignore[import-not-found]

    kind = getattr(pytabkit, f"{name}_{'Classifier' if classes else 'Regressor'}")
    return kind(
        device="cpu", random_state=SEED, n_cv=1, n_epochs=epochs, n_threads=threads, val_fraction=0.2, verbosity=0
    )


WAYS: dict[str, tuple[Callable[[bool, int | None, int, str], Any], str]] = {
    REFERENCE: (_pytabkit, "RealMLP_TD"),
    "RealMLP-TD-S": (_pytabkit, "RealMLP_TD_S"),
    "fastdl, realmlp": (_fastdl, "realmlp"),
    "fastdl": (_fastdl, "auto"),
}


def _serve(way: str, epochs: int, threads: int, path: str) -> dict[str, float]:
    """Fit on the rows of a file and score; in a process of its own. A first fit, of one epoch, loads and compiles."""
    import warnings

    import pandas as pd

    warnings.simplefilter("ignore")
    stored = pd.read_pickle(path)
    classes = stored["classes"]
    make, name = WAYS[way]
    make(classes, 1, threads, name).fit(stored["X"], stored["y"])
    model = make(classes, None if name == "auto" else epochs, threads, name)
    start, spent = time.perf_counter(), time.process_time()
    model.fit(stored["X"], stored["y"])
    seconds, cpu = time.perf_counter() - start, time.process_time() - spent
    found = model.predict_proba(stored["X_test"]) if classes else model.predict(stored["X_test"])
    return {"error": quality.error_of(found, stored["y_test"], classes), "seconds": seconds, "cpu": cpu}


def measure(
    names: Sequence[str], ways: Sequence[str], epochs: int, splits: int, threads: int, pythons: dict[str, str], data: Path | None
) -> dict[str, dict[str, list[dict[str, float]]]]:  # fmt: skip
    """{table: {way: [{"error", "seconds", "cpu"} for each split]}}; a way that fails is told of, and its numbers are NaN."""
    import pandas as pd

    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    for name in names:
        table = {**quality.TABLES, **quality.KEPT_ASIDE}[name]
        frame = pd.read_csv(data / table.load) if isinstance(table.load, str) and data else table.load()  # type: ignore[operator]
        results[name] = {way: [] for way in ways}
        for seed in range(splits):
            train, test = quality.split(frame, table, seed)
            X, X_test = (part.drop(columns=table.target) for part in (train, test))
            X, X_test = quality.with_categories(X, X_test)
            y, y_test = (np.asarray(part[table.target]) for part in (train, test))
            if table.classes:
                words = np.unique(y)
                y, y_test = np.searchsorted(words, y), np.searchsorted(words, y_test)
            with tempfile.TemporaryDirectory() as scratch:
                path = os.path.join(scratch, "rows.pkl")
                pd.to_pickle({"X": X, "y": y, "X_test": X_test, "y_test": y_test, "classes": table.classes}, path)
                for way in ways:
                    results[name][way].append(_ask(way, epochs, threads, pythons[way], path))
        print(row(name, results[name]), flush=True)
    return results


def _ask(way: str, epochs: int, threads: int, python: str, path: str) -> dict[str, float]:
    command = [python, "-m", "fastdl_bench.realmlp", "--serve", way, str(epochs), str(threads), path]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if python != sys.executable:  # its own packages, and this one
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        print(f"{way} failed: {said[-1] if said else f'exit code {done.returncode}'}", file=sys.stderr)
        return dict.fromkeys(("error", "seconds", "cpu"), math.nan)
    answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def row(name: str, found: dict[str, list[dict[str, float]]]) -> str:
    """One line of the table: mean error and seconds of each way, and its error and times beside RealMLP-TD's."""
    cells = [name]
    reference = found.get(REFERENCE)
    for samples in found.values():
        error, seconds = (float(np.mean([sample[key] for sample in samples])) for key in ("error", "seconds"))
        text = "failed" if math.isnan(seconds) else f"{error:.4g} in {seconds:.3g} s"
        compares = reference is not None and not any(math.isnan(sample["seconds"]) for sample in (*reference, *samples))
        if reference is not None and samples is not reference and compares:
            worse, slower, more = (
                _geometric([a[key] / b[key] for a, b in zip(samples, reference)]) for key in ("error", "seconds", "cpu")
            )
            text += f" ({worse:.3f} of the error, {1 / slower:.1f} times as fast, {1 / more:.1f} by CPU time)"
        cells.append(text)
    return "| " + " | ".join(cells) + " |"


def _geometric(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--tables", default=",".join(TABLES), help="names of fastdl_bench.quality's, separated by commas"
    )
    parser.add_argument("--ways", default=";".join(WAYS), help="separated by semicolons")
    parser.add_argument("--epochs", type=int, default=64)
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, help="a folder with CSV files of the tables that are not shipped")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has pytabkit")
    parser.add_argument("--serve", nargs=4, metavar=("WAY", "EPOCHS", "THREADS", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        way, epochs, threads, path = options.serve
        print(json.dumps(_serve(way, int(epochs), int(threads), path)))
        return 0
    ways = options.ways.split(";")
    unknown = [way for way in ways if way not in WAYS]
    if unknown:
        parser.error(f"--ways: expected some of {'; '.join(WAYS)}, got {unknown[0]}")
    pythons = {way: options.python if WAYS[way][0] is _pytabkit else sys.executable for way in ways}
    print(f"| table, {options.epochs} epochs | {' | '.join(ways)} |\n|---|{'---|' * len(ways)}", flush=True)
    measure(options.tables.split(","), ways, options.epochs, options.splits, options.threads, pythons, options.data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
