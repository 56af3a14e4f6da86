"""The folder of a run: where it goes, and the files that a training leaves there."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdl._version import __version__
from fastdl.cli import columns
from fastdl.cli.checkpoints import CHECKPOINT
from fastdl.errors import DivergedError, InputError, OptionError
from fastdl.files.atomic import atomic_write, remove_unfinished
from fastdl.files.lock import locked
from fastdl.model import MODEL_FILE
from fastdl.report.data import CONFIG, DATA, HISTORY

if TYPE_CHECKING:
    from fastdl.model import MLP
    from fastdl.tables.data import TrainingData
    from fastdl.tables.ensemble import Ensemble
    from fastdl.training.history import History
    from fastdl.training.trainer import Trainer

MODEL, CURVES, REPORT, TRIALS = MODEL_FILE, "curves.svg", "report.html", "trials.csv"
RESULTS = (MODEL, HISTORY, CONFIG, CURVES, REPORT, DATA)
"""What `fastdl train` leaves when it is done; `fastdl tune` leaves `TRIALS` besides."""
FILES = (*RESULTS, CHECKPOINT)


def check_folder(out: str | None, force: bool) -> None:
    """Refuse, before anything is trained, a folder that cannot be written to or holds a run."""
    folder = Path("runs") if out is None else Path(out)
    if out is not None:
        held = [name for name in FILES if (folder / name).exists()]
        if held and not force:
            raise OptionError(
                f"--out: expected a folder without a run, got {out}, which holds {', '.join(held)}; "
                f"name another one, or use --force to replace the run"
                + (f"; fastdl resume {out} goes on with it" if CHECKPOINT in held else "")
            )
    above = folder
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise OptionError(f"--out: expected a folder or a name for a new one, got {folder}, where {above} is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{above}: cannot be written to; name another folder with --out")


def make_folder(out: str | None, name: str) -> tuple[Path, list[Path]]:
    """The run's folder, `out` or `runs/NAME-N` with the next free number, and the folders that were made for it."""
    wanted = Path("runs") if out is None else Path(out)
    made = [folder for folder in (*reversed(wanted.parents), wanted) if not folder.exists()]
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        if out is not None:
            return wanted, made
        taken = [p.name.removeprefix(f"{name}-") for p in Path("runs").iterdir() if p.name.startswith(f"{name}-")]
        n = 1 + max((int(t) for t in taken if t.isdecimal()), default=0)
        while True:
            folder = Path("runs") / f"{name}-{n}"
            try:
                folder.mkdir()
            except FileExistsError:  # another run took the number in between
                n += 1
            else:
                return folder, [*made, folder]
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be made ({error.strerror}); name another folder with --out"
        ) from error


@contextlib.contextmanager
def folder_for(out: str | None, name: str, force: bool) -> Iterator[Path]:
    """The run's folder, kept for this process while the block runs; it goes again if the block leaves nothing in it.

    A training that diverged leaves nothing: resumed, it would come to the same end.

    Raises
    ------
    InputError : it cannot be made, or another process is training there
    """
    folder, made = make_folder(out, name)
    try:
        with locked(folder):
            check_folder(out, force)  # another process may have ended there just now
            clean(folder)
            try:
                yield folder
            except DivergedError:
                (folder / CHECKPOINT).unlink(missing_ok=True)
                raise
    except BaseException:
        if not any((folder / file).exists() for file in FILES):
            for new in reversed(made):
                with contextlib.suppress(OSError):  # somebody has put something there
                    new.rmdir()
        raise


def clean(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left."""
    for name in FILES:
        remove_unfinished(folder / name)


def is_written(folder: Path) -> bool:
    """Whether the results of a whole training have been written since the checkpoint was."""
    try:
        if (folder / CONFIG).stat().st_mtime_ns < (folder / CHECKPOINT).stat().st_mtime_ns:
            return False
        return json.loads((folder / CONFIG).read_bytes())["training"]["interrupted"] is False
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_extras(folder: Path, extras: Mapping[str, str]) -> None:
    """Write text files by their names into the folder of a run, and remove those of a run that is replaced."""
    for name, text in extras.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())
    for left in {TRIALS} - set(extras):
        (folder / left).unlink(missing_ok=True)


def write(folder: Path, model: MLP | Ensemble, history: History, config: Mapping[str, Any]) -> None:
    """Write a run's model, history and configuration, which is the last one, into its folder.

    Raises
    ------
    InputError : they cannot be written; a checkpoint is still there
    """
    try:
        (folder / CONFIG).unlink(missing_ok=True)  # of what is replaced: without it, results are not complete
        model.save(folder / MODEL)
        with atomic_write(folder / HISTORY) as file:
            file.write(history_csv(history).encode())
        for old in (CURVES, REPORT, DATA):  # those of a run that is replaced
            (folder / old).unlink(missing_ok=True)
        with atomic_write(folder / CONFIG) as file:
            file.write((json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
    except (InputError, OSError) as error:
        said = error if isinstance(error, InputError) else f"{folder}: cannot be written to ({error.strerror})"
        kept = (folder / CHECKPOINT).exists()
        raise InputError(
            f"{said}; nothing of the training is lost: fastdl resume {folder} writes it again" if kept else str(said)
        ) from error


def left_in(folder: Path) -> str:
    """The names of a run's files that there are, for people."""
    return ", ".join(name for name in (*RESULTS, TRIALS) if (folder / name).exists())


def history_csv(history: History) -> str:
    """One line per finished epoch."""
    columns: dict[str, list[float]] = {"loss": history.loss}
    if history.val_loss:
        columns["val_loss"] = history.val_loss
    columns |= history.metrics
    columns["seconds"] = history.epoch_seconds
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", *columns])
    # Ctrl-C between two appends can leave one column longer than another.
    for epoch, values in enumerate(zip(*columns.values(), strict=False), start=1):
        writer.writerow([epoch, *(repr(float(value)) for value in values)])
    return text.getvalue()


def training_record(
    data: TrainingData, trainer: Trainer, validation: Mapping[str, float], interrupted: bool
) -> dict[str, Any]:
    """How a model was trained: without times, so that the same run writes the same model file."""
    return {
        "data": ", ".join(path.name for path in data.files),
        "train_rows": len(data.train),
        "validation_rows": data.n_validation,
        **trainer.record(),
        "epochs_done": trainer.epochs_done,
        "best_epoch": trainer.history.best_epoch,
        "interrupted": interrupted,
        # JSON has no NaN, which an interrupted training can end with.
        "validation": {name: value for name, value in validation.items() if math.isfinite(value)},
    }


def configuration(
    data: TrainingData,
    model: MLP,
    trainer: Trainer,
    record: Mapping[str, Any],
    options: Mapping[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """Everything that the run was made of, as it was resolved."""
    import numba

    return {
        "data": {
            "files": [str(path) for path in data.files],
            "rows": len(data.rows),
            "features": data.n_features,
            "feature_names": data.feature_names,
            "columns": columns.described(data.preprocessor) if data.preprocessor is not None else None,
            "target": data.targets.names if data.preprocessor is not None else None,
            "classes": data.targets.classes,
        },
        "task": data.targets.task,
        "model": {
            "layers": list(model.layers),
            "activations": [a.to_json() for a in model.activations],
            "output": model.output,
            "dtype": model.dtype.name,
            "parameters": model.n_parameters,
        },
        "training": {key: value for key, value in record.items() if key not in ("data", "validation")},
        "threads": trainer.n_threads,
        "options": dict(options),
        "result": {
            "validation": record["validation"],
            "cross_validation": record["cross_validation"],
            "baseline": record["baseline"],
            "seconds": round(seconds, 4),
        },
        "versions": {
            "fastdl": __version__,
            "numpy": np.__version__,
            "numba": numba.__version__,
            "python": platform.python_version(),
        },
    }
