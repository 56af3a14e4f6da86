"""Many small networks: fastdl trains them at once, one after the other, scikit-learn in processes of joblib's, JAX with vmap.

    python -m fastdl_bench.many                     64 networks 64-32-10 on the digits, 20 epochs each
    python -m fastdl_bench.many --models N --epochs N --rounds N --workers N
    python -m fastdl_bench.many --folds titanic.csv --target survived --rounds N     5 folds of a table, warm

All learn the same rows in batches of 64 with Adam at 0.001, from seeds 0, 1, ...; each round measures the ways by turns. What is
compiled, loaded or started once (kernels, joblib's processes) is warm. JAX, where it is installed, trains all models in each step
of a compiled scan, in a process of its own. What counts are the ratios.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

import fastdl
from fastdl_bench.peers import many_jax
from fastdl_bench.statistics import ratio, summary

HIDDEN, BATCH_SIZE, RATE = 32, 64, 1e-3


def trainers(count: int, epochs: int) -> list[fastdl.Trainer]:
    """New networks with seeds 0, 1, ..."""
    return [
        fastdl.Trainer(fastdl.MLP([64, HIDDEN, 10], seed=seed), fastdl.Adam(RATE), BATCH_SIZE, epochs, seed=seed)
        for seed in range(count)
    ]


def at_once(X: NDArray, y: NDArray, count: int, epochs: int) -> float:
    """Seconds of `fit_many`."""
    made = trainers(count, epochs)
    start = time.perf_counter()
    results = fastdl.fit_many(made, X, y)
    seconds = time.perf_counter() - start
    assert all(result.error is None for result in results)
    return seconds


def one_by_one(X: NDArray, y: NDArray, count: int, epochs: int) -> float:
    """Seconds of one `fit` after the other, each with the threads that it finds the fastest."""
    made = trainers(count, epochs)
    start = time.perf_counter()
    for trainer in made:
        trainer.fit(X, y)
    return time.perf_counter() - start


def _fit_sklearn(X: NDArray, y: NDArray, seed: int, epochs: int) -> float:
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
        (HIDDEN,), batch_size=BATCH_SIZE, learning_rate_init=RATE, alpha=0.0, max_iter=epochs, n_iter_no_change=epochs + 1,
        random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it was told when to end
        return float(model.fit(X, y).loss_)


def sklearn_processes(workers: int) -> Callable[[NDArray, NDArray, int, int], float]:
    """Seconds of scikit-learn's MLP in so many processes, each on one thread."""
    import joblib  # type: ignore[import-untyped]

    def run(X: NDArray, y: NDArray, count: int, epochs: int) -> float:
        start = time.perf_counter()
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            joblib.Parallel(workers)(joblib.delayed(_fit_sklearn)(X, y, seed, epochs) for seed in range(count))
        return time.perf_counter() - start

    return run


def run(count: int, epochs: int, rounds: int, workers: int, ways: Sequence[str] = ()) -> dict[str, list[float]]:
    """Seconds of each way in each round."""
    X, y = fastdl.load_digits()
    X = (X / 16).astype(np.float32)
    known = {
        "fastdl, at once": at_once,
        "fastdl, one by one": one_by_one,
        f"scikit-learn, {workers} processes": sklearn_processes(workers),
    }
    if importlib.util.find_spec("jax"):
        known["JAX, vmap"] = many_jax.in_process(HIDDEN, BATCH_SIZE, RATE)
    chosen = {name: way for name, way in known.items() if not ways or name in ways}
    for way in chosen.values():
        way(X, y, count, 1)  # warm
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, way in chosen.items():
            seconds[name].append(way(X, y, count, epochs))
    return seconds


def folds(path: str, target: str, rounds: int) -> list[float]:
    """Seconds of a cross-validation of a table in each round, after one that does not count: from the frame to the metrics."""
    import pandas as pd

    frame = pd.read_csv(path)
    X, y = frame.drop(columns=target), frame[target].to_numpy()
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        fastdl.TabularClassifier(cross_validation=5).fit(X, y)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the medians, and how many times as long as `fit_many` the others take."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folds", metavar="FILE", help="a CSV file with classes to be cross-validated instead")
    parser.add_argument("--target", metavar="NAME", help="its column of classes")
    options = parser.parse_args(argv)
    if options.folds:
        if options.target is None:
            parser.error("--target: expected the column of classes in the file of --folds")
        taken = folds(options.folds, options.target, options.rounds)
        print(f"5 folds of {options.folds}: {np.median(taken):.3f} s ({min(taken):.3f} to {max(taken):.3f})")
        return 0
    found = run(options.models, options.epochs, options.rounds, options.workers)
    first = next(iter(found.values()))
    print(f"{options.models} networks 64-{HIDDEN}-10, {options.epochs} epochs of the digits, batches of {BATCH_SIZE}")
    for name, samples in found.items():
        times = ratio(samples, first)
        print(
            f"{name:30} {summary(samples)['median']:8.3f} s   {times['median']:6.2f} x "
            f"({times['low']:.2f} to {times['high']:.2f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
