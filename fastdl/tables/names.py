"""What users say about a table, and names of columns as they type them: lists, commas, names that hold commas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastdl.errors import OptionError
from fastdl.suggest import did_you_mean
from fastdl.tables.dialect import Wishes
from fastdl.tables.table import Table
from fastdl.tables.text import listed

Names = Sequence[str] | str


@dataclass(frozen=True)
class Options:
    """What the user says about a table; names are lists, or text with commas, as on the command line.

    target : the column to learn, or several
    task : a name from `tasks.TASKS`, or None to infer it from the targets
    categorical, numeric, date, ignore : columns of which the user says what they are
    group, time : the column that says which rows belong together, or which come last
    validation : the share of rows that is kept for validation, in [0, 1)
    seed : of the split
    wishes : how the files are written
    embeds : whether categories of more than a few values become codes that a model embeds
    mapped : whether data are read from a memory-mapped file as they are needed; None: arrays by their size
    keeps_table : keep the table beside its features, however large, for columns to be learnt again from other rows
    """

    target: Names | None = None
    task: str | None = None
    categorical: Names = ()
    numeric: Names = ()
    date: Names = ()
    ignore: Names = ()
    group: str | None = None
    time: str | None = None
    validation: float = 0.2
    validation_data: Sequence[str] = ()
    seed: int = 0
    wishes: Wishes = field(default_factory=Wishes)
    mapped: bool | None = None
    keeps_table: bool = False
    embeds: bool = False


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
