"""What the command line says: the plan of a training, and a model's table; numbers as `fastdl.wording` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fastdl.described import input_stage
from fastdl.tables import tasks
from fastdl.wording import LABELS, duration, metric, metrics, naive, number, plural, rate, shown

if TYPE_CHECKING:
    from fastdl.model import MLP
    from fastdl.tables.data import TrainingData
    from fastdl.training.trainer import Trainer

__all__ = [
    "LABELS",
    "duration",
    "facts",
    "inspection",
    "metric",
    "metrics",
    "naive",
    "number",
    "plan",
    "plural",
    "print_pairs",
    "rate",
    "shape",
    "shown",
]


def shape(model: MLP) -> str:
    """`64 → 256 → 10`."""
    return " → ".join(map(str, model.layers))


def print_pairs(console: Console, rows: Mapping[str, str]) -> None:
    """Names and texts in two columns; on a terminal long texts are folded within theirs."""
    width = max(map(len, rows))
    if not console.is_terminal:
        for name, text in rows.items():
            console.print(f"{name:{width}}  {text}", markup=False)
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(name, Text(text))
    console.print(table, soft_wrap=False)


def plan(console: Console, data: TrainingData, model: MLP, trainer: Trainer, recipe: str) -> None:
    """What is about to be trained, and on what."""
    targets = data.targets
    what = "label" if targets.task == "multilabel" else "target"
    target = plural(len(targets.classes), "class") if targets.classes else plural(targets.n_outputs, what)
    if data.preprocessor is not None:
        target += f" ({', '.join(targets.names)})"
    console.print()
    console.print(
        f"[bold]{escape(', '.join(map(str, data.files)))}[/]: "
        f"{plural(len(data.rows), 'row')} of {plural(data.n_features, 'feature')}, {escape(target)}"
    )
    why = targets.reason if targets.reason == tasks.ASKED else f"as {targets.reason} (--task overrides)"
    names = list(dict.fromkeys(a.name for a in model.activations))
    activation = f"{', '.join(names)}, " if names else "a linear model, "
    optimizer = trainer.optimizer
    threads = "" if trainer.n_threads == "auto" else f", {plural(int(trainer.n_threads), 'thread')}"
    scaling = "pixels share one scale" if data.pixels else "features standardised"
    embedded = 0 if model.input_stage is None else len(model.input_stage.frequencies)
    inputs = f"{plural(embedded, 'number')} embedded, " if embedded else ""
    rows_text = {
        "task": f"{targets.task}, {why}",
        "rows": f"{len(data.train):,} to train, {data.n_validation:,} to validate; {scaling}",
        "model": f"{shape(model)}, {inputs}{activation}"
        f"{model.output} output: "
        f"{plural(model.n_parameters, 'parameter')} in {model.dtype}",
        "training": f"recipe {recipe}: {optimizer.name}, lr {optimizer.lr:g}, batch size {trainer.batch_size}, "
        f"{plural(trainer.epochs, 'epoch')}, l2 {trainer.l2:g}, seed {trainer.seed}{_extras(trainer)}{threads}",
    }
    if data.notes:
        rows_text["note"] = "; ".join(data.notes)
    print_pairs(console, rows_text)
    console.print()


def _extras(trainer: Trainer) -> str:
    """What a training has besides the usual: `, cosine schedule, dropout 0.2`."""
    extras = []
    schedule = trainer.schedule.describe()
    if schedule["name"] == "warmup":
        extras.append(f"warm-up of {plural(schedule['steps'], 'step')}")
        schedule = schedule["then"]
    if schedule["name"] != "constant":
        extras.append(f"{schedule['name']} schedule")
    if trainer.clip_norm is not None:
        extras.append(f"gradient clipped at {trainer.clip_norm:g}")
    if trainer.dropout_rates:
        extras.append(f"dropout {', '.join(f'{rate:g}' for rate in dict.fromkeys(trainer.dropout_rates))}")
    if trainer.precision != "float32":
        extras.append(trainer.precision)
    if trainer.early_stopping is not None:
        extras.append(f"early stopping after {plural(trainer.early_stopping.patience, 'epoch')}")
    return "".join(f", {extra}" for extra in extras)


def inspection(console: Console, model: MLP, path: str) -> None:
    """Print what a model file holds: its layers, what goes in and comes out, and how it was trained."""
    layers = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    layers.add_column("layer", footer="total")
    layers.add_column("weights", justify="right")
    layers.add_column("biases", justify="right")
    layers.add_column("parameters", justify="right", footer=f"{model.n_parameters:,}")
    layers.add_column("activation")
    units = [f"{a.name} ({a.alpha:g})" if a.name == "leaky_relu" else a.name for a in model.activations]
    if model.input_stage is not None:
        layers.add_row("inputs", "", "", f"{sum(part.size for part in model.input_stage):,}", input_stage(model))
    for i, (weight, bias) in enumerate(zip(model.weights, model.biases, strict=True)):
        last = i == len(model.weights) - 1
        layers.add_row(
            "output" if last else f"hidden {i + 1}",
            f"{weight.shape[0]} × {weight.shape[1]}",
            str(bias.size),
            f"{weight.size + bias.size:,}",
            model.output if last else units[i],
        )
    print_pairs(console, facts(model, path))
    console.print(layers, soft_wrap=False)
    if model.feature_names:
        console.print(_features(model, model.feature_names), soft_wrap=False)


def facts(model: MLP, path: str) -> dict[str, str]:
    """What a model is for, what goes in and comes out, and how it was trained."""
    found = {
        "model": path,
        "task": str(model.metadata.get("task", "not stated")),
        "inputs": f"{plural(model.layers[0], 'feature')}, {_scaling(model)}",
        "outputs": _outputs(model),
        "numbers": str(model.dtype),
    }
    return found | _training(model)


def _scaling(model: MLP) -> str:
    scaling = model.scaling
    if scaling is None:
        return "used as they are"
    if scaling.scale.size > 1 and (scaling.scale == scaling.scale[0]).all():
        return f"each minus its mean, all divided by {number(float(scaling.scale[0]))}"
    return "standardised"


def _outputs(model: MLP) -> str:
    names = ", ".join(model.target_names or [])
    of = f" of {names}" if names else ""
    if model.classes is not None:
        listed = ", ".join(map(str, model.classes[:20])) + (", …" if len(model.classes) > 20 else "")
        return f"{plural(len(model.classes), 'class')}{of}: {listed}"
    if model.output == "softmax":
        return f"{plural(model.layers[-1], 'class')}{of}: 0 to {model.layers[-1] - 1}"
    what = "target" if model.output == "linear" else "label"
    text = f"{plural(model.layers[-1], what)}{of}"
    return text if model.scaling is None or model.scaling.y_mean is None else f"{text}, standardised"


def _features(model: MLP, names: list[str], most: int = 24) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("feature")
    if model.scaling is not None:
        table.add_column("mean", justify="right")
        table.add_column("deviation", justify="right")
    for i, name in enumerate(names[:most]):
        numbers: list[str] = []
        if model.scaling is not None:
            numbers = [number(float(model.scaling.mean[i])), number(float(model.scaling.scale[i]))]
        table.add_row(escape(name), *numbers)
    if len(names) > most:
        table.add_row(f"… and {len(names) - most} more")
    return table


def _training(model: MLP) -> dict[str, str]:
    training = model.metadata.get("training")
    if not isinstance(training, dict):
        return {"trained": "not stated"}
    optimizer = ", ".join(
        f"{k} {v:g}" if isinstance(v, float) else k if isinstance(v, bool) else str(v)
        for k, v in training["optimizer"].items()
        if v is not False
    )
    epochs = f"{training['epochs_done']} of {plural(training['epochs'], 'epoch')}"
    facts = {
        "trained": f"{epochs}{' (interrupted)' if training['interrupted'] else ''} on {training['data']}, "
        f"{plural(training['train_rows'], 'row')}",
        "optimizer": f"{optimizer}, batch size {training['batch_size']}, l2 {training['l2']:g}, "
        f"seed {training['seed']}",
    }
    validation: dict[str, Any] = training["validation"]
    if validation:
        facts["validation"] = f"{metrics(validation)}   ({plural(training['validation_rows'], 'row')})"
    return facts
