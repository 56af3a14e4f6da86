"""The house rules, read from the source: imports point downward only, without circles, and one place calls numba.njit."""

from __future__ import annotations

import ast
import fnmatch
from pathlib import Path

import pytest

import fastdl_kernels

ROOT = Path(__file__).resolve().parent.parent
FASTDL, KERNELS = ROOT / "fastdl", ROOT / "kernels" / "fastdl_kernels"

# The rooms from top to bottom; a module may import from its own room and from those below. Every module is in one of them.
FASTDL_ROOMS = {
    "entry": ["__main__"],
    "estimators": ["estimators", "estimators.*"],  # above the command line, which has to work without scikit-learn
    "cli": ["cli", "cli.*"],
    "report": ["report", "report.*"],
    "training": ["training", "training.*"],
    "tables": ["tables", "tables.*"],
    "model": ["model", "metrics", "calibration", "described", "exporting", "importing", "inputs", "standardising"],
    "engine": ["engine", "engine.*"],
    "files": ["files", "files.*"],
    "distributed": ["distributed", "distributed.*"],
    "specs": [
        "network",
        "activations",
        "losses",
        "optimizers",
        "precision",
        "schedules",
        "scaling",
        "initialisation",
        "datasets",
        "embeddings",
        "categories",
    ],
    "checks": ["checks", "frames", "sparse", "stored"],
    "words": ["errors", "suggest", "wording", "html", "svg", "_version"],
}
KERNEL_ROOMS = {
    "entry": ["serial", "__main__", "_timings"],
    "what users import": ["linear", "losses", "optimizers"],
    "errors": ["kernel", "arguments", "halves"],
    "losses": ["loss_rows", "rows", "terms"],
    "how it is fast": ["tile_steps", "tile_body", "tile", "packing", "pairs", "amx", "matmul", "team"],
    "activations": ["activations", "curves", "parametric", "precision"],
    "the machine and the compiler": [
        "simd", "simd.*", "host", "regions", "peak", "random_bits", "ticks", "prebuilt", "_calls", "_emit", "_loader", "_cache",
        "_jit", "_signals", "_store", "_targets", "_units",
    ],
}  # fmt: skip
PACKAGES = [("fastdl", FASTDL, FASTDL_ROOMS), ("fastdl_kernels", KERNELS, KERNEL_ROOMS)]
# Rooms of fastdl that may import fastdl_kernels.
MAY_IMPORT_KERNELS = {"engine", "model", "specs"}


def modules(folder):
    """(path, dotted name below the package) of every source file."""
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        yield path, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree):
    """Every (module, name) imported, wherever it stands: in functions and for type checkers too. name is None for
    `import module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: name the package"
            yield from ((node.module, alias.name) for alias in node.names)


def graph_of(package, folder):
    """module -> the modules of the same package that it imports; the package's own __init__ gathers names and is left out."""
    known = {name for _, name in modules(folder)}
    graph = {}
    for path, module in modules(folder):
        used = set()
        for target, name in imports(parse(path)):
            first, _, rest = target.partition(".")
            if first == package:
                inner = ".".join(filter(None, (rest, name)))
                used.add(inner if inner in known else rest)
        graph[module] = used - {module}
    graph.pop("")
    return graph


def room_of(rooms, module):
    """The number of the module's room, 0 on top; the test fails unless there is exactly one."""
    found = [i for i, names in enumerate(rooms.values()) if any(fnmatch.fnmatch(module, name) for name in names)]
    assert len(found) == 1, f"{module}: expected in one room of tests/test_architecture.py, found in {len(found)}"
    return found[0]


@pytest.mark.parametrize(("package", "folder", "rooms"), PACKAGES, ids=["fastdl", "kernels"])
def test_every_module_has_a_room_and_imports_point_downward(package, folder, rooms):
    upward = []
    for module, used in graph_of(package, folder).items():
        here = room_of(rooms, module)
        if "" in used and here > 0:
            upward.append(f"{module} imports {package} itself, which gathers all names")
        upward += [f"{module} imports {name}" for name in used - {""} if room_of(rooms, name) < here]
    assert upward == []


@pytest.mark.parametrize(("package", "folder", "rooms"), PACKAGES, ids=["fastdl", "kernels"])
def test_there_are_no_circles(package, folder, rooms):
    graph, done = graph_of(package, folder), set()

    def walk(module, path):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for used in sorted(graph.get(module, ())):
                walk(used, [*path, module])
            done.add(module)

    for module in graph:
        walk(module, [])


def test_the_circle_test_sees_circles(tmp_path):
    """One in a function, one for type checkers: both are found."""
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "a.py").write_text("def f():\n    from pkg.b import x\n")
    (tmp_path / "b.py").write_text("if TYPE_CHECKING:\n    import pkg.a\n")
    assert graph_of("pkg", tmp_path) == {"a": {"b"}, "b": {"a"}}
    with pytest.raises(AssertionError, match="expected in one room"):
        room_of({"only": ["a"]}, "b")


def test_the_kernels_know_nothing_of_the_trainer():
    for path, _ in modules(KERNELS):
        assert not [m for m, _ in imports(parse(path)) if m.split(".")[0] == "fastdl"], path


def test_who_touches_the_kernels():
    names = list(FASTDL_ROOMS)
    users = {
        names[room_of(FASTDL_ROOMS, module)]
        for path, module in modules(FASTDL)
        if module and any(m.split(".")[0] == "fastdl_kernels" for m, _ in imports(parse(path)))
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


MOST_LINES = 400


def test_files_stay_readable():
    for folder in ("fastdl", "kernels", "bench", "tests"):
        for path, _ in modules(ROOT / folder):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES, path


MOST_PARAMETERS = 15
# What Python calls takes arrays, which travel in groups of their own from there.


def test_functions_have_few_parameters():
    for folder in (FASTDL, KERNELS):
        for path, _ in modules(folder):
            for node in ast.walk(parse(path)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                    a = node.args
                    count = len(a.posonlyargs) + len(a.args) + len(a.kwonlyargs)
                    name = getattr(node, "name", "lambda")
                    # Constructors and commands are called by names.
                    if name not in ("__init__", "train"):
                        assert count <= MOST_PARAMETERS, f"{path}: {name} has {count}"


def test_public_names_exist_and_are_listed():
    import fastdl

    for package in (fastdl, fastdl_kernels):
        for name in package.__all__:
            assert hasattr(package, name)
        assert list(package.__all__) == sorted(package.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
