"""How good the models of tables are: errors against LightGBM's, on tables that packages ship or that are drawn here.

    python -m fastdl_bench.quality                          every table of 3 splits, every peer that is installed
    python -m fastdl_bench.quality --data FOLDER            with diamonds.csv, titanic.csv, ... that lie there
    python -m fastdl_bench.quality --kept-aside             the tables that no default was chosen by
    python -m fastdl_bench.quality --peers fastdl,lightgbm --tables diamonds,digits --splits 1
    scripts/bench --only quality                            the first of them; with --update-readme README's tables too

The error is the log loss for classes and the root mean squared error for numbers, on a quarter of the rows that is held out.
Each peer runs in a process of its own with its defaults, gets the same frame with the same missing cells, and is scored here
alike. What counts are ratios: of a peer's error to LightGBM's, and their geometric mean.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastdl_bench.protocol import CHECKOUT

HELD_OUT = 0.25
REFERENCE = "lightgbm"


@dataclass(frozen=True)
class Table:
    """Where a table comes from, and what is learnt.

    load : gives a pandas frame, or the name of a CSV file in the folder of `--data`
    ignored : columns that say the target in other words
    """

    load: Callable[[], Any] | str
    target: str
    classes: bool
    ignored: tuple[str, ...] = ()


def _shipped(name: str) -> Callable[[], Any]:
    def load() -> Any:
        from sklearn import datasets

        return getattr(datasets, f"load_{name}")(as_frame=True).frame

    return load


def _drawn(name: str, **options: Any) -> Callable[[], Any]:
    def load() -> Any:
        import pandas as pd
        from sklearn import datasets

        X, y = getattr(datasets, f"make_{name}")(random_state=0, **options)
        return pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])]).assign(target=y)

    return load


def houses(n: int = 8_000) -> Any:
    """Like California housing: prices from place, income and rooms, capped, with skewed noise and columns."""
    import pandas as pd

    rng = np.random.default_rng(0)
    place = rng.uniform(-1, 1, (n, 2))
    income, rooms = rng.lognormal(1.2, 0.5, n), rng.lognormal(1.6, 0.3, n)
    towns = rng.uniform(-1, 1, (12, 2))
    near = np.min(np.hypot(*(place[:, None] - towns).transpose(2, 0, 1)), axis=1)
    price = (1 + 0.4 * income + 2 * np.exp(-6 * near) - 0.05 * rooms) * rng.lognormal(0, 0.2, n)
    columns = {"longitude": place[:, 0], "latitude": place[:, 1], "income": income, "rooms": rooms}
    noise = {f"other{i}": rng.lognormal(1, 1, n) for i in range(4)}
    return pd.DataFrame({**columns, **noise, "target": np.minimum(5, price)})


def _shop() -> Any:
    """Sales from categories, an hour of the day and a threshold: what trees like."""
    import pandas as pd

    rng = np.random.default_rng(1)
    n = 6_000
    town, kind = rng.integers(0, 40, n), rng.integers(0, 6, n)
    hour, price, stock = rng.uniform(0, 24, n), rng.lognormal(0, 1, n), rng.integers(0, 100, n)
    effect, slope = rng.normal(0, 1, 40), rng.normal(0, 1, 6)
    y = effect[town] + slope[kind] * np.log(price) + 2 * np.sin(hour / 24 * 2 * np.pi) + 1.5 * (stock < 20)
    price[rng.random(n) < 0.1] = np.nan
    words = {"town": [f"town {t}" for t in town], "kind": [f"kind {k}" for k in kind]}
    return pd.DataFrame({**words, "hour": hour, "price": price, "stock": stock, "target": y + rng.normal(0, 0.5, n)})


TABLES: dict[str, Table] = {
    "breast_cancer": Table(_shipped("breast_cancer"), "target", True),
    "wine": Table(_shipped("wine"), "target", True),
    "digits": Table(_shipped("digits"), "target", True),
    "diabetes": Table(_shipped("diabetes"), "target", False),
    "clusters": Table(_drawn("classification", n_samples=4000, n_informative=8, flip_y=0.05), "target", True),
    "friedman1": Table(_drawn("friedman1", n_samples=4000, noise=1.0), "target", False),
    "friedman2": Table(_drawn("friedman2", n_samples=2000, noise=50.0), "target", False),
    "houses": Table(houses, "target", False),
    "shop": Table(_shop, "target", False),
    "titanic": Table("titanic.csv", "survived", True, ("alive",)),
    "penguins": Table("penguins.csv", "species", True),
    "mpg": Table("mpg.csv", "mpg", False),
    "taxis": Table("taxis.csv", "total", False),
    "diamonds": Table("diamonds.csv", "price", False),
}
"""Where defaults may be tried."""
KEPT_ASIDE: dict[str, Table] = {
    "iris": Table(_shipped("iris"), "target", True),
    "friedman3": Table(_drawn("friedman3", n_samples=3000, noise=0.1), "target", False),
    "gaussian": Table(_drawn("gaussian_quantiles", n_samples=3000, n_features=10, n_classes=3), "target", True),
    "hastie": Table(_drawn("hastie_10_2", n_samples=4000), "target", True),
    "sparse_linear": Table(_drawn("sparse_uncorrelated", n_samples=1000, n_features=20), "target", False),
    "planets": Table("planets.csv", "method", True),
}
"""Only for acceptance."""


def split(frame: Any, table: Table, seed: int) -> tuple[Any, Any]:
    """Rows to learn from and rows to score, with each class in both as far as it has two rows; none without a target."""
    from sklearn.model_selection import train_test_split

    frame = frame.drop(columns=list(table.ignored)).dropna(subset=[table.target]).reset_index(drop=True)
    if table.classes:
        counts = frame[table.target].map(frame[table.target].value_counts())
        frame = frame[counts >= 8].reset_index(drop=True)
    stratify = frame[table.target] if table.classes else None
    train, test = train_test_split(frame, test_size=HELD_OUT, random_state=seed, stratify=stratify)
    return train, test


# --- the peers: each gives predictions for a frame, probabilities [N, classes] in the order of the sorted classes or numbers ---


def _fastdl(classes: bool, **options: Any) -> Any:
    import fastdl

    return (fastdl.TabularClassifier if classes else fastdl.TabularRegressor)(**options)


def _lightgbm(classes: bool) -> Any:
    import lightgbm

    return (lightgbm.LGBMClassifier if classes else lightgbm.LGBMRegressor)(verbose=-1)


def _pipeline(model: Any, X: Any) -> Any:
    """One-hot categories and standardised numbers with medians for what is missing, before a model of scikit-learn."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    words = make_column_selector(dtype_include=["category"])
    numbers = make_column_selector(dtype_exclude=["category"])
    return make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore", min_frequency=5, sparse_output=False), words),
            (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        ),
        model,
    )


def _boosting(classes: bool) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    return kind(categorical_features="from_dtype")


def _linear(classes: bool) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    return LogisticRegression(max_iter=2000) if classes else Ridge()


def _mlp(classes: bool) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    return (MLPClassifier if classes else MLPRegressor)(random_state=0)


PEERS: dict[str, Callable[[bool], Any]] = {
    "fastdl": _fastdl,
    "fastdl-5": lambda classes: _fastdl(classes, ensemble=5),
    "fastdl-folds": lambda classes: _fastdl(classes, cross_validation=5),
    "lightgbm": _lightgbm,
    "boosting": _boosting,
    "mlp": _mlp,
    "linear": _linear,
}


def with_categories(train: Any, test: Any) -> tuple[Any, Any]:
    """Text and booleans as pandas' categories, those of the training rows, for peers that want them so."""
    import pandas as pd

    train, test = train.copy(), test.copy()
    for name in train.columns:
        if train[name].dtype.kind not in "iuf":
            kinds = pd.CategoricalDtype(sorted(train[name].dropna().unique(), key=str))
            train[name], test[name] = train[name].astype(kinds), test[name].astype(kinds)
    return train, test


def error_of(found: Any, y: Any, classes: bool) -> float:
    """The log loss of probabilities [N, classes] for class indices [N], or the root mean squared error of numbers [N]."""
    told = np.asarray(found, dtype=np.float64)
    if not classes:
        return float(np.sqrt(np.mean((told.reshape(-1) - np.asarray(y, dtype=np.float64)) ** 2)))
    chances = np.clip(told, 1e-15, 1)
    return float(-np.log((chances / chances.sum(axis=1, keepdims=True))[np.arange(len(y)), y]).mean())


def _serve(peer: str, path: str) -> dict[str, Any]:
    """Fit a peer on the rows of a file and score it; in a process of its own."""
    import warnings

    import pandas as pd

    warnings.simplefilter("ignore")
    stored = pd.read_pickle(path)
    train, test, target, classes = stored["train"], stored["test"], stored["target"], stored["classes"]
    X, y, X_test, y_test = train.drop(columns=target), train[target], test.drop(columns=target), test[target]
    if not peer.startswith("fastdl"):
        X, X_test = with_categories(X, X_test)
    model = PEERS[peer](classes)
    if peer in ("linear", "mlp"):
        model = _pipeline(model, X)
        if not classes and peer == "mlp":  # its targets are not standardised by itself
            from sklearn.compose import TransformedTargetRegressor
            from sklearn.preprocessing import StandardScaler

            model = TransformedTargetRegressor(model, transformer=StandardScaler())
    if classes:
        words = np.unique(y)
        y, y_test = np.searchsorted(words, y), np.searchsorted(words, y_test)
    start = time.perf_counter()
    model.fit(X, np.asarray(y))
    error = error_of(model.predict_proba(X_test) if classes else model.predict(X_test), y_test, classes)
    return {"error": error, "seconds": time.perf_counter() - start}


def measure(tables: dict[str, Table], peers: Sequence[str], splits: int, folder: Path | None) -> dict[str, Any]:
    """{table: {peer: [{"error", "seconds"} for each split]}}; printed as it comes."""
    import pandas as pd

    results: dict[str, Any] = {}
    for name, table in tables.items():
        if isinstance(table.load, str):
            if folder is None or not (folder / table.load).exists():
                continue
            frame = pd.read_csv(folder / table.load)
        else:
            frame = table.load()
        results[name] = {peer: [] for peer in peers}
        for seed in range(splits):
            train, test = split(frame, table, seed)
            with tempfile.TemporaryDirectory() as scratch:
                path = os.path.join(scratch, "table.pkl")
                pd.to_pickle({"train": train, "test": test, "target": table.target, "classes": table.classes}, path)
                for peer in peers:
                    command = [sys.executable, "-m", "fastdl_bench.quality", "--serve", peer, path]
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                    if done.returncode:
                        print(f"{name}: {peer} failed: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                        results[name][peer].append({"error": math.nan, "seconds": math.nan})
                    else:
                        results[name][peer].append(json.loads(done.stdout))
        print(_row(name, results[name], peers), flush=True)
    return results


LABELS = {
    "fastdl": "`fastdl train`",
    "fastdl-5": "`--ensemble 5`",
    "fastdl-folds": "`--folds 5`",
    "lightgbm": "LightGBM",
    "boosting": "HistGradientBoosting",
    "mlp": "scikit-learn's MLP",
    "linear": "linear model",
}
FIRST = ("titanic", "diamonds")
"""Tables of README's first screen."""


def markdown(results: dict[str, Any], names: Sequence[str], means: bool = True) -> str:
    """The errors of tables by name as a table, each with its ratio to LightGBM's, and geometric means."""
    peers = [peer for peer in PEERS if all(peer in found for found in results.values())]
    lines = ["| error on rows held out | " + " | ".join(LABELS[peer] for peer in peers) + " |"]
    lines.append("| --- |" + " ---: |" * len(peers))
    for name in names:
        if name not in results:
            continue
        cells = [_digits(float(np.mean([r["error"] for r in results[name][peer]]))) for peer in peers]
        measure = "log loss" if {**TABLES, **KEPT_ASIDE}[name].classes else "RMSE"
        lines.append(f"| {name}, {measure} | " + " | ".join(cells) + " |")
    if means:
        for title, group in (
            ("by which defaults were chosen", TABLES),
            ("that were kept aside", KEPT_ASIDE),
        ):
            known = [results[name] for name in group if name in results]
            if known:
                ratios = [f"{_mean_ratio(known, peer):.2f}×" for peer in peers]
                lines.append(f"| {len(known)} tables {title}, of LightGBM's error | " + " | ".join(ratios) + " |")
    return "\n".join(lines)


def _digits(value: float) -> str:
    """Three digits: `539`, `56.4`, `0.0486`."""
    if math.isnan(value):
        return "fails"
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def _mean_ratio(known: Sequence[dict[str, Any]], peer: str) -> float:
    """The geometric mean of a peer's errors over LightGBM's, without tables that a peer fails on."""
    ratios = [a["error"] / b["error"] for found in known for a, b in zip(found[peer], found[REFERENCE])]
    return _geometric([ratio for ratio in ratios if not math.isnan(ratio)])


def publish(results: dict[str, Any], folder: Path) -> None:
    """Write `bench/quality.json`, to which new results are added, and the tables of README.md."""
    path = folder / "bench" / "quality.json"
    results = {**(json.loads(path.read_text()) if path.exists() else {}), **results}
    path.write_text(json.dumps(results, indent=1) + "\n")
    readme = folder / "README.md"
    text = readme.read_text()
    blocks = {"first": markdown(results, FIRST), "quality": markdown(results, [*TABLES, *KEPT_ASIDE], means=False)}
    for block, table in blocks.items():
        pattern = re.compile(rf"(<!-- bench:{block} -->).*?(<!-- /bench:{block} -->)", re.DOTALL)
        text = pattern.sub(lambda match, table=table: f"{match[1]}\n{table}\n{match[2]}", text)  # type: ignore[misc]
    readme.write_text(text)


def _row(name: str, found: dict[str, Any], peers: Sequence[str]) -> str:
    reference = [r["error"] for r in found.get(REFERENCE, [])]
    cells = []
    for peer in peers:
        errors = [r["error"] for r in found[peer]]
        relative = _geometric(np.divide(errors, reference)) if reference and peer != REFERENCE else None
        text = f"{np.mean(errors):.4g}" + ("" if relative is None else f" ({relative:.3f})")
        cells.append(f"{text}, {np.mean([r['seconds'] for r in found[peer]]):.2f} s")
    return f"| {name} | " + " | ".join(cells) + " |"


def _geometric(values: Any) -> float:
    return float(np.exp(np.mean(np.log(values))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, and the geometric means of the ratios to LightGBM's errors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", help="names, separated by commas; default: all")
    parser.add_argument("--kept-aside", action="store_true", help="the tables that are only for acceptance")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--data", type=Path, help="a folder with CSV files of the tables that are not shipped")
    parser.add_argument("--json", type=Path, help="where to write all results")
    parser.add_argument("--serve", nargs=2, metavar=("PEER", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--update-readme", action="store_true", help="write bench/quality.json and README's tables")
    options = parser.parse_args(arguments)
    if options.serve:
        print(json.dumps(_serve(*options.serve)))
        return 0
    tables = KEPT_ASIDE if options.kept_aside else TABLES
    if options.tables:
        tables = {name: {**TABLES, **KEPT_ASIDE}[name] for name in options.tables.split(",")}
    peers = options.peers.split(",")
    print(f"| table | {' | '.join(peers)} |\n|---|{'---:|' * len(peers)}", flush=True)
    results = measure(tables, peers, options.splits, options.data)
    if REFERENCE in peers:
        for peer in peers:
            count, mean = len(results) * options.splits, _mean_ratio(list(results.values()), peer)
            print(f"{peer}: {mean:.3f} of {REFERENCE}'s error over {count} splits (geometric mean)")
    if options.update_readme:
        if CHECKOUT is None:
            raise SystemExit("--update-readme: expected to run in a checkout of fastdl; this is installed")
        publish(results, CHECKOUT)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
