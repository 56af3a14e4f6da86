"""`fastdl train` with several models: an ensemble, folds, or both."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from fastdl import metrics
from fastdl.calibration import Interval
from fastdl.cli import pages, parallel, runs, wording
from fastdl.cli.options import option_error
from fastdl.cli.recipe import settings_in
from fastdl.cli.train_options import FilledOptions
from fastdl.report.data import Finished, Folds
from fastdl.tables import data
from fastdl.tables.ensemble import Ensemble
from fastdl.training import fitting
from fastdl.training.blending import LINEAR_SHARE
from fastdl.training.display import Display
from fastdl.training.ensembles import Members, TrainerOf


def train(
    options: FilledOptions,
    loaded: data.TrainingData,
    wanted: data.Options,
    blueprint: fitting.Blueprint,
    trainer_of: TrainerOf,
    messages: Console,
    output: Console,
    live: bool,
    folder: Path,
    command: str,
) -> int:
    """Train all models, write the run into its folder, and return the exit code; `command` is what was typed."""
    with option_error("--"):
        more = settings_in(options.set)
        members = Members(
            loaded, wanted, blueprint, trainer_of, options.ensemble, options.folds or 0, blends=more["blend_linear"],
            calibrates=more["calibrate"],
        )  # fmt: skip
    count = len(members.trainers)
    messages.print(f"{_made_of(options.ensemble, members.folds)}: {wording.plural(count, 'model')}\n")
    interrupted = False
    start = time.perf_counter()
    try:
        with Display(messages, live) as display, warnings.catch_warnings(record=True) as told_of:
            warnings.simplefilter("always", UserWarning)
            members.fit(display, *parallel.elsewhere())
        for warning in told_of:
            messages.print(f"note: {escape(str(warning.message))}")
    except KeyboardInterrupt:
        if not members.trained:
            raise
        interrupted = True
        messages.print("interrupted: saving what was learned so far")
    seconds = time.perf_counter() - start

    found = members.out_of_fold() if members.folds and not interrupted else None
    held_out = loaded.validation_pair()
    model = members.ensemble() if found is None else members.ensemble(found.temperature)
    if held_out is not None and more["calibrate"]:
        model = members.calibrated(*held_out)
    model.metadata["task"] = loaded.targets.task
    y = loaded.targets.y
    if found is not None:
        validation, judged = found.metrics, y[found.rows]
    elif held_out is not None:
        validation, judged = fitting.assess(model, *held_out), held_out[1]
    else:
        validation, judged = {}, y
    if options.interval is not None and not interrupted:
        predicted = found.averaged if found is not None else model.predict(held_out[0])  # type: ignore[index]
        fitting.give_interval(model, predicted, judged, options.interval, options.seed)
    first = members.trained[0]
    record = runs.training_record(loaded, first, validation, interrupted)
    record |= {
        "cross_validation": members.folds or None,
        "baseline": metrics.baseline(model.head, y[loaded.train], judged) if validation else {},
        "validation_rows": loaded.n_validation if found is None else len(found.rows),
        "models": len(model.members),
        "spread": {} if found is None else found.spread,
        "temperature": model.temperature,
        LINEAR_SHARE: model.metadata.get(LINEAR_SHARE),
    }
    model.metadata["training"] = record
    config = runs.configuration(loaded, members.model_of(first), first, record, asdict(options), seconds)
    messages.print()
    runs.write(folder, model, members.history, config)
    if options.report:
        folds = None if found is None else Folds(found, *members.a_fold())
        pages.write(folder, Finished(loaded, model, first, members.history, config, command, folds=folds), messages)
    facts = {}
    if validation:
        spread = {} if found is None else found.spread
        facts["validation"] = f"{with_spread(validation, spread)}{_folds(members.folds)}"
        facts["baseline"] = wording.naive(model.output, record["baseline"])
    facts |= told(model)
    facts |= {"time": wording.duration(seconds), "saved in": f"{folder}: {runs.left_in(folder)}"}
    wording.print_pairs(output, facts)
    return 130 if interrupted else 0


def _made_of(size: int, folds: int) -> str:
    """`5 folds`, `an ensemble of 3`, `5 folds of 3 models each`."""
    if folds:
        return f"{folds} folds{f' of {size} models each' if size > 1 else ''}"
    return f"an ensemble of {size}"


def _folds(count: int) -> str:
    return f"   ({count}-fold cross-validation, ± over the folds)" if count else ""


def with_spread(values: Mapping[str, float], spread: Mapping[str, float]) -> str:
    """Several metrics in one line: `accuracy 97.77 % ± 0.52 %   log loss 0.0831 ± 0.0101`."""
    texts = []
    for name, value in wording.shown(values).items():
        text = f"{wording.LABELS.get(name, name)} {wording.metric(name, value)}"
        texts.append(f"{text} ± {wording.metric(name, spread[name])}" if name in spread else text)
    return "   ".join(texts)


def told(model: Any) -> dict[str, str]:
    """What there is to say about a model's ensemble and its interval."""
    facts = {}
    if isinstance(model, Ensemble):
        what = "numbers" if model.output == "linear" else "probabilities"
        facts["ensemble"] = f"{wording.plural(len(model.members), 'model')}, the mean of their {what}"
        if model.temperature != 1:
            facts["temperature"] = f"{model.temperature:.3g}, from rows that the models had not seen"
    shares = model.metadata.get(LINEAR_SHARE)
    if shares is not None:
        texts = [f"{100 * share:.0f} %" for share in (shares if isinstance(shares, list) else [shares])]
        facts["linear part"] = f"{', '.join(texts)} of the outputs, as validation rows say"
    interval = Interval.from_json(model.metadata.get("interval"))
    if interval is not None:
        widths = ", ".join(wording.number(width) for width in interval.half_width)
        held = (
            ""
            if interval.coverage is None
            else f"; half of these rows held {100 * interval.coverage:.1f} % of the other"
        )
        facts["interval"] = (
            f"± {widths} for {100 * interval.share:g} % of rows, from {wording.plural(interval.rows, 'row')}{held}"
        )
    return facts


def inspection(output: Console, model: Ensemble, path: str) -> None:
    """Print what the file of an ensemble holds: what is said of all, and the layers of the first member."""
    shown = copy.copy(model.members[0])
    shown.metadata = model.metadata
    wording.inspection(output, shown, path)
