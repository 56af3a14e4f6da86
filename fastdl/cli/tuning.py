"""`fastdl tune`: a search for good settings, then `fastdl train` with the best of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from fastdl import checks
from fastdl.cli import commands, parallel, runs, wording
from fastdl.cli.options import dropout_shares, optimizer_of, option_error
from fastdl.cli.recipe import filled, settings_in, table_wanted
from fastdl.cli.train_options import TuneOptions
from fastdl.errors import InputError, OptionError
from fastdl.model import MLP
from fastdl.tables import data, store
from fastdl.tables.tasks import check_task
from fastdl.training import fitting
from fastdl.training.display import Display
from fastdl.training.recipes import Facts
from fastdl.training.trainer import Trainer
from fastdl.training.tuning import Candidate, Search, Trial, draw, with_rows_to_choose_by

_SHOWN = 5


def tune(typed: TuneOptions, messages: Console, output: Console) -> int:
    """Search, train with the best settings on all training rows, and return the exit code."""
    commands.check(typed)
    with option_error():
        trials = checks.count(typed.trials, "--trials", 1, "the settings to try")
    _check_alone(typed)
    runs.check_folder(typed.out, typed.force)
    share = 0.2 if typed.validation is None else typed.validation
    wanted = replace(table_wanted(typed, check_task(typed.task), share), keeps_table=True)
    if store.is_wanted(typed.data, wanted):
        raise OptionError(f"tune: {store.NO_ROWS_OF_ANY_ORDER}")
    loaded = data.load_training(typed.data, wanted)
    if loaded.is_mapped:
        raise OptionError(f"tune: {store.NO_ROWS_OF_ANY_ORDER}")
    if len(loaded.train) < fitting.SMALL:
        raise InputError(
            f"tune: expected at least {fitting.SMALL} training rows to choose by, got {len(loaded.train)}; use fastdl train"
        )
    part = with_rows_to_choose_by(loaded, wanted)
    with option_error():
        class_weight = fitting.check_class_weight(loaded, typed.class_weight, "--class-weight")
        fitting.check_interval(loaded, typed.interval)
    options = filled(typed, Facts.of(part))
    with option_error():
        blueprint, plain_trainer_of = commands.blueprint_of(options, class_weight)
    hidden = blueprint.hidden
    units = blueprint.activation
    blueprint = replace(blueprint, activation=units[0] if isinstance(units, list) and units else "relu")

    def trainer_of(model: MLP, rows: int, candidate: Candidate) -> Trainer:
        trainer = plain_trainer_of(model, rows, candidate.dropout if candidate.hidden else 0.0)
        trainer.optimizer = replace(trainer.optimizer, lr=candidate.lr)
        trainer.early_stopping = None
        return trainer

    rate = optimizer_of(options, settings_in(options.set)).lr
    first = Candidate(tuple(hidden), rate, max(dropout_shares(options.dropout, len(hidden)), default=0.0))
    search = Search(part, blueprint, trainer_of, draw(first, trials, options.seed), options.epochs)
    messages.print(
        f"{wording.plural(trials, 'trial')} on {len(part.train):,} rows, compared on {len(part.validation):,} others; "
        f"the first is as the options say"
    )
    with Display(messages, what="trials") as display:
        found = search.run(
            lambda number, count, state: display(state, f"round {number} of {count}: "), *parallel.elsewhere()
        )
    _show(messages, found)
    best = found[0].candidate
    blends = settings_in(filled(typed, Facts.of(loaded)).set)["blend_linear"]  # though layers are named from here on
    chosen = replace(
        typed,
        hidden=",".join(map(str, best.hidden)) or "none",
        lr=best.lr,
        dropout=f"{best.dropout:g}",
        set=[*typed.set, *(["blend_linear=true"] if blends else [])],
    )
    messages.print(f"training with the settings of trial {found[0].number} on {len(loaded.train):,} rows")
    return commands.train(chosen, messages, output, {runs.TRIALS: trials_csv(found)})


def _check_alone(options: TuneOptions) -> None:
    """Refuse options that a search has no use for."""
    if options.folds is not None:
        raise OptionError(
            "--folds: expected fastdl train with it, got fastdl tune, which chooses by rows that the folds would judge by"
        )
    if options.time is not None:
        raise OptionError("--time: expected fastdl train with it, got fastdl tune, which draws the rows to choose by")
    if options.activation is not None and "," in options.activation:
        raise OptionError(f"--activation: expected one name for networks of any depth, got {options.activation!r}")
    if options.dropout is not None and "," in options.dropout:
        raise OptionError(f"--dropout: expected one share for networks of any depth, got {options.dropout!r}")


def trials_csv(trials: Sequence[Trial]) -> str:
    """One line for each trial, the best first."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "hidden", "lr", "dropout", "epochs", "val_loss", *names, "seconds", "error"])
    for trial in trials:
        c = trial.candidate
        writer.writerow(
            [
                trial.number, "-".join(map(str, c.hidden)), c.lr, c.dropout, trial.epochs,
                "" if trial.error else repr(trial.loss), *(repr(trial.metrics[n]) if n in trial.metrics else "" for n in names),
                f"{trial.seconds:.3f}", trial.error,
            ]
        )  # fmt: skip
    return text.getvalue()


def _show(messages: Console, trials: Sequence[Trial]) -> None:
    """Print the best trials as a table."""
    shown = [trial for trial in trials if not trial.error][:_SHOWN]
    names = list(shown[0].metrics)
    table = Table.grid(padding=(0, 2, 0, 0))
    header = ["trial", "hidden", "lr", "dropout", "epochs", "val loss", *(wording.LABELS.get(n, n) for n in names)]
    table.add_row(*header, style="dim")
    for trial in shown:
        c = trial.candidate
        cells = [
            str(trial.number),
            ",".join(map(str, c.hidden)) or "none",
            f"{c.lr:g}",
            f"{c.dropout:g}",
            str(trial.epochs),
        ]
        values = [wording.metric("loss", trial.loss), *(wording.metric(n, trial.metrics[n]) for n in names)]
        table.add_row(*cells, *values)
    messages.print(table, soft_wrap=False)
    failed = sum(bool(trial.error) for trial in trials)
    if failed:
        messages.print(f"{wording.plural(failed, 'trial')} failed: see {runs.TRIALS}")
