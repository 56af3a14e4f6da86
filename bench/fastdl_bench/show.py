"""Tables on stdout; needs rich, which the extra `cli` brings."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from fastdl_bench import tables


def print_table(table: tables.Table) -> None:
    """A table on stdout."""
    shown = Table(title=table.title, title_justify="left")
    for k, name in enumerate(table.header):
        shown.add_column(name, justify="left" if k == 0 else "right")
    for row in table.rows:
        shown.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(shown)


def show(result: dict[str, Any]) -> None:
    """The tables on stdout, and what is to be said about them."""
    for table in tables.tables(result):
        print_table(table)
    for line in [*tables.notes(result), tables.footer(result)]:
        print(line)
