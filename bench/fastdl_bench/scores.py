"""The same answers as scikit-learn: mean scores of fastdl's estimators and of scikit-learn's over seeds, on eight data sets.

`python -m fastdl_bench.scores` prints a table and ends with 1 if a mean is further than one standard error from
scikit-learn's. Each seed draws the split into training and test rows, the first parameters and the orders.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SOLVERS = ("adam", "sgd", "lbfgs")
Table = tuple[NDArray[np.float64], NDArray[Any]]


@dataclass(frozen=True)
class DataSet:
    """A table, the kind of estimator that it is for, and parameters of both libraries' estimators."""

    load: Callable[[], Table]
    classes: bool = True


def _toy(name: str) -> Callable[[], Table]:
    def load() -> Table:
        from sklearn import datasets

        return getattr(datasets, f"load_{name}")(return_X_y=True)

    return load


def _houses() -> Table:
    """Like California housing: prices from place, income and rooms, with skewed noise."""
    rng = np.random.default_rng(0)
    X = np.column_stack(
        [rng.uniform(-1, 1, (3000, 2)), rng.lognormal(1.2, 0.5, 3000), rng.lognormal(1.6, 0.3, (3000, 5))]
    )
    price = 1 + 0.4 * X[:, 2] - np.hypot(X[:, 0] - 0.3, X[:, 1] + 0.2) + 0.1 * X[:, 2] * X[:, 0]
    return X, np.minimum(5.0, price * rng.lognormal(0, 0.2, 3000))


def _several_labels() -> Table:
    from sklearn.datasets import make_multilabel_classification

    return make_multilabel_classification(800, 20, n_classes=5, random_state=0)


def _imbalanced() -> Table:
    from sklearn.datasets import make_classification

    return make_classification(2000, 15, n_informative=8, n_clusters_per_class=2, weights=[0.95], random_state=0)


def _words() -> Table:
    """Counts of 500 words in 600 texts of three topics, most of them 0."""
    rng = np.random.default_rng(0)
    topics = rng.dirichlet(np.full(500, 0.05), 3) * 0.5 + rng.dirichlet(np.full(500, 0.3)) * 0.5
    y = rng.integers(3, size=600)
    return np.array([rng.multinomial(40, topics[topic]) for topic in y]).astype(np.float64), y


DATA_SETS: dict[str, DataSet] = {
    "digits": DataSet(_toy("digits")),
    "wine": DataSet(_toy("wine")),
    "breast cancer": DataSet(_toy("breast_cancer")),
    "diabetes": DataSet(_toy("diabetes"), classes=False),
    "houses": DataSet(_houses, classes=False),
    "several labels": DataSet(_several_labels),
    "imbalanced": DataSet(_imbalanced),
    "words": DataSet(_words),
}


def scores(module: Any, data_set: str, solver: str, seeds: Sequence[int], **parameters: Any) -> NDArray[np.float64]:
    """Accuracy or R² on a quarter of the rows, for each seed, of the estimators in `module`."""
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    description = DATA_SETS[data_set]
    X, y = description.load()
    kind = module.MLPClassifier if description.classes else module.MLPRegressor
    # Defaults but for the rate of plain descent on classes, which moves little in 200 epochs otherwise.
    rate = {"learning_rate_init": 0.02} if solver == "sgd" and description.classes else {}
    found = []
    for seed in seeds:
        X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=seed)
        model = make_pipeline(StandardScaler(), kind(solver=solver, random_state=seed, **rate, **parameters))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 200 epochs are not always enough
            found.append(model.fit(X_train, y_train).score(X_test, y_test))
    return np.array(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 0 if all means are as near as they should be."""
    parser = argparse.ArgumentParser(prog="python -m fastdl_bench.scores", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, metavar="N")
    seeds = range(parser.parse_args(argv).seeds)
    import sklearn.neural_network as theirs

    import fastdl as ours

    print("| data | solver | fastdl | scikit-learn | standard error |\n|---|---|---:|---:|---:|")
    far = 0
    for data_set in DATA_SETS:
        for solver in SOLVERS:
            mine, wanted = (scores(module, data_set, solver, seeds) for module in (ours, theirs))
            error = float(np.std(wanted, ddof=1) / np.sqrt(len(wanted))) if len(wanted) > 1 else float("nan")
            is_far = abs(mine.mean() - wanted.mean()) > error
            far += is_far
            print(
                f"| {data_set} | {solver} | {mine.mean():.4f} | {wanted.mean():.4f} | {error:.4f}{' FAR' if is_far else ''} |",
                flush=True,
            )
    print(f"{far} of {len(DATA_SETS) * len(SOLVERS)} means are further than one standard error apart")
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
