"""The house rules of the engine, read from its source: what it may import, and how large its functions and files are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ENGINE = Path(__file__).resolve().parent.parent / "fastdl" / "engine"
FILES = sorted(ENGINE.glob("*.py"))
BELOW = {"fastdl.network", "fastdl.errors"}


def imported(path):
    """Every module of ours that a file imports, in whatever place: for type checkers and inside functions, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("fastdl"))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fastdl"):
            for alias in node.names:
                inside = node.module == "fastdl.engine" and (ENGINE / f"{alias.name}.py").exists()
                yield f"{node.module}.{alias.name}" if inside else node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_is_imported_from_above(path):
    ours = {module for module in imported(path) if not module.startswith(("fastdl.engine.", "fastdl_kernels"))}
    assert ours <= BELOW


def test_no_circles():
    graph = {path.stem: {m.split(".")[2] for m in imported(path) if m.startswith("fastdl.engine.")} for path in FILES}
    while graph:
        free = [name for name, needs in graph.items() if not needs & graph.keys()]
        assert free, f"these import each other: {sorted(graph)}"
        for name in free:
            del graph[name]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_functions_and_files_can_be_taken_in(path):
    """At most 15 parameters and 400 lines."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            arguments = node.args
            count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
            assert count <= 15, getattr(node, "name", "lambda")
