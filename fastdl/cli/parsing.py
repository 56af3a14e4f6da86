"""Commands whose parameters are not converted where there is nothing to convert: defaults, and text that stays text.

Newer versions of typer convert by pydantic, whose import and set-up take 0.25 s of CPU time, a seventh of a short training.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from typer.core import TyperCommand, TyperGroup


class _Quick:
    """What a command and the group of them have in common."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, --help among them."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            usual = parameter.process_value
            if not isinstance(usual, partial):
                parameter.process_value = partial(_value, parameter, usual)
        return parameters


class QuickCommand(_Quick, TyperCommand):
    """A command that gives what needs no conversion to its function as it is, and leaves all else to typer."""


class QuickGroup(_Quick, TyperGroup):
    """The same for the command line as a whole."""


def _value(parameter: Any, usual: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    """The value of a parameter as its command gets it; `usual` is typer's way."""
    several = parameter.multiple or parameter.nargs == -1
    if value in (None, (), []):
        if parameter.required:  # typer says what is missing
            return usual(context, value)
        value = () if several else None
    elif _is_text(parameter):
        texts = value if several else [value]
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            return usual(context, value)
        value = list(texts) if several else value
    elif (
        type(value) not in (bool, int, float)
        or type(value) is not type(parameter.default)
        or value != parameter.default
    ):
        return usual(context, value)
    return value if parameter.callback is None else parameter.callback(context, parameter, value)


def _is_text(parameter: Any) -> bool:
    """Whether a parameter takes text, or several texts; asked of typer's own types, or of click's, which it had before."""
    described = getattr(parameter, "type_descriptor", None)
    if described is not None:
        return described.annotation in (str, list[str])
    return getattr(getattr(parameter, "type", None), "name", None) == "text"
