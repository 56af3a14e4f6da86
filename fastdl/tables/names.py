"""Names of columns as users type them: lists, commas, names that hold commas; all mistakes reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastdl.errors import OptionError
from fastdl.suggest import did_you_mean
from fastdl.tables.table import Table
from fastdl.tables.text import listed

if TYPE_CHECKING:
    from fastdl.tables.data import Options

_DECLARING = ("categorical", "numeric", "date", "ignore")


def names_in(known: Sequence[str], given: Sequence[str] | str | None) -> list[str]:
    """The names in a list of texts, each of which may be several names with commas between them.

    A column whose own name holds a comma is found: of `City, State,age` the columns are `City, State` and `age`.
    """
    texts = [given] if isinstance(given, str) else list(given or ())
    found: list[str] = []
    for text in texts:
        if text in known:
            found.append(text)
            continue
        pieces = text.split(",")
        start = 0
        while start < len(pieces):
            for end in range(len(pieces), start, -1):
                name = ",".join(pieces[start:end]).strip()
                if name in known or end == start + 1:
                    break
            if name:
                found.append(name)
            start = end
    return list(dict.fromkeys(found))


def check_columns(table: Table, targets: Sequence[str], options: Options) -> None:
    """Refuse options that name columns which do not exist, twice, or the target; all of it in one sentence.

    Raises
    ------
    OptionError
    """
    if not targets:
        raise OptionError(
            f"{table.label}: expected --target with the name of the target's column, got none; "
            f"the columns are {listed(table.names, 40)}"
        )
    problems: list[str] = []
    owner: dict[str, str] = {}

    def check(option: str, names: Sequence[str]) -> None:
        unknown = [name for name in names if name not in table.names]
        for name in unknown[:10]:
            close = did_you_mean(name, table.names) or f"; the columns are {listed(table.names)}"
            problems.append(f"{option}: expected a column of {table.label}, got {name!r}{close}")

    check("--target", targets)
    for which in _DECLARING:
        names = names_in(table.names, getattr(options, which))
        check(f"--{which}", names)
        for name in names:
            if name in targets:
                problems.append(f"--{which}: expected feature columns, got {name!r}, which is the target")
            if name in owner:
                problems.append(f"--{which}: expected columns that --{owner[name]} does not name, got {name!r} in both")
            owner.setdefault(name, which)
    for which in ("group", "time"):
        name = getattr(options, which)
        if name is not None:
            check(f"--{which}", [name])
            if name in targets:
                problems.append(f"--{which}: expected another column than the target, got {name!r}")
    if problems:
        raise OptionError("; ".join(dict.fromkeys(problems)))
