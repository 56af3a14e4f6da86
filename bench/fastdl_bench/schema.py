"""The JSON that the benchmarks write: every field with its type and meaning, reading, and checking.

`python -m fastdl_bench.schema` prints the tables of bench/SCHEMA.md. The version is raised when a field changes its
meaning or goes; new fields do not raise it, so that readers have to ignore those that they do not know.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VERSION = 3
KINDS = ("benchmark", "guard")
DIGITS = 6  # significant ones, of numbers in a compact result

NUMBER, INTEGER, TEXT, OBJECT = "number", "integer", "text", "object"
TIMES, RATES, RATIO = "times", "rates", "ratio"
SHAPES: dict[str, dict[str, str]] = {
    TIMES: {"median": NUMBER, "low": NUMBER, "high": NUMBER, "min": NUMBER, "samples": "list of number?"},
    RATES: {"median": NUMBER, "low": NUMBER, "high": NUMBER, "max": NUMBER, "samples": "list of number?"},
    RATIO: {"median": NUMBER, "low": NUMBER, "high": NUMBER},
}
"""Objects that occur again and again."""

# path -> (type, meaning). `[]` stands for each item of a list, `*` for each key; a type that ends in ? may be absent.
COMMON: dict[str, tuple[str, str]] = {
    "schema": (INTEGER, f"version of this description: {VERSION}"),
    "kind": ("text?", "`benchmark` (the default) or `guard` (written by `--save`)"),
    "date": (TEXT, "when it was measured, ISO 8601, UTC"),
    "effort": (TEXT, "`quick`, `normal`, `full`, or `model` (one network of the user's)"),
    "threads": (INTEGER, "threads, and cores where the system can limit them, that each process got"),
    "machine.cpu": (TEXT, "the processor's name"),
    "machine.isa": (TEXT, "the vector instructions that the kernels use: `avx512`, `avx2`, `sse`, `neon`"),
    "machine.physical_cores": (INTEGER, "cores of the machine"),
    "machine.usable_cores": (INTEGER, "cores that this process may use"),
    "machine.system": (TEXT, "operating system and architecture"),
    "machine.load_before": (
        "number or null",
        "load average of the minute before: above 0.5 the numbers are worth little",
    ),
    "versions.*": (TEXT, "versions of Python and of the packages"),
}


def _item(
    part: str, more: dict[str, tuple[str, str]], results: dict[str, tuple[str, str]]
) -> dict[str, tuple[str, str]]:
    """The fields of a part's items, and of each program's results in them."""
    fields = {"title": (TEXT, "as tables show it"), "threads": (INTEGER, "as above, for this item")} | more
    return {f"{part}[].{key}": value for key, value in fields.items()} | {
        f"{part}[].results.*.{key}": value for key, value in results.items()
    }


_LEFT_OUT = {"left_out.*": (TEXT, "why a library has no result")}
_WHO = {"label": (TEXT, "the library as tables show it"), "version": ("text?", "its version")}
_AGAINST = {"against_fastdl": (RATIO, "times as long as fastdl, over the rounds' ratios")}

BENCHMARK: dict[str, tuple[str, str]] = {
    **_item(
        "training?",
        {
            "workload": (OBJECT, "network, batch and data: the fields of `fastdl_bench.cases.Workload`"),
            "steps_per_epoch": (INTEGER, "rows of the data set / batch"),
            "flop_per_step": (INTEGER, "operations of the matrix products of a step"),
            **_LEFT_OUT,
        },
        {
            **_WHO,
            "threads": ("integer?", "threads of this library"),
            "notes": ("object?", "what the library's program says about itself, such as the form that was faster"),
            "epochs_per_round": (INTEGER, "epochs of each sample"),
            "seconds_per_step": (TIMES, "seconds of a training step, everything included"),
            "gflops": (NUMBER, "flop_per_step / the median, in 1e9 per second"),
            **_AGAINST,
            "loss_difference": (NUMBER, "greatest relative difference of the loss curve from fastdl's"),
        },
    ),
    **_item(
        "kernels?",
        {
            "name": (TEXT, "operation and shape, such as `linear_forward/256x512x512`"),
            "op": (TEXT, "the kernel"),
            "shape": ("list of integer", "B, I, O of a linear layer; B, N of a loss; P of an optimizer"),
            "flop": (INTEGER, "operations of a call"),
            "bytes": (INTEGER, "bytes that a call has to read or write at least once"),
            "limit": (TEXT, "`arithmetic` or `memory`: what bounds the case here"),
            "flop_per_second": (RATES, "peak rate of multiply-adds in the same rounds"),
            "bytes_per_second": (RATES, "bandwidth over arrays of this size in the same rounds"),
            **_LEFT_OUT,
        },
        {
            **_WHO,
            "seconds": (TIMES, "seconds of a call"),
            "gflops": (NUMBER, "flop / the median, in 1e9 per second"),
            "gbytes_per_second": (NUMBER, "bytes / the median, in 1e9 per second"),
            "share_of_roofline": (NUMBER, "rate / min(peak, flop / bytes × bandwidth), median of the rounds"),
            **_AGAINST,
        },
    ),
    "roofline?[].threads": (INTEGER, "threads"),
    "roofline?[].flop_per_second": (RATES, "peak rate of fused multiply-adds in registers"),
    "roofline?[].memory_bytes_per_second": (RATES, "bandwidth of four streams of 40 MB each"),
    "roofline?[].cache_bytes_per_second": (RATES, "bandwidth of four streams of 40 KB each"),
    **_item(
        "accuracy?",
        {"name": (TEXT, "the data set"), "target": (NUMBER, "the validation accuracy to reach, 0 to 1"), **_LEFT_OUT},
        {
            **_WHO,
            "epochs": (INTEGER, "epochs that it takes"),
            "accuracy": (NUMBER, "what is reached after them"),
            "seconds": (TIMES, "seconds of training for so many epochs"),
            **_AGAINST,
        },
    ),
    **_item(
        "latency?",
        {
            "name": (TEXT, "`row`, `rows`, `many` or `wide`"),
            "rows": (INTEGER, "rows of a call"),
            "flop": (INTEGER, "operations of the matrix products of a call"),
            "flop_per_second": (RATES, "peak rate of multiply-adds in the same rounds"),
            **_LEFT_OUT,
        },
        {
            **_WHO,
            "seconds": (TIMES, "seconds of a call"),
            "gflops": (NUMBER, "flop / the median, in 1e9 per second"),
            "share_of_peak": (NUMBER, "rate / peak, median of the rounds"),
            **_AGAINST,
        },
    ),
    **_item(
        "estimators?",
        {
            "name": (TEXT, "`digits`, `regression`, `images`, `row` or `row-regression`"),
            "epochs": (INTEGER, "epochs of a fit"),
            **_LEFT_OUT,
        },
        {**_WHO, "seconds": (TIMES, "seconds of a call of fit, or of predict with one row"), **_AGAINST},
    ),
    **_item(
        "memory?",
        {
            "name": (TEXT, "the workload"),
            "data_bytes": (INTEGER, "size of the data set"),
            "parameter_bytes": (INTEGER, "size of weights and biases"),
            **_LEFT_OUT,
        },
        {
            **_WHO,
            "peak_bytes": (INTEGER, "greatest resident set of the process"),
            "imported_bytes": (INTEGER, "resident set once the library was imported"),
        },
    ),
    **_item(
        "startup?",
        {"name": (TEXT, "the process"), "first_time_seconds": ("number or null", "with an empty compile cache")},
        {"seconds": (TIMES, "seconds of the whole process"), **_AGAINST},
    ),
}
GUARD: dict[str, tuple[str, str]] = {
    "benchmarks.*.seconds": (NUMBER, "of a call or an epoch when it was saved; what is compared is measured anew"),
}
FIELDS: dict[str, dict[str, tuple[str, str]]] = {"benchmark": COMMON | BENCHMARK, "guard": COMMON | GUARD}


UNKNOWN = " is not described"  # how the problem of a field that is not in the tables ends; a newer writer may have more


class SchemaError(ValueError):
    """A file is no result that this version can read: one sentence."""


def read(path: Path, kind: str = "benchmark") -> dict[str, Any]:
    """A result of one kind, if its version is this one."""
    try:
        result = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SchemaError(f"{path}: expected a result of scripts/bench in JSON, cannot read it ({error})") from error
    if not isinstance(result, dict) or "schema" not in result:
        raise SchemaError(f"{path}: expected a result of scripts/bench, got JSON without a field schema")
    if result["schema"] != VERSION:
        raise SchemaError(
            f"{path}: expected schema {VERSION}, got {result['schema']!r}; it was written by another version of fastdl: "
            f"measure again"
        )
    if result.get("kind", "benchmark") != kind:
        raise SchemaError(f"{path}: expected a result of kind {kind}, got {result['kind']!r}")
    found = [problem for problem in problems(result) if not problem.endswith(UNKNOWN)]
    if found:
        raise SchemaError(f"{path}: expected what bench/SCHEMA.md describes, but {found[0]}")
    return result


def problems(result: dict[str, Any]) -> list[str]:
    """What of a result is not as described: missing fields, wrong types, fields that are not described."""
    tree: dict[str, Any] = {}
    for path, (kind, _) in FIELDS[result.get("kind", "benchmark")].items():
        node = tree
        parts = path.replace("[]", ".[]").split(".")
        for part in parts[:-1]:
            node = node.setdefault(part, {})
        node[parts[-1]] = kind
    found: list[str] = []
    _compare(tree, result, "", found)
    return found


def _compare(tree: Any, value: Any, path: str, found: list[str]) -> None:
    if isinstance(tree, str):
        if not _is(tree.rstrip("?"), value):
            found.append(f"{path} is {value!r:.60}, not {tree.rstrip('?')}")
        return
    if "[]" in tree or "*" in tree:
        kind, inner = (list, tree["[]"]) if "[]" in tree else (dict, tree["*"])
        if not isinstance(value, kind):
            found.append(f"{path} is {value!r:.60}, not {'a list' if kind is list else 'an object'}")
            return
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _compare(inner, item, f"{path}[{key}]" if kind is list else f"{path}.{key}", found)
        return
    if not isinstance(value, dict):
        found.append(f"{path} is {value!r:.60}, not an object")
        return
    known = {key.rstrip("?") for key in tree}
    for key, inner in tree.items():
        name = key.rstrip("?")
        where = f"{path}.{name}".lstrip(".")
        if name in value:
            _compare(inner, value[name], where, found)
        elif not (key.endswith("?") or (isinstance(inner, str) and inner.endswith("?"))):
            found.append(f"{where} is missing")
    found += [f"{path}.{key}{UNKNOWN}".lstrip(".") for key in value if key not in known]


def _is(kind: str, value: Any) -> bool:
    if kind.endswith(" or null"):
        return value is None or _is(kind.removesuffix(" or null"), value)
    if kind.startswith("list of "):
        return isinstance(value, list) and all(_is(kind.removeprefix("list of "), item) for item in value)
    if kind in SHAPES:
        return (
            isinstance(value, dict)
            and value.keys() <= SHAPES[kind].keys()
            and all(
                _is(k.rstrip("?"), value.get(name)) for name, k in SHAPES[kind].items() if name in value or k[-1] != "?"
            )
        )
    if isinstance(value, bool):
        return False
    types = {NUMBER: (int, float), INTEGER: int, TEXT: str, OBJECT: dict}
    return isinstance(value, types[kind])  # type: ignore[arg-type]


def compact(result: Any) -> Any:
    """The result without the samples of the rounds, its numbers with DIGITS significant digits."""
    if isinstance(result, dict):
        return {key: compact(value) for key, value in result.items() if key != "samples"}
    if isinstance(result, list):
        return [compact(value) for value in result]
    return float(f"{result:.{DIGITS}g}") if isinstance(result, float) else result


def text(result: dict[str, Any]) -> str:
    """JSON to be read in a diff: a line for each library's result, and one for what an item says besides."""

    def plain(value: Any) -> str:
        return json.dumps(value)

    lines = []
    for key, value in result.items():
        if not isinstance(value, list):
            lines.append(f'"{key}": {plain(value)}')
            continue
        items = []
        for item in value:
            about = plain({k: v for k, v in item.items() if k != "results"})
            results = [f"    {plain(name)}: {plain(found)}" for name, found in item.get("results", {}).items()]
            if "results" in item:
                about = about[:-1] + ', "results": {\n' + ",\n".join(results) + "}}"
            items.append("  " + about)
        lines.append(f'"{key}": [\n' + ",\n".join(items) + "]")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def markdown() -> str:
    """The tables of bench/SCHEMA.md."""
    titles = {"All results": COMMON, "Kind benchmark": BENCHMARK, "Kind guard": GUARD}
    lines = []
    for title, fields in titles.items():
        lines += [f"## {title}", "", "| field | type | meaning |", "|---|---|---|"]
        lines += [f"| `{path.replace('?', '')}` | {kind} | {meaning} |" for path, (kind, meaning) in fields.items()]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(), end="")
