"""The data of a training, read as its options say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastdl.cli import wording
from fastdl.cli.options import table_options
from fastdl.cli.train_options import TrainOptions
from fastdl.tables import data
from fastdl.tables.tasks import check_task
from fastdl.training import fitting


def load_as_asked(options: TrainOptions) -> tuple[data.TrainingData, data.Options, int]:
    """The data as the options say: see `_load`."""
    small = options.validation is None and not (options.group or options.time or options.validation_data)
    small = small and not options.early_stopping and options.folds is None and options.ensemble == 1
    share = (0.0 if options.folds else 0.2) if options.validation is None else options.validation
    return _load(options.data, table_options(options, check_task(options.task), share), small)


def _load(
    files: Sequence[str], wanted: data.Options, may_cross_validate: bool
) -> tuple[data.TrainingData, data.Options, int]:
    """The data, the options that they were split with, and in how many folds they are cross-validated (0: they are not).

    A set of few rows is trained on as a whole.
    """
    if not may_cross_validate:
        return data.load_training(files, wanted), wanted, 0
    source = data.open_source(files, wanted)
    n_rows = data.count_rows(source, wanted)
    if n_rows >= fitting.SMALL:
        return data.load_training(files, wanted, source=source), wanted, 0
    wanted = replace(wanted, validation=0.0)
    loaded = data.load_training(files, wanted, source=source)
    folds = min(fitting.FOLDS, len(loaded.rows)) if len(loaded.rows) >= fitting.FEWEST else 0
    loaded.notes.append(
        f"{len(loaded.rows)} rows: all are trained on, and {folds}-fold cross-validation says how good the model is"
        if folds
        else f"{wording.plural(len(loaded.rows), 'row')}: all are trained on, too few to validate"
    )
    return loaded, wanted, folds
