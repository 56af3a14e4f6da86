"""The house rules, read from the source: imports point downward only, and one place calls numba.njit."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fastdl_kernels

ROOT = Path(__file__).resolve().parent.parent
FASTDL, KERNELS = ROOT / "fastdl", ROOT / "kernels" / "fastdl_kernels"

# Each room may import from its own and from those below it. A module that is not listed is in the lowest room.
FASTDL_ROOMS = [
    {"cli", "__main__", "commands", "options"},
    {"estimators", "report", "curves", "progress", "runs"},
    {"trainer", "data", "callbacks", "shuffling"},
    {"storage"},
    {"model", "optimizers", "engine", "metrics"},
]
KERNEL_ROOMS = [
    {"serial", "__main__"},
    {"linear", "losses", "optimizers"},
    {"kernel", "arguments"},
    {"tile_body", "tile", "packing", "matmul", "team", "rows", "loss_rows"},
    {"activations", "curves", "terms"},
    {"simd", "host", "_cache", "_jit", "regions", "peak", "random_bits", "ticks"},
]
MAY_IMPORT_KERNELS = {"engine", "model", "optimizers", "activations"}


def modules(folder):
    """(path relative to `folder`, its first part without .py) of every source file."""
    for path in sorted(folder.rglob("*.py")):
        yield path, path.relative_to(folder).parts[0].removesuffix(".py")


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def skipped(node):
    """`if TYPE_CHECKING:` is for type checkers only."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(tree, deferred=True):
    """Every (module, name) imported: name is None for `import module`. `deferred` includes those inside functions."""
    for node in ast.iter_child_nodes(tree):
        if skipped(node):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: name the package"
            yield from ((node.module, alias.name) for alias in node.names)
        elif deferred or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from imports(node, deferred)


def rooms_used(tree, package, folder):
    """The modules of `package` that a file imports when it is loaded."""
    for module, name in imports(tree, deferred=False):
        parts = module.split(".")
        if parts[0] == package:
            if len(parts) > 1:
                yield parts[1]
            elif name is not None and ((folder / f"{name}.py").exists() or (folder / name).is_dir()):
                yield name


def level(room_list, module):
    """0 is the highest room."""
    return next((i for i, room in enumerate(room_list) if module in room), len(room_list))


@pytest.mark.parametrize(
    ("package", "folder", "rooms"), [("fastdl", FASTDL, FASTDL_ROOMS), ("fastdl_kernels", KERNELS, KERNEL_ROOMS)]
)
def test_imports_point_downward(package, folder, rooms):
    upward = []
    for path, module in modules(folder):
        if path.name == "__init__.py" and path.parent == folder:
            continue  # it gathers the public names
        for used in rooms_used(parse(path), package, folder):
            if level(rooms, used) < level(rooms, module):
                upward.append(f"{path.relative_to(ROOT)} imports {package}.{used}")
    assert upward == []


def test_the_kernels_know_nothing_of_the_trainer():
    for path, _ in modules(KERNELS):
        assert not [m for m, _ in imports(parse(path)) if m.split(".")[0] == "fastdl"], path


def test_only_the_engine_room_touches_the_kernels():
    users = {
        module
        for path, module in modules(FASTDL)
        if any(m.split(".")[0] == "fastdl_kernels" for m, _ in imports(parse(path)))
    }
    assert users <= MAY_IMPORT_KERNELS
    assert "engine" in users


def is_public(module):
    return not any(part.startswith("_") for part in module.split("."))


def test_only_public_names_of_the_kernels_are_used():
    """From the package: a name of __all__ or a module. No module and no name that starts with an underscore."""
    public = set(fastdl_kernels.__all__) | {module for _, module in modules(KERNELS) if is_public(module)}
    wrong = []
    for path, _ in modules(FASTDL):
        tree = parse(path)
        aliases = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                aliases |= {a.asname or a.name for a in node.names if a.name == "fastdl_kernels"}
        for module, name in imports(tree):
            if module.split(".")[0] != "fastdl_kernels":
                continue
            good = is_public(module) and (
                name is None or (name in public if module == "fastdl_kernels" else name[0] != "_")
            )
            wrong += [] if good else [f"{path.name}: {module} {name}"]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
                wrong += [] if node.attr in public else [f"{path.name}: {node.value.id}.{node.attr}"]
    assert wrong == []


def test_one_place_calls_njit():
    """Flags and the cache are decided in _jit.py."""
    for folder in (FASTDL, KERNELS):
        for path, _ in modules(folder):
            if path == KERNELS / "_jit.py":
                continue
            for node in ast.walk(parse(path)):
                name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
                assert name not in ("njit", "jit_module", "vectorize", "guvectorize", "stencil", "cfunc"), path
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "numba":
                    assert node.attr != "jit", path


def test_the_kernels_are_imported_by_one_name():
    """`kernels.fastdl_kernels` would load and compile everything a second time."""
    for folder in ("fastdl", "kernels", "tests", "bench"):
        for path, _ in modules(ROOT / folder):
            assert not [m for m, _ in imports(parse(path)) if m.split(".")[0] == "kernels"], path
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_what_the_kernels_depend_on():
    """Of other people's packages only numba, llvmlite, numpy and psutil."""
    import sys

    for path, _ in modules(KERNELS):
        foreign = {m.split(".")[0] for m, _ in imports(parse(path))} - sys.stdlib_module_names - {"fastdl_kernels"}
        assert foreign <= {"numba", "llvmlite", "numpy", "psutil"}, path


def test_no_matrix_product_that_needs_scipy():
    """Inside @njit, `@`, np.dot and np.linalg call BLAS through SciPy."""
    for path, _ in modules(KERNELS):
        for node in ast.walk(parse(path)):
            assert not (isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.MatMult)), path
            assert not (isinstance(node, ast.Attribute) and node.attr in ("dot", "matmul", "vdot", "linalg")), path


def test_files_stay_readable():
    """About 400 lines a file at most."""
    for folder in ("fastdl", "kernels", "bench", "tests"):
        for path, _ in modules(ROOT / folder):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 450, path


def test_public_names_exist_and_are_listed():
    import fastdl

    for package in (fastdl, fastdl_kernels):
        for name in package.__all__:
            assert hasattr(package, name)
        assert list(package.__all__) == sorted(package.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
