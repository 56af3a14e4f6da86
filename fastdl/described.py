"""What is said of a model: by its file, before that is believed, and in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastdl import categories, checks, embeddings, html
from fastdl.activations import Activation
from fastdl.errors import InputError
from fastdl.files import portable
from fastdl.losses import Loss
from fastdl.scaling import Scaling
from fastdl.wording import plural


def count(description: dict[str, Any]) -> int:
    """How many parameters a model has that a file describes."""
    return portable.architecture_of(description).n_parameters


def arguments(description: dict[str, Any], n_parameters: int) -> dict[str, Any]:
    """What a model is made with that a file describes, which holds so many parameters."""
    layers = [checks.count(n, "layers", 1, "a layer's size") for n in description["layers"]]
    units = [Activation.from_json(a) for a in description["activations"]]
    if len(layers) < 2 or len(units) != len(layers) - 2 or count(description) != n_parameters:  # before memory is taken
        raise InputError(f"expected the parameters of {layers[:9]}, got {n_parameters} numbers")
    told = description.get("loss")  # version 1 has none: each output unit had one
    loss = None
    if told is not None:
        number = told["parameter"]
        loss = Loss(told["name"], tuple(number) if isinstance(number, list) else number)
    return {
        "layers": layers, "activation": units, "loss": loss, "embedding": embeddings.from_json(description.get("embedding")),
        "scale_inputs": description.get("scale_inputs", False),
        "categories": categories.from_json(description.get("categories")),
        **{name: description[name] for name in ("output", "seed", "dtype")},
    }  # fmt: skip


def check(layers: Sequence[int], scaling: Scaling | None, description: dict[str, Any]) -> None:
    """Raise InputError unless statistics and names that a file states are as many as the model has inputs and outputs."""
    n_in, *_, n_out = layers
    if scaling is not None:
        of_targets = [a for a in (scaling.y_mean, scaling.y_scale) if a is not None]
        sizes = [(a.shape, n_in) for a in (scaling.mean, scaling.scale)] + [(a.shape, n_out) for a in of_targets]
        if any(shape != (size,) for shape, size in sizes) or len(of_targets) == 1:
            raise InputError(f"expected statistics of {n_in} inputs, and of {n_out} targets or none, got others")
        if any(not isinstance(code, int) or not 0 <= code < n_in for code in scaling.codes):
            raise InputError(f"scaling: expected codes among {n_in} inputs, got {list(scaling.codes)[:9]}")
        if scaling.clip is not None and not 0 < scaling.clip < float("inf"):
            raise InputError(f"scaling: expected clip above 0, got {scaling.clip}")
    wanted = {"feature_names": (list, type(None)), "target_names": (list, type(None)), "classes": (list, type(None))}
    for name, kinds in {**wanted, "metadata": (dict,)}.items():
        if not isinstance(description[name], kinds):
            raise InputError(f"{name}: expected {kinds[0].__name__}, got {type(description[name]).__name__}")
    names = description["feature_names"]
    if names is not None and (len(names) != n_in or not all(isinstance(name, str) for name in names)):
        raise InputError(f"feature_names: expected {n_in} names, got {len(names)} values")


def input_stage(model: Any) -> str:
    """What becomes of inputs before the first layer: `PBLD, scaled`, or nothing."""
    kinds = [type(e).__name__ for e in (model.embedding, model.categories) if e is not None]
    return ", ".join([*kinds, *(["scaled"] if model.scale_inputs else [])])


def as_html(model: Any) -> str:
    """A table of the layers, and the names of what goes in and comes out."""
    units = [*(a.label for a in model.activations), model.output]
    of_units = [*(alphas.size for alphas in model.unit_alphas), 0]
    rows: list[tuple[object, ...]] = [
        (i + 1, f"{w.shape[0]:,} × {w.shape[1]:,}", f"{w.size + b.size + own:,}", unit)
        for i, (w, b, unit, own) in enumerate(zip(model.weights, model.biases, units, of_units))
    ]
    if model.input_stage is not None:
        rows.insert(0, ("inputs", "", f"{sum(part.size for part in model.input_stage):,}", input_stage(model)))
    title = f"{type(model).__name__}, {plural(model.n_parameters, 'parameter')} in {model.dtype}"
    shown = {"features": model.feature_names, "targets": model.target_names, "classes": model.classes}
    names = {what: ", ".join(map(str, found[:20])) for what, found in shown.items() if found}
    return html.table(("layer", "weights", "parameters", "activation"), rows, title) + html.pairs(names)
