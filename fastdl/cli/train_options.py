"""The options of `fastdl train`: each is one field, with its type, help and default.

The command line's parameters are made of them (`app`), and what they say of the training goes to the setting of the same name
(`options.settings_of`). Nothing here imports NumPy or Numba: `--help` need not wait for them.
"""

from __future__ import annotations

import inspect
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
    class_weight: Annotated[
        str | None, _option(TRAINING, "balanced: each class counts alike, however few its rows.", "NAME")
    ] = None
    hidden: Annotated[str, _option(MODEL, "Sizes of the hidden layers; none for a linear model.", "SIZES")] = "256,128"
    activation: Annotated[
        str,
        _option(
            MODEL,
            "relu, leaky_relu, elu, selu, gelu, silu, mish, softplus, tanh, sigmoid, identity; or one per hidden layer.",
            "NAMES",
        ),
    ] = "relu"
    leaky_alpha: Annotated[
        float | None, _option(MODEL, "Slope of leaky_relu below 0.", "SLOPE", show_default="0.01")
    ] = None
    loss: Annotated[
        str | None,
        _option(
            MODEL,
            "squared_error, huber:1.0, absolute_error, quantile:0.9 or poisson for numbers; cross_entropy:0.1 smooths labels.",
            "NAME",
            show_default="that of the task",
        ),
    ] = None
    dtype: Annotated[str, _option(MODEL, "float32 or float64.", "DTYPE")] = "float32"
    optimizer: Annotated[str, _option(TRAINING, "adam, adamw, rmsprop, momentum or sgd.", "NAME")] = "adam"
    lr: Annotated[
        float | None, _option(TRAINING, "Learning rate.", "RATE", show_default="0.001; momentum and sgd: 0.1")
    ] = None
    batch_size: Annotated[
        int | None, _option(TRAINING, "Rows per step.", "ROWS", show_default="32, or all if there are fewer")
    ] = None
    epochs: Annotated[int, _option(TRAINING, "Passes over the training rows.", "COUNT")] = 40
    l2: Annotated[float, _option(TRAINING, "L2 penalty on the weights.", "FACTOR")] = 1e-3
    weight_decay: Annotated[
        float | None,
        _option(TRAINING, "adamw: decay of the weights apart from the gradient.", "FACTOR", show_default="0.01"),
    ] = None
    nesterov: Annotated[
        bool, typer.Option("--nesterov", help="momentum: look one step ahead.", rich_help_panel=TRAINING)
    ] = False
    schedule: Annotated[
        str,
        _option(TRAINING, "Learning rate by steps: constant, cosine, step:1000,0.5 or exponential:1000,0.5.", "NAME"),
    ] = "constant"
    warmup: Annotated[int, _option(TRAINING, "Steps in which the learning rate rises to its value.", "STEPS")] = 0
    clip_norm: Annotated[
        float | None, _option(TRAINING, "Scale longer gradients to this norm.", "NORM", show_default="no limit")
    ] = None
    dropout: Annotated[
        str, _option(TRAINING, "Share of hidden outputs left out in training; or one per hidden layer.", "SHARES")
    ] = "0"
    early_stopping: Annotated[
        int | None,
        _option(
            TRAINING,
            "End after so many epochs without a lower validation loss; keep the best.",
            "EPOCHS",
            show_default="off",
        ),
    ] = None
    seed: Annotated[int, _option(TRAINING, "Of the split, the weights and the shuffling.", "NUMBER")] = 0
    threads: Annotated[str, _option(TRAINING, "How many threads work on a step, or auto.", "COUNT")] = "auto"
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Say how the training uses this machine.", rich_help_panel=TRAINING),
    ] = False
    out: Annotated[
        str | None, _option(RESULT, "Folder for the run.", "DIR", show_default="runs/NAME-N, the next free N")
    ] = None
    force: Annotated[
        bool, typer.Option("--force", help="Replace the run that --out holds.", rich_help_panel=RESULT)
    ] = False

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        """The fields as parameters of a command."""
        hints = get_type_hints(cls, include_extras=True)
        return [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f), annotation=hints[f.name])
            for f in fields(cls)
        ]


def _default(f: Field[Any]) -> Any:
    if f.default_factory is not MISSING:
        return f.default_factory()
    return inspect.Parameter.empty if f.default is MISSING else f.default
