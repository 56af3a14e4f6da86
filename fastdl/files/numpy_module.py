"""A model as one readable Python file that needs NumPy alone: for places where nothing else can be installed."""

from __future__ import annotations

import ast
import base64
import dis
import inspect
import os
import textwrap
import types
from typing import Any

import numpy as np

from fastdl._version import __version__
from fastdl.activations import Activation
from fastdl.errors import InputError
from fastdl.files import portable, standalone
from fastdl.files.atomic import atomic_write
from fastdl.files.portable import Input, LookupInput, MomentInput, NumberInput, Portable, Stage
from fastdl.scaling import Scaling

WIDTH = 120
"""Columns of the written file at most, where it is code."""


def write(path: str | os.PathLike[str], model: Portable) -> None:
    """Write the module, which is replaced in one go.

    Raises
    ------
    InputError : the folder cannot be written to, or a name is no text that a file can hold
    """
    try:
        text = source(model).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: expected names and classes of proper Unicode, got {error.object!r}") from error
    with atomic_write(path) as file:
        file.write(text)


def source(model: Portable) -> str:
    """The text of the module."""
    body = "\n\n\n".join([*_functions(model), _inputs(model), _outputs(model), *_predictions(model), *_main(model)])
    sections = [_docstring(model), _imports(body), _constants(model), body, _numbers(model)]
    text = "\n".join(section.strip("\n") + "\n" + gap for section, gap in zip(sections, ("", "", "\n", "\n", "")))
    return text if model.table is None else f"{text}\n\n{_RUN}"


def _docstring(model: Portable) -> str:
    n_inputs, n_outputs = model.layers[0], model.layers[-1]
    what = "numbers [N]" if model.output == "linear" else "labels [N]" if model.classes else "labels 0 or 1 [N, L]"
    if model.output == "linear" and n_outputs > 1:
        what = f"numbers [N, {n_outputs}]"
    lines = [f"    predict(X)        {what}"]
    if model.output != "linear":
        of = f"of CLASSES [N, {len(model.classes)}]" if model.classes else f"of each label [N, {n_outputs}]"
        lines.append(f"    predict_proba(X)  probabilities {of}")
    if model.table is None:
        given = f"X is an array of finite numbers [N, {n_inputs}], as they come: standardisation is inside."
    else:
        given = (
            "X has the columns that COLUMNS names: a dictionary of lists or arrays, or a data frame. Cells are taken as they\n"
            "come: texts, missing values and new categories too. `python FILE.py TABLE.csv` prints predictions as CSV."
        )
    return (
        f'"""Predictions of a multi-layer perceptron with NumPy alone; written by fastdl {__version__}.\n\n'
        + "\n".join(lines)
        + f'\n\n{given}\n"""\n'
    )


_MODULES = {
    "base64": "import base64", "csv": "import csv", "math": "import math", "re": "import re",
    "sys": "import sys", "datetime": "from datetime import datetime, timezone",
}  # fmt: skip


def _imports(body: str) -> str:
    names = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)} | {"base64"}
    used = [line for name, line in _MODULES.items() if name in names]
    return "\n".join([*used, "", "import numpy as np", ""])


def _constants(model: Portable) -> str:
    scaling, kind = model.scaling, model.dtype.newbyteorder("<").str
    constants: dict[str, Any] = {"LAYERS": model.layers, "DTYPE": kind}
    names = model.description["feature_names"]
    if model.table is not None:
        constants["MISSING_WORDS"] = set(model.table.missing_words)
        constants["MISSING_NUMBERS"] = set(model.table.missing_numbers)
    elif names is not None:
        constants["FEATURES"] = names
    if model.output != "linear" and model.classes is None and model.description["target_names"]:
        constants["LABELS"] = model.description["target_names"]
    lines = [f"{name} = {_literal(value, len(name) + 3)}" for name, value in constants.items()]
    if model.classes is not None:
        lines.append(_array("CLASSES", model.classes, _class_type(model.classes)))
    if scaling is not None:
        lines += [_array("MEAN", scaling.mean.tolist()), _array("SCALE", scaling.scale.tolist())]
        lines += [] if scaling.clip is None else [f"CLIP = {_clip(scaling)}"]
    if model.units is not None:
        lines += [_array(name, values.tolist()) for name, values in zip(("Y_MEAN", "Y_SCALE"), model.units)]
    return "\n".join(lines) + "\n"


def _clip(scaling: Scaling) -> str:
    """One number for all features, or one each where codes have none."""
    if not scaling.codes:
        return repr(scaling.clip)
    return f"np.where(np.isin(np.arange(LAYERS[0]), {list(scaling.codes)}), np.inf, {scaling.clip!r})"


def _class_type(classes: list[Any]) -> str:
    return "" if portable.are_uniform(classes) else ", dtype=object"


def _array(name: str, values: list[Any], more: str = "") -> str:
    return f"{name} = np.array({_literal(values, len(name) + 12)}{more})"


def _literal(value: Any, indent: int) -> str:
    """A constant as Python writes it, in lines of at most `WIDTH` columns."""
    if isinstance(value, dict) and value:
        items, ends = [f"{key!r}: {_literal(item, indent + len(repr(key)) + 3)}" for key, item in value.items()], "{}"
    elif isinstance(value, (set, list)) and value:
        ordered = sorted(value) if isinstance(value, set) else value
        items, ends = [_literal(item, indent + 1) for item in ordered], "{}" if isinstance(value, set) else "[]"
    else:
        return repr(value)
    lines = [ends[0]]
    for i, item in enumerate(items):
        item += ends[1] if i == len(items) - 1 else ","
        last = lines[-1].rsplit("\n", 1)[-1]
        if i and (len(last) + len(item) + indent * (len(lines) == 1) >= WIDTH or "\n" in lines[-1]):
            lines.append(" " * (indent + 1) + item)
        else:
            lines[-1] += (" " if i else "") + item
    return "\n".join(lines)


def _functions(model: Portable) -> list[str]:
    """The source of what the model uses of `standalone`, in the order that it has there."""
    used = {a.name for a in model.activations} | {"identity"}
    used |= {"parametric"} if any(a.parametric and a.name != "leaky_relu" for a in model.activations) else set()
    used |= {"embedded", _terms(model.stage)} if model.stage is not None else set()
    used |= {"clipped"} if model.scaling is not None and model.scaling.clip is not None else set()
    used |= {"softmax"} if model.output == "softmax" else {"sigmoid"} if model.output == "sigmoid" else set()
    if model.table is not None:
        used |= {_call(column)[0] for column in model.table.columns}
    known = {name: value for name, value in vars(standalone).items() if isinstance(value, types.FunctionType)}
    known = {name: value for name, value in known.items() if value.__module__ == standalone.__name__}
    waiting = list(used)
    while waiting:
        new = (_names(known[waiting.pop()].__code__) & set(known)) - used
        used |= new
        waiting += new
    texts = [inspect.getsource(value).strip() for name, value in known.items() if name in used]
    if "read_moment" in used:
        texts.append(f"MOMENT_PARTS = {standalone.MOMENT_PARTS!r}")
    return texts


def _terms(stage: Stage) -> str:
    """The function of `standalone` whose terms an embedding maps."""
    return "pieces" if stage.has_pieces else "cosines"


def _names(code: types.CodeType) -> set[str]:
    """All global names that a function reads, those of functions inside it too."""
    own = {str(i.argval) for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return own.union(*inner)


def _call(column: Input) -> tuple[str, dict[str, Any]]:
    """The function of `standalone` that reads a column, and its arguments."""
    if isinstance(column, NumberInput):
        return "number", {
            "fill": column.fill, "marked": column.marked, "decimal": column.decimal, "grouped": column.grouped,
        }  # fmt: skip
    if isinstance(column, LookupInput):
        ends = {"unseen": column.unseen, "missing": column.missing}
        if column.is_one_hot and not column.lower:
            return "category", {"codes": column.codes, "width": column.width, **ends}
        return "lookup", {"codes": column.codes, "rows": column.rows.tolist(), **ends, "lower": column.lower}
    if isinstance(column, MomentInput):
        return "moment", {
            "parts": column.parts, "marked": column.marked, "pattern": column.pattern, "prefix": column.prefix,
        }  # fmt: skip
    return "words", {"words": list(column.words)}


def _inputs(model: Portable) -> str:
    scaled = "((X - MEAN) / SCALE)" if model.scaling is not None else "X"
    if model.scaling is not None and model.scaling.clip is not None:
        scaled = f"clipped({scaled}, CLIP)"
    if model.table is None:
        return textwrap.dedent(f'''
            def inputs(X):
                """X [N, {model.layers[0]}] checked, standardised where the model does so, and in the model's dtype."""
                X = np.asarray(X)
                if X.ndim != 2 or X.shape[1] != LAYERS[0]:
                    raise ValueError(f"X: expected a table of {{LAYERS[0]}} columns, got an array of shape {{X.shape}}")
                if not np.isfinite(X).all():
                    raise ValueError("X: expected finite numbers, got NaN or infinity; fill or drop such rows first")
                return {scaled}.astype(DTYPE)
        ''').strip()
    return textwrap.dedent(f'''
        def inputs(table):
            """The features [N, {model.layers[0]}] of a table, standardised where the model does so, in the model's dtype."""
            lacking = [name for name, _, _ in COLUMNS if name not in table]
            if lacking:
                raise ValueError(f"X: expected the columns {{lacking}}, as in training, found none of these names")
            lengths = {{name: len(table[name]) for name, _, _ in COLUMNS}}
            if len(set(lengths.values())) > 1:
                raise ValueError(f"X: expected columns of the same length, got {{lengths}}")
            X = np.concatenate([read(table[name], **facts) for name, read, facts in COLUMNS], axis=1)
            return {scaled}.astype(DTYPE)
    ''').strip()


_OUTPUTS = textwrap.dedent('''
    def raw_outputs(X):
        """What the last layer gives [N, O], before it is read as probabilities, labels or numbers."""
        a = INPUTS
        for weight, bias, (activation, alpha) in zip(WEIGHTS, BIASES, ACTIVATIONS):
            a = activation(a @ weight + bias, alpha)
        return a
''').strip()


def _outputs(model: Portable) -> str:
    return _OUTPUTS.replace("INPUTS", "inputs(X)" if model.stage is None else "embedded(inputs(X), *STAGE)")


def _predictions(model: Portable) -> list[str]:
    n_outputs = model.layers[-1]
    if model.output == "softmax":
        predict, chances = "CLASSES[raw_outputs(X).argmax(axis=1)]", "softmax(raw_outputs(X))"
        says = "The most probable class [N]."
    elif model.is_binary:
        predict, says = "CLASSES[(raw_outputs(X)[:, 0] > 0).astype(int)]", "The more probable class [N]."
        chances = "np.hstack([1 - sigmoid(raw_outputs(X)), sigmoid(raw_outputs(X))])"
    elif model.output == "sigmoid":
        predict, says = "(raw_outputs(X) > 0).astype(np.int64)", f"Labels 0 or 1 [N, {n_outputs}]."
        chances = "sigmoid(raw_outputs(X))"
    else:
        predict = "np.exp(raw_outputs(X))" if model.log_link else "raw_outputs(X)"
        predict += " * Y_SCALE + Y_MEAN" if model.units is not None else ""
        predict = f"({predict})[:, 0]" if n_outputs == 1 else predict
        says, chances = f"Predicted numbers [N{'' if n_outputs == 1 else f', {n_outputs}'}].", ""
    texts = [f'def predict(X):\n    """{says}"""\n    return {predict}']
    if chances:
        width = len(model.classes or range(n_outputs))
        texts.append(f'def predict_proba(X):\n    """Probabilities [N, {width}]."""\n    return {chances}')
    return texts


def _main(model: Portable) -> list[str]:
    """A command that predicts the rows of a CSV file, for models of tables: the columns are those of `fastdl predict`."""
    if model.table is None:
        return []
    names = model.description["target_names"] or []
    if len(names) != model.layers[-1]:
        names = [str(i) for i in range(model.layers[-1])]
    if model.classes is not None:
        shown = slice(1, None) if model.is_binary else slice(None)
        head = ["prediction", *(f"p_{c}" for c in model.classes[shown])]
        columns = f"predict(table), *predict_proba(table).T{'[1:]' if model.is_binary else ''}"
    elif model.output == "sigmoid":
        head = [f"{what}_{name}" for name in names for what in ("prediction", "p")]
        columns = "*(column for pair in zip(predict(table).T, predict_proba(table).T) for column in pair)"
    elif len(names) == 1:
        head, columns = ["prediction"], "predict(table)"
    else:
        head, columns = [f"prediction_{n}" for n in names], "*predict(table).T"
    return [
        textwrap.dedent('''
            def main(path):
                """Print the predictions of a CSV file with the names of its columns in the first line."""
                with open(path, newline="", encoding="utf-8-sig") as file:
                    head, *rows = csv.reader(file)
                rows = [row + [None] * (len(head) - len(row)) for row in rows if row]
                table = {name: [row[i] for row in rows] for i, name in enumerate(head)}
                out = csv.writer(sys.stdout, lineterminator="\\n")
                out.writerow(HEAD)
                out.writerows(zip(COLUMNS_OUT))
        ''')
        .strip()
        .replace("COLUMNS_OUT", columns)
        .replace("HEAD", _literal(head, 17))
    ]


def _numbers(model: Portable) -> str:
    """The columns with what was learnt of them, and the parameters."""
    lines = []
    if model.table is not None:
        lines.append("COLUMNS = [")
        for column in model.table.columns:
            function, facts = _call(column)
            lines.append(f"    ({column.name!r}, {function}, {_literal(facts, 8)}),")
        lines += ["]", ""]
    units = [f"({a.name}, {a.alpha if a.spec.alpha else None})" for a in model.activations]
    lines.append(f"ACTIVATIONS = [{', '.join([*units, '(identity, None)'])}]  # one for each layer, and its alpha")
    kind = model.dtype.newbyteorder("<")
    parts = [part.ravel() for pair in zip(model.weights, model.biases) for part in pair]
    stage = model.stage
    parts += [part for part in model.unit_alphas if part.size]
    of_stage = [] if stage is None else [*stage.numbers[2:5], stage.numbers.tables, *stage.term_arrays]
    parts += [part.ravel() for part in of_stage]
    flat = np.concatenate(parts).astype(kind)
    written = base64.b64encode(flat.tobytes()).decode()
    text = "\n".join(written[i : i + WIDTH] for i in range(0, len(written), WIDTH))
    learnt = "".join(_of_units(i, a) for i, a in enumerate(model.activations) if a.parametric)
    sizes = "LAYERS" if stage is None else _literal([int(model.weights[0].shape[0]), *model.layers[1:]], 8)
    if stage is not None:
        lists = {"EMBEDDED": stage.embedded, "OTHERS": stage.others, "CODES": stage.codes, "STARTS": stage.starts}
        learnt += _STAGE.format(
            lists="\n".join(f"{name} = {_literal(list(values), len(name) + 3)}" for name, values in lists.items()),
            terms=_terms(stage), passes=stage.passes, shapes=[list(part.shape) for part in of_stage],
        )  # fmt: skip
    return "\n".join(lines) + textwrap.dedent('''
        # Weights [inputs, outputs] row by row and biases of each layer, one after the other, in base64.
        PARAMETERS = np.frombuffer(base64.b64decode("""
        TEXT
        """), DTYPE)
        WEIGHTS, BIASES, at, sizes = [], [], 0, SIZES
        for n_in, n_out in zip(sizes, sizes[1:]):
            WEIGHTS.append(PARAMETERS[at : at + n_in * n_out].reshape(n_in, n_out))
            BIASES.append(PARAMETERS[at + n_in * n_out : at + (n_in + 1) * n_out])
            at += (n_in + 1) * n_out
    ''').replace("SIZES", sizes).replace("TEXT", text) + learnt  # fmt: skip


def _of_units(layer: int, activation: Activation) -> str:
    """What gives a parametric activation the numbers of its units."""
    taken = f"PARAMETERS[at : at + len(BIASES[{layer}])]"
    made = f"parametric, (*ACTIVATIONS[{layer}], {taken})"
    made = f"leaky_relu, {taken}" if activation.name == "leaky_relu" else made
    return f"ACTIVATIONS[{layer}] = ({made})  # a number of each unit\nat += len(BIASES[{layer}])\n"


_STAGE = textwrap.dedent("""
    # What stands before the first layer: weights and biases of embedded columns, the scales of all, tables of
    # categories, and numbers of the terms.
    {lists}
    STAGE = [EMBEDDED, OTHERS, CODES, STARTS, {terms}, {passes}]
    for shape in {shapes}:
        STAGE.append(PARAMETERS[at : at + int(np.prod(shape))].reshape(shape))
        at += int(np.prod(shape))
""").lstrip("\n")


_RUN = textwrap.dedent("""
    if __name__ == "__main__":
        main(*sys.argv[1:])
""").lstrip("\n")
