"""`--recipe` and `--set`: the options that were not given, filled in by the recipe as if they had been typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from fastdl import checks, initialisation
from fastdl.cli.options import hidden_sizes, one_of, option_error, table_options
from fastdl.cli.train_options import FilledOptions, TrainOptions
from fastdl.embeddings import EMBEDDINGS
from fastdl.errors import OptionError
from fastdl.tables import data
from fastdl.training import recipes
from fastdl.training.recipes import Facts

_TYPICAL = Facts(classes=True, rows=1000, numbers=1, pixels=False, validates=True)
_OPTIONS = (*recipes.BY_RECIPE, "weight_decay")
_WORDS = {"none": None, "true": True, "false": False}


def filled(options: TrainOptions, facts: Facts = _TYPICAL) -> FilledOptions:
    """The options with what the recipe says of such data where nothing was given; `set` holds all settings of `recipes.MORE`.

    Raises
    ------
    OptionError : there is no such recipe or setting
    """
    more = settings_in(options.set)
    given = {name: getattr(options, name) for name in _OPTIONS}
    if options.hidden is not None:
        given["hidden"] = hidden_sizes(options.hidden)
    if options.task == "regression" and facts is _TYPICAL:
        facts = replace(facts, classes=False)
    with option_error("--"):
        found = recipes.resolve(options.recipe, facts, given, more)
    texts = {name: found[name] for name in _OPTIONS}
    texts |= {"hidden": ",".join(map(str, found["hidden"])) or "none", "dropout": str(found["dropout"])}
    texts |= {"set": [f"{name}={_text(found[name])}" for name in recipes.MORE]}
    return FilledOptions(**{f.name: getattr(options, f.name) for f in fields(TrainOptions)} | texts)


def table_wanted(options: TrainOptions, task: str | None, validation: float) -> data.Options:
    """What the user says about the data, and how the recipe wants them."""
    embeds = recipes.embeds_categories(options.recipe, settings_in(options.set))
    return replace(table_options(options, task, validation), embeds=embeds)


def settings_in(texts: Sequence[str]) -> dict[str, Any]:
    """The settings of `name=value` texts.

    Raises
    ------
    OptionError : another name, or no value
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"--set: expected NAME=VALUE, such as embedding=none, got {text!r}")
        found[name.strip()] = _value(one_of("--set", name.strip(), list(recipes.MORE)), value.strip())
    return found


def _value(name: str, text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if ":" in text or name.startswith("group_"):
        pairs = [part.partition(":") for part in text.split(",")]
        return {group.strip(): _number(name, factor) for group, _, factor in pairs}
    try:
        return int(text) if name == "category_size" else float(text)
    except ValueError:
        return text


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"--set {name}: expected groups and factors such as biases:0.1, got {text!r}") from None


def _text(value: Any) -> str:
    words = {None: "none", True: "true", False: "false"}
    if isinstance(value, dict):
        return ",".join(f"{group}:{factor:g}" for group, factor in value.items()) or "none"
    return words[value] if value is None or isinstance(value, bool) else str(value)


def check_more(more: Mapping[str, Any]) -> None:
    """Refuse values of settings that only a model looks at, before there are data for one."""
    for name in recipes.SWITCHES:
        if not isinstance(more[name], bool):
            raise OptionError(f"--set {name}: expected true or false, got {more[name]!r}")
    with option_error("--set "):
        checks.count(more["category_size"], "category_size", 0, "the numbers that a category becomes, or 0")
    if more["scaling"] not in ("standard", "robust"):
        raise OptionError(f"--set scaling: expected standard or robust, got {more['scaling']!r}")
    if more["embedding"] is not None and more["embedding"] not in EMBEDDINGS:
        raise OptionError(
            f"--set embedding: expected one of {', '.join(EMBEDDINGS)} or none, got {more['embedding']!r}"
        )
    with option_error("--set "):
        if more["clip"] is not None:
            checks.positive(more["clip"], "clip", "how far features get at the most")
        initialisation.deviation(more["init"], 1, 1, "glorot")
