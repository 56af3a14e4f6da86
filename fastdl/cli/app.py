"""The command line: train, tune, resume, predict, evaluate, inspect, report, export, prepare,
doctor and bench.

Data go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (143 by SIGTERM, 129 by
SIGHUP; what was learned so far is saved). An error is one sentence; `--debug` anywhere on the line shows the traceback as well.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Sequence
from inspect import Signature
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from fastdl.cli import train_options
from fastdl.cli.parsing import QuickCommand, QuickGroup

# Everything else is imported where it is used: `--help` need not wait for numba, NumPy and polars.

app = typer.Typer(
    cls=QuickGroup,
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
    except (KeyboardInterrupt, typer.Abort) as error:
        from fastdl.cli.signals import exit_code

        return _fail("interrupted", exit_code(error.__cause__ or error))
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
    return Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def _output() -> Console:
    return Console(highlight=False, emoji=False, soft_wrap=True)


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
    """Train a model on a data set: it ends up in a folder with history.csv, config.json, curves.svg and report.html.

    [cyan]fastdl train digits[/]

    [cyan]fastdl train diamonds.csv --target price[/]

    [cyan]fastdl train train-images-idx3-ubyte.gz --epochs 10[/]

    Ctrl-C ends the training and saves what was learned so far; [cyan]fastdl resume[/] goes on with it.
    """
    from fastdl.cli import commands, parallel

    options = train_options.TrainOptions(**given)
    many = options.ensemble > 1 or bool(options.folds)
    command = functools.partial(commands.train, options)
    raise typer.Exit(parallel.run(options.mpi, many, command, _messages(), _output()))


# typer reads a command's parameters from its signature: here they are the fields of TrainOptions.
_parameters = train_options.TrainOptions.parameters()
_train.__signature__ = Signature(_parameters)  # type: ignore[attr-defined]
_train.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters}
app.command("train", cls=QuickCommand)(_train)


def _tune(**given: Any) -> None:
    """Find good hidden layers, learning rate and dropout for a data set, and train with them on all its training rows.

    [cyan]fastdl tune diamonds.csv --target price --trials 50[/]

    Random settings, of which the first is what the options say, are trained at once on four fifths of the training rows, a ninth
    of the epochs; the better third goes on to a third of them, the better third of those to the end. Validation rows take no
    part, so that their metrics are those of new rows. The run's folder gets trials.csv besides.
    """
    from fastdl.cli import parallel, tuning

    options = train_options.TuneOptions(**given)
    command = functools.partial(tuning.tune, options)
    raise typer.Exit(parallel.run(options.mpi, True, command, _messages(), _output()))


_tune_parameters = train_options.TuneOptions.parameters()
_tune.__signature__ = Signature(_tune_parameters)  # type: ignore[attr-defined]
_tune.__annotations__ = {parameter.name: parameter.annotation for parameter in _tune_parameters}
app.command("tune", cls=QuickCommand)(_tune)


@app.command(cls=QuickCommand)
def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    epochs: Annotated[
        int | None,
        typer.Option(help="How many epochs in all.", metavar="COUNT", show_default="as many as the run was begun with"),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(help="How many threads work on a step, or auto.", metavar="COUNT", show_default="as in the run"),
    ] = None,
    mpi: Annotated[
        str,
        typer.Option(help="Train on all processes that mpirun or srun has started: auto, on or off.", metavar="WHEN"),
    ] = "auto",
) -> None:
    """Go on with a run that was interrupted, killed or has ended, as if nothing had happened.

    [cyan]fastdl resume runs/digits-1[/]

    [cyan]fastdl resume runs/digits-1 --epochs 100[/]

    It comes to the same bits as a training that was never interrupted. The data must be those of before. With more epochs, a
    schedule that runs over the whole training, such as cosine, is that of so many epochs from there on.
    """
    from fastdl.cli import commands, parallel

    command = functools.partial(commands.resume, run, epochs, threads)
    raise typer.Exit(parallel.run(mpi, False, command, _messages(), _output()))


@app.command(cls=QuickCommand)
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


@app.command(cls=QuickCommand)
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


@app.command(cls=QuickCommand)
def inspect(
    model: ModelPath,
    html: Annotated[str | None, typer.Option(help="Write it as a page to this file instead.", metavar="FILE")] = None,
) -> None:
    """Print what a model file holds: layers, features, classes, and how it was trained."""
    from fastdl.cli import commands

    commands.inspect(model, _output(), html)


@app.command(cls=QuickCommand)
def report(
    run: Annotated[list[str], typer.Argument(metavar="RUN", help="The folder of a run; or several, side by side.")],
    out: Annotated[
        str | None,
        typer.Option(
            help="File for the page.", metavar="FILE", show_default="RUN/report.html; comparison.html of several runs"
        ),
    ] = None,
) -> None:
    """Make the page of a run again, or one that shows several runs side by side.

    [cyan]fastdl report runs/diamonds-1 runs/diamonds-2[/]

    The page is one file that asks nothing of the network; its path goes to stdout.
    """
    from fastdl.cli import pages

    print(pages.report(run, out))


@app.command(cls=QuickCommand)
def export(
    model: ModelPath,
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="The file to write: .onnx (the preprocessing inside), .safetensors (parameters for PyTorch and fastdl), or "
            ".py (a module that needs NumPy alone).",
        ),
    ],
) -> None:
    """Write a model for use without fastdl, in the format that the name of OUT ends with.

    [cyan]fastdl export runs/titanic-1 titanic.onnx[/]
    """
    from fastdl.cli import commands

    commands.export(model, out, _messages())


@app.command(cls=QuickCommand)
def prepare(
    cpu: Annotated[
        str | None,
        typer.Option(
            help="Compile for another kind of processor, such as x86-64-v4 or aarch64.",
            metavar="NAME",
            show_default="this one",
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="float32 or float64.", metavar="NAME", show_default="both")
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what the folder holds first, of all versions.")
    ] = False,
) -> None:
    """Compile everything now, so that no training waits for it: for images of containers and for machines to come.

    [cyan]RUN fastdl prepare[/] in a Dockerfile

    The code is kept in the folder that FASTDL_CACHE_DIR names, or in the user's folder for caches; its path goes to stdout. It
    may be copied to any path and to other machines of the kind, and may be read-only there.
    """
    from fastdl.cli import installation

    installation.prepare(cpu, dtype or [], clean, _messages())


@app.command(cls=QuickCommand)
def doctor() -> None:
    """Say what the installation sees of this machine, what is wrong, and how to mend it; exit code 1 if something is."""
    from fastdl.cli import installation

    raise typer.Exit(installation.doctor(_output()))


@app.command(cls=QuickCommand)
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
    from fastdl.cli import benchmark

    benchmark.bench(benchmark.BenchOptions(**options), _messages())
