"""Recipes: settings that go together, chosen by what a data set is like.

| recipe    | what it is                                                                                              |
|-----------|---------------------------------------------------------------------------------------------------------|
| `auto`    | RealMLP's ideas in a fifth of its epochs or less: what `fastdl train` and the Tabular classes do        |
| `realmlp` | RealMLP-TD of Holzmüller, Grinsztajn and Steinwart (2024): 256 epochs                                   |
| `plain`   | two ReLU layers and Adam, 40 epochs on all rows, as networks are usually trained                         |

A recipe gives plain values by the names of the options of `fastdl train`; those of `MORE` have no option of their own. What the
user gives goes before.

Where `auto` differs from RealMLP it was tried on the tables that `fastdl_bench.quality` may be tuned by: half its rates, batches
of a sixteenth of the rows, 8 to 48 epochs, features that are hardly clipped (a clip at 3 makes sums of columns unlearnable: taxis
have 3.5 times the error), and probabilities at the temperature that fits the validation rows best. Parametric activations have
0.95 to 1.00 of the error without on seven tables of 1,000 rows and more (0.99 in the geometric mean), and 1.00 on smaller ones.
Category embeddings beside them: taxis have 0.86 of the error, of which parametric activations alone make 0.95.

Beside pytabkit's RealMLP-TD with its 256 epochs (`fastdl_bench.realmlp`, two cores of Zen 3): `auto` has 1.004 of its error on
houses in a 45th of the time, and 0.970 on clusters in a 32nd; `realmlp`, which computes the same, 1.010 and 0.974 in a 7th to
a 10th. A step of `realmlp` on houses has 52 % of the rate of multiply-adds alone; with ReLU, no dropout and no embeddings 63 %.

With few rows the fifth that is held out is missed, and a linear model is hard to beat: on breast_cancer (426 rows, 6 splits)
the log loss of the network is 0.0996, and 0.0786 of a logistic regression. So `auto` mixes both (`blending`), unless layers are
asked for: 0.0875 there. Of the network's error alone the mix has 0.98 on diabetes and mpg, 0.99 on titanic, 0.96 on penguins,
0.88 on breast_cancer and 1.03 on wine: 0.97 in the geometric mean (0.985 with the best share on the validation rows in place of
the posterior's mean). Of the tables that were kept aside it has 0.97 of the error on sparse_linear, 0.94 on planets, and 1.25
on iris, whose 22 rows for validation are too few to tell what both models get right (still a third of the linear model's
error). From 1,000 rows on the mix would be worth nothing: 0.98 to 1.05 on eight tables, 1.005 in their mean.

What was tried besides and left, on six small tables and samples of 300 to 800 rows of six larger ones: a second fit on all rows
for as many epochs (from 24 % less error to 21 % more, without a pattern), epochs and temperature found by five folds before one
fit (0.0994; 3.9 times the error on penguins), a quarter of the rate for numbers (2 to 9 % less on most, 46 % more on taxis), a
clip at 3, less label smoothing, more dropout, and smaller networks. The mean of the models of five folds helps more (0.0814 on
breast_cancer). It is five models in one file, which cannot be exported: `--folds 5`, for who asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from fastdl import checks
from fastdl.errors import InputError
from fastdl.losses import Loss
from fastdl.optimizers import OPTIMIZERS, Optimizer
from fastdl.schedules import SCHEDULES
from fastdl.suggest import did_you_mean
from fastdl.tables.data import TrainingData
from fastdl.training.fitting import Blueprint, numeric_features

MORE: dict[str, Any] = {
    "beta1": None,
    "beta2": None,
    "init": "auto",
    "scaling": "standard",
    "clip": None,
    "embedding": None,
    "scale_inputs": False,
    "parametric": False,
    "category_size": 0,
    "ntk": False,
    "group_rates": None,
    "group_decays": None,
    "decay_schedule": None,
    "dropout_schedule": None,
    "calibrate": False,
    "blend_linear": False,
}
"""Settings without an option of their own, and what they are where nobody says otherwise."""
SWITCHES = tuple(name for name, value in MORE.items() if isinstance(value, bool))
"""Those that are true or false."""
_OF_OPTIMIZER = (
    "lr", "weight_decay", "beta1", "beta2", "init", "ntk", "group_rates", "group_decays", "decay_schedule",
)  # fmt: skip
"""What a recipe says only for the optimizer that it names."""
BY_RECIPE = (
    "hidden", "activation", "loss", "optimizer", "lr", "batch_size", "epochs", "l2", "schedule", "dropout", "early_stopping",
)  # fmt: skip
"""Settings that have an option, or an argument of the Tabular classes, of their own."""
FEW = 1000
"""Below so many rows `auto` has half the width, embeds no numbers and has no parametric activations: six such tables are learnt
as well, three times faster. There it mixes the network with a linear model."""
MOST_EMBEDDED = 100
"""With more numeric features than this they are not embedded: each would become four."""


@dataclass(frozen=True)
class Facts:
    """What a recipe is chosen by.

    classes : whether there is one class for each row (or label); else numbers are learnt
    rows : to learn from
    numbers : features that are numbers, and not 0 or 1
    pixels : whether the features are those of an image
    validates : whether there are rows to validate on
    """

    classes: bool
    rows: int
    numbers: int
    pixels: bool
    validates: bool

    @classmethod
    def of(cls, loaded: TrainingData, folds: int = 0) -> Facts:
        """Those of a data set, of which a fold may be held out."""
        rows = len(loaded.train)
        return cls(
            loaded.targets.task != "regression",
            rows - rows // folds if folds else rows,
            len(numeric_features(loaded)),
            loaded.pixels,
            bool(loaded.n_validation or folds),
        )


def _plain(facts: Facts) -> dict[str, Any]:
    return {
        "hidden": (256, 128),
        "activation": "relu",
        "optimizer": "adam",
        "batch_size": min(32, facts.rows),
        "epochs": 40,
        "l2": 1e-3,
        "schedule": "constant",
        "dropout": 0.0,
        "early_stopping": 0,
    }


def _realmlp(facts: Facts) -> dict[str, Any]:
    embeds = 0 < facts.numbers <= MOST_EMBEDDED and not facts.pixels
    return {
        "hidden": (256, 256, 256),
        "activation": "selu" if facts.classes else "mish",
        "optimizer": "adamw",
        "lr": 0.04 if facts.classes else 0.2,
        "weight_decay": 0.02,
        "batch_size": min(256, facts.rows),
        "epochs": 256,
        "l2": 0.0,
        "schedule": "coslog4",
        "dropout": 0.15,
        "early_stopping": 256 if facts.validates else 0,
        **({"loss": "cross_entropy:0.1"} if facts.classes else {}),
        "beta2": 0.95,
        "init": "lecun",
        "scaling": "standard" if facts.pixels else "robust",
        "clip": None if facts.pixels else 3.0,
        "embedding": "pbld" if embeds else None,
        "scale_inputs": True,
        "parametric": True,
        "category_size": 8,
        "ntk": True,
        "group_rates": {"biases": 0.1, "input_scale": 6.0, "embedding": 0.1, "activations": 0.1},
        "decay_schedule": "flat_cosine",
        "dropout_schedule": "flat_cosine",
    }


def _auto(facts: Facts) -> dict[str, Any]:
    rows = max(1, facts.rows)
    epochs = round(48 * min(1.0, (3000 / rows) ** 0.3))
    batch = 2 ** round(math.log2(rows / 16)) if rows > 16 else 1
    return {
        **_realmlp(facts),
        **({"hidden": (128, 128, 128), "embedding": None, "parametric": False} if rows < FEW else {}),
        "lr": 0.02 if facts.classes else 0.1,
        "batch_size": min(rows, 256, max(32, batch)),
        "epochs": max(8, epochs),
        "early_stopping": max(8, epochs) // 2 if facts.validates else 0,
        "clip": None if facts.pixels else 100.0,
        "calibrate": facts.classes and facts.validates,
        "blend_linear": rows < FEW and facts.validates,
    }


RECIPES: dict[str, Callable[[Facts], dict[str, Any]]] = {"auto": _auto, "realmlp": _realmlp, "plain": _plain}
"""Registry: the command line and the Tabular classes know these names."""


def check_recipe(name: object, option: str = "recipe") -> str:
    """The name of a recipe.

    Raises
    ------
    InputError : there is none of this name
    """
    if not isinstance(name, str) or name not in RECIPES:
        hint = did_you_mean(name, RECIPES) if isinstance(name, str) else ""
        raise InputError(f"{option}: expected one of {', '.join(RECIPES)}, got {name!r}{hint}")
    return name


def check_more(given: Mapping[str, Any] | None, option: str = "settings") -> dict[str, Any]:
    """Settings by names of `MORE`.

    Raises
    ------
    InputError : no mapping, or another name
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InputError(f"{option}: expected a dictionary such as {{'embedding': None}}, got {given!r}")
    for name in given:
        if name not in MORE:
            hint = did_you_mean(name, MORE) if isinstance(name, str) else ""
            raise InputError(f"{option}: expected names of {', '.join(MORE)}, got {name!r}{hint}")
    if not isinstance(given.get("blend_linear", False), bool):
        raise InputError(f"{option}: blend_linear: expected True or False, got {given['blend_linear']!r}")
    if "category_size" in given:
        checks.count(given["category_size"], f"{option}: category_size", 0, "the numbers that a category becomes, or 0")
    return dict(given)


def embeds_categories(name: str, more: Mapping[str, Any]) -> bool:
    """Whether a recipe, or a setting, wants codes of categories, which are made before the data are known."""
    typical = Facts(classes=True, rows=FEW, numbers=1, pixels=False, validates=True)
    return bool({**MORE, **RECIPES[check_recipe(name)](typical), **more}["category_size"])


def blueprint_of(chosen: Mapping[str, Any], seed: int, dtype: str) -> Blueprint:
    """What models are built of, of all settings."""
    names = ("activation", "init", "scaling", "clip", "embedding", "scale_inputs", "parametric", "category_size")
    own = {name: chosen[name] for name in names}
    return Blueprint(list(chosen["hidden"]), seed=seed, dtype=dtype, loss=_loss(chosen["loss"]), **own)


def trainer_settings(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `Trainer`, but for its batch size, of all settings: names become instances."""
    names = ("epochs", "l2", "dropout", "group_rates", "group_decays", "ntk")
    found = {name: chosen[name] for name in names}
    found["early_stopping"] = chosen["early_stopping"] or None
    for name in ("schedule", "decay_schedule", "dropout_schedule"):
        found[name] = _schedule(name, chosen[name])
    return found | {"optimizer": _optimizer(chosen)}


def _loss(told: Any) -> Any:
    """A loss that a recipe names with its parameter, such as `cross_entropy:0.1`; others as they are."""
    if not isinstance(told, str) or ":" not in told:
        return told
    name, _, number = told.partition(":")
    return Loss(name, float(number))


def _schedule(name: str, told: Any) -> Any:
    if not isinstance(told, str):
        return told
    if told not in SCHEDULES:
        raise InputError(f"{name}: expected one of {', '.join(SCHEDULES)}, got {told!r}{did_you_mean(told, SCHEDULES)}")
    return SCHEDULES[told]()


def _optimizer(chosen: Mapping[str, Any]) -> Optimizer:
    told = chosen["optimizer"]
    if isinstance(told, Optimizer):
        return told
    if told not in OPTIMIZERS:
        raise InputError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {told!r}")
    given = {name: chosen.get(name) for name in ("lr", "weight_decay", "beta1", "beta2")}
    kind: Any = OPTIMIZERS[told]
    known = {field.name for field in fields(kind)}
    unknown = [name for name, value in given.items() if value is not None and name not in known]
    if unknown:
        raise InputError(f"{unknown[0]}: expected another optimizer with it than {told}, which has none; leave it out")
    made: Optimizer = kind(**{name: value for name, value in given.items() if value is not None})
    return made


def holds_out(name: str) -> bool:
    """Whether a recipe wants rows to validate on: to stop early, and to choose the best epoch."""
    return name != "plain"


def resolve(name: str, facts: Facts, given: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """All settings by name: those of the recipe, but for `given` ones that are not None, and for `more` of `MORE`.

    Another optimizer than the recipe's comes with its own rate and decay. Without hidden layers nothing is dropped.
    """
    own = {name: value for name, value in given.items() if value is not None}
    chosen = {**MORE, "lr": None, "weight_decay": None, "loss": None, **RECIPES[check_recipe(name)](facts)}
    if "optimizer" in own and own["optimizer"] != chosen["optimizer"]:
        chosen |= {key: MORE.get(key) for key in _OF_OPTIMIZER}
    if "hidden" in own:  # a network of layers that were asked for has no more units than these
        chosen |= {"blend_linear": False}
    chosen |= own
    chosen |= more
    if chosen["blend_linear"] and not facts.validates:
        raise InputError(
            "blend_linear: expected rows to validate on, which say how much of a linear model to mix in, got none; hold some out"
        )
    if len(chosen["hidden"]) == 0 and "dropout" not in own:
        chosen |= {"dropout": 0.0}
    if chosen["group_rates"] and "group_rates" not in more:
        there_is = {
            "embedding": chosen["embedding"] and facts.numbers,
            "input_scale": chosen["scale_inputs"],
            "activations": chosen["parametric"] and len(chosen["hidden"]),
        }
        rates = chosen["group_rates"].items()
        chosen["group_rates"] = {group: rate for group, rate in rates if there_is.get(group, True)}
    return chosen
