"""Data in a memory-mapped file against the same data in memory: what a training loses by it, while the file is in the page cache.

    python -m fastdl_bench.larger                   mnist 784-256-128-10 and tabular 32-256-256-2, 200 MB each
    python -m fastdl_bench.larger --megabytes N --epochs N --rounds N --threads N --folder DIR --cpu

Rows are standardised by the model, read from float32 in memory and from a file: shuffled exactly, and in blocks with a window as
files beyond 1 GB are; and from bytes. The ways train by turns, from the same parameters. Times are those of epochs, without what
comes before the first; with --cpu those of the processor, which say more on a machine that has other work. What counts are the
ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

import fastdl
from fastdl.scaling import Scaling
from fastdl.training import read_ahead
from fastdl_bench.statistics import ratio, summary

NETWORKS = {"mnist": ((784, 256, 128, 10), 128), "tabular": ((32, 256, 256, 2), 256)}
WAYS = (
    "float32, in memory", "float32, mapped", "float32, mapped, in blocks", "uint8, in memory", "uint8, mapped, in blocks",
)  # fmt: skip


class _Clock(fastdl.Callback):
    """Seconds from the beginning of the first epoch to the end of the last."""

    _only_watches = True

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self.start, self.end = clock, 0.0, 0.0

    def on_train_begin(self, epochs: int, rows: int) -> None:
        self.start = self._clock()

    def on_epoch_end(self, result: object) -> None:
        self.end = self._clock()


@contextlib.contextmanager
def _in_blocks(wanted: bool) -> Iterator[None]:
    """Whether mapped data, however small, come in blocks."""
    with mock.patch.object(read_ahead, "MAPPED_BYTES", 0 if wanted else sys.maxsize):
        yield


def forms_of(X: NDArray[np.uint8], folder: Path) -> dict[str, NDArray]:
    """The same numbers in all ways."""
    made: dict[str, NDArray] = {}
    for dtype in (np.float32, np.uint8):
        name = np.dtype(dtype).name
        made[f"{name}, in memory"] = X.astype(dtype)
        np.save(folder / f"{name}.npy", made[f"{name}, in memory"])
        mapped = np.load(folder / f"{name}.npy", mmap_mode="r")
        made[f"{name}, mapped"] = made[f"{name}, mapped, in blocks"] = mapped
    return {way: made[way] for way in WAYS}


def trained(
    way: str, X: NDArray, y: NDArray, network: str, epochs: int, threads: int, clock: Callable[[], float]
) -> tuple[float, fastdl.MLP]:
    """Seconds of the epochs, and the model."""
    layers, batch = NETWORKS[network]
    model = fastdl.MLP(layers)
    model.scaling = Scaling(np.full(layers[0], 127.5), np.full(layers[0], 74.0))
    watch = _Clock(clock)
    trainer = fastdl.Trainer(model, fastdl.SGD(0.01), batch, epochs, n_threads=threads, callbacks=[watch])
    with _in_blocks("blocks" in way):
        trainer.fit(X, y)
    return watch.end - watch.start, model


def run(
    network: str, megabytes: float, epochs: int, rounds: int, threads: int, folder: Path, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each way in each round."""
    layers, batch = NETWORKS[network]
    rng, n_rows = np.random.default_rng(0), max(2 * batch, int(megabytes * 1e6) // (4 * layers[0]))
    X = rng.integers(0, 256, (n_rows, layers[0]), np.uint8)
    y = rng.integers(0, layers[-1], n_rows)
    forms = forms_of(X, folder)
    seconds: dict[str, list[float]] = {way: [] for way in forms}
    for number in range(rounds + 1):
        for way, data in forms.items():
            took, _ = trained(way, data, y, network, epochs, threads, clock)
            if number:  # the first round is warm-up
                seconds[way].append(took)
    return seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Print the medians, and how many times as long as float32 in memory the other ways take."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=float, default=200.0, help="of float32")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", help="for the files; a temporary one if left out")
    parser.add_argument("--cpu", action="store_true", help="take the processor's time")
    options = parser.parse_args(argv)
    clock = time.process_time if options.cpu else time.perf_counter
    for network, (layers, batch) in NETWORKS.items():
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            found = run(
                network, options.megabytes, options.epochs, options.rounds, options.threads, Path(folder), clock
            )
        print(f"{network} {'-'.join(map(str, layers))}, batches of {batch}, {options.megabytes:g} MB of float32")
        first = next(iter(found.values()))
        for way, samples in found.items():
            times = ratio(samples, first)
            print(
                f"{way:28} {summary(samples)['median'] / options.epochs:8.3f} s per epoch   {times['median']:5.2f} x "
                f"({times['low']:.2f} to {times['high']:.2f})"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
