"""What the commands do, behind the parsing of their options."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape

from fastdl import metrics, precision, svg
from fastdl.cli import checkpoints, columns, ensembles, pages, parallel, reading, runs, signals, wording
from fastdl.cli.options import (
    check_numbers,
    hidden_activations,
    hidden_sizes,
    loss_of,
    one_of,
    option_error,
    settings_of,
    thread_count,
)
from fastdl.cli.progress import Progress
from fastdl.cli.recipe import check_more, filled, settings_in
from fastdl.cli.train_options import FilledOptions, TrainOptions
from fastdl.errors import InputError, OptionError
from fastdl.files import exports
from fastdl.files.atomic import atomic_write
from fastdl.model import DTYPES, MLP
from fastdl.report.data import Finished, Folds
from fastdl.tables import data
from fastdl.tables.ensemble import Ensemble
from fastdl.tables.loading import load
from fastdl.tables.model import TableModel
from fastdl.tables.tasks import check_task
from fastdl.training import fitting
from fastdl.training.blending import LINEAR_SHARE, blended
from fastdl.training.display import can_be_live
from fastdl.training.ensembles import Members
from fastdl.training.health import HealthWatch
from fastdl.training.history import History
from fastdl.training.recipes import Facts
from fastdl.training.trainer import Trainer


def train(
    typed: TrainOptions, messages: Console, output: Console, extras: Mapping[str, str] | None = None
) -> int:  # fmt: skip
    """Train on a data set, write the run's folder, and return the exit code; `extras` are more text files for the folder."""
    check(typed)
    if parallel.is_first():
        runs.check_folder(typed.out, typed.force)

    live = can_be_live(messages)
    with _status(messages, live, "reading the data"):
        loaded, wanted, folds = reading.load_as_asked(typed, messages)
    loaded.notes.extend(precision.notes(typed.precision))
    options = filled(typed, Facts.of(loaded, typed.folds or 0))
    rows = len(loaded.train)
    with option_error("--"):
        fitting.check_interval(loaded, options.interval, folds or options.folds or 0)
    if options.batch_size > rows:
        raise OptionError(
            f"--batch-size: expected at most the {rows:,} training rows, got {options.batch_size}; "
            f"leave it out or use --batch-size {rows} for full-batch training"
        )
    try:
        class_weight = fitting.check_class_weight(loaded, options.class_weight, "--class-weight")
    except InputError as error:
        raise OptionError(str(error)) from error
    blueprint, trainer_of = blueprint_of(options, class_weight)
    with option_error("--loss: "):
        model = blueprint.model(loaded)
    with option_error("--set "):
        trainer = trainer_of(model, rows)
    wording.plan(messages, loaded, model, trainer, typed.recipe)
    parallel.join(trainer, messages)
    columns.show(messages, loaded)
    _warm_up(trainer, messages, live, options.health)
    told = ""
    if options.explain:
        with _status(messages, live, "measuring"):
            told = str(trainer.explain())
        messages.print(f"{told}\n", markup=False)

    job = Job(typed, options, loaded, wanted, folds, blueprint, trainer_of, trainer, told=told)
    with signals.as_interrupts(), parallel.folder_for(options.out, loaded.name, options.force) as folder:
        if parallel.is_first():
            runs.write_extras(folder, extras or {})
        if options.ensemble > 1 or options.folds:
            command = typed.command()
            return ensembles.train(
                options, loaded, wanted, blueprint, trainer_of, messages, output, live, folder, command
            )
        return _train(job, folder, messages, output, live)


def resume(run: str, epochs: int | None, threads: str | None, messages: Console, output: Console) -> int:
    """Go on with a run that was interrupted, to the same bits, or to more epochs; return the exit code."""
    folder = Path(run)
    if not folder.is_dir():
        raise InputError(
            f"{run}: expected the folder of a run, found {'a file' if folder.exists() else 'nothing'} there"
        )
    with signals.as_interrupts(), parallel.kept(folder):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{folder}: cannot be written to; copy the run to another folder and resume it there")
        kept = checkpoints.read(folder)
        trainer = kept.trainer
        if epochs is not None and epochs < max(1, kept.done):
            raise OptionError(f"--epochs: expected at least the {kept.done} epochs that are done, got {epochs}")
        extended = epochs is not None and epochs != trainer.epochs
        trainer.epochs = trainer.epochs if epochs is None else epochs
        if (kept.stopped or kept.done >= trainer.epochs) and runs.is_written(folder):
            why = (
                "early stopping has ended it" if kept.stopped else f"fastdl resume {run} --epochs COUNT goes on further"
            )
            output.print(
                f"{folder}: finished, {kept.done} of {wording.plural(trainer.epochs, 'epoch')}; {why}", markup=False
            )
            return 0
        if parallel.is_first():
            runs.clean(folder)
        typed = replace(kept.options, epochs=trainer.epochs, threads=threads or kept.options.threads)
        trainer.n_threads = thread_count(typed.threads)
        parallel.join(trainer, messages)
        live = can_be_live(messages)
        with _status(messages, live, "reading the data"):
            loaded, wanted, folds = reading.load_as_asked(typed, messages)
        checkpoints.check_data(kept, loaded)
        options = filled(typed, Facts.of(loaded))
        wording.plan(messages, loaded, trainer.model, trainer, typed.recipe)
        batches = f" and {wording.plural(kept.batches, 'batch')}" if kept.batches else ""
        messages.print(f"going on after {wording.plural(kept.done, 'epoch')}{batches}\n", markup=False)
        _warm_up(trainer, messages, live, options.health)
        blueprint, trainer_of = blueprint_of(options, trainer.class_weight)
        job = Job(typed, options, loaded, wanted, folds, blueprint, trainer_of, trainer, extended)
        return _train(job, folder, messages, output, live)


@dataclass(frozen=True)
class Job:
    """A training that is ready: options as typed and as filled in, data, and trainer.

    wanted, folds, blueprint, trainer_of : for cross-validation
    extended : the schedule was another one at the beginning
    told : what `--explain` has said
    """

    typed: TrainOptions
    options: FilledOptions
    loaded: data.TrainingData
    wanted: data.Options
    folds: int
    blueprint: fitting.Blueprint
    trainer_of: Callable[[MLP, int], Trainer]
    trainer: Trainer
    extended: bool = False
    told: str = ""


def _train(job: Job, folder: Path, messages: Console, output: Console, live: bool) -> int:
    """Train to the end or an interruption, write the results, and return the exit code."""
    loaded, trainer, options = job.loaded, job.trainer, job.options
    model = trainer.model

    def say(text: str) -> None:
        messages.print(text, markup=False)

    note = checkpoints.note_of(replace(job.typed, mapped=loaded.is_mapped), loaded)  # with less memory free, too
    keeper = checkpoints.Keeper(folder / runs.CHECKPOINT, trainer, note, say)
    X, y = loaded.training_pair()
    held_out = loaded.validation_pair()
    watch = HealthWatch() if options.health else None
    code = 0
    start = time.perf_counter()
    try:
        with (
            pages.live(options.watch and parallel.is_first(), loaded.name, model.output, messages) as shown,
            Progress(messages, live) as progress,
        ):
            trainer.callbacks.extend((progress, *shown, *([] if watch is None else [watch]), keeper))
            trainer.fit(X, y, validation_data=held_out)
    except KeyboardInterrupt as error:
        code = signals.exit_code(error)
        keeper.rescue()
        messages.print("interrupted: saving what was learned so far")
    seconds = time.perf_counter() - start
    if not parallel.is_first():
        return code
    if watch is not None:
        watch.look(trainer, loaded)
    if trainer.history.best_epoch is not None and not code:
        messages.print(f"the model has the parameters of epoch {trainer.history.best_epoch}, the best one")

    temperature, folds, more = None, None, settings_in(options.set)
    if held_out is not None and more["calibrate"]:
        temperature = fitting.calibrate(model, *held_out)
    if held_out is not None and more["blend_linear"] and not code:
        model = blended(model, (X, y), held_out, None, trainer.class_weight)
    share = model.metadata.get(LINEAR_SHARE)
    # The rows of an unfinished epoch have moved the parameters since the last entry of the history.
    validation = fitting.assess(model, *held_out) if held_out is not None else {}
    naive = metrics.baseline(model, y, y if held_out is None else held_out[1])
    if job.folds and not code:
        with _status(messages, live, f"cross-validating: {job.folds} models"):
            members = Members(
                loaded, job.wanted, job.blueprint, job.trainer_of, folds=job.folds, blends=share is not None,
                calibrates=more["calibrate"],
            )  # fmt: skip
            members.fit()
            found = members.out_of_fold()
            folds = Folds(found, *members.a_fold())
            validation = found.metrics
        if options.interval is not None:
            fitting.give_interval(model, found.averaged, loaded.targets.y[found.rows], options.interval, options.seed)
    elif options.interval is not None and held_out is not None:
        fitting.give_interval(model, model.predict(held_out[0]), held_out[1], options.interval, options.seed)
    record = runs.training_record(loaded, trainer, validation, bool(code))
    record |= {
        "cross_validation": job.folds or None,
        "baseline": naive if validation else {},
        "temperature": temperature,
        LINEAR_SHARE: share,
    }
    model.metadata["training"] = record
    config = runs.configuration(loaded, model, trainer, record, asdict(job.options), seconds)
    messages.print()
    runs.write(folder, model, trainer.history, config)
    _draw(folder, loaded.name, trainer.history, validation, messages)
    if options.report:
        with _status(messages, live, "making the page of the run"):
            run = Finished(loaded, model, trainer, trainer.history, config, job.typed.command())
            run = replace(run, watch=watch, folds=folds, one_schedule=not job.extended, told=job.told)
            pages.write(folder, run, messages)
    if watch is not None and watch.seen:
        messages.print(f"\n{watch.seen[-1]}\n", markup=False)
    _summarise(output, folder, trainer, model, record, validation, seconds, len(loaded.train))
    if code and (folder / runs.CHECKPOINT).exists():
        say(f"fastdl resume {folder} goes on from here")
    return code


def blueprint_of(options: FilledOptions, class_weight: Any) -> tuple[fitting.Blueprint, Callable[..., Trainer]]:
    """What makes a model for a data set, and a trainer for a model and its number of training rows, of filled-in options."""
    hidden, more = hidden_sizes(options.hidden), settings_in(options.set)
    settings = settings_of(options, len(hidden), more) | {"class_weight": class_weight}
    blueprint = fitting.Blueprint(
        hidden, hidden_activations(options, len(hidden)), options.seed, options.dtype, loss_of(options.loss),
        **{name: more[name] for name in ("init", "scaling", "clip", "embedding", "scale_inputs", "parametric", "category_size")},
    )  # fmt: skip

    def trainer_of(model: MLP, rows: int, dropout: float | None = None) -> Trainer:
        own = {"batch_size": min(options.batch_size, rows), **({} if dropout is None else {"dropout": dropout})}
        return Trainer(model, **{**settings, **own})

    return blueprint, trainer_of


def check(typed: TrainOptions) -> None:
    """Refuse options that cannot be, before anything is read."""
    options = filled(typed)
    hidden, more = hidden_sizes(options.hidden), settings_in(options.set)
    hidden_activations(options, len(hidden))
    settings_of(options, len(hidden), more)
    check_more(more)
    check_task(options.task)
    one_of("--dtype", options.dtype, DTYPES)
    check_numbers(options, typed)
    for name in ("health", "watch"):
        if getattr(options, name) and (options.ensemble > 1 or options.folds):
            raise OptionError(f"--{name}: expected a training of one model, got --ensemble or --folds; leave it out")


def inspect(model_path: str, output: Console, html: str | None = None) -> None:
    """Print what a model file holds, or write it as a page to the file `html`."""
    model = load(model_path)
    if html is not None:
        pages.inspection(model, model_path, html, ensembles.told(model))
        return
    if isinstance(model, Ensemble):
        ensembles.inspection(output, model, model_path)
    else:
        wording.inspection(output, model, model_path)
    facts = ensembles.told(model)
    if facts:
        wording.print_pairs(output, facts)
    if isinstance(model, TableModel) or (isinstance(model, Ensemble) and model.reads_tables):
        columns.table_of_kinds(output, model.preprocessor)


def export(model_path: str, out: str, messages: Console) -> None:
    """Write a model in the format that the file's name asks for."""
    model = load(model_path)
    if isinstance(model, Ensemble):
        raise InputError(
            f"{model_path}: expected one model to export, got an ensemble of {len(model.members)}; "
            f"model.members[0].export(...) in Python writes one of them"
        )
    model.export(out)
    messages.print(f"wrote {escape(out)}: {exports.EXPORTS[Path(out).suffix.lower()].what}")


def _warm_up(trainer: Trainer, messages: Console, live: bool, health: bool) -> None:
    """Have the kernels compiled or loaded, by training a tiny model of the same kind, before the clock runs."""
    model = trainer.model
    n_out = model.layers[-1] if isinstance(model.loss.parameter, tuple) else 2
    embedding = None if model.embedding is None else model.embedding.for_all_columns()
    tiny = MLP(
        [1, *(1 for _ in model.activations), n_out], model.activations, model.output, dtype=model.dtype.name,
        loss=model.loss, embedding=embedding, scale_inputs=model.scale_inputs,
    )  # fmt: skip
    X = np.linspace(-1, 1, 4)[:, None]
    y: NDArray[Any] = np.array([0, 1, 0, 1]) if model.output == "softmax" else np.eye(4)[:, :n_out]
    start = time.perf_counter()
    with _status(messages, live, "preparing the kernels: compiled once on a machine, then kept"):
        short = Trainer(tiny, replace(trainer.optimizer, lr=1e-3), 2, 1, trainer.l2, 0, trainer.n_threads)
        short.dropout, short.clip_norm = trainer.dropout, trainer.clip_norm
        short.fit(X, y, validation_data=(X, y))
        if health:
            short.health()
    seconds = time.perf_counter() - start
    if seconds > 3:
        messages.print(f"prepared the kernels in {wording.duration(seconds)}; they are kept for the next runs\n")


@contextlib.contextmanager
def _status(messages: Console, live: bool, text: str) -> Iterator[None]:
    with messages.status(text) if live else contextlib.nullcontext():
        yield


def _draw(folder: Path, name: str, history: History, validation: dict[str, float], messages: Console) -> None:
    """Draw the learning curves, if any epoch was finished; the run is complete without them."""
    if not history.loss:
        return
    title = name
    for metric, value in list(validation.items())[:1]:
        title += f": validation {wording.LABELS.get(metric, metric)} {wording.metric(metric, value)}"
    try:
        with atomic_write(folder / runs.CURVES) as file:
            file.write(svg.picture(title, history.pictures()[:2]).encode())
    except Exception as error:  # a picture that fails must not cost the training
        messages.print(escape(f"the learning curves are not drawn ({type(error).__name__}: {error})"))


def _summarise(
    output: Console,
    folder: Path,
    trainer: Trainer,
    model: MLP,
    record: Mapping[str, Any],
    validation: Mapping[str, float],
    seconds: float,
    rows: int,
) -> None:
    trained = sum(trainer.history.epoch_seconds)
    epochs = wording.plural(trainer.epochs_done, "epoch")
    speed = f", {wording.rate(trainer.epochs_done * rows / trained)} rows/s" if trained > 0 else ""
    facts = {}
    if validation:
        folds = record["cross_validation"]
        facts["validation"] = wording.metrics(validation) + (f"   ({folds}-fold cross-validation)" if folds else "")
        facts["baseline"] = wording.naive(model.output, record["baseline"])
    elif trainer.history.loss:
        facts["training"] = wording.metrics({"loss": trainer.history.loss[-1]})
    facts |= ensembles.told(model)
    facts |= {
        "time": f"{wording.duration(seconds)} for {epochs}{speed}",
        "saved in": f"{folder}: {runs.left_in(folder)}",
    }
    facts |= parallel.facts(trainer)
    wording.print_pairs(output, facts)
