"""The catalogue of kernels/README.md says what the specs say: every row of its tables, and no other."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from kernel_calls import KERNELS

from fastdl_kernels.activations import SPECS as ACTIVATIONS
from fastdl_kernels.loss_rows import SPECS as LOSSES
from fastdl_kernels.optimizers import OPTIMIZERS

README = Path(__file__).resolve().parent.parent / "kernels" / "README.md"
CATALOGUE = README.read_text(encoding="utf-8").partition("## Catalogue")[2].partition("\n## ")[0]


def limits(parameter, name):
    """A parameter and its range, as the tables show it."""
    if parameter is None:
        return ""
    low, high = "(" if parameter.open else "[", "∞" if parameter.limit == float("inf") else f"{parameter.limit:g}"
    return f"{name} in {low}{parameter.lowest:g}, {high}), {parameter.default:g}: {parameter.meaning}"


def row(*cells):
    return f"| {' | '.join(cells)} |".replace("  ", " ")


TABLES = {
    "| activation |": [
        row(
            f"`{spec.name.upper()}`",
            spec.formula,
            spec.derivative_formula,
            {"out": "a", "z": "z"}[spec.derivative_from],
            limits(spec.alpha, "α"),
            spec.sklearn or "",
            spec.torch or "",
        )
        for spec in ACTIVATIONS.values()
    ],
    "| loss |": [
        row(
            f"`{spec.name}`",
            spec.formula.replace("|", "\\|"),
            spec.gradient.replace("|", "\\|"),
            spec.mean_over,
            spec.targets,
            spec.output,
            limits(spec.parameter, spec.parameter.name) if spec.parameter else "",
        )
        for spec in LOSSES.values()
    ],
    "| optimizer |": [
        row(
            f"`{spec.name}`",
            ", ".join(spec.states),
            ", ".join(f"{name} {value:g}" for name, value in spec.hyperparameters.items()),
        )
        for spec in OPTIMIZERS.values()
    ],
}


@pytest.mark.parametrize("head", TABLES)
def test_tables_are_those_of_the_specs(head):
    lines = CATALOGUE.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(head))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(line)
    assert rows == TABLES[head], "\n" + "\n".join(TABLES[head])


def test_every_kernel_is_in_the_catalogue():
    """With its arguments as it takes them."""
    listed = dict(re.findall(r"^\| `(\w+)\(([^)]*)\)`", CATALOGUE, re.MULTILINE))
    wanted = {name: str(inspect.signature(kernel.dispatcher.py_func))[1:-1] for name, kernel in KERNELS.items()}
    assert listed == {name: text.replace("'", "") for name, text in wanted.items()}
