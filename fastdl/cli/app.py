"""The command line: train, predict, evaluate, inspect and bench.

Data go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (what was
learned so far is saved). An error is one sentence; `--debug` anywhere on the line shows the traceback as well.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from inspect import Signature
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from fastdl.cli import train_options

# Everything else is imported where it is used: `--help` need not wait for numba, NumPy and polars.

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelPath = Annotated[str, typer.Argument(metavar="MODEL", help="A model file, or the folder of its run.")]
DataFiles = train_options.DataFiles


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (default: that of the process) and return the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # Where the encoding has no "²" or "→", they are written as escapes instead of ending the command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    # Which exception says "wrong usage" depends on whether typer uses click or its own copy of it.
    usage_error: type[Any] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
    try:
        code = typer.main.get_command(app).main(args=args or ["--help"], prog_name="fastdl", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0) if args else 2
    except BrokenPipeError:
        # The reader of stdout has gone (`fastdl predict … | head`); Python would complain when it flushes at the end.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except usage_error as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "fastdl"
        message = error.format_message().rstrip(".")
        return _fail(f"{message}{'' if message.endswith('?') else ';'} see {where} --help", 2)
    except Exception as error:
        if debug:
            raise
        from fastdl.errors import DivergedError, InputError, MissingExtraError, OptionError

        if isinstance(error, OptionError):
            return _fail(str(error), 2)
        if isinstance(error, (InputError, DivergedError, MissingExtraError)):
            return _fail(str(error), 1)
        if isinstance(error, MemoryError):
            return _fail(f"not enough memory ({error or 'no details'}); use fewer rows or smaller --hidden layers", 1)
        return _fail(f"unexpected {type(error).__name__}: {error}; run the command again with --debug for details", 1)


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        _messages().print(f"[bold red]fastdl:[/] {escape(message)}")
    return code


def _messages() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def _output() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        from fastdl._version import __version__

        print(f"fastdl {__version__}")
        raise typer.Exit


@app.callback(help="Train multi-layer perceptrons on CPU cores, fast.", no_args_is_help=True)
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere on the line.")] = False,
) -> None:
    pass


def _train(**given: Any) -> None:
    """Train a model on a data set: it ends up in a folder with history.csv, config.json and curves.png.

    [cyan]fastdl train digits[/]

    [cyan]fastdl train diamonds.csv --target price[/]

    [cyan]fastdl train train-images-idx3-ubyte.gz --epochs 10[/]

    Ctrl-C ends the training and saves what was learned so far.
    """
    from fastdl.cli import commands

    raise typer.Exit(commands.train(train_options.TrainOptions(**given), _messages(), _output()))


# typer reads a command's parameters from its signature: here they are the fields of TrainOptions.
_parameters = train_options.TrainOptions.parameters()
_train.__signature__ = Signature(_parameters)  # type: ignore[attr-defined]
_train.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters}
app.command("train")(_train)


@app.command()
def predict(
    model: ModelPath,
    data: DataFiles,
    out: Annotated[
        str | None,
        typer.Option(help="File for the predictions: .csv or .parquet.", metavar="FILE", show_default="stdout"),
    ] = None,
    id: Annotated[
        list[str] | None, typer.Option(help="Columns to copy in front of the predictions.", metavar="NAMES")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="The columns to write, such as prediction; the others are left out.", metavar="NAMES"),
    ] = None,
    na_values: train_options.NaValues = [],  # noqa: B006 (typer copies it)
    header: train_options.Header = None,
    separator: train_options.Separator = None,
    decimal: train_options.Decimal = None,
    encoding: train_options.Encoding = None,
) -> None:
    """Write predictions for a data set as CSV, with probabilities where there are classes or labels.

    The columns of a table are found by their names; others, such as the target, are not looked at. Missing values and new
    categories are taken as in training, and counted on stderr.
    """
    from fastdl.cli import options, prediction

    wishes = options.wishes_of(header, separator, decimal, encoding, na_values)
    prediction.predict(model, data, out, id or [], only or [], _messages(), wishes)


@app.command()
def evaluate(
    model: ModelPath,
    data: DataFiles,
    target: Annotated[
        list[str] | None,
        typer.Option(help="The target's column, if it is called otherwise than in training.", metavar="NAME"),
    ] = None,
    na_values: train_options.NaValues = [],  # noqa: B006 (typer copies it)
    header: train_options.Header = None,
    separator: train_options.Separator = None,
    decimal: train_options.Decimal = None,
    encoding: train_options.Encoding = None,
) -> None:
    """Print the metrics and the loss of a model on a data set with known targets, and those of the naive answer."""
    from fastdl.cli import options, prediction

    wishes = options.wishes_of(header, separator, decimal, encoding, na_values)
    prediction.evaluate(model, data, target or [], _output(), _messages(), wishes)


@app.command()
def inspect(model: ModelPath) -> None:
    """Print what a model file holds: layers, features, classes, and how it was trained."""
    from fastdl.cli import commands

    commands.inspect(model, _output())


@app.command()
def bench(
    model: Annotated[
        str, typer.Option(help="Sizes of the layers from inputs to outputs.", metavar="SIZES")
    ] = "784-256-10",
    batch: Annotated[int, typer.Option(help="Rows per step.", metavar="ROWS")] = 128,
    activation: Annotated[str, typer.Option(help="relu or tanh.", metavar="NAME")] = "relu",
    peers: Annotated[
        str | None,
        typer.Option(
            help="jax, torch, torch-compiled, numpy, sklearn, or none; several are separated by commas.",
            metavar="NAMES",
            show_default="what is installed of jax, torch and sklearn",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="How many threads each gets.", metavar="COUNT", show_default="the usable cores")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few short rounds.")] = False,
    json: Annotated[str | None, typer.Option(help="File for the result, with all samples.", metavar="FILE")] = None,
) -> None:
    """Measure how fast a network trains here, against the libraries that are installed.

    [cyan]fastdl bench --model 784-256-10 --batch 128[/]

    Each library trains in a process of its own, by turns; that all learn the same is checked first.
    """
    options = dict(locals())
    from fastdl.cli import commands

    commands.bench(commands.BenchOptions(**options), _messages())
