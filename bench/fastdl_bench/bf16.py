"""bf16 against float32 and against PyTorch's bf16: speed where the processor has instructions for it, quality anywhere.

    python -m fastdl_bench.bf16                          training, prediction and a product, rounds interleaved
    python -m fastdl_bench.bf16 --quality --seeds 20     the mean score of so many seeds in both precisions
    python -m fastdl_bench.bf16 --quality --data FOLDER  with diamonds.csv and t10k-images-idx3-ubyte.gz that lie there

Quality is that of the instruction, or of its emulation, which has the same bits.
"""

from __future__ import annotations

import argparse
import gzip
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastdl
import fastdl_kernels as fk
from fastdl_bench import latency, machine, training
from fastdl_bench.cases import WORKLOADS
from fastdl_bench.statistics import ratio, summary
from fastdl_bench.training import Effort
from fastdl_kernels.precision import HAS_BF16

NAMES = ("fastdl-bf16", "fastdl", "torch-bf16")
PRODUCT = (512, 1024, 1024)
Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def speed(threads: int, effort: Effort) -> list[tuple[str, dict[str, list[float]]]]:
    """(what, seconds of each round by name): one run, peers in processes of their own."""
    names = ["fastdl", *(name for name in NAMES if name != "fastdl" and training.LIBRARIES[name].available)]
    workloads = [WORKLOADS[name] for name in ("mnist", "medium", "large")]
    items = [
        (item["workload"]["name"], item["results"], "seconds_per_step")
        for item in training.run(workloads, names, threads, effort, print)
    ]
    items += [
        (item["title"], item["results"], "seconds") for item in latency.run(["wide"], names, threads, effort, print)
    ]
    found = [(what, {name: r[key]["samples"] for name, r in results.items()}) for what, results, key in items]
    return [*found, product(effort)]


def product(effort: Effort) -> tuple[str, dict[str, list[float]]]:
    """The forward product of PRODUCT with both arithmetics, by turns."""
    rng = np.random.default_rng(0)
    rows, n_in, n_out = PRODUCT
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, n_in), (n_in, n_out)))
    bias, out = np.zeros(n_out, np.float32), np.empty((rows, n_out), np.float32)
    seconds: dict[str, list[float]] = {"fastdl-bf16": [], "fastdl": []}
    for _ in range(2 * effort.rounds):
        for name, arithmetic in (("fastdl-bf16", fk.BF16), ("fastdl", fk.FLOAT32)):
            start = time.perf_counter()
            fk.linear_forward(x, weight, bias, fk.RELU, 0.0, out, arithmetic)
            seconds[name].append(time.perf_counter() - start)
    return "product " + "x".join(map(str, PRODUCT)), seconds


def data_sets(folder: Path | None) -> Iterator[tuple[str, Data, bool]]:
    """(name, training and validation rows, whether classes are told apart), of the digits and of what lies in the folder."""
    X, y = fastdl.load_digits()
    yield "digits", _halves((X / 16).astype(np.float32), y), True
    if folder is None:
        return
    images = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    yield (
        "MNIST, 10,000 images",
        _halves(images.reshape(-1, 784).astype(np.float32) / 255, labels.astype(np.int64)),
        True,
    )
    import pandas as pd

    frame = pd.read_csv(folder / "diamonds.csv")
    y = frame.pop("price").to_numpy(np.float32)
    yield "diamonds", _halves(pd.get_dummies(frame).to_numpy(np.float32), y), False


def _halves(X: np.ndarray, y: np.ndarray) -> Data:
    order = np.random.default_rng(0).permutation(len(X))
    cut = len(X) * 4 // 5
    return X[order[:cut]], y[order[:cut]], X[order[cut:]], y[order[cut:]]


def score(data: Data, classes: bool, precision: str, seed: int, epochs: int) -> float:
    """Accuracy, or root mean squared error, on the validation rows."""
    X, y, X_valid, y_valid = data
    layers = [X.shape[1], 128, 128, int(y.max()) + 1 if classes else 1]
    model = fastdl.MLP(layers, output="softmax" if classes else "linear", seed=seed)
    model.standardize(X, None if classes else y)
    fastdl.Trainer(model, fastdl.Adam(lr=1e-3), 64, epochs, seed=seed, precision=precision).fit(X, y)
    predicted = model.predict(X_valid)
    return float((predicted == y_valid).mean()) if classes else math.sqrt(float(((predicted - y_valid) ** 2).mean()))


def quality(folder: Path | None, seeds: int, epochs: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(data set, scores of the seeds in each precision)."""
    rounded = "bf16" if HAS_BF16 else "bf16-emulated"
    for name, data, classes in data_sets(folder):
        yield (
            name,
            {
                precision: np.array([score(data, classes, precision, seed, epochs) for seed in range(seeds)])
                for precision in ("float32", rounded)
            },
        )


def verdict(scores: dict[str, np.ndarray]) -> str:
    """Both means with their standard errors, and how many of those of their difference they are apart."""
    plain, rounded = scores.values()
    errors = [s.std(ddof=1) / math.sqrt(len(s)) for s in (plain, rounded)]
    apart = abs(rounded.mean() - plain.mean()) / max(math.hypot(*errors), 1e-300)
    means = ", ".join(f"{name} {s.mean():.5g} +- {e:.2g}" for (name, s), e in zip(scores.items(), errors))
    return f"{means}: {apart:.2f} standard errors apart"


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was asked for; without the instructions there is no speed to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(argv)
    if options.quality:
        for name, scores in quality(options.data, options.seeds, options.epochs):
            print(f"{name:22} {verdict(scores)}", flush=True)
        return 0
    if not HAS_BF16:
        print("this processor has no bf16 instructions (AVX-512 BF16): there is no speed to measure; try --quality")
        return 1
    threads: Any = machine.describe()["usable_cores"]
    for what, seconds in speed(threads, Effort(options.rounds, 0.3)):
        ours = seconds[NAMES[0]]
        others = ", ".join(
            f"{name} {ratio(s, ours)['median']:.2f} x" for name, s in seconds.items() if name != NAMES[0]
        )
        print(f"{what:34} {1e3 * summary(ours)['median']:9.3f} ms; {others}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
