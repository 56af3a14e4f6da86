"""The options of `fastdl train`: each is one field, with its type, help and default.

The command line's parameters are made of them (`app`), and what they say of the training goes to the setting of the same name
(`options.settings_of`). Nothing here imports NumPy or Numba: `--help` need not wait for them.
"""

from __future__ import annotations

import inspect
import shlex
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Annotated, Any, get_type_hints

import typer

DataFiles = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA",
        help="[bold]digits[/], or a table: CSV, Parquet, Arrow, Excel or JSON lines, also several of one kind and "
        "compressed ones; or arrays: NPZ with X and y, LIBSVM, or two files with features and targets: NPY, IDX or "
        "IDX.gz as MNIST ships it.",
    ),
]
DATA, MODEL, TRAINING, RESULT = "Data", "Model", "Training", "Result"  # panels of the help
_BY_RECIPE = "by the recipe"


def _option(panel: str, help: str, metavar: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel, **settings)


# How files are written: for whatever command reads them.
NaValues = Annotated[
    list[str],
    _option(DATA, "More words for missing values, besides empty cells, NA, NaN, null, None, ?, - and .", "WORDS"),
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header",
        help="Whether the first line names the columns; found out if left out.",
        rich_help_panel=DATA,
        show_default=False,
    ),
]
Separator = Annotated[str | None, _option(DATA, "Between cells: a character, tab or space.", "CHAR")]
Decimal = Annotated[str | None, _option(DATA, "Before the fraction of a number: . or ,", "CHAR")]
Encoding = Annotated[str | None, _option(DATA, "Of text files: utf-8, cp1252, utf-16.", "NAME")]


@dataclass(frozen=True)
class TrainOptions:
    """What was typed; None is "not given"."""

    data: DataFiles
    target: Annotated[list[str], _option(DATA, "The column to learn; several are separated by commas.", "NAME")] = (
        field(default_factory=list)
    )
    categorical: Annotated[
        list[str], _option(DATA, "Columns whose values are categories, also where they are numbers.", "NAMES")
    ] = field(default_factory=list)
    numeric: Annotated[list[str], _option(DATA, "Columns whose values are numbers.", "NAMES")] = field(
        default_factory=list
    )
    date: Annotated[list[str], _option(DATA, "Columns whose values are dates or times.", "NAMES")] = field(
        default_factory=list
    )
    ignore: Annotated[list[str], _option(DATA, "Columns to leave out.", "NAMES")] = field(default_factory=list)
    na_values: NaValues = field(default_factory=list)
    header: Header = None
    separator: Separator = None
    decimal: Decimal = None
    encoding: Encoding = None
    task: Annotated[
        str | None,
        _option(DATA, "regression, binary, multiclass or multilabel; inferred from the target if left out.", "TASK"),
    ] = None
    validation: Annotated[
        float | None,
        _option(
            DATA, "Share of the rows kept for validation.", "SHARE", show_default="0.2; cross-validation below 50 rows"
        ),
    ] = None
    validation_data: Annotated[
        list[str], _option(DATA, "A file to validate on, instead of a share of the rows.", "FILE")
    ] = field(default_factory=list)
    group: Annotated[
        str | None, _option(DATA, "A column that says which rows belong together: validate on whole groups.", "NAME")
    ] = None
    time: Annotated[str | None, _option(DATA, "A column of times: validate on the last rows.", "NAME")] = None
    mapped: Annotated[
        bool | None,
        typer.Option(
            "--mapped/--no-mapped",
            help="Read rows from a memory-mapped file as they are needed: NPY files as they are, tables from DATA.store, which "
            "is made of them; or have all in memory.",
            rich_help_panel=DATA,
            show_default="NPY files beyond 1 GB, and tables that memory is short for",
        ),
    ] = None
    class_weight: Annotated[
        str | None, _option(TRAINING, "balanced: each class counts alike, however few its rows.", "NAME")
    ] = None
    recipe: Annotated[
        str,
        _option(
            TRAINING,
            "What is not said here: auto, realmlp (as auto, for 256 epochs) or plain (two ReLU layers and Adam for 40).",
            "NAME",
        ),
    ] = "auto"
    set: Annotated[
        list[str],
        _option(
            TRAINING,
            "More of the recipe, such as embedding=piecewise, scaling=standard, clip=3, ntk=false, beta2=0.99, calibrate=false.",
            "NAME=VALUE",
        ),
    ] = field(default_factory=list)
    hidden: Annotated[
        str | None,
        _option(MODEL, "Sizes of the hidden layers; none for a linear model.", "SIZES", show_default=_BY_RECIPE),
    ] = None
    activation: Annotated[
        str | None,
        _option(
            MODEL,
            "relu, leaky_relu, elu, selu, gelu, silu, mish, softplus, tanh, sigmoid, identity; or one per hidden layer.",
            "NAMES",
            show_default=_BY_RECIPE,
        ),
    ] = None
    leaky_alpha: Annotated[
        float | None, _option(MODEL, "Slope of leaky_relu below 0.", "SLOPE", show_default="0.01")
    ] = None
    loss: Annotated[
        str | None,
        _option(
            MODEL,
            "squared_error, huber:1.0, absolute_error, quantile:0.9 or poisson for numbers; cross_entropy:0.1 smooths labels.",
            "NAME",
            show_default="by the recipe: that of the task, with smoothed labels",
        ),
    ] = None
    dtype: Annotated[str, _option(MODEL, "float32 or float64.", "DTYPE")] = "float32"
    optimizer: Annotated[
        str | None, _option(TRAINING, "adam, adamw, rmsprop, momentum or sgd.", "NAME", show_default=_BY_RECIPE)
    ] = None
    lr: Annotated[
        float | None,
        _option(
            TRAINING,
            "Learning rate.",
            "RATE",
            show_default="by the recipe; 0.001 of another optimizer, momentum and sgd 0.1",
        ),
    ] = None
    batch_size: Annotated[int | None, _option(TRAINING, "Rows per step.", "ROWS", show_default=_BY_RECIPE)] = None
    epochs: Annotated[
        int | None, _option(TRAINING, "Passes over the training rows.", "COUNT", show_default=_BY_RECIPE)
    ] = None
    l2: Annotated[float | None, _option(TRAINING, "L2 penalty on the weights.", "FACTOR", show_default=_BY_RECIPE)] = (
        None
    )
    weight_decay: Annotated[
        float | None,
        _option(TRAINING, "adamw: decay of the weights apart from the gradient.", "FACTOR", show_default=_BY_RECIPE),
    ] = None
    nesterov: Annotated[
        bool, typer.Option("--nesterov", help="momentum: look one step ahead.", rich_help_panel=TRAINING)
    ] = False
    schedule: Annotated[
        str | None,
        _option(
            TRAINING,
            "Learning rate by steps: constant, cosine, coslog4, flat_cosine, step:1000,0.5 or exponential:1000,0.5.",
            "NAME",
            show_default=_BY_RECIPE,
        ),
    ] = None
    warmup: Annotated[int, _option(TRAINING, "Steps in which the learning rate rises to its value.", "STEPS")] = 0
    clip_norm: Annotated[
        float | None, _option(TRAINING, "Scale longer gradients to this norm.", "NORM", show_default="no limit")
    ] = None
    dropout: Annotated[
        str | None,
        _option(
            TRAINING,
            "Share of hidden outputs left out in training; or one per hidden layer.",
            "SHARES",
            show_default=_BY_RECIPE,
        ),
    ] = None
    early_stopping: Annotated[
        int | None,
        _option(
            TRAINING,
            "End after so many epochs without a lower validation loss; keep the best. 0: train to the end.",
            "EPOCHS",
            show_default=_BY_RECIPE,
        ),
    ] = None
    ensemble: Annotated[
        int, _option(TRAINING, "Train so many models of other seeds at once; the mean of them predicts.", "COUNT")
    ] = 1
    folds: Annotated[
        int | None,
        _option(
            TRAINING,
            "Cut the rows into so many parts and hold each out from a model: metrics of all rows with their spread, calibrated "
            "probabilities; the mean of the models predicts.",
            "COUNT",
            show_default="off",
        ),
    ] = None
    interval: Annotated[
        float | None,
        _option(
            TRAINING,
            "Give each predicted number an interval that holds this share of rows.",
            "SHARE",
            show_default="off",
        ),
    ] = None
    seed: Annotated[int, _option(TRAINING, "Of the split, the weights and the shuffling.", "NUMBER")] = 0
    threads: Annotated[str, _option(TRAINING, "How many threads work on a step, or auto.", "COUNT")] = "auto"
    precision: Annotated[
        str,
        _option(
            TRAINING,
            "float32, or bf16: large layers on rounded numbers, twice as fast where the processor can.",
            "NAME",
        ),
    ] = "float32"
    mpi: Annotated[
        str,
        _option(
            TRAINING,
            "Train on all processes that mpirun or srun has started: auto, on or off; of several models each trains some.",
            "WHEN",
        ),
    ] = "auto"
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Say how the training uses this machine.", rich_help_panel=TRAINING),
    ] = False
    health: Annotated[
        bool,
        typer.Option(
            "--health",
            help="Look after the layers in training: dead units, norms, steps; the page shows it.",
            rich_help_panel=TRAINING,
        ),
    ] = False
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Serve the curves on 127.0.0.1 while it trains; the address is shown.",
            rich_help_panel=TRAINING,
        ),
    ] = False
    out: Annotated[
        str | None, _option(RESULT, "Folder for the run.", "DIR", show_default="runs/NAME-N, the next free N")
    ] = None
    force: Annotated[
        bool, typer.Option("--force", help="Replace the run that --out holds.", rich_help_panel=RESULT)
    ] = False

    report: Annotated[
        bool,
        typer.Option("--report/--no-report", help="Make the run's page, report.html.", rich_help_panel=RESULT),
    ] = True

    def command(self) -> str:
        """The command line that these options came from, for a shell: what differs from the defaults."""
        words: list[str] = []
        for f in fields(TrainOptions)[1:]:
            value, name = getattr(self, f.name), "--" + f.name.replace("_", "-")
            if value == _default(f):
                continue
            if isinstance(value, bool):
                words.append(name if value else "--no-" + name[2:])
                continue
            for text in map(str, value if isinstance(value, list) else [value]):
                words += [f"{name}={text}"] if text.startswith("-") else [name, text]
        files = ["--", *self.data] if any(name.startswith("-") for name in self.data) else self.data
        return shlex.join(
            ["fastdl", "train", *words, *files] if files != self.data else ["fastdl", "train", *files, *words]
        )

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        """The fields as parameters of a command."""
        hints = get_type_hints(cls, include_extras=True)
        return [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f), annotation=hints[f.name])
            for f in fields(cls)
        ]


@dataclass(frozen=True)
class FilledOptions(TrainOptions):
    """The same with what a recipe fills in (see `fastdl.cli.recipe`)."""

    hidden: str = "none"
    activation: str = "relu"
    optimizer: str = "adam"
    batch_size: int = 1
    epochs: int = 1
    l2: float = 0.0
    schedule: str = "constant"
    dropout: str = "0"
    early_stopping: int = 0


@dataclass(frozen=True)
class TuneOptions(TrainOptions):
    """What was typed for `fastdl tune`: the options of a training, and how many settings are tried."""

    trials: Annotated[int, _option(TRAINING, "How many settings are tried.", "COUNT")] = 50


def _default(f: Field[Any]) -> Any:
    if f.default_factory is not MISSING:
        return f.default_factory()
    return inspect.Parameter.empty if f.default is MISSING else f.default
