"""How each column of a table was read, in a short table: on the screen, in config.json and in `inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fastdl.cli import wording
from fastdl.tables.text import listed, option
from fastdl.training import fitting

if TYPE_CHECKING:
    from fastdl.tables.data import TrainingData
    from fastdl.tables.ensemble import Preprocessors
    from fastdl.tables.kinds import Column
    from fastdl.tables.preprocessor import Preprocessor

MOST = 10
"""So many columns are shown; of the others there are counts."""
_PLURALS = {
    "category": "categories",
    "large category": "large categories",
    "embedded category": "embedded categories",
    "boolean": "booleans",
    "date": "dates",
    "text": "texts",
    "constant": "constants",
}


def described(preprocessor: Preprocessor) -> list[dict[str, Any]]:
    """All columns as plain values for config.json."""
    return [
        {"name": c.name, "kind": c.kind, "read_as": c.describe(), "features": len(c.feature_names)}
        for c in preprocessor.columns
    ]


def show(console: Console, loaded: TrainingData) -> None:
    """Print the kinds of the columns, and warn of those that alone predict the target."""
    if loaded.preprocessor is None:
        return
    table_of_kinds(console, loaded.preprocessor)
    telling = fitting.telling_columns(loaded)
    if telling:
        names = listed([repr(name) for name in telling], MOST)
        console.print(
            f"note: {escape(names)} alone predict{'s' if len(telling) == 1 else ''} the target: if that is known only "
            f"afterwards, use {escape(option('--ignore', telling[:MOST]))}\n"
        )


def table_of_kinds(console: Console, preprocessor: Preprocessor | Preprocessors) -> None:
    """Print a line for each of the columns that matter, ten at most, and counts of the others."""
    columns = preprocessor.columns
    shown = list(columns)
    if len(columns) > MOST:
        # Plain numbers have nothing to tell.
        special = [column for column in columns if column.kind != "number" or column.describe()]
        shown = special[:MOST]
    rest = [column for column in columns if column not in shown]
    width = max((len(column.name) for column in shown), default=0)
    if console.is_terminal:
        grid = Table.grid(padding=(0, 2, 0, 0))
        for style in ("", "cyan", "dim"):
            grid.add_column(style=style, overflow="fold")
        for column in shown:
            grid.add_row(Text(column.name), column.kind, Text(_words(column)))
        console.print(grid, soft_wrap=False)
    else:
        for column in shown:
            console.print(f"{column.name:{min(width, 40)}}  {column.kind:10}  {_words(column)}".rstrip(), markup=False)
    if rest:
        more = "and " if shown else ""
        console.print(f"{more}{len(rest):,} {'more' if shown else 'columns'}: {_counted(rest)}", markup=False)
    console.print()


def _words(column: Column) -> str:
    words = column.describe()
    left_out = not column.feature_names and "left out" not in words
    return f"left out: {words}" if left_out else words


def _counted(columns: list[Column]) -> str:
    kinds = list(dict.fromkeys(column.kind for column in columns))
    counts = {kind: sum(column.kind == kind for column in columns) for kind in kinds}
    return ", ".join(
        f"{count:,} {_PLURALS[kind]}"
        if kind in _PLURALS and count > 1
        else wording.plural(count, kind)
        if kind not in ("ignored",)
        else f"{count:,} ignored"
        for kind, count in counts.items()
    )
