"""The options of `fastdl train`: text as it was typed, made into what the library takes, or one sentence about it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastdl import activations, checks, losses, precision, schedules
from fastdl.cli.train_options import FilledOptions, TrainOptions
from fastdl.errors import InputError, OptionError
from fastdl.model import DTYPES
from fastdl.optimizers import OPTIMIZERS, Optimizer
from fastdl.suggest import did_you_mean
from fastdl.tables import data
from fastdl.tables.dialect import Wishes, separator_of
from fastdl.training.settings import SETTINGS


@contextlib.contextmanager
def option_error(prefix: str = "") -> Iterator[None]:
    """An `InputError` in the block is about an option."""
    try:
        yield
    except InputError as error:
        raise OptionError(f"{prefix}{error}") from error


def check_numbers(options: FilledOptions, typed: TrainOptions) -> None:
    """Refuse numbers that are out of range, of options that are filled in, and ways to validate that do not go together."""
    with option_error():
        checks.count(options.epochs, "--epochs", 1, "the passes over the data")
        checks.count(options.seed, "--seed", 0, "the seed of split, weights and shuffling")
        checks.count(options.batch_size, "--batch-size", 1, "the rows of a step")
        checks.count(options.warmup, "--warmup", 0, "the steps in which the learning rate rises")
        checks.count(options.early_stopping, "--early-stopping", 0, "the epochs to wait for a lower loss")
        checks.count(options.ensemble, "--ensemble", 1, "the models to train")
        if options.folds is not None:
            checks.count(options.folds, "--folds", 2, "the parts that the rows are cut into")
    _check_folds(options)
    if typed.early_stopping and options.validation == 0 and not options.validation_data:
        raise OptionError("--early-stopping: expected validation rows to watch, got --validation 0")
    ways = {"--group": options.group, "--time": options.time, "--validation-data": options.validation_data}
    given = [name for name, value in ways.items() if value]
    if len(given) > 1:
        raise OptionError(f"{given[1]}: expected one way to choose the validation rows, got {' and '.join(given)}")
    if given and options.validation == 0 and given[0] != "--validation-data":
        raise OptionError(f"{given[0]}: expected validation rows to choose, got --validation 0")
    clip_norm = options.clip_norm
    if clip_norm is not None and not (math.isfinite(clip_norm) and clip_norm > 0):
        raise OptionError(f"--clip-norm: expected a finite number above 0, such as 1, got {clip_norm:g}")
    if not (math.isfinite(options.l2) and options.l2 >= 0):
        raise OptionError(f"--l2: expected a finite number of 0 or more, such as 0.0001, got {options.l2:g}")


def _check_folds(options: TrainOptions) -> None:
    """Refuse other ways to validate beside --folds."""
    others = {
        "--validation": options.validation is not None,
        "--validation-data": bool(options.validation_data),
        "--time": options.time is not None,
    }
    for name, given in others.items():
        if options.folds is not None and given:
            raise OptionError(f"{name}: expected --folds, in which each row validates once, without it; leave one out")


def wishes_of(
    header: bool | None, separator: str | None, decimal: str | None, encoding: str | None, na_values: Sequence[str]
) -> Wishes:
    """How the user says that the files are written."""
    words = tuple(value for text in na_values for value in ([text] if text == "," else text.split(",")))
    return Wishes(header, separator_of(separator), decimal, encoding, words)


def table_options(options: TrainOptions, task: str | None, validation: float) -> data.Options:
    """What the user says about the data."""
    return data.Options(
        target=options.target,
        task=task,
        categorical=options.categorical,
        numeric=options.numeric,
        date=options.date,
        ignore=options.ignore,
        group=options.group,
        time=options.time,
        validation=validation,
        validation_data=options.validation_data,
        seed=options.seed,
        keeps_table=options.folds is not None,
        wishes=wishes_of(options.header, options.separator, options.decimal, options.encoding, options.na_values),
    )


def one_of(option: str, value: str, choices: Sequence[str]) -> str:
    """The value, which must be one of the choices."""
    if value not in choices:
        raise OptionError(
            f"{option}: expected one of {', '.join(choices)}, got {value!r}{did_you_mean(value, choices)}"
        )
    return value


def hidden_sizes(text: str) -> list[int]:
    """The sizes of `256,128`, or none."""
    if text.strip().lower() in ("", "none"):
        return []
    sizes = [size.strip() for size in text.split(",")]
    if not all(size.isascii() and size.isdecimal() and int(size) > 0 for size in sizes):
        raise OptionError(
            f"--hidden: expected sizes of layers such as 256,128, or none for a linear model, got {text!r}"
        )
    return [int(size) for size in sizes]


def hidden_activations(options: FilledOptions, n_hidden: int) -> list[activations.Activation]:
    """One activation for each hidden layer."""
    names = [name.strip().replace("-", "_") for name in options.activation.split(",")]
    alpha = options.leaky_alpha
    if alpha is not None and "leaky_relu" not in names:
        raise OptionError(f"--leaky-alpha: expected --activation leaky_relu with it, got {options.activation!r}")
    for name in names:
        one_of("--activation", name, list(activations.ACTIVATIONS))
    with option_error("--leaky-alpha: "):
        leaky = activations.LeakyReLU(0.01 if alpha is None else alpha)
    units = [leaky if name == "leaky_relu" else activations.Activation(name) for name in names]
    if len(units) not in (1, n_hidden):
        raise OptionError(
            f"--activation: expected one name, or one for each of {n_hidden} hidden layers, got {len(names)}: "
            f"{options.activation}"
        )
    return units * n_hidden if len(units) == 1 else units


def loss_of(text: str | None) -> losses.Loss | None:
    """The loss of `poisson`, `huber:1.5` or `quantile:0.9`; None is the default of the task."""
    if text is None:
        return None
    name, _, number = text.partition(":")
    one_of("--loss", name.replace("-", "_"), [*losses.LOSSES, losses.CROSS_ENTROPY])
    with option_error("--loss: "):
        try:
            value = float(number) if number else None
        except ValueError:
            raise InputError(f"expected a number behind {name}:, such as {name}:0.5, got {text!r}") from None
        return losses.Loss(name.replace("-", "_"), value)


def optimizer_of(options: FilledOptions, more: Mapping[str, Any]) -> Optimizer:
    """The optimizer with the options, and `more` settings, that belong to it."""
    name, lr, decay = options.optimizer, options.lr, options.weight_decay
    kind: Callable[..., Optimizer] = OPTIMIZERS[one_of("--optimizer", name, list(OPTIMIZERS))]
    if lr is not None and not (math.isfinite(lr) and lr > 0):
        raise OptionError(f"--lr: expected a learning rate above 0, such as 0.001, got {lr:g}")
    if decay is not None and name != "adamw":
        raise OptionError(f"--weight-decay: expected --optimizer adamw with it, got {name!r}; others have --l2")
    if decay is not None and not (math.isfinite(decay) and decay >= 0):
        raise OptionError(f"--weight-decay: expected a finite number of 0 or more, such as 0.01, got {decay:g}")
    if options.nesterov and name != "momentum":
        raise OptionError(f"--nesterov: expected --optimizer momentum with it, got {name!r}")
    given = {"lr": lr, "weight_decay": decay, "nesterov": options.nesterov or None}
    given |= {beta: value for beta in ("beta1", "beta2") if (value := more.get(beta)) is not None}
    with option_error("--set: "):
        try:
            return kind(**{key: value for key, value in given.items() if value is not None})
        except TypeError:
            raise InputError(f"expected beta1 and beta2 with adam or adamw, got {name}; leave them out") from None


def schedule_of(text: str, warmup: int, option: str = "--schedule") -> schedules.Schedule:
    """The schedule of `cosine` or `step:1000,0.5`, behind a warm-up."""
    name, _, numbers = text.partition(":")
    kind: Callable[..., schedules.Schedule] = schedules.SCHEDULES[one_of(option, name, list(schedules.SCHEDULES))]
    arguments = [number.strip() for number in numbers.split(",")] if numbers else []
    with option_error(f"{option}: "):
        if name in ("step", "exponential"):
            try:
                every, factor = int(arguments[0]), float(arguments[1])
            except (IndexError, ValueError):
                raise InputError(f"expected steps and a factor, such as {name}:1000,0.5, got {text!r}") from None
            schedule = kind(every, factor)
        elif arguments:
            raise InputError(f"expected {name} alone, got {text!r}")
        else:
            schedule = kind()
    return schedules.Warmup(warmup, schedule) if warmup > 0 else schedule


def dropout_shares(text: str, n_hidden: int) -> list[float]:
    """One share for each hidden layer."""
    try:
        shares = [float(share) for share in text.split(",")]
    except ValueError:
        raise OptionError(f"--dropout: expected shares such as 0.2 or 0.2,0.5, got {text!r}") from None
    if not all(0 <= share < 1 for share in shares):
        raise OptionError(f"--dropout: expected shares in [0, 1), got {text!r}")
    if len(shares) not in (1, n_hidden):
        raise OptionError(f"--dropout: expected one share, or one for each of {n_hidden} hidden layers, got {text!r}")
    if n_hidden == 0 and any(shares):
        raise OptionError(f"--dropout: expected hidden layers to drop outputs of, got --hidden none and {text!r}")
    return shares * n_hidden if len(shares) == 1 else shares


def thread_count(text: str) -> int | str:
    """The number, or "auto"."""
    if text == "auto":
        return text
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise OptionError(f"--threads: expected auto or a number of at least 1, got {text!r}")
    return int(text)


def precision_here(text: str, dtype: str) -> str:
    """The precision, which is float32 where the processor has no other and the user does not insist."""
    with option_error("--"):
        return precision.here(text, np.dtype(one_of("--dtype", dtype, DTYPES)))


def settings_of(options: FilledOptions, n_hidden: int, more: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's settings that filled-in options and `more` settings are about, by their names.

    An option that has the name of a setting needs nothing here, unless its text has to be read.
    """

    def scheduled(name: str) -> schedules.Schedule | None:
        told = more.get(name)
        return None if told is None else schedule_of(str(told), 0, f"--set {name}")

    read: dict[str, Callable[[], Any]] = {
        "early_stopping": lambda: options.early_stopping or None,
        "group_rates": lambda: more.get("group_rates"),
        "group_decays": lambda: more.get("group_decays"),
        "ntk": lambda: more.get("ntk", False),
        "decay_schedule": lambda: scheduled("decay_schedule"),
        "dropout_schedule": lambda: scheduled("dropout_schedule"),
        "optimizer": lambda: optimizer_of(options, more),
        "schedule": lambda: schedule_of(options.schedule, options.warmup),
        "dropout": lambda: dropout_shares(options.dropout, n_hidden),
        "n_threads": lambda: thread_count(options.threads),
        "precision": lambda: precision_here(options.precision, options.dtype),
    }
    names = [name for name in SETTINGS if name in read or hasattr(options, name)]
    return {name: read[name]() if name in read else getattr(options, name) for name in names}
