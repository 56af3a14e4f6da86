"""fastdl's estimators against scikit-learn's: whole `fit` calls and the prediction of a row, rounds interleaved.

Both draw the same first parameters and the same orders of the rows; their last losses are compared before anything is timed.
`Trainer.fit` with the same network and batches shows what the interface costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdl_bench.protocol import Peer, PeerError, closing_all
from fastdl_bench.statistics import ratio, summary
from fastdl_bench.training import LIBRARIES, Say, version_of

SECONDS = 900.0  # limit of one request
LOSS_TOLERANCE = 1e-2  # float32, after up to 1,800 steps


@dataclass(frozen=True)
class Fit:
    """A call of `fit`: so many epochs on these data, with the defaults of scikit-learn's MLP for all that is not here.

    classes : 0 for a regression
    predicts : instead of fit, calls of `predict` with one row are timed
    stored : 0, or how many numbers a row of sparse inputs has
    """

    title: str
    rows: int
    columns: int
    hidden: tuple[int, ...]
    epochs: int
    classes: int = 0
    batch: int | str = "auto"
    predicts: bool = False
    stored: int = 0

    def data(self) -> tuple[Any, NDArray]:
        """The digits with pixels from 0 to 1, or seeded numbers with a teacher; sparse ones in CSR."""
        if self.columns == 64:
            from fastdl.datasets import load_digits

            x, y = load_digits()
            return np.ascontiguousarray(x / np.float32(16)), y
        rng = np.random.default_rng(0)
        if self.stored:
            return self._sparse_data(rng)
        x = rng.standard_normal((self.rows, self.columns), np.float32)
        scores = (
            x @ rng.standard_normal((self.columns, max(1, self.classes)), np.float32) / np.float32(self.columns**0.5)
        )
        if self.classes:
            return x, (scores + rng.gumbel(size=scores.shape) / 2).argmax(axis=1)
        return x, np.tanh(scores[:, 0]) + np.float32(0.1) * rng.standard_normal(self.rows, np.float32)

    def _sparse_data(self, rng: np.random.Generator) -> tuple[Any, NDArray]:
        """Numbers in columns drawn at random, of which each belongs to a class."""
        from scipy import sparse

        columns = rng.integers(0, self.columns, (self.rows, self.stored))
        values = rng.random(columns.shape, np.float32)
        scores = np.zeros((self.rows, self.classes), np.float32)
        np.add.at(scores, (np.arange(self.rows)[:, None], columns % self.classes), values)
        starts = np.arange(0, columns.size + 1, self.stored)
        x = sparse.csr_array((values.ravel(), columns.ravel(), starts), (self.rows, self.columns))
        x.sum_duplicates()
        return x, scores.argmax(axis=1)


CASES: dict[str, Fit] = {
    "digits": Fit("fit digits 1,797 x 64, (100), 200 epochs", 1_797, 64, (100,), 200, 10),
    "regression": Fit("fit regression 50,000 x 30, (100), 5 epochs", 50_000, 30, (100,), 5),
    "images": Fit("fit classes 60,000 x 784, (512, 512), batch 256, 1 epoch", 60_000, 784, (512, 512), 1, 10, 256),
    "sparse": Fit(
        "fit sparse 20,000 x 100,000, 100 numbers a row, (100), 1 epoch", 20_000, 100_000, (100,), 1, 10, stored=100
    ),
    "row": Fit("predict 1 row, 64-100-10", 1_797, 64, (100,), 1, 10, predicts=True),
    "row-regression": Fit("predict 1 row, 30-100-1", 2_000, 30, (100,), 1, predicts=True),
}
PEERS = {"fastdl": "fastdl", "trainer": "fastdl.MLP", "sklearn": "scikit-learn"}
CALLS = 2_000


def run(cases: Sequence[str], threads: int, rounds: int, say: Say) -> list[dict[str, Any]]:
    """The cases by name; what is not installed is left out."""
    results = []
    with closing_all({}) as peers:
        for case in cases:
            say(f"{CASES[case].title}: {', '.join(PEERS.values())}")
            results.append(_measure(case, peers, threads, rounds))
    return results


def _measure(case: str, peers: dict[str, Peer], threads: int, rounds: int) -> dict[str, Any]:
    fit = CASES[case]
    left_out: dict[str, str] = {}
    losses: dict[str, float] = {}
    names = []
    for name in PEERS:
        try:
            if not LIBRARIES["sklearn"].available:
                raise PeerError("scikit-learn is not installed")
            if name not in peers:
                peers[name] = Peer("fastdl_bench.peers.estimators", threads, (name,))
            peers[name].request("setup", SECONDS, case=case)
            if not fit.predicts:
                losses[name] = peers[name].request("run", SECONDS)["loss"]
            names.append(name)
        except PeerError as error:
            if name == "fastdl":
                raise
            left_out[name] = str(error)
    if "sklearn" in losses:
        _compare(losses["fastdl"], losses["sklearn"])
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            request = {"calls": CALLS} if fit.predicts else {}
            taken = peers[name].request("run", SECONDS, **request)["seconds"]
            seconds[name].append(taken / CALLS if fit.predicts else taken)
    return {
        "name": case,
        "title": fit.title,
        "threads": threads,
        "epochs": fit.epochs,
        "left_out": left_out,
        "results": {
            name: {
                "label": PEERS[name],
                "version": version_of("sklearn" if name == "sklearn" else "fastdl"),
                "seconds": summary(samples),
                "against_fastdl": ratio(samples, seconds["fastdl"]),
            }
            for name, samples in seconds.items()
        },
    }


def _compare(loss: float, reference: float) -> None:
    if not abs(loss - reference) <= LOSS_TOLERANCE * abs(reference):
        raise PeerError(f"fastdl's estimator ends with the loss {loss}, scikit-learn's with {reference}")
