"""The settings of a training: what each is, its default, its check. Trainer, run records and options derive from here.

Every setting is live: it is checked when it is set, at any time, and holds from the next `fit` (the rate's factor from the
next epoch). To add one: an entry of `SETTINGS`, and the argument of `Trainer` that has its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastdl import checks, html, metrics, precision
from fastdl.distributed.ranks import Ranks
from fastdl.errors import InputError
from fastdl.model import MLP
from fastdl.optimizers import Adam, Optimizer, optimizer_of
from fastdl.schedules import Constant, Schedule, schedule_of
from fastdl.training.callbacks import check_callbacks
from fastdl.training.early_stopping import EarlyStopping
from fastdl.training.groups import Group, check_groups


class Settings:
    """Attributes that are checked when they are set; see `Trainer` for what they mean."""

    model: MLP
    optimizer: Optimizer
    batch_size: int
    epochs: int
    l2: float
    seed: int
    n_threads: int | str
    callbacks: list[Any]
    schedule: Schedule
    clip_norm: float | None
    dropout: float | tuple[float, ...]
    early_stopping: EarlyStopping | None
    class_weight: dict[int, float] | str | None
    metrics: dict[str, Callable[..., float]]
    group_rates: dict[str, Group]
    group_decays: dict[str, Group]
    ntk: bool
    decay_schedule: Schedule | None
    dropout_schedule: Schedule | None
    precision: str
    communicator: Ranks | None
    rate_factor: float

    def __setattr__(self, name: str, value: Any) -> None:
        setting = SETTINGS.get(name)
        object.__setattr__(self, name, value if setting is None else setting.check(value, self))

    def check_again(self) -> None:
        """Look at all settings once more: some depend on others, and lists may have been changed in place."""
        for name in SETTINGS:
            setattr(self, name, getattr(self, name))

    @property
    def dropout_rates(self) -> tuple[float, ...]:
        """One dropout rate for each hidden layer; empty where nothing is dropped."""
        rates = self.dropout if isinstance(self.dropout, tuple) else (self.dropout,) * len(self.model.activations)
        return rates if any(rates) else ()

    @property
    def ranks(self) -> Ranks | None:
        """The processes that share the batches, if there are several."""
        return None if self.communicator is None or self.communicator.size == 1 else self.communicator

    def agreed(self, value: Any) -> Any:
        """Rank 0's value, where several processes train together; all of them have to ask."""
        return value if self.ranks is None else self.ranks.agreed(value)

    def _repr_html_(self) -> str:
        """What a notebook shows: the settings and the history of the last `fit`."""
        history = getattr(self, "history", None)
        shown = html.row(html.pairs({name: _in_words(value) for name, value in self.record().items()}, "Trainer"))
        return shown + (history._repr_html_() if history else "")

    def record(self) -> dict[str, Any]:
        """The settings as plain JSON values, for a run's record and model file."""
        return {name: setting.plain(getattr(self, name)) for name, setting in SETTINGS.items() if setting.plain}


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_in_words(v)}" for name, v in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _model(value: Any, _: Settings) -> MLP:
    if not isinstance(value, MLP):
        raise InputError(f"model: expected a fastdl.MLP, got {type(value).__name__}")
    return value


def _optimizer(value: Any, _: Settings) -> Optimizer:
    if value is None:
        return Adam()
    if not isinstance(value, Optimizer):
        raise InputError(f"optimizer: expected an instance such as fastdl.Adam(lr=1e-3), got {value!r}")
    return value


def _communicator(value: Any, _: Settings) -> Ranks | None:
    return value if value is None or isinstance(value, Ranks) else Ranks(value)


def _schedule(name: str) -> Callable[[Any, Settings], Schedule | None]:
    def check(value: Any, _: Settings) -> Schedule | None:
        if value is not None and not isinstance(value, Schedule):
            raise InputError(f"{name}: expected an instance such as fastdl.schedules.Cosine(), got {value!r}")
        return value

    return check


def _ntk(value: Any, _: Settings) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"ntk: expected True or False, got {value!r}")
    return bool(value)


def _precision(value: Any, settings: Settings) -> str:
    # Settings are checked again and again: a processor that lacks it is spoken of once.
    same = value == getattr(settings, "precision", None) and settings.model.dtype == np.float32
    return value if same else precision.check(value, settings.model.dtype)


def _plain_groups(value: dict[str, Group]) -> dict[str, Any]:
    return {group: list(factor) if isinstance(factor, tuple) else factor for group, factor in value.items()}


def _count(name: str, low: int, what: str) -> Callable[[Any, Settings], int]:
    return lambda value, _: checks.count(value, name, low, what)


def _n_threads(value: Any, _: Settings) -> int | str:
    return value if isinstance(value, str) and value == "auto" else checks.count(
        value, "n_threads", 1, "'auto' or the number of threads"
    )  # fmt: skip


def _dropout(value: Any, settings: Settings) -> float | tuple[float, ...]:
    """One rate for all hidden layers, or one each."""
    n_hidden = len(settings.model.activations)
    several = isinstance(value, (list, tuple))
    rates = tuple(checks.number(rate, "dropout", 0, "the dropout rate") for rate in (value if several else [value]))
    if any(rate >= 1 for rate in rates):
        raise InputError(f"dropout: expected rates in [0, 1), such as 0.2, got {value!r}")
    if several and len(rates) != n_hidden:
        raise InputError(f"dropout: expected one rate, or {n_hidden} (one per hidden layer), got {len(rates)}")
    if n_hidden == 0 and any(rates):
        raise InputError("dropout: expected a model with hidden layers, got a linear one; leave dropout out")
    return rates if several else rates[0]


def _early_stopping(value: Any, settings: Settings) -> EarlyStopping | None:
    if value is None:
        return None
    if not isinstance(value, EarlyStopping):
        value = EarlyStopping(checks.count(value, "early_stopping", 1, "an EarlyStopping or the epochs to wait"))
    value.check_monitor((*metrics.METRICS[settings.model.output], *settings.metrics))
    return value


def _class_weight(value: Any, settings: Settings) -> dict[int, float] | str | None:
    if value is None:
        return None
    model = settings.model
    n_classes = {"softmax": model.layers[-1], "sigmoid": 2 if model.layers[-1] == 1 else 0}.get(model.output, 0)
    if not n_classes:
        raise InputError(
            f"class_weight: expected a model with softmax output, or with one sigmoid output, got {model.output!r} "
            f"with {model.layers[-1]} outputs; use sample_weight"
        )
    if isinstance(value, str) and value == "balanced":
        return value
    if not isinstance(value, Mapping) or not all(key in range(n_classes) for key in value):
        raise InputError(
            f"class_weight: expected 'balanced', or a dictionary from classes 0 to {n_classes - 1} to weights, got {value!r}"
        )
    return {int(k): checks.number(w, "class_weight", 0, "the weight of a class") for k, w in value.items()}


def _metrics(value: Any, settings: Settings) -> dict[str, Callable[..., float]]:
    value = {} if value is None else value
    if not isinstance(value, Mapping) or not all(isinstance(k, str) and callable(f) for k, f in value.items()):
        raise InputError(f"metrics: expected a dictionary from names to functions of (y, predictions), got {value!r}")
    taken = [name for name in value if name in ("loss", "val_loss", "epoch", "seconds")]
    taken += [name for name in value if name in metrics.METRICS[settings.model.output]]
    if taken:
        raise InputError(f"metrics: expected names of your own, got {taken[0]!r}, which fastdl uses; call it otherwise")
    return dict(value)


@dataclass(frozen=True)
class Setting:
    """One setting: its default, its check (value, settings) -> value, how a record shows it (None: not at all), and what brings
    that back into a form that the check takes."""

    default: Any
    check: Callable[[Any, Settings], Any]
    plain: Callable[[Any], Any] | None = lambda value: value
    read: Callable[[Any], Any] = lambda value: value


def _optional(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else function(value)


# The order is that in which they are checked: metrics before what monitors them.
SETTINGS: dict[str, Setting] = {
    "model": Setting(..., _model, None),
    "optimizer": Setting(None, _optimizer, lambda value: {"name": value.name, **value.hyperparameters()}, optimizer_of),
    "batch_size": Setting(64, _count("batch_size", 1, "the rows of a mini-batch")),
    "epochs": Setting(20, _count("epochs", 1, "the passes over the data")),
    "l2": Setting(0.0, lambda value, _: checks.number(value, "l2", 0, "the weight of the L2 penalty")),
    "seed": Setting(0, _count("seed", 0, "the seed of the shuffling")),
    "n_threads": Setting("auto", _n_threads, None),
    "callbacks": Setting((), lambda value, _: check_callbacks(value), None),
    "schedule": Setting(
        None,
        lambda value, own: _schedule("schedule")(value, own) or Constant(),
        lambda value: value.describe(),
        schedule_of,
    ),
    "clip_norm": Setting(
        None,
        lambda value, _: None if value is None else checks.positive(value, "clip_norm", "the gradient's largest norm"),
    ),
    "dropout": Setting(
        0.0,
        _dropout,
        lambda value: [] if not np.any(value) else np.asarray(value).tolist(),
        lambda value: 0.0 if value == [] else value,
    ),
    "metrics": Setting(None, _metrics, None),
    "early_stopping": Setting(
        None,
        _early_stopping,
        _optional(lambda value: value.describe()),
        _optional(lambda value: EarlyStopping(**value)),
    ),
    "class_weight": Setting(
        None,
        _class_weight,
        lambda value: {str(k): w for k, w in value.items()} if isinstance(value, dict) else value,
        lambda value: {int(k): w for k, w in value.items()} if isinstance(value, dict) else value,
    ),
    "group_rates": Setting(
        None, lambda value, own: check_groups(value, "group_rates", own.model), lambda value: _plain_groups(value)
    ),
    "group_decays": Setting(
        None, lambda value, own: check_groups(value, "group_decays", own.model), lambda value: _plain_groups(value)
    ),
    "ntk": Setting(False, _ntk),
    "decay_schedule": Setting(
        None, _schedule("decay_schedule"), _optional(lambda value: value.describe()), _optional(schedule_of)
    ),
    "dropout_schedule": Setting(
        None, _schedule("dropout_schedule"), _optional(lambda value: value.describe()), _optional(schedule_of)
    ),
    "precision": Setting("float32", _precision),
    "communicator": Setting(None, _communicator, None),
    "rate_factor": Setting(
        1.0, lambda value, _: checks.positive(value, "rate_factor", "what the schedule's rates are multiplied by"), None
    ),
}
"""Registry: `Trainer`'s arguments, run records, and the tests iterate over it."""
