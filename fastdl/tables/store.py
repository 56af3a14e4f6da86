"""Tables that are larger than memory: read in parts, encoded once into a file beside them, and trained on from there.

Two passes over the files. The first one takes some rows evenly, which columns are recognised and learnt by, and the targets of
all rows, by which they are split as those of a table in memory are. The second one encodes every row: first those that are
learnt from, then those that validate, each in the order of the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastdl._version import __version__
from fastdl.errors import InputError, OptionError
from fastdl.tables import data, memory, store_file, targets, tasks
from fastdl.tables.arrays import ArrayData
from fastdl.tables.data import TrainingData, choices_of, name_of, outcomes_of, split_table, texts_of, with_names
from fastdl.tables.kinds import Findings, LargeCategoryColumn
from fastdl.tables.names import Options, check_columns, names_in
from fastdl.tables.preprocessor import Preprocessor
from fastdl.tables.sampled import Sample
from fastdl.tables.sources import is_table, parts, paths_of
from fastdl.tables.split import check_share
from fastdl.tables.table import Table
from fastdl.tables.tasks import Targets
from fastdl.tables.text import polars

if TYPE_CHECKING:
    import polars as pl

ENDING = ".store"
"""A store is called as its table, or the first of several, with this behind."""
MOST_ROWS, MOST_CELLS = 200_000, 1 << 23
"""Rows that columns are learnt by, and their cells: the medians of so many are a hundredth of a deviation off at most."""
ROUNDED = 1e-4
"""Features are kept in float32 where that moves none of these rows by more than this share of the feature's deviation."""
NO_ROWS_OF_ANY_ORDER = (
    "expected data in memory, as rows in any order are slow to read from a file, got data that are mapped; "
    "use --no-mapped"
)
_PIECE = 1 << 20

Say = Callable[[str], object]


def is_wanted(files: Sequence[str], options: Options, readers: int = 1) -> bool:
    """Whether tables are read in parts: as `options.mapped` says, or if memory is short. Arrays never are.

    readers : processes of this machine that are about to read them

    Raises
    ------
    InputError : a file is not there
    """
    digits = list(files) == ["digits"] or ("digits" in files and not Path("digits").exists())  # see `open_data`
    if options.mapped is False or digits:
        return False
    paths = paths_of(files)
    return is_table(paths) if options.mapped else memory.too_large(paths, readers)


def load_training(files: Sequence[str], options: Options, say: Say = lambda text: None) -> TrainingData:
    """A table that is ready for a trainer, its features mapped from a store, which is made if there is none of these files.

    say : what is told before the table is gone through

    Raises
    ------
    InputError : the files cannot be used (`OptionError` where an option is at fault), or there is no room for the store
    """
    check_share(options.validation)
    paths = paths_of(files)
    path = paths[0].with_name(paths[0].name + ENDING)
    key = _key(paths, options)
    kept = store_file.read(path)
    if kept is None or not store_file.same(kept.description.get("key", {}), key):
        say(
            f"making {path}: the table's features, from which rows are read as they are needed; it may be deleted afterwards"
        )
        _convert(files, options, path, key)
        kept = store_file.read(path)
    assert kept is not None
    found = _training_data(files, paths, kept)
    found.notes.append(
        f"{path}, of {kept.X.nbytes / 1e6:,.3g} MB, stands for the table until that, or an option about data, changes"
    )
    return data.with_validation_file(found, options) if options.validation_data else found


def _training_data(files: Sequence[str], paths: Sequence[Path], kept: store_file.StoreFile) -> TrainingData:
    about = kept.description
    n_train, n_rows = about["n_train"], len(kept.rows)
    found = Targets(y=kept.y, **about["targets"])
    return TrainingData(
        name_of(files), tuple(paths), kept.X, kept.rows, found, np.arange(n_train), np.arange(n_train, n_rows),
        Preprocessor.from_json(about["preprocessor"]), notes=list(about["notes"]),
    )  # fmt: skip


def _key(paths: Sequence[Path], options: Options) -> dict[str, Any]:
    """What a store was made of: sizes, times and parts of the files, and what the options say of the data."""
    files = []
    for path in paths:
        try:
            state, digest = path.stat(), hashlib.sha256()
            with path.open("rb") as file:
                for start in (0, state.st_size // 2, max(0, state.st_size - _PIECE)):
                    file.seek(start)
                    digest.update(file.read(_PIECE))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
        files.append([path.name, state.st_size, state.st_mtime_ns, digest.hexdigest()])
    said = asdict(options)
    said = {name: value for name, value in said.items() if name not in ("mapped", "keeps_table", "validation_data")}
    return {"fastdl": __version__, "files": files, "options": said, "own_file": bool(options.validation_data)}


def _convert(files: Sequence[str], options: Options, path: Path, key: dict[str, Any]) -> None:
    sample, names, notes = _first_pass(files, options)
    label = str(path)[: -len(ENDING)]
    kept = Table(sample.whole, label)
    columns, rows, told = targets.read(kept, names, options.task, decimal=options.wishes.decimal)
    found = tasks.resolve(columns, options.task)
    train, held_out = split_table(kept, rows, found, options)
    preprocessor, learnt, places = _learnt(sample, names, options, found, rows, train, label)

    # Where each row of the files goes: -1 for those without a target.
    order = np.concatenate([train, held_out])
    place = np.full(sample.n_rows, -1)
    place[rows[order]] = np.arange(len(order))
    shape, dtype = (len(order), len(preprocessor.feature_names)), _dtype(learnt)
    findings, first = Findings(), 0
    with store_file.written(path, shape, dtype) as writer:
        for part in _parts(files, options, preprocessor.text_columns):
            frame = _with_all(part.frame, sample.frame_names)
            X = preprocessor.encode(frame, findings, part.label).rows().matrix(dtype=dtype)
            where = place[first : first + len(part)]
            first += len(part)
            for chosen in (where >= 0) & (where < len(train)), where >= len(train):
                writer.scatter(where[chosen], X[chosen])
        if any(isinstance(c, LargeCategoryColumn) and c.outputs for c in preprocessor.features):
            writer.scatter(place[places], learnt)  # these rows' own targets are not in their features
        notes = [*notes, *told, *(s for s in findings.sentences() if s.startswith("cells"))]
        about = {
            "key": key,
            "n_train": len(train),
            "targets": {name: value for name, value in vars(found).items() if name != "y"},
            "preprocessor": preprocessor.to_json(),
            "notes": notes,
        }
        writer.finish(found.y[order], rows[order], about)


def _first_pass(files: Sequence[str], options: Options) -> tuple[Sample, list[str], list[str]]:
    """Some rows evenly, all targets (and groups or times), the names of the targets, and notes."""
    mixed: set[str] = set()
    while True:
        sample: Sample | None = None
        notes: dict[str, None] = {}
        for part in _parts(files, options, mixed):
            if sample is None:
                names = names_in(part.names, options.target)
                check_columns(part, names, options)
                whole = [*names, *(name for name in (options.group, options.time) if name)]
                sample = Sample(min(MOST_ROWS, max(1000, MOST_CELLS // len(part.names))), whole)
            sample.add(part.frame)
            notes |= dict.fromkeys(part.notes)
        assert sample is not None
        if sample.mixed <= mixed:
            return sample, names, list(notes)
        mixed |= sample.mixed  # numbers in one part, text in another: the text is needed everywhere


def _parts(files: Sequence[str], options: Options, as_text: Sequence[str] | set[str]) -> Iterator[Table]:
    for part in parts(files, with_names(options), {*texts_of(options), *as_text}):
        assert not isinstance(part, ArrayData)
        part.check_rows()
        yield part


def _with_all(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """A frame in which columns that other files have are missing values."""
    missing = [name for name in names if name not in frame.columns]
    return frame.with_columns(polars().lit(None).alias(name) for name in missing) if missing else frame


def _learnt(
    sample: Sample,
    names: Sequence[str],
    options: Options,
    found: Targets,
    rows: NDArray[np.int64],
    train: NDArray[np.int64],
    label: str,
) -> tuple[Preprocessor, NDArray[np.float64], NDArray[np.int64]]:
    """What the sample's training rows show, their features, and which rows of the files they are."""
    table = Table(sample.frame, label)
    number = np.full(sample.n_rows, -1)  # of each row among those with a target
    number[rows[train]] = train
    own = np.flatnonzero(number[sample.places] >= 0)
    outcomes = outcomes_of(found, number[sample.places[own]])
    findings = Findings()
    preprocessor, frame = Preprocessor.fit_tidy(
        table.frame, own, choices_of(table, options), names, options.wishes.na_values, findings, outcomes
    )
    if not preprocessor.feature_names:
        raise OptionError(
            f"{label}: expected at least one feature column that varies beside the target and --ignore, got none"
        )
    encoded = preprocessor.cross_fitted(preprocessor.encode(frame), frame, own, outcomes, options.seed)
    return preprocessor, encoded.rows(own).matrix(), sample.places[own]


def _dtype(features: NDArray[np.float64]) -> np.dtype:
    """float32, unless that moves features too far."""
    with np.errstate(over="ignore", invalid="ignore"):
        moved = np.abs(features - features.astype(np.float32)).max(axis=0)
        is_fine = moved <= ROUNDED * features.std(axis=0)
    return np.dtype(np.float32 if is_fine.all() else np.float64)
