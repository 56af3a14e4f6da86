"""Commands that an MPI launcher has started several times: one training on all ranks, or many spread over them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from fastdl.cli import runs
from fastdl.distributed import launch
from fastdl.distributed.ranks import Ranks
from fastdl.engine.thread_tuner import share_cores
from fastdl.errors import InputError, OptionError
from fastdl.files.lock import locked
from fastdl.training.trainer import Trainer

Command = Callable[[Console, Console], int]
_ranks: Ranks | None = None  # of the command that runs
_executor: Any = None


def run(choice: str, many: bool, command: Command, messages: Console, output: Console) -> int:
    """Run a command, on all ranks if `choice` (`--mpi`) and the launcher say so, and return the exit code.

    Rank 0 prints and writes. One model is trained on all ranks; of `many`, each rank trains some, and the ranks but the first do
    nothing else.
    """
    global _ranks, _executor
    try:
        wanted = launch.wanted(choice)
    except InputError as error:
        if launch.is_first():
            raise OptionError(f"--mpi: {error}") from error
        return 2
    if not wanted:
        return command(messages, output)
    if not launch.is_first():
        messages = output = Console(file=open(os.devnull, "w"))  # noqa: SIM115 (as long as the process)
    try:
        ranks = Ranks()
    except ImportError:
        if launch.is_first():
            raise
        return 1
    if ranks.size == 1:
        return command(messages, output)
    share_cores(ranks.sharing)
    if many:
        from mpi4py.futures import MPICommExecutor

        with MPICommExecutor(launch.mpi().COMM_WORLD, root=0) as _executor:
            if _executor is None:  # trainings of others were done here
                return 0
            messages.print(f"{ranks}: each trains some of the models")
            return command(messages, output)
    _ranks = ranks
    try:
        return command(messages, output)
    except Exception as error:
        told = ranks.failed_before or (not ranks.ended and ranks.fail(error))
        if ranks.is_first:
            raise
        if not told:  # nobody else can say it
            sys.stderr.write(
                f"fastdl: rank {ranks.rank} of {ranks.size} on {ranks.host}: {type(error).__name__}: {error}\n"
            )
        return 2 if isinstance(error, OptionError) else 1


def elsewhere() -> tuple[Any, int]:
    """The executor for many models, and the share of them that this process trains itself: see `elsewhere.run`."""
    return _executor, 0 if _executor is None else launch.mpi().COMM_WORLD.size


def is_first() -> bool:
    """Whether this process prints and writes."""
    return _ranks is None or _ranks.is_first


def readers() -> int:
    """How many processes of this machine read the data of the command."""
    return 1 if _ranks is None else _ranks.local_size


def agreed(value: Any) -> Any:
    """Rank 0's value, on all ranks; all have to ask."""
    return value if _ranks is None else _ranks.agreed(value)


def in_turns(work: Callable[[], Any]) -> Any:
    """The result of `work`, which rank 0 does first, then one rank of each other machine, then the rest: a file that it leaves
    for the next time is made once on each machine, and once in all where they share a disk."""
    if _ranks is None:
        return work()
    own = 0 if _ranks.is_first else 1 if _ranks.local_rank == 0 else 2
    for turn in range(3):
        if turn == own:
            result = work()
        _ranks.all_of(None)
    return result


def join(trainer: Trainer, messages: Console) -> None:
    """Let a trainer train on all ranks, if there are several, and say so."""
    if _ranks is not None:
        trainer.communicator = _ranks
        messages.print(f"{_ranks}: each batch is spread over them\n")


def facts(trainer: Trainer) -> dict[str, str]:
    """How the ranks have spent their time, for the summary."""
    session = trainer._session
    if session is None or session.spread is None:
        return {}
    return {"ranks": f"{session.spread.ranks}, {session.spread.seconds}"}


@contextlib.contextmanager
def folder_for(out: str | None, name: str, force: bool) -> Iterator[Path]:
    """The run's folder: see `runs.folder_for`; of other ranks than the first a name that nothing is written to."""
    if not is_first():
        yield Path(out or "runs")
        return
    with runs.folder_for(out, name, force) as folder:
        yield folder


@contextlib.contextmanager
def kept(folder: Path) -> Iterator[None]:
    """The folder of a run is this command's while the block runs."""
    with locked(folder) if is_first() else contextlib.nullcontext():
        yield
