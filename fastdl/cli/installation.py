"""`fastdl doctor` and `fastdl prepare`: the installation, and its compiled code."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.markup import escape

from fastdl.cli.wording import print_pairs
from fastdl.errors import InputError, OptionError


def doctor(output: Console) -> int:
    """Print what there is, what is wrong and how to mend it; the exit code, 1 if something is."""
    from fastdl.engine import doctor as look

    peak = look.measure()
    print_pairs(output, look.facts(peak))
    found = look.problems(peak)
    for problem in found:
        output.print(f"[bold red]wrong:[/] {escape(problem.what)}\n  [bold]mend:[/] {escape(problem.mend)}")
    if not found:
        output.print("nothing is wrong; this machine reaches its peak")
    return 1 if found else 0


def prepare(cpu: str | None, dtypes: list[str], remove: bool, messages: Console) -> None:
    """Fill the user's folder with all code for this processor, or for another kind of them."""
    from fastdl.engine import prepare as engine

    if cpu is not None and cpu not in engine.target_names():
        raise OptionError(f"--cpu: expected one of {', '.join(engine.target_names())}, got {cpu}")
    wrong = [name for name in dtypes if name not in engine.DTYPES]
    if wrong:
        raise OptionError(f"--dtype: expected one of {', '.join(engine.DTYPES)}, got {wrong[0]}")
    start = time.perf_counter()
    if remove:
        engine.remove_all()
    try:
        engine.prepare(dtypes or engine.DTYPES, cpu)
    except OSError as error:
        raise InputError(str(error)) from error
    kept = engine.kept()
    sys.stdout.write(f"{kept['folder']}\n")
    if not kept["writable"]:
        raise InputError(f"{kept['folder']} cannot be written to; set FASTDL_CACHE_DIR to a folder that can")
    messages.print(
        f"compiled for {cpu or 'this processor'} in {time.perf_counter() - start:.1f} s: {kept['files']} functions, "
        f"{kept['bytes'] / 1e6:.1f} MB",
        markup=False,
    )
