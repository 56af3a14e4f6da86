"""What a model that is there already takes from files: the features that it knows, and targets in its form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from fastdl.errors import InputError, OptionError
from fastdl.model import MLP
from fastdl.suggest import did_you_mean
from fastdl.tables import targets, tasks
from fastdl.tables.arrays import ArrayData
from fastdl.tables.dialect import Wishes
from fastdl.tables.ensemble import Ensemble, reads_tables
from fastdl.tables.kinds import Findings, NumberColumn
from fastdl.tables.names import Names, names_in
from fastdl.tables.preprocessor import Preprocessor
from fastdl.tables.recognise import Choices
from fastdl.tables.sources import open_data
from fastdl.tables.table import Table
from fastdl.tables.text import listed


def load_features(files: Sequence[str], model: MLP | Ensemble) -> Any:
    """The features [N, I] of a file as `model` takes them: a table's columns by name, arrays as they are."""
    source = open_data(files, with_targets=False, wishes=wishes_of(model), as_text=texts_of(model))
    return features_of(source, model)


def load_labelled(
    files: Sequence[str], model: MLP | Ensemble, target: Names | None = None, wishes: Wishes | None = None
) -> tuple[Any, NDArray[Any], list[str]]:
    """Features, targets, and notes, of a file as `model` takes them; `target` names other columns than in training."""
    source = open_data(files, wishes=wishes_of(model, wishes), as_text=texts_of(model))
    if isinstance(source, ArrayData):
        if target:
            raise OptionError(f"--target: expected a table, whose columns have names, got {' '.join(files)}")
        y = tasks.known_targets(source.targets(), model.output, model.layers[-1], model.classes)
        return features_of(source, model), y, []
    return labelled(source, model, target)


def labelled(table: Table, model: MLP | Ensemble, target: Names | None = None) -> tuple[Any, NDArray[Any], list[str]]:
    """The same of a table that has been read, or a part of one."""
    table.check_rows()
    named = bool(target) or not model.target_names
    names = names_in(table.names, target) if named else list(model.target_names or ())
    missing = [name for name in names if name not in table.names]
    if missing or not names:
        close = did_you_mean(missing[0], table.names) if missing else ""
        raise OptionError(
            f"{table.label}: expected the target {missing[0] if missing else ''!r} as in training, found no column of "
            f"this name{close}{'' if close else ';'} say what it is called here with --target"
        )
    text = len(names) == 1 and any(isinstance(c, str) for c in model.classes or ())
    if text and model.classes and len({str(c) for c in model.classes} & {"True", "False"}) == 2:
        text = False
    columns, rows, notes = targets.read(table, names, as_classes=text)
    y = tasks.known_targets(columns, model.output, model.layers[-1], model.classes)
    findings = Findings()
    X = features_of(table, model, names, findings)
    X = X.encoded.rows(rows) if hasattr(X, "encoded") else X[rows]
    return X, y, [*table.notes, *notes, *findings.sentences()]


def features_of(
    source: Table | ArrayData, model: MLP | Ensemble, targets: Sequence[str] = (), findings: Findings | None = None
) -> Any:
    """The features of a table or of arrays, as `model` takes them."""
    n_features = model.layers[0]
    if isinstance(source, ArrayData):
        if reads_tables(model):
            plain = [column.name for column in model.preprocessor.features if column.kind != "number"]
            if plain:
                raise InputError(
                    f"{source.files[0]}: expected a table with the columns {listed(plain)}, "
                    f"as the model encodes them, got an array file"
                )
        if source.X.shape[1] != n_features:
            raise InputError(
                f"{source.files[0]}: expected {n_features} features for this model, got {source.X.shape[1]} "
                f"in an array of shape {source.X.shape}"
            )
        return source.X
    if reads_tables(model):
        return model.preprocessor.encode(source.frame, findings, source.label).rows()
    names = model.feature_names or [name for name in source.names if name not in targets]
    if len(names) != n_features:
        raise InputError(
            f"{source.label}: expected {n_features} columns, as the model's features have no names, "
            f"got {len(names)}: {listed(names)}"
        )
    choices = Choices(numeric=names)
    missing = [name for name in names if name not in source.names]
    fitted, _ = Preprocessor.fit_tidy(source.frame.select([n for n in names if n in source.names]), None, choices)
    holes = [column.name for column in fitted.columns if getattr(column, "missing", False)]
    if holes and not missing:
        row = int(source.frame[holes[0]].is_null().arg_max() or 0)
        raise InputError(
            f"{source.where(row, holes[0])}: expected a number in each cell, as the model does not know what to put where "
            f"one is missing (columns {listed(holes, 10)}); train it on a table, or fill the cells"
        )
    fitted = Preprocessor((*fitted.columns, *(NumberColumn(name) for name in missing)))
    return fitted.encode(source.frame, findings, source.label).rows().matrix()


def wishes_of(model: MLP | Ensemble, wishes: Wishes | None = None) -> Wishes:
    """How files for a model are read: as `wishes` say, with the words for missing values that it learnt with besides."""
    learnt = model.preprocessor.na_values if reads_tables(model) else ()
    wishes = wishes or Wishes()
    return replace(wishes, na_values=(*learnt, *(word for word in wishes.na_values if word not in learnt)))


def texts_of(model: MLP | Ensemble) -> list[str]:
    """The columns that a model needs as they were written."""
    return model.preprocessor.text_columns if reads_tables(model) else []
