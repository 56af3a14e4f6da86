"""The data of a command, as its options say: in memory, or mapped where they are larger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from fastdl.cli import parallel, wording
from fastdl.cli.recipe import table_wanted
from fastdl.cli.train_options import TrainOptions
from fastdl.errors import OptionError
from fastdl.tables import data, store
from fastdl.tables.tasks import check_task
from fastdl.training import fitting


def load_as_asked(options: TrainOptions, messages: Console) -> tuple[data.TrainingData, data.Options, int]:
    """The data as the options say: see `_load`."""
    small = options.validation is None and not (options.group or options.time or options.validation_data)
    small = small and not options.early_stopping and options.folds is None and options.ensemble == 1
    share = (0.0 if options.folds else 0.2) if options.validation is None else options.validation
    wanted = table_wanted(options, check_task(options.task), share)
    if parallel.agreed(store.is_wanted(options.data, wanted, parallel.readers())):
        if options.folds is not None:
            raise OptionError(f"--folds: {store.NO_ROWS_OF_ANY_ORDER}")
        loaded = parallel.in_turns(
            lambda: store.load_training(options.data, wanted, lambda text: messages.print(text, markup=False))
        )
        return loaded, wanted, 0
    loaded, wanted, folds = _load(options.data, wanted, small)
    if loaded.is_mapped and options.folds is not None:
        raise OptionError(f"--folds: {store.NO_ROWS_OF_ANY_ORDER}")
    return loaded, wanted, folds


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
