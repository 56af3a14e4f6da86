"""What the commands do, behind the parsing of their options."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.markup import escape

from fastdl import metrics
from fastdl.cli import curves, runs, wording
from fastdl.cli.options import (
    TrainOptions,
    check_numbers,
    dropout_shares,
    hidden_activations,
    hidden_sizes,
    one_of,
    optimizer_of,
    schedule_of,
    thread_count,
)
from fastdl.cli.progress import Progress
from fastdl.errors import InputError, MissingExtraError, OptionError
from fastdl.files.atomic import atomic_write
from fastdl.model import DTYPES, MLP, load
from fastdl.tables import data
from fastdl.tables.tasks import TASKS, check_task
from fastdl.training.trainer import Trainer

BATCH_SIZE = 32
"""Rows per step where the user does not say, and the training rows are as many.

It goes with the other defaults of `train` (hidden layers 256,128, Adam at 0.001, l2 0.001, 40 epochs). On the digits
over 200 seeds of split, weights and shuffling they reach 98.4 % validation accuracy on average (batch 64: 98.3 %; l2
0.0001: 98.3 %; hidden 512 alone: 98.5 %); 7 of the 200 stay below 97 %, on validation sets that are harder than others.
On a table of 54,000 diamond prices l2 0.001 leaves an RMSE of 600 where 0.0001 leaves 870.
"""


def train(options: TrainOptions, messages: Console, output: Console) -> int:
    """Train on a data set, write the run's folder, and return the exit code."""
    hidden = hidden_sizes(options.hidden)
    units = hidden_activations(options, len(hidden))
    optimizer = optimizer_of(options)
    schedule = schedule_of(options.schedule, options.warmup)
    dropout = dropout_shares(options.dropout, len(hidden))
    threads = thread_count(options.threads)
    task = check_task(options.task)
    dtype = one_of("--dtype", options.dtype, DTYPES)
    check_numbers(options)
    runs.check_folder(options.out, options.force)

    live = messages.is_terminal and sys.stderr.isatty() and not messages.is_dumb_terminal
    with _status(messages, live, "reading the data"):
        loaded = data.load_training(
            options.data,
            target=options.target,
            task=task,
            categorical=options.categorical,
            ignore=options.ignore,
            validation=options.validation,
            seed=options.seed,
        )
    rows = len(loaded.train)
    if options.batch_size is not None and options.batch_size > rows:
        raise OptionError(
            f"--batch-size: expected at most the {rows:,} training rows, got {options.batch_size}; "
            f"leave it out or use --batch-size {rows} for full-batch training"
        )
    layers = [loaded.X.shape[1], *hidden, loaded.targets.n_outputs]
    model = MLP(layers, units, TASKS[loaded.targets.task].output, seed=options.seed, dtype=dtype)
    X, y = loaded.X[loaded.train], loaded.targets.y[loaded.train]
    _standardize(model, X, y, loaded.pixels)
    _describe(model, loaded)
    batch_size = options.batch_size or min(BATCH_SIZE, rows)
    trainer = Trainer(
        model,
        optimizer,
        batch_size,
        options.epochs,
        options.l2,
        options.seed,
        threads,
        schedule=schedule,
        clip_norm=options.clip_norm,
        dropout=dropout,
        early_stopping=options.early_stopping,
    )
    wording.plan(messages, loaded, model, trainer)
    _warm_up(trainer, messages, live)
    if options.explain:
        with _status(messages, live, "measuring"):
            told = trainer.explain()
        messages.print(f"{told}\n", markup=False)

    held_out = None
    if len(loaded.validation):
        held_out = (loaded.X[loaded.validation], loaded.targets.y[loaded.validation])
    interrupted = False
    start = time.perf_counter()
    try:
        with Progress(messages, live) as progress:
            trainer.callbacks.append(progress)
            trainer.fit(X, y, validation_data=held_out)
    except KeyboardInterrupt:
        interrupted = True
        messages.print("interrupted: saving what was learned so far")
    seconds = time.perf_counter() - start
    if trainer.history.best_epoch is not None and not interrupted:
        messages.print(f"the model has the parameters of epoch {trainer.history.best_epoch}, the best one")

    # The rows of an unfinished epoch have moved the parameters since the last entry of the history.
    validation = assess(model, *held_out) if held_out is not None else {}
    record = runs.training_record(loaded, trainer, validation, interrupted)
    model.metadata["training"] = record
    config = runs.configuration(loaded, model, trainer, record, asdict(options), seconds)
    messages.print()
    folder = runs.write(options.out, loaded.name, trainer, config)
    _draw(folder, loaded.name, trainer, validation, messages)
    _summarise(output, folder, trainer, validation, seconds, len(loaded.train))
    return 130 if interrupted else 0


def predict(model_path: str, files: Sequence[str], out: str | None) -> None:
    """Write predictions, and probabilities where the model gives them, as CSV to `out` or stdout."""
    model = load(model_path)
    columns = predictions(model, data.load_features(files, model))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    # A float's str is the shortest text that gives the same float again.
    writer.writerows(zip(*(list(map(str, values)) for values in columns.values()), strict=True))
    if out is None:
        sys.stdout.write(text.getvalue())
        return
    with atomic_write(out) as file:
        file.write(text.getvalue().encode())


def predictions(model: MLP, X: ArrayLike) -> dict[str, Any]:
    """The columns of a prediction file: `prediction` and a probability `p_CLASS` of each class, or one pair per label.

    With several targets or labels the columns are `prediction_NAME` (and `p_NAME`).
    """
    n_outputs = model.layers[-1]
    names = model.target_names
    if names is None or len(names) != n_outputs:
        names = [str(i) for i in range(n_outputs)]
    found = model.predict(X)
    if model.output == "linear":
        if n_outputs == 1:
            return {"prediction": found}
        return {f"prediction_{name}": found[:, i] for i, name in enumerate(names)}
    chances = model.predict_proba(X)
    if model.output == "sigmoid" and n_outputs > 1:
        columns: dict[str, Any] = {}
        for i, name in enumerate(names):
            columns |= {f"prediction_{name}": found[:, i], f"p_{name}": chances[:, i]}
        return columns
    classes = model.classes if model.classes is not None else list(range(max(2, n_outputs)))
    if model.output == "sigmoid":
        return {"prediction": [classes[i] for i in found], f"p_{classes[1]}": chances[:, 0]}
    return {"prediction": [classes[i] for i in found]} | {f"p_{c}": chances[:, i] for i, c in enumerate(classes)}


def evaluate(model_path: str, files: Sequence[str], target: str | None, output: Console) -> None:
    """Print loss and metrics of a model on a data set."""
    model = load(model_path)
    X, y = data.load_labelled(files, model, target)
    values = assess(model, X, y)
    wording.print_pairs(
        output, {"rows": f"{len(X):,}", **{wording.LABELS[k]: wording.metric(k, v) for k, v in values.items()}}
    )


def assess(model: MLP, X: NDArray, y: NDArray) -> dict[str, float]:
    """The metrics of a model on X and y, and the mean loss."""
    targets = model.prepare_targets(y, len(X))
    raw = model.forward(X)
    return {**metrics.evaluate(model, raw, targets), "loss": model.engine.mean_loss(raw, targets)}


def inspect(model_path: str, output: Console) -> None:
    """Print what a model file holds."""
    wording.inspection(output, load(model_path), model_path)


@dataclass(frozen=True)
class BenchOptions:
    """The options of `fastdl bench`, by their names on the command line; None is "not given"."""

    model: str
    batch: int
    activation: str
    peers: str | None
    threads: int | None
    quick: bool
    json: str | None


def bench(options: BenchOptions, messages: Console) -> None:
    """Measure the training of a network here, against the libraries that are installed, and print the answer."""
    from fastdl_bench import model, show
    from fastdl_bench.protocol import PeerError
    from fastdl_bench.versions import UsageError

    def say(text: str) -> None:
        messages.print(escape(text))

    try:
        workload = model.workload_of(options.model, options.batch, options.activation)
        threads = model.check_threads(options.threads)
        names = model.libraries(options.peers, say)
        result = model.run(workload, names, threads, model.QUICK if options.quick else model.NORMAL, say)
    except UsageError as error:
        raise OptionError(str(error)) from error
    except PeerError as error:
        raise InputError(f"the measurement failed: {error}") from error
    if options.json is not None:
        with atomic_write(options.json) as file:
            file.write((json.dumps(result, indent=1) + "\n").encode())
    show.show(result)
    print(model.summary(result))


def _standardize(model: MLP, X: NDArray, y: NDArray, pixels: bool) -> None:
    """Give the model the training rows' statistics.

    Pixels share one unit, hence one scale (the root mean square of their deviations). A scale each would blow up the
    noise of pixels that are nearly always blank: on the digits, 20 seeds, that costs 0.3 points of validation accuracy
    and 0.02 of loss, and a pixel that is blank in all training rows would not be scaled at all.
    """
    model.standardize(X, y if model.output == "linear" else None)
    if pixels and model.scaling is not None:
        deviation = float(np.sqrt(np.mean(X.var(axis=0, dtype=np.float64)))) or 1.0
        model.scaling = replace(model.scaling, scale=np.full(X.shape[1], deviation))


def _describe(model: MLP, loaded: data.TrainingData) -> None:
    """Put into the model what predictions need besides numbers."""
    model.feature_names = loaded.feature_names
    model.target_names = loaded.targets.names if loaded.columns is not None else None
    model.classes = loaded.targets.classes
    model.metadata["task"] = loaded.targets.task
    if loaded.columns is not None:
        model.metadata["columns"] = [column.to_json() for column in loaded.columns]


def _warm_up(trainer: Trainer, messages: Console, live: bool) -> None:
    """Have the kernels compiled or loaded, by training a tiny model of the same kind, before the clock runs."""
    model = trainer.model
    n_out = 2
    tiny = MLP([1, 1, n_out], output=model.output, dtype=model.dtype.name)
    X = np.linspace(-1, 1, 4)[:, None]
    y: NDArray[Any] = np.array([0, 1, 0, 1]) if model.output == "softmax" else np.eye(4)[:, :n_out]
    start = time.perf_counter()
    with _status(messages, live, "preparing the kernels: compiled once on a machine, then kept"):
        Trainer(tiny, replace(trainer.optimizer, lr=1e-3), 2, 1, trainer.l2, 0, trainer.n_threads).fit(
            X, y, validation_data=(X, y)
        )
    seconds = time.perf_counter() - start
    if seconds > 3:
        messages.print(f"prepared the kernels in {wording.duration(seconds)}; they are kept for the next runs\n")


@contextlib.contextmanager
def _status(messages: Console, live: bool, text: str) -> Iterator[None]:
    with messages.status(text) if live else contextlib.nullcontext():
        yield


def _draw(folder: Path, name: str, trainer: Trainer, validation: dict[str, float], messages: Console) -> None:
    """Draw the learning curves, if any epoch was finished; the run is complete without them."""
    if not trainer.history.loss:
        return
    title = name
    for metric, value in list(validation.items())[:1]:
        title += f": validation {wording.LABELS.get(metric, metric)} {wording.metric(metric, value)}"
    try:
        with atomic_write(folder / runs.CURVES) as file:
            curves.draw(trainer.history, title, file)
    except MissingExtraError as error:
        messages.print(escape(str(error)))
    except Exception as error:  # a picture that fails must not cost the training
        messages.print(escape(f"the learning curves are not drawn ({type(error).__name__}: {error})"))


def _summarise(
    output: Console, folder: Path, trainer: Trainer, validation: dict[str, float], seconds: float, rows: int
) -> None:
    trained = sum(trainer.history.epoch_seconds)
    epochs = wording.plural(trainer.epochs_done, "epoch")
    speed = f", {wording.rate(trainer.epochs_done * rows / trained)} rows/s" if trained > 0 else ""
    files = ", ".join(name for name in runs.FILES if (folder / name).exists())
    facts = {}
    if validation:
        facts["validation"] = wording.metrics(validation)
    elif trainer.history.loss:
        facts["training"] = wording.metrics({"loss": trainer.history.loss[-1]})
    facts |= {"time": f"{wording.duration(seconds)} for {epochs}{speed}", "saved in": f"{folder}: {files}"}
    wording.print_pairs(output, facts)
