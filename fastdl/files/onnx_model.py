"""A model as an ONNX file: raw inputs in, labels and probabilities or numbers out, the preprocessing inside.

| model                | outputs                                                                              |
|----------------------|--------------------------------------------------------------------------------------|
| softmax              | `label` [N], `probabilities` [N, classes]                                            |
| sigmoid, one output  | `label` [N], `probabilities` [N, 2]                                                  |
| sigmoid, L labels    | `label` [N, L] of 0 and 1, `probabilities` [N, L]                                    |
| linear               | `prediction` [N], or [N, O] for several, in the units of the targets                 |

A model of arrays has one input `X` [N, features] in its dtype; a model of tables has one input [N] for each raw column, called as
the column is: float64 numbers, texts, or whole microseconds for moments.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from fastdl._version import __version__
from fastdl.files import onnx_columns
from fastdl.files.atomic import atomic_write
from fastdl.files.onnx_graph import IR_VERSIONS, ML_OPSET, Graph, activate, kind_of, onnx
from fastdl.files.portable import Portable, Stage


def write(path: str | os.PathLike[str], model: Portable) -> None:
    """Write the model, checked by `onnx.checker`, to `path`, which is replaced in one go.

    Raises
    ------
    InputError : columns or classes that ONNX has nothing for, or the folder cannot be written to
    MissingExtraError : onnx is not installed
    """
    made = proto(model)
    onnx().checker.check_model(made, full_check=True)
    with atomic_write(path) as file:
        file.write(made.SerializeToString())


def proto(model: Portable) -> Any:
    """The model as an `onnx.ModelProto`."""
    helper = onnx().helper
    if model.table is not None:
        onnx_columns.check(model.table)
    given = {"X"} if model.table is None else {column.name for column in model.table.columns}
    graph = Graph(given)
    outputs: list[Any] = []
    inputs, features = _array_input(model, graph) if model.table is None else _table_inputs(model, graph)
    names = {wanted: graph.name(wanted) for wanted in ("label", "probabilities", "prediction")}
    raw = _layers(model, graph, features)

    def output(name: str, dtype: Any, width: int | None) -> str:
        shape = ["N"] if width is None else ["N", width]
        outputs.append(helper.make_tensor_value_info(names[name], kind_of(dtype), shape))
        return names[name]

    if model.output == "linear":
        _numbers(model, graph, raw, output)
    else:
        _labels(model, graph, raw, output)
    opset = onnx_columns.opset(model.table)
    made = helper.make_model(
        helper.make_graph(graph.nodes, "fastdl", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
        ir_version=IR_VERSIONS[opset],
        producer_name="fastdl",
        producer_version=__version__,
    )
    helper.set_model_props(made, {"fastdl": json.dumps(_facts(model), ensure_ascii=False)})
    return made


def _facts(model: Portable) -> dict[str, Any]:
    """What a reader of the file may want to know."""
    description = model.description
    facts = {
        key: description[key] for key in ("layers", "activations", "output", "loss", "feature_names", "target_names")
    }
    if model.table is not None:
        facts["inputs"] = {column.name: onnx_columns.kind_of(column)[1] for column in model.table.columns}
    return {**facts, "classes": model.classes}


def _array_input(model: Portable, graph: Graph) -> tuple[list[Any], str]:
    info = onnx().helper.make_tensor_value_info("X", kind_of(model.dtype), ["N", model.layers[0]])
    return [info], _scaled(model, graph, "X")


def _table_inputs(model: Portable, graph: Graph) -> tuple[list[Any], str]:
    assert model.table is not None
    inputs, parts = [], []
    for column in model.table.columns:
        dtype, says = onnx_columns.kind_of(column)
        info = onnx().helper.make_tensor_value_info(column.name, kind_of(dtype), ["N"], says)
        inputs.append(info)
        parts.append(onnx_columns.features(graph, column, column.name, model.table))
    features = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)
    return inputs, graph.cast(_scaled(model, graph, features), model.dtype)


def _scaled(model: Portable, graph: Graph, features: str) -> str:
    """(x - mean) / scale, in float64 before it is rounded."""
    if model.scaling is None:
        return features
    exact = graph.cast(features, np.float64)
    centred = graph.add("Sub", exact, graph.constant(model.scaling.mean, "mean"))
    scaled = graph.add("Div", centred, graph.constant(model.scaling.scale, "scale"))
    if model.scaling.clip is not None:  # x / sqrt(1 + (x / clip)^2)
        share = graph.add("Div", scaled, graph.constant(model.scaling.limits, "clip"))
        squared = graph.add("Add", graph.add("Mul", share, share), graph.constant(1.0, "one"))
        scaled = graph.add("Div", scaled, graph.add("Sqrt", squared))
    return graph.cast(scaled, model.dtype)


def _staged(stage: Stage, graph: Graph, value: str) -> str:
    """What an input stage makes of the inputs: linear maps of cosines or pieces, the inputs themselves, and scales."""
    parts = []
    if stage.embedded:
        x = graph.add("Gather", value, graph.constant(stage.embedded, "embedded", np.int64), axis=1)
        x = graph.add("Unsqueeze", x, graph.constant([2], "axis", np.int64))  # [N, E, 1]
        terms = _pieces(stage, graph, x) if stage.has_pieces else _cosines(stage, graph, x)
        maps = graph.constant(stage.numbers.weights, "embedding")
        made = graph.add("Einsum", terms, maps, equation="nej,ekj->nek")
        made = graph.add("Add", made, graph.constant(stage.numbers.biases, "embedding_bias"))
        made = graph.add("Concat", made, x, axis=2) if stage.passes else made
        size = len(stage.embedded) * (stage.numbers.biases.shape[1] + int(stage.passes))
        parts.append(graph.add("Reshape", made, graph.constant([-1, size], "shape", np.int64)))
    if stage.others:
        parts.append(graph.add("Gather", value, graph.constant(stage.others, "others", np.int64), axis=1))
    if stage.codes:
        parts.append(_categories(stage, graph, value))
    value = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)
    return graph.add("Mul", value, graph.constant(stage.numbers.scale, "input_scale")) if stage.has_scale else value


def _cosines(stage: Stage, graph: Graph, x: str) -> str:
    """cos(2π frequency x + phase)."""
    frequencies, phases = stage.term_arrays
    turn = graph.constant(2 * np.pi * frequencies.astype(np.float64), "frequencies", frequencies.dtype)
    angles = graph.add("Add", graph.add("Mul", x, turn), graph.constant(phases, "phases"))
    return graph.add("Cos", angles)


def _pieces(stage: Stage, graph: Graph, x: str) -> str:
    """(x - start) * slope, within its bounds."""
    starts, slopes, least, most = (
        graph.constant(a, n) for a, n in zip(stage.term_arrays, ("starts", "slopes", "least", "most"))
    )
    grown = graph.add("Mul", graph.add("Sub", x, starts), slopes)
    return graph.add("Min", graph.add("Max", grown, least), most)


def _categories(stage: Stage, graph: Graph, value: str) -> str:
    """The rows of tables that codes belong to; row 0 for what is no code."""
    kind = stage.numbers.scale.dtype
    codes = graph.add("Gather", value, graph.constant(stage.codes, "codes", np.int64), axis=1)
    known = graph.add("Equal", codes, graph.add("Floor", codes))
    known = graph.add("And", known, graph.add("GreaterOrEqual", codes, graph.constant(1, "one", kind)))
    known = graph.add("And", known, graph.add("Less", codes, graph.constant(np.diff(stage.starts), "counts", kind)))
    rows = graph.cast(graph.add("Where", known, codes, graph.constant(0, "zero", kind)), np.int64)
    rows = graph.add("Add", rows, graph.constant(stage.starts[:-1], "starts", np.int64))
    found = graph.add("Gather", graph.constant(stage.numbers.tables, "categories"), rows, axis=0)  # [N, C, size]
    width = len(stage.codes) * stage.numbers.tables.shape[1]
    return graph.add("Reshape", found, graph.constant([-1, width], "shape", np.int64))


def _layers(model: Portable, graph: Graph, value: str) -> str:
    if model.stage is not None:
        value = _staged(model.stage, graph, value)
    for i, (weight, bias) in enumerate(zip(model.weights, model.biases)):
        product = graph.add("MatMul", value, graph.constant(weight, f"weight_{i}"))
        value = graph.add("Add", product, graph.constant(bias, f"bias_{i}"))
        if i < len(model.activations):
            value = activate(graph, model.activations[i], value, model.dtype, model.unit_alphas[i])
    return value


def _numbers(model: Portable, graph: Graph, raw: str, output: Any) -> None:
    value, dtype = raw, model.dtype
    if model.log_link:
        value = graph.add("Exp", value)
    if model.units is not None:
        mean, scale = model.units
        dtype = np.dtype(np.float64)
        value = graph.add("Mul", graph.cast(value, dtype), graph.constant(scale, "y_scale"))
        value = graph.add("Add", value, graph.constant(mean, "y_mean"))
    if model.layers[-1] == 1:
        graph.add("Squeeze", value, graph.constant([1], "axis", np.int64), output=output("prediction", dtype, None))
    else:
        graph.add("Identity", value, output=output("prediction", dtype, model.layers[-1]))


def _labels(model: Portable, graph: Graph, raw: str, output: Any) -> None:
    width = model.layers[-1]
    if model.output == "softmax":
        _class(model, graph, graph.add("ArgMax", raw, axis=1, keepdims=0), output)
        graph.add("Softmax", raw, axis=1, output=output("probabilities", model.dtype, width))
        return
    positive = graph.cast(graph.add("Greater", raw, graph.constant(0, "zero", model.dtype)), np.int64)
    chance = graph.add("Sigmoid", raw)
    if model.is_binary:
        _class(model, graph, graph.add("Squeeze", positive, graph.constant([1], "axis", np.int64)), output)
        rest = graph.add("Sub", graph.constant(1, "one", model.dtype), chance)
        graph.add("Concat", rest, chance, axis=1, output=output("probabilities", model.dtype, 2))
    else:
        graph.add("Identity", positive, output=output("label", np.int64, width))
        graph.add("Identity", chance, output=output("probabilities", model.dtype, width))


def _class(model: Portable, graph: Graph, place: str, output: Any) -> None:
    """The class at a place in the list of all."""
    classes = model.class_array("ONNX")
    graph.add("Gather", graph.constant(classes, "classes"), place, axis=0, output=output("label", classes.dtype, None))
